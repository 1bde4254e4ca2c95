//! The job that awaits a value, as the evaluation sees it.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::watcher::Watcher;
use crate::delayed::error::JobError;
use crate::resource::Allocation;
use crate::variables::TreeVar;

/// Names a job in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::delayed) struct JobId(u64);

impl JobId {
    pub(in crate::delayed) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Something that a job waits for and that gives it no error: the end of other jobs. The methods
/// are called while the pool is locked, so they call no foreign code.
pub(in crate::delayed) trait Target: Send + Sync {
    /// Returns sets of jobs, of which at least one must have ended wholly before the wait can end.
    fn alternatives(&self) -> Vec<Vec<JobId>>;

    /// Returns whether the wait can end now. The job that waits may not have been polled since.
    fn is_reached(&self) -> bool;
}

/// A job of this process, which may await the values of other jobs.
pub(in crate::delayed) trait Awaiter: Send + Sync {
    /// Records that the job waits for the results of `jobs`, until the returned value is dropped.
    /// The watcher is told if the wait turns out to have no end.
    ///
    /// # Errors
    ///
    /// If the wait has no end.
    fn begin_wait(
        &self,
        jobs: Vec<JobId>,
        watcher: &Arc<Watcher>,
    ) -> Result<Box<dyn Any + Send + Sync>, JobError>;

    /// Records that the job waits for this, until the returned value is dropped. If the wait turns
    /// out to have no end, a job that it waits for is refused.
    fn begin_wait_for(&self, target: Arc<dyn Target>) -> Box<dyn Any + Send + Sync>;

    /// Notes that the job has received values that come from the results of `jobs`, for a trace.
    fn received(&self, jobs: Vec<JobId>);

    /// Returns the job, or the one around it, whose block has the resources at this address.
    fn job_of(&self, pool: usize) -> Option<JobId>;

    /// Returns the resources that the job holds, or those of the job in which its block was opened.
    fn allocation(&self) -> Option<&Arc<Allocation>>;

    /// Adds what the job, and those around it, hold of the resources at this address.
    fn add_held(&self, pool: usize, held: &mut Vec<Arc<Allocation>>);
}

/// The job whose future runs.
pub(in crate::delayed) static AWAITER: TreeVar<Arc<dyn Awaiter>> = TreeVar::new();
