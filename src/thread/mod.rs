//! Threads: `run_sync` calls a function that blocks on another thread and waits for it, while other
//! tasks run.
//!
//! A thread cannot be killed; a function that may have to be stopped belongs in a worker process
//! ([`crate::run_sync`]). Use a thread for calls that wait rather than compute, and that need
//! resources of this process: a file, a lock, a handle of a C library.

// The threads are a cache of this crate, not smol's `blocking` pool. That pool cannot
// guarantee what is promised here: it hides that a thread could not be started and leaves the job
// in its queue; its 500 threads are shared with smol's file access, which abandoned jobs could
// starve; its idle threads wake up twice a second; and it uses idle threads first in, first out,
// so the one with a warm cache comes last.

mod active;
mod cache;
mod caller;
mod run_sync;
mod tuning;

pub(crate) use active::active_in;
pub use active::{active_thread_count, wait_all_threads_completed};
#[cfg_attr(not(target_os = "linux"), allow(unused_imports))]
pub(crate) use caller::is_in_job;
pub use caller::{CancelledError, call_async_in_task, call_in_task, check_cancelled};
pub use run_sync::{RunSync, RunSyncFuture, current_default_thread_limiter, run_sync};
