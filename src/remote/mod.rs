//! Async jobs: event loops in worker processes.
//!
//! [`run_async`](run_async()) calls an `async fn` in a worker, which runs it in a run of its own.

// A layer above `run`, because a job's trampoline enters a run in the worker. For the worker's
// process (`worker/child/`) the job is a function like any other.

mod deadline;
mod root;
mod run_async;

pub use run_async::{RunAsync, RunAsyncFuture, run_async};
