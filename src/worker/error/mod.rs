//! The error of a call into a worker process, its causes and their messages.

mod causes;
mod exit;
mod worker_error;

pub use exit::WorkerExit;
pub use worker_error::{WorkerError, WorkerErrorKind};

pub use crate::transport::job::panic_report::WorkerPanic;
