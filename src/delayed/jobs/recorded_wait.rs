//! The wait of a job for the results of others, as the pool records it.

use std::sync::Arc;

use super::pool::{Pool, list};
use super::waits::WaitNumber;
use crate::delayed::error::JobError;
use crate::delayed::value::awaiter::JobId;
use crate::delayed::value::watcher::Watcher;
use crate::resource::Allocation;

/// A wait of a job for the results of others. Dropping it ends the record.
pub(super) struct RecordedWait {
    pool: Arc<Pool>,
    waiting: JobId,
    number: WaitNumber,
}

impl RecordedWait {
    /// Records that a job, which may be a holder of resources, waits for the results of others,
    /// until the returned value is dropped. `held` is what it, and the jobs around it, hold.
    ///
    /// # Errors
    ///
    /// If the wait has no end.
    pub(super) fn begin(
        pool: &Arc<Pool>,
        (waiting, is_holder): (JobId, bool),
        jobs: Vec<JobId>,
        held: &[Arc<Allocation>],
        watcher: &Arc<Watcher>,
    ) -> Result<Self, JobError> {
        let mut state = pool.lock();
        if !held.is_empty()
            && let Some((request, name)) = state.find_obstructed(&jobs, held, pool.time_left())
        {
            let reason = format!(
                "it asks for {request}, and the future that waits for it holds {}, so that neither \
                 could go on. Wait for it outside of that future, or let one of both ask for less",
                list(held)
            );
            return Err(JobError::deadlock(name, reason));
        }
        let number = state.waits.add(waiting, is_holder, jobs, watcher);
        // Made before any waker is called: if one panics, the wait has ended.
        let recorded = Self {
            pool: pool.clone(),
            waiting,
            number,
        };
        pool.grant(state);
        Ok(recorded)
    }
}

impl Drop for RecordedWait {
    fn drop(&mut self) {
        let watcher = self.pool.lock().waits.remove(self.waiting, self.number);
        drop(watcher); // without the lock, as its waker is foreign code
    }
}
