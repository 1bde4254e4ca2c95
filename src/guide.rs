//! Pages to read: how things work together, and where they are found by those who come from elsewhere.
//!
//! * [`structured_concurrency`]: the model, from nothing, with pictures. Start here.
//! * [`cancellation`]: the rules, each with an example.
//! * [`testing`]: how to test what has jobs done, and what waits.
//! * [`other_runtimes`]: nurseries in the tasks of smol and tokio, foreign `select!`, and calls from threads.
//! * [`large_data`]: how to pass gigabytes to a worker, and back.
//! * [`from_trio`], [`from_trio_parallel`]: what is called what here, and what is different.
//!
//! The pages are the files of the repository's `docs` folder. What is code in them is compiled and run as tests.

#[doc = include_str!("../docs/structured_concurrency.md")]
pub mod structured_concurrency {}

#[doc = include_str!("../docs/cancellation.md")]
pub mod cancellation {}

// What is shown there is how tests look; the ones in `tests/user_crate` run.
#[allow(clippy::test_attr_in_doctest)]
#[doc = include_str!("../docs/testing.md")]
pub mod testing {}

#[doc = include_str!("../docs/other_runtimes.md")]
pub mod other_runtimes {}

#[doc = include_str!("../docs/large_data.md")]
pub mod large_data {}

#[doc = include_str!("../docs/from_trio.md")]
pub mod from_trio {}

#[doc = include_str!("../docs/trio_rows.md")]
pub mod trio_rows {}

#[doc = include_str!("../docs/from_trio_parallel.md")]
pub mod from_trio_parallel {}

/// Compiles and runs what the README shows.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
