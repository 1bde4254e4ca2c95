//! A job from its submission to its end, as it is counted.

use std::sync::Arc;

use super::options::Options;
use super::pool::Pool;
use super::ticket::{Grant, Ticket};
use crate::delayed::error::JobError;
use crate::delayed::job_statistics::JobStatistics;
use crate::delayed::value::awaiter::{AWAITER, JobId};
use crate::time::current_time;

/// The result of a job, and what it has cost. `None` if it was refused at once.
pub(super) type Ended<R> = (Result<R, JobError>, Option<JobStatistics>);

/// Counts a job. If it is dropped before the job has a result, the job was cancelled.
pub(super) struct Record {
    pool: Arc<Pool>,
    options: Arc<Options>,
    job: JobId,
    name: &'static str,
    /// The cost of the job until now.
    pub(super) cost: JobStatistics,
    is_counted: bool,
}

impl Record {
    /// Counts a job that is submitted, before it enters the queue or is refused.
    pub(super) fn new(
        pool: &Arc<Pool>,
        options: &Arc<Options>,
        job: JobId,
        name: &'static str,
    ) -> Self {
        // Before it enters the queue, where it may be found to be in a deadlock.
        options.join_groups(job);
        let record = Self {
            pool: pool.clone(),
            options: options.clone(),
            job,
            name,
            cost: JobStatistics::default(),
            is_counted: false,
        };
        pool.trace(|trace| {
            let submitter = AWAITER.get().and_then(|by| by.job_of(pool.address()));
            if let Some(by) = submitter {
                trace.submit(job, by, current_time());
            }
        });
        // If a waker of an observer panics here, the job counts as cancelled.
        pool.change(|state| state.submitted += 1);
        record
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Waits until the job has its resources; there are none for a job that asks for nothing.
    ///
    /// # Errors
    ///
    /// If the job can no longer get them.
    pub(super) async fn begin(
        &mut self,
        ticket: Option<Ticket>,
    ) -> Result<Option<Grant>, JobError> {
        let Some(ticket) = ticket else {
            let Self { job, name, .. } = *self;
            self.pool
                .trace(|trace| trace.begin(job, name, &[], String::new(), current_time()));
            return Ok(None);
        };
        match ticket.granted(&mut self.cost.queued).await {
            Ok(grant) => Ok(Some(grant)),
            Err(refusal) => Err(refusal.into_error(self.name, 0)),
        }
    }

    /// Ends the record of a job that has begun, or was refused in the queue.
    pub(super) fn end<R>(mut self, result: Result<R, JobError>) -> Ended<R> {
        let cost = self.cost;
        if result.is_ok() {
            self.options.learn(&cost);
        }
        self.is_counted = true; // before wakers of observers are called, which may panic
        self.pool.change(|state| {
            match &result {
                Ok(_) => state.succeeded += 1,
                Err(_) => state.failed += 1,
            }
            state.total.add(&cost);
        });
        (result, Some(cost))
    }

    /// Ends the record of a job whose value an earlier run has kept.
    pub(super) fn end_cached<R>(mut self, value: R) -> Ended<R> {
        self.is_counted = true;
        self.pool.change(|state| state.cached += 1);
        (Ok(value), Some(JobStatistics::default()))
    }

    /// Ends the record of a job that could not begin, because its argument has failed or it was
    /// refused.
    pub(super) fn fail<R>(mut self, error: JobError) -> Ended<R> {
        self.is_counted = true;
        self.pool.change(|state| state.failed += 1);
        (Err(error), None)
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let job = self.job;
        self.options.leave_groups(job);
        self.pool.trace(|trace| trace.end(job, current_time()));
        if !self.is_counted {
            self.pool.change(|state| state.cancelled += 1);
        }
    }
}
