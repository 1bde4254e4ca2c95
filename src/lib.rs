//! Trio for Rust, on smol.

#![deny(unsafe_code)]
#![warn(
    missing_docs,
    missing_debug_implementations,
    unsafe_op_in_unsafe_fn,
    clippy::undocumented_unsafe_blocks
)]

mod error;
mod job;
mod sys;
mod tree_var;
mod wire;

pub mod cancel;
pub mod nursery;
pub mod run;
pub mod sync;
pub mod testing;
pub mod time;
pub mod worker;

pub use cancel::{
    CancelScope, TooSlow, checkpoint, checkpoint_if_cancelled, current_effective_deadline,
    fail_after, fail_at, move_on_after, move_on_at, on_cancel, shield,
};
pub use nursery::{
    LocalNursery, Nursery, NurseryClosed, Spawner, StartError, Started, Task, open_local_nursery,
    open_nursery, try_open_local_nursery, try_open_nursery,
};
pub use run::{CtrlC, RunBuilder, run};
pub use sync::CapacityLimiter;
pub use time::{current_time, sleep, sleep_forever, sleep_until};
pub use tree_var::{TreeVar, TreeVarScope};
pub use worker::{
    RunSync, RunSyncFuture, WorkerConfig, WorkerContext, WorkerError, WorkerErrorKind, WorkerExit,
    WorkerPanic, WorkerStatistics, WorkerStatus, WorkerType, cache_scope,
    configure_default_context, current_default_worker_limiter, default_context_statistics, init,
    open_worker_context, run_sync,
};
