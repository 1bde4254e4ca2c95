//! Threads: `run_sync` calls a function that blocks, and waits for it without blocking anybody
//! else.
//!
//! A thread cannot be killed; what must be stopped belongs into a worker process
//! ([`crate::run_sync`]). A thread is for calls that wait rather than compute, and need what this
//! process has: a file, a lock, a C library's handle.
//!
//! The threads are our own cache ([`cache`]) and not smol's `blocking` pool, which cannot keep what
//! is promised here: it hides that a thread could not be started and leaves the job in its queue;
//! its 500 threads are shared with smol's own file access, which abandoned jobs could starve; its
//! threads wake up twice a second for ever; and it takes them first come, first served, where the
//! warm one is wanted. [`call`] is the caller's side, [`host`] what the thread can ask of the run,
//! [`active`] how many there are.

mod active;
mod cache;
mod call;
mod host;

pub(crate) use active::active_in;
pub use active::{active_thread_count, wait_all_threads_completed};
pub use call::{RunSync, RunSyncFuture, current_default_thread_limiter, run_sync};
pub use host::{CancelledError, call_async_in_task, call_in_task, check_cancelled};
