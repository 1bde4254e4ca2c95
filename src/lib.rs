//! Trio for Rust, on smol: structured concurrency, and worker processes for synchronous code that
//! must be killable, crash-proof and truly parallel.
//!
//! Workers need Linux. What goes to a worker and back implements [serde](https://docs.rs/serde)'s
//! traits. And `main` runs twice: a worker is this program, executed again.
//!
//! ```
//! use seedbed::{open_nursery, run_sync};
//!
//! fn square(n: u64) -> u64 {
//!     n * n
//! }
//!
//! #[seedbed::main]
//! async fn main() {
//!     let sum = open_nursery(async |n| {
//!         let nine = n.spawn(run_sync(square, 3)); // in a worker process
//!         let sixteen = n.spawn(run_sync(square, 4)); // in another one, at the same time
//!         nine.await.unwrap() + sixteen.await.unwrap()
//!     });
//!     assert_eq!(sum.await, 25);
//! }
//! ```
//!
//! # Before you start
//!
//! * Workers need Linux 5.4 or newer and a mounted `/proc`.
//! * The argument and the result of a job implement [serde](https://docs.rs/serde)'s `Serialize`
//!   and `DeserializeOwned`. The job is a function or a closure that captures nothing.
//! * `main` runs twice: a worker process executes the program again, up to its *hook*. That is the
//!   first call of [`run()`](run()) or [`init`], at the top of `main`, or the attribute
//!   [`#[seedbed::main]`](macro@main) or [`#[seedbed::test]`](macro@test). See
//!   [`guide::main_runs_twice`].
//! * `try_` has two meanings, both the usual ones. A `try_` block or spawn (`try_open_nursery`,
//!   `try_spawn`) stops at the first `Err`, like the `try_join` of the futures crate. A `try_`
//!   method of a primitive (`try_acquire`, `try_send`) does not wait, like the `try_lock` of std.
//!
//! # Cargo features
//!
//! * `workers`, on by default: worker processes, and the module `process`. Only on Linux.
//!   Nurseries, scopes, `sync`, `time`, threads and `testing` build on every system that smol
//!   supports, with `default-features = false`. There, Ctrl-C ends the process at once, and
//!   `signal` is missing.
//! * `stack_size`: [`WorkerConfig::stack_size`]. It needs a C compiler, which nothing else does.
//!
//! # The map
//!
//! | to | use |
//! |---|---|
//! | enter a run | [`#[main]`](macro@main), [`#[test]`](macro@test), [`run()`](run()), [`init`], [`RunBuilder`]; from other threads [`run::RunHandle`] |
//! | run tasks | [`open_nursery`], [`try_open_nursery`], [`Nursery`], [`Task`]; in [`nursery`]: tasks that stay in one thread or go to an executor, [`TreeVar`](nursery::TreeVar) |
//! | set a time limit, cancel, clean up | [`move_on_after`], [`fail_after`], [`CancelScope`], [`shield`](shield()), [`on_cancel`]; [`cancel`] |
//! | wait, share, hand over, limit | [`sleep`], [`checkpoint`], [`time`]; [`CapacityLimiter`], and channels, locks and events in [`sync`]; [`run::RunVar`] |
//! | call a function in a worker process | [`run_sync`], with many items [`map_sync`], an `async fn` with [`run_async`]; [`remote`] |
//! | manage workers, send them much data | [`WorkerConfig`], [`WorkerError`], [`cache_scope`], [`open_worker_context`], [`WorkerContext`]; in [`worker`]: [channels](guide::channels) into jobs, [`SharedBytes`](worker::SharedBytes) |
//! | compute with values that are not there yet | [`delayed`] |
//! | call a function in a thread, run a program | [`thread::run_sync`], [`process::run_process`] |
//! | keep a service running | [`service`]: restart what fails, shut down in order; [`signal`] |
//! | observe and test | [`nursery::task_tree`], [`instrument`], [`testing`] |
//!
//! # Guide
//!
//! * [`guide::structured_concurrency`]: the model from the beginning, with pictures.
//! * [`guide::cancellation`]: ten rules, and an example of each.
//! * [`guide::which_tool`]: nursery, thread, worker, map, loops and channels, and what each costs.
//! * [`guide::time_limits`]: what a time limit of a job counts, and what a limiter does to it.
//! * [`guide::main_runs_twice`]: what a worker process executes, and where the hook belongs.
//! * [`guide::testing`]: how to test code that uses workers, and code that waits.
//! * [`guide::other_runtimes`]: nurseries in tasks of smol and tokio, and calls from threads.
//! * [`guide::large_data`]: memory that workers read in place.
//! * [`guide::channels`]: values into and out of a job while it runs.
//! * [`guide::operations`]: a program with workers under systemd, docker and `timeout`.
//! * [`guide::from_trio`], [`guide::from_trio_parallel`], [`guide::from_grain`]: the names here for
//!   readers who know those libraries, and the differences.
//! * [`guide::comparison`]: other libraries for the same purpose.

