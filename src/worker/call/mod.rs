//! `run_sync`: a function call that happens in another process.

pub(in crate::worker) mod attempt;
mod future;
mod limiter;
pub(in crate::worker) mod reply;
mod request;
mod run_sync;

pub use future::RunSyncFuture;
pub use limiter::current_default_worker_limiter;
pub use run_sync::{RunSync, run_sync};
