//! The nodes of a graph of delayed values, as the evaluation sees them.

use std::sync::Arc;

use super::awaiter::JobId;
use super::sources::Sources;
use super::watcher::Watcher;
use crate::delayed::error::JobError;
use crate::delayed::job_statistics::JobStatistics;

/// The next step of a node.
pub(in crate::delayed) enum Progress {
    /// The node has a value.
    Done,
    /// The node has failed, or one of its operands has.
    Failed(JobError),
    /// Operands without a result were added to the list.
    Operands,
    /// All operands have values. (Only where the node was not to be computed.)
    Computable,
    /// The result comes from elsewhere: from a job, or from a thread that computes the node now.
    Blocked,
}

/// A node, without the type of its value.
pub(in crate::delayed) trait Graph: Send + Sync {
    /// Returns whether the node has a result, and the error if that is one.
    fn outcome(&self) -> Option<Result<(), &JobError>>;

    /// Adds the operands without a result to `missing`. If there are none, and `compute` is set,
    /// computes the node. If an operand has failed, gives the node its error.
    fn advance(&self, compute: bool, missing: &mut Vec<Arc<dyn Graph>>) -> Progress;

    /// Gives the node this error, unless it has a result or is computed now.
    fn fail(&self, error: &JobError);

    /// Tells the watcher when the node has a result: now, if it has one.
    fn watch(&self, watcher: &Arc<Watcher>);

    /// Returns the name of the node's job, or of the method or operator that makes it.
    fn label(&self) -> &str;

    /// Adds the operands that the node still has.
    fn add_operands(&self, operands: &mut Vec<Arc<dyn Graph>>);

    /// Returns the job whose result the node is, or will be. `None` if there is no such job.
    fn job(&self) -> Option<JobId> {
        None
    }

    /// Returns the jobs that the node's result comes from, as far as they are known. For the error
    /// of one operand, these are the jobs of all, which may not have ended.
    fn sources(&self) -> Option<Sources> {
        self.job().map(Sources::Job)
    }
}

/// A node whose value has the type `T`.
pub(in crate::delayed) trait Node<T>: Graph {
    /// Returns the result, if there is one.
    fn result(&self) -> Option<&Result<T, JobError>>;

    /// Moves the result out, if there is one. The caller drops the node next.
    fn take(&mut self) -> Option<Result<T, JobError>>;

    /// Returns the cost of the job whose result the node is, if that job has ended and was not
    /// refused.
    fn statistics(&self) -> Option<&JobStatistics> {
        None
    }
}

/// A node that is made with its result. `None` after the result was moved out.
pub(super) struct Ready<T>(pub(super) Option<Result<T, JobError>>);

impl<T: Send + Sync> Graph for Ready<T> {
    fn outcome(&self) -> Option<Result<(), &JobError>> {
        self.result().map(|result| result.as_ref().map(|_| ()))
    }

    fn advance(&self, _: bool, _: &mut Vec<Arc<dyn Graph>>) -> Progress {
        match self.result() {
            Some(Err(error)) => Progress::Failed(error.clone()),
            _ => Progress::Done,
        }
    }

    fn fail(&self, _: &JobError) {}

    fn label(&self) -> &str {
        "value"
    }

    fn add_operands(&self, _: &mut Vec<Arc<dyn Graph>>) {}

    fn watch(&self, watcher: &Arc<Watcher>) {
        watcher.settled(self.outcome().and_then(Result::err));
    }
}

impl<T: Send + Sync> Node<T> for Ready<T> {
    fn result(&self) -> Option<&Result<T, JobError>> {
        self.0.as_ref()
    }

    fn take(&mut self) -> Option<Result<T, JobError>> {
        self.0.take()
    }
}