#![deny(unsafe_code)]
// The docs are for users: a link to an item that they cannot see is a mistake.
#![deny(rustdoc::private_intra_doc_links)]
#![cfg_attr(
    not(all(feature = "workers", target_os = "linux")),
    allow(dead_code, reason = "workers use code that other builds do not")
)]
// An example with a worker needs an explicit `main`, which contains the hook.
#![allow(clippy::needless_doctest_main)]
#![warn(
    unnameable_types,
    missing_docs,
    missing_debug_implementations,
    unsafe_op_in_unsafe_fn,
    clippy::undocumented_unsafe_blocks
)]

#[cfg(all(feature = "workers", not(target_os = "linux")))]
compile_error!(
    "seedbed has worker processes and `process` on Linux only. Nurseries, scopes, `sync`, `time`, threads and \
     `testing` build here with `default-features = false`"
);

mod ambient;
#[cfg(all(feature = "workers", target_os = "linux"))]
mod resource;
mod sys;
mod task;
#[cfg(all(feature = "workers", target_os = "linux"))]
mod transport;
mod variables;
mod wait;

pub mod cancel;
#[cfg(all(feature = "workers", target_os = "linux"))]
pub mod delayed;
pub mod guide;
pub mod instrument;
#[cfg(all(feature = "workers", target_os = "linux"))]
pub mod process;
#[cfg(all(feature = "workers", target_os = "linux"))]
pub mod remote;
pub mod run;
pub mod service;
#[cfg(target_os = "linux")]
pub mod signal;
pub mod sync;
pub mod testing;
pub mod thread;
pub mod time;
#[cfg(all(feature = "workers", target_os = "linux"))]
pub mod worker;

/// Nurseries and tasks: the blocks, their handles, task names and the task tree.
pub mod nursery {
    pub use crate::task::*;
    pub use crate::variables::{HasTreeVars, TreeVar, TreeVarScope};
}

// The root has at most 40 names, with modules and macros; `tests/checks/tests/docs/` counts them.
// Everything else is reached through its module.
#[doc(inline)]
pub use cancel::{CancelScope, checkpoint, fail_after, move_on_after, on_cancel, shield};
#[cfg(all(feature = "workers", target_os = "linux"))]
#[doc(inline)]
pub use remote::run_async;
#[doc(inline)]
pub use run::{RunBuilder, run};
#[doc(inline)]
pub use sync::CapacityLimiter;
#[doc(inline)]
pub use task::{Nursery, Task, open_nursery, try_open_nursery};
#[doc(inline)]
pub use time::sleep;

#[cfg(not(all(feature = "workers", target_os = "linux")))]
#[doc(inline)]
pub use run::init;
/// Makes an `async fn main` the program's `main`, which runs it as [`run`](run()) does.
///
/// The hook is at the beginning of that `main`, so nothing of the program runs twice. The function
/// has no parameters, and returns what any `main` may: nothing, a `Result`, an `ExitCode`.
///
/// # Options
///
/// Options are `name = value` pairs in parentheses. A value is an expression, computed after the
/// hook.
///
/// * `clock`, `ctrl_c`, `instrument`, `keep_workers` and `shuffle` call the method of that name of
///   [`RunBuilder`].
/// * `workers` is a [`WorkerConfig`]. The function runs in a [`cache_scope`] with it.
///
/// ```
/// use seedbed::WorkerConfig;
///
/// fn parse(number: String) -> Option<u32> {
///     number.parse().ok()
/// }
///
/// #[seedbed::main(workers = WorkerConfig::new().memory_limit(1 << 30))]
/// async fn main() -> Result<(), seedbed::WorkerError> {
///     let number = seedbed::run_sync(parse, "5".to_owned()).await?;
///     assert_eq!(number, Some(5));
///     Ok(())
/// }
/// ```
#[doc(inline)]
pub use seedbed_macros::main;
/// Makes an `async fn` a `#[test]`, which runs it as [`run`](run()) does.
///
/// Jobs work as everywhere: a worker process of the test is the test binary, started again with
/// only this test. Other attributes, such as `#[should_panic]` and `#[ignore]`, go with it as with
/// `#[test]`.
///
/// # Options
///
/// The options are those of [`#[seedbed::main]`](macro@main). A test that waits sets a virtual
/// clock.
///
/// ```
/// use std::time::Duration;
/// use seedbed::testing::MockClock;
/// use seedbed::{fail_after, sleep};
///
/// #[seedbed::test(clock = MockClock::autojump())]
/// async fn an_hour_is_too_short_for_two() {
///     let outcome = fail_after(Duration::from_secs(3600), sleep(Duration::from_secs(7200)));
///     assert!(outcome.await.is_err());
/// }
///
/// #[seedbed::test]
/// #[should_panic(expected = "on purpose")]
/// async fn fails() {
///     panic!("on purpose");
/// }
/// # fn main() {}
/// ```
#[doc(inline)]
pub use seedbed_macros::test;
#[cfg(all(feature = "workers", target_os = "linux"))]
#[doc(inline)]
pub use worker::{
    WorkerConfig, WorkerContext, WorkerError, cache_scope, init, map_sync, open_worker_context,
    run_sync,
};
