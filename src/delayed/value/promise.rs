//! A node whose result comes from elsewhere.

use std::mem;
use std::sync::{Arc, Mutex, OnceLock};

use super::awaiter::JobId;
use super::discard::{discard, empty_bin};
use super::handle::Delayed;
use super::node::{Graph, Node, Progress};
use super::watcher::{Watcher, Watchers};
use crate::delayed::error::JobError;
use crate::delayed::job_statistics::JobStatistics;
use crate::sys::primitives::lock;

struct Leaf<T> {
    job: JobId,
    result: OnceLock<Result<T, JobError>>,
    /// Set before the result, if a job has made that.
    statistics: OnceLock<JobStatistics>,
    name: &'static str,
    /// The argument that the job waits for, for [`Delayed::to_dot`].
    argument: Mutex<Option<Arc<dyn Graph>>>,
    watchers: Mutex<Watchers>,
}

/// Gives a delayed value its result. If it is dropped without that, the value is cancelled.
pub(in crate::delayed) struct Promise<T: Send + Sync + 'static> {
    leaf: Option<Arc<Leaf<T>>>,
    name: &'static str,
    job: JobId,
}

/// Makes a delayed value for the job `name`, and the promise that settles it.
pub(in crate::delayed) fn pending<T: Send + Sync + 'static>(
    name: &'static str,
) -> (Promise<T>, Delayed<T>) {
    let job = JobId::next();
    let leaf = Arc::new(Leaf {
        job,
        result: OnceLock::new(),
        statistics: OnceLock::new(),
        name,
        argument: Mutex::new(None),
        watchers: Mutex::default(),
    });
    let promise = Promise {
        leaf: Some(leaf.clone()),
        name,
        job,
    };
    (promise, Delayed(leaf))
}

impl<T: Send + Sync + 'static> Promise<T> {
    /// Returns the job that is to settle the value.
    pub(in crate::delayed) fn job(&self) -> JobId {
        self.job
    }

    /// Notes the value that the job waits for.
    pub(in crate::delayed) fn set_argument<A: 'static>(&self, argument: &Delayed<A>) {
        if let Some(leaf) = &self.leaf {
            *lock(&leaf.argument) = Some(argument.0.clone());
        }
    }

    /// Lets go of the argument, which has a result.
    pub(in crate::delayed) fn forget_argument(&self) {
        let argument = self
            .leaf
            .as_ref()
            .and_then(|leaf| lock(&leaf.argument).take());
        drop(argument);
    }

    #[cfg(test)]
    pub(in crate::delayed) fn settle(mut self, result: Result<T, JobError>) {
        self.settle_once(result);
    }

    /// Settles with the result of a job, and what that has cost, unless it was refused at once.
    pub(in crate::delayed) fn settle_job(
        mut self,
        (result, statistics): (Result<T, JobError>, Option<JobStatistics>),
    ) {
        if let (Some(leaf), Some(statistics)) = (&self.leaf, statistics) {
            let _ = leaf.statistics.set(statistics); // not set before: this promise is used up
        }
        self.settle_once(result);
    }

    fn settle_once(&mut self, result: Result<T, JobError>) {
        let Some(leaf) = self.leaf.take() else {
            return;
        };
        let failure = result.as_ref().err().cloned();
        let watchers = {
            let mut watchers = lock(&leaf.watchers);
            let _ = leaf.result.set(result); // not set before: only this promise sets it, once
            mem::take(&mut *watchers)
        };
        drop(leaf); // so that the waiter that is woken has the last handle
        watchers.settle(failure.as_ref());
    }
}

impl<T: Send + Sync + 'static> Drop for Promise<T> {
    fn drop(&mut self) {
        if self.leaf.is_some() {
            let error = JobError::cancelled(self.name);
            self.settle_once(Err(error));
        }
    }
}

impl<T: Send + Sync> Graph for Leaf<T> {
    fn outcome(&self) -> Option<Result<(), &JobError>> {
        self.result.get().map(|result| result.as_ref().map(|_| ()))
    }

    fn advance(&self, _: bool, _: &mut Vec<Arc<dyn Graph>>) -> Progress {
        match self.outcome() {
            None => Progress::Blocked,
            Some(Ok(())) => Progress::Done,
            Some(Err(error)) => Progress::Failed(error.clone()),
        }
    }

    fn fail(&self, _: &JobError) {}

    fn job(&self) -> Option<JobId> {
        Some(self.job)
    }

    fn label(&self) -> &str {
        self.name
    }

    fn add_operands(&self, operands: &mut Vec<Arc<dyn Graph>>) {
        operands.extend(lock(&self.argument).clone());
    }

    fn watch(&self, watcher: &Arc<Watcher>) {
        let mut watchers = lock(&self.watchers);
        match self.outcome() {
            None => {
                let removed = watchers.add(watcher);
                drop(watchers);
                drop(removed);
            }
            Some(outcome) => {
                drop(watchers);
                watcher.settled(outcome.err());
            }
        }
    }
}

impl<T> Drop for Leaf<T> {
    fn drop(&mut self) {
        let argument = self.argument.get_mut();
        let argument = argument.unwrap_or_else(|error| error.into_inner());
        if let Some(argument) = argument.take() {
            discard(argument);
            empty_bin();
        }
    }
}

impl<T: Send + Sync> Node<T> for Leaf<T> {
    fn result(&self) -> Option<&Result<T, JobError>> {
        self.result.get()
    }

    fn take(&mut self) -> Option<Result<T, JobError>> {
        self.result.take()
    }

    fn statistics(&self) -> Option<&JobStatistics> {
        self.statistics.get()
    }
}
