//! The error of a call into a worker process, its causes and their messages.

mod cause;
mod causes;
mod exit;
mod launch_causes;
mod remote;
mod start_causes;
mod worker_error;

pub use cause::ExitCause;
pub(in crate::worker) use cause::ExitLimits;
pub(in crate::worker) use exit::Elsewhere;
pub(in crate::worker) use exit::Survivor;
pub use exit::WorkerExit;
pub(in crate::worker) use launch_causes::LaunchEnd;
pub use remote::{RemoteError, RemoteErrorSource};
pub use worker_error::{WorkerError, WorkerErrorKind};

pub use crate::transport::job::panic_report::WorkerPanic;
