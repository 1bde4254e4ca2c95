//! The interface between the jobs of a block and the place where they are executed.

use std::future::Future;
use std::pin::Pin;

use super::call::Attempt;
use crate::resource::Resources;
use crate::worker::{Answer, WorkerError};

/// A boxed future of an executor.
pub(in crate::delayed) type Executing<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Executes calls. The trait is sealed: its types cannot be named outside of this crate.
pub(in crate::delayed) trait Executor: Send + Sync {
    /// Returns what there is to distribute. Called once, when the block begins, in its task.
    ///
    /// # Errors
    ///
    /// The reason why no job can run. It is the error of each job.
    fn begin(&self) -> Result<Resources, String>;

    /// Makes an attempt to run a call, which has its allocation until the returned future has ended
    /// or was dropped.
    ///
    /// # Cancellation
    ///
    /// With `kill_on_cancel`, the job does not run any more when the future has been cancelled.
    /// Without it, the cancellation waits for the job.
    ///
    /// # Errors
    ///
    /// The error of the attempt. One of the kind [`Broken`](crate::worker::WorkerErrorKind::Broken)
    /// says that the place of the attempt was lost, and may be followed by another attempt. In
    /// either case, the job does not run any more.
    fn run(&self, attempt: Attempt) -> Executing<'_, Result<Answer, WorkerError>>;

    /// Ends all that was begun for the block. Called when the block has ended, and also when it is
    /// cancelled; a second call finds nothing to end.
    fn end(&self) -> Executing<'_, ()>;
}
