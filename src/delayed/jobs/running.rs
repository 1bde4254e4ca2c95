//! A job that runs in this process, as its future and the values that it awaits see it.

use std::any::Any;
use std::future::Future;
use std::sync::Arc;

use super::options::Options;
use super::pool::Pool;
use super::record::Record;
use super::recorded_wait::RecordedWait;
use super::ticket::{Grant, Ticket};
use crate::cancel::move_on_after;
use crate::delayed::error::JobError;
use crate::delayed::value::awaiter::{AWAITER, Awaiter, JobId, Target};
use crate::delayed::value::watcher::Watcher;
use crate::resource::Allocation;
use crate::time::current_time;

/// A job that runs in this process.
pub(super) struct Running {
    job: JobId,
    pool: Arc<Pool>,
    allocation: Option<Arc<Allocation>>,
    /// The job in whose future the block of this one was opened. It does not end before this one.
    around: Option<Arc<dyn Awaiter>>,
}

/// Returns what the jobs hold of these resources whose futures run here.
pub(super) fn held_here(pool: &Pool) -> Vec<Arc<Allocation>> {
    let mut held = Vec::new();
    if let Some(around) = AWAITER.get() {
        around.add_held(pool.address(), &mut held);
    }
    held
}

/// Runs a future as that of a job.
pub(super) fn run_as<F: Future>(
    job: JobId,
    pool: &Arc<Pool>,
    grant: Option<&Grant>,
    future: F,
) -> impl Future<Output = F::Output> {
    let running = Arc::new(Running {
        job,
        pool: pool.clone(),
        allocation: grant.map(|grant| grant.allocation.clone()),
        around: AWAITER.get(),
    });
    AWAITER.scope(running, future)
}

/// Waits for the resources of a future, and runs it.
pub(super) async fn run_future<Fut: Future>(
    job: JobId,
    future: Fut,
    ticket: Option<Ticket>,
    pool: &Arc<Pool>,
    options: &Options,
    record: &mut Record,
) -> Result<Fut::Output, JobError> {
    let grant = record.begin(ticket).await?;
    record.cost.attempts = 1;
    let begun = current_time();
    let future = run_as(job, pool, grant.as_ref(), future);
    let result = match options.time_limit_now() {
        None => Ok(future.await),
        Some(limit) => {
            let output = move_on_after(limit, future).await;
            output.ok_or_else(|| JobError::timed_out(record.name(), limit))
        }
    };
    record.cost.wall = current_time().saturating_duration_since(begun);
    result
}

impl Awaiter for Running {
    fn begin_wait(
        &self,
        jobs: Vec<JobId>,
        watcher: &Arc<Watcher>,
    ) -> Result<Box<dyn Any + Send + Sync>, JobError> {
        // The job around waits for this one, and so for the same jobs.
        let around = self.around.as_ref();
        let around = around.map(|job| job.begin_wait(jobs.clone(), watcher));
        let around = around.transpose()?;
        let mut held = Vec::new();
        self.add_held(self.pool.address(), &mut held);
        let is_holder = self.allocation.is_some();
        let waiting = (self.job, is_holder);
        let own = RecordedWait::begin(&self.pool, waiting, jobs, &held, watcher)?;
        Ok(Box::new(Recorded {
            _own: own,
            _around: around,
        }))
    }

    fn begin_wait_for(&self, target: Arc<dyn Target>) -> Box<dyn Any + Send + Sync> {
        let around = self.around.as_ref();
        let around = around.map(|job| job.begin_wait_for(target.clone()));
        let waiting = (self.job, self.allocation.is_some());
        Box::new(Recorded {
            _own: RecordedWait::begin_for(&self.pool, waiting, target),
            _around: around,
        })
    }

    fn received(&self, jobs: Vec<JobId>) {
        match &self.around {
            // The job is in no trace, but the one in which its block was opened may be.
            Some(around) if !self.pool.is_traced() => around.received(jobs),
            _ => self
                .pool
                .trace(|trace| trace.depend(self.job, jobs, current_time())),
        }
    }

    fn job_of(&self, pool: usize) -> Option<JobId> {
        if pool == self.pool.address() {
            return Some(self.job);
        }
        self.around.as_ref()?.job_of(pool)
    }

    fn allocation(&self) -> Option<&Arc<Allocation>> {
        let of_around = || self.around.as_ref()?.allocation();
        self.allocation.as_ref().or_else(of_around)
    }

    fn add_held(&self, pool: usize, held: &mut Vec<Arc<Allocation>>) {
        if pool == self.pool.address() {
            held.extend(self.allocation.clone());
        }
        if let Some(around) = &self.around {
            around.add_held(pool, held);
        }
    }
}

/// The recorded waits of a job and of those around it. Dropping it ends the records.
struct Recorded {
    _own: RecordedWait,
    _around: Option<Box<dyn Any + Send + Sync>>,
}
