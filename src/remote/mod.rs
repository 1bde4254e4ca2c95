//! Async jobs: event loops in worker processes.
//!
//! [`run_async`](run_async()) calls an `async fn` in a worker, which runs it in a run of its own.
//! [`open_loops`](open_loops()) keeps several such workers running, and starts those again that
//! crash.

// A layer above `run`, because a job's trampoline enters a run in the worker. For the worker's
// process (`worker/child/`) the job is a function like any other.

mod deadline;
mod open_loops;
mod root;
mod run_async;
mod shared_argument;

pub use open_loops::{OpenLoops, open_loops};
pub use run_async::{RunAsync, RunAsyncFuture, run_async};
