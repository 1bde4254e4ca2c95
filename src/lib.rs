//! Trio for Rust, on smol: structured concurrency, and worker processes for synchronous code that must be killable,
//! crash-proof and truly parallel.
//!
//! ```
//! use std::time::Duration;
//! use seedbed::{fail_after, open_nursery, run_sync};
//!
//! fn square(n: u64) -> u64 {
//!     n * n
//! }
//!
//! fn main() {
//!     // In a worker process, `run` serves jobs and does not return: what comes before it runs again, for the workers.
//!     let sum = seedbed::run(open_nursery(async |n| {
//!         let three = n.spawn(run_sync(square, 3));
//!         let four = n.spawn(run_sync(square, 4));
//!         three.await.unwrap() + four.await.unwrap()
//!     }));
//!     assert_eq!(sum, 25);
//! }
//! ```
//!
//! # The map
//!
//! | to | use |
//! |---|---|
//! | enter | [`run()`](run()), [`main!`], [`test!`], [`init`]; [`RunBuilder`] for another clock or Ctrl-C policy |
//! | do several things at once | [`open_nursery`], [`try_open_nursery`], [`open_local_nursery`]; [`Nursery`], [`Task`] |
//! | do them on all cores | [`Nursery::spawn_on`], [`on_executor`] |
//! | have helpers that end with the work, or after it | [`daemon`](nursery::Block::daemon), [`service`](nursery::Block::service) |
//! | set a time limit | [`move_on_after`], [`fail_after`]; [`move_on_at`], [`fail_at`] |
//! | stop something | [`CancelScope`]; [`Nursery::cancel`], [`Nursery::terminate`], [`Task::cancel`]; [`cancel::ScopeGroup`] |
//! | not be stopped, or clean up | [`shield`](shield()), [`on_cancel`] |
//! | wait | [`sleep`], [`sleep_until`], [`sleep_forever`], [`checkpoint`]; [`sync::Event`] |
//! | share and hand over | [`sync::channel()`], [`sync::open_producer`], [`sync::Mutex`], [`sync::RwLock`], [`sync::Condvar`] |
//! | limit how many | [`CapacityLimiter`], [`sync::Semaphore`] |
//! | pass something down the tree | [`TreeVar`] |
//! | keep something once per run | [`RunVar`]; [`spawn_system_task`] |
//! | call into a run from a thread | [`thread::call_async_in_task`]; [`current_run`], [`RunHandle`] |
//! | call a function that blocks | [`thread::run_sync`] |
//! | run another program | [`process::run_process`] |
//! | receive signals | [`signal::open_signal_receiver`] |
//! | call a function in another process | [`run_sync`]; [`WorkerError`] says why there is no value |
//! | give it much data, without a copy | [`SharedBytes`], [`SharedSlice`] |
//! | have workers of one's own | [`open_worker_context`], [`cache_scope`], [`configure_default_context`]; [`WorkerConfig`] |
//! | see who does what | [`task_tree`], [`current_task`], [`Nursery::named`]; [`instrument`] |
//! | test without waiting | [`testing::MockClock`], [`testing::wait_all_tasks_blocked`], [`testing::Sequencer`], [`testing::shuffle`] |
//!
//! # To read
//!
//! * [`guide::structured_concurrency`]: the model from nothing, with pictures;
//! * [`guide::cancellation`]: the rules, each with an example;
//! * [`guide::testing`]: how to test what has jobs done, and what waits;
//! * [`guide::other_runtimes`]: nurseries in smol's and tokio's tasks, and calls from threads;
//! * [`guide::large_data`]: memory that workers read in place;
//! * [`guide::from_trio`], [`guide::from_trio_parallel`]: what is called what here, and what is different;
//!   [`guide::trio_rows`]: promise by promise, with the tests.

#![deny(unsafe_code)]
// The heads of modules say for maintainers which file does what; readers of the public docs see plain names there.
#![allow(rustdoc::private_intra_doc_links)]
// In an example with a worker, `main` is the point: the hook stands in it.
#![allow(clippy::needless_doctest_main)]
#![warn(
    missing_docs,
    missing_debug_implementations,
    unsafe_op_in_unsafe_fn,
    clippy::undocumented_unsafe_blocks
)]

mod run_var;
mod sys;
mod task;
mod transport;
mod tree_var;

pub mod cancel;
pub mod guide;
pub mod instrument;
pub mod process;
pub mod run;
pub mod signal;
pub mod sync;
pub mod testing;
pub mod thread;
pub mod time;
pub mod worker;

/// Nurseries: what they are, and the types that stand beside them.
pub mod nursery {
    pub use crate::task::*;
}

pub use cancel::{
    CancelScope, TooSlow, checkpoint, checkpoint_if_cancelled, current_effective_deadline,
    fail_after, fail_at, move_on_after, move_on_at, on_cancel, shield,
};
pub use run::{
    CtrlC, EnterError, RunBuilder, RunFinished, RunHandle, RunStatistics, current_run,
    current_statistics, in_run, in_task, run, spawn_system_task,
};
pub use run_var::{RunVar, RunVarToken};
pub use sync::CapacityLimiter;
pub use task::{
    ChildExecutor, LocalNursery, Nursery, NurseryClosedError, NurseryInfo, RemoteChild, Spawner,
    StartError, Started, Task, TaskId, TaskInfo, TaskTree, current_root_task, current_task,
    on_executor, open_local_nursery, open_nursery, task_tree, task_trees, try_open_local_nursery,
    try_open_nursery,
};
pub use time::{current_clock, current_time, sleep, sleep_forever, sleep_until};
pub use transport::payload::shared::{SharedBytes, SharedBytesWriter, SharedSlice};
pub use tree_var::{HasTreeVars, TreeVar, TreeVarScope};
pub use worker::{
    RunSync, RunSyncFuture, WorkerConfig, WorkerContext, WorkerError, WorkerErrorKind, WorkerExit,
    WorkerPanic, WorkerStatistics, WorkerStatus, WorkerType, cache_scope,
    configure_default_context, current_default_worker_limiter, default_context_statistics, init,
    open_worker_context, run_sync,
};
