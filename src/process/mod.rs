//! Other programs: `run_process` runs one to its end, and leaves none behind.
//!
//! async-process starts the process and, if need be, reaps it in the background. Signals go through a pidfd of our own,
//! never to a bare process id, because the number may belong to somebody else by then. [`call`] says what is to be run,
//! [`supervise`] looks after it, [`pipes`] feeds and reads it, [`handle`] is what others may do with it meanwhile.

mod call;
mod error;
mod handle;
mod pipes;
mod supervise;

#[doc(no_inline)]
pub use async_process::{ChildStderr, ChildStdin, ChildStdout};
#[doc(no_inline)]
pub use std::process::{Command, ExitStatus, Output, Stdio};

pub use call::{RunProcess, RunProcessFuture, run_process};
pub use error::{ProcessError, ProcessErrorKind};
pub use handle::Process;
