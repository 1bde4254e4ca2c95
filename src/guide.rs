//! Guide pages.
//!
//! * [`structured_concurrency`]: the model from the beginning, with pictures. Start here.
//! * [`cancellation`]: ten rules, and an example of each.
//! * [`which_tool`]: nursery, thread, worker, map, loops and channels, and what each costs.
//! * [`time_limits`]: what a time limit of a job counts, and what a limiter does to it.
//! * [`main_runs_twice`]: what a worker process executes, and where the hook belongs.
//! * [`testing`]: how to test code that uses workers, and code that waits.
//! * [`other_runtimes`]: nurseries in tasks of smol and tokio, `select!` of other libraries, and
//!   calls from threads.
//! * [`large_data`]: how to pass gigabytes to a worker and back.
//! * [`channels`]: values into and out of a job while it runs.
//! * [`machines`]: workers through `ssh`, Slurm and `sudo`.
//! * [`operations`]: signals, memory and descriptors of a program with workers under systemd,
//!   docker and `timeout`.
//! * [`from_trio`], [`from_trio_parallel`], [`from_grain`]: the names here for readers who know
//!   those libraries, and the differences.
//! * [`comparison`]: other libraries for the same purpose, and what a call costs.
//!
//! The pages are the files of the repository's `docs` folder. Their code is compiled and run as
//! tests.

#[doc = include_str!("../docs/structured_concurrency.md")]
pub mod structured_concurrency {}

#[doc = include_str!("../docs/cancellation.md")]
pub mod cancellation {}

// The example needs an explicit `main`, which contains the hook.
#[allow(clippy::needless_doctest_main)]
#[doc = include_str!("../docs/which_tool.md")]
pub mod which_tool {}

#[allow(clippy::needless_doctest_main)]
#[doc = include_str!("../docs/time_limits.md")]
pub mod time_limits {}

// An example with a worker needs an explicit `main`, which contains the hook.
#[allow(clippy::needless_doctest_main)]
#[doc = include_str!("../docs/main_runs_twice.md")]
pub mod main_runs_twice {}

// The page shows `#[test]` functions, which do not run here; those in `tests/user_crate` do.
#[allow(clippy::test_attr_in_doctest)]
#[doc = include_str!("../docs/testing.md")]
pub mod testing {}

#[doc = include_str!("../docs/other_runtimes.md")]
pub mod other_runtimes {}

#[doc = include_str!("../docs/large_data.md")]
pub mod large_data {}

// The example needs an explicit `main`, which contains the hook.
#[allow(clippy::needless_doctest_main)]
#[doc = include_str!("../docs/channels.md")]
pub mod channels {}

// The example needs an explicit `main`, which contains the hook.
#[allow(clippy::needless_doctest_main)]
#[doc = include_str!("../docs/operations.md")]
pub mod operations {}

// The example needs an explicit `main`, which contains the hook.
#[allow(clippy::needless_doctest_main)]
#[cfg(all(feature = "workers", target_os = "linux"))]
#[doc = include_str!("../docs/machines.md")]
pub mod machines {}

#[doc = include_str!("../docs/from_trio.md")]
pub mod from_trio {}

// The example needs an explicit `main`, which contains the hook.
#[allow(clippy::needless_doctest_main)]
#[cfg(all(feature = "workers", target_os = "linux"))]
#[doc = include_str!("../docs/from_grain.md")]
pub mod from_grain {}

#[doc = include_str!("../docs/comparison.md")]
pub mod comparison {}

#[doc = include_str!("../docs/from_trio_parallel.md")]
pub mod from_trio_parallel {}

/// Compiles and runs the README's example.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
