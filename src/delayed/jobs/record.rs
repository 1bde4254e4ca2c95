//! Counts a job from its submission to its end.

use std::sync::Arc;

use super::pool::Pool;
use crate::delayed::value::awaiter::JobId;
use crate::time::current_time;

/// Counts a job. If it is dropped before the job has a result, the job was cancelled.
pub(super) struct Record {
    pool: Arc<Pool>,
    job: JobId,
    is_counted: bool,
}

impl Record {
    /// Counts a job that is submitted.
    pub(super) fn new(pool: &Arc<Pool>, job: JobId) -> Self {
        pool.count_submitted();
        Self {
            pool: pool.clone(),
            job,
            is_counted: false,
        }
    }

    /// Notes that a job without resources begins. (Other jobs begin with the grant of theirs.)
    pub(super) fn begin(&self, name: &'static str) {
        let job = self.job;
        self.pool
            .trace(|trace| trace.begin(job, name, &[], String::new(), current_time()));
    }

    /// Ends the record of a job that was counted with its result.
    pub(super) fn end(mut self) {
        self.is_counted = true;
    }

    /// Ends the record of a job that could not begin, because its argument has failed or it was
    /// refused.
    pub(super) fn fail(mut self) {
        self.is_counted = true;
        self.pool.count_failed();
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let job = self.job;
        self.pool.trace(|trace| trace.end(job, current_time()));
        if !self.is_counted {
            self.pool.count_cancelled();
        }
    }
}
