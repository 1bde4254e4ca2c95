//! The worker process: everything that runs in a process that was started as a worker and has
//! reached the hook.
//!
//! This folder uses the transport, the job code and raw system calls, and never the runtime: a
//! worker has no executor, no reactor and no thread of this crate. It blocks on its socket, on the
//! thread that reached the hook. A job costs a worker one received and one sent frame. (An async
//! job is a function that enters a run, from `remote`.)
//!
//! Until its first answer, a forked worker spends most of its time in page faults: one for each
//! page that it writes to, and one for each 64 KiB of code. So it writes to few pages, and calls no
//! function there that it does not need.
//!
//! A worker ends in one of these ways, which its parent can tell apart:
//!
//! * The parent closes the socket: the worker exits with code 0.
//! * The worker has been idle for too long after a job, or retires: it shuts down its receiving
//!   end, sends *bye*, and exits with code 0. A job that the parent sent at the same time has not
//!   run.
//! * A retire closure panics: the same, but the frame says so, and the code is 1.
//! * An init closure panics, a setting is refused, or the image is another one: the worker reports
//!   it in place of *ready*, and exits with code 1.
//! * The parent ends: the kernel kills the worker, even while a job runs.

pub(crate) mod cancel_request;
mod faults;
mod fork_server;
mod forwarder;
mod limits;
mod link;
mod output;
mod parent_tie;
mod serve;
#[cfg(feature = "stack_size")]
mod stack;
mod tuning;

pub use cancel_request::{CancelledError, cancelled, check_cancelled};
pub(crate) use serve::{Stdout, take_over};
