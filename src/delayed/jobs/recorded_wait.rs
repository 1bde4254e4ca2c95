//! The wait of a job for the results of others, as the pool records it.

use std::sync::{Arc, MutexGuard};

use super::pool::{Pool, list};
use super::state::State;
use super::waits::{On, WaitNumber};
use crate::delayed::error::JobError;
use crate::delayed::value::awaiter::{JobId, Target};
use crate::delayed::value::watcher::Watcher;
use crate::resource::Allocation;

/// A wait of a job for the results of others. Dropping it ends the record, and ends deadlocks of
/// which the job is a part again.
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
        let state = pool.lock();
        if !held.is_empty()
            && let Some((request, name)) = state.find_obstructed(&jobs, held, pool.time_left())
        {
            let reason = format!(
                "it asks for {request}, and the future that waits for it holds {}, so that neither \
                 could go on. Wait for it outside of that future, or let one of both ask for less",
                list(held)
            );
            return Err(JobError::deadlock(name, 0, reason));
        }
        let watcher = watcher.clone();
        Ok(Self::add(
            pool,
            state,
            (waiting, is_holder),
            On::Values(jobs, watcher),
        ))
    }

    /// Records that a job waits for something that cannot give it an error.
    pub(super) fn begin_for(
        pool: &Arc<Pool>,
        waiting: (JobId, bool),
        target: Arc<dyn Target>,
    ) -> Self {
        Self::add(pool, pool.lock(), waiting, On::Ends(target))
    }

    fn add(
        pool: &Arc<Pool>,
        mut state: MutexGuard<'_, State>,
        (waiting, is_holder): (JobId, bool),
        on: On,
    ) -> Self {
        let number = state.waits.add(waiting, is_holder, on);
        // Made before any waker is called: if one panics, the wait has ended.
        let recorded = Self {
            pool: pool.clone(),
            waiting,
            number,
        };
        pool.grant(state);
        recorded
    }
}

impl Drop for RecordedWait {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        let Some(on) = state.waits.remove(self.waiting, self.number) else {
            return;
        };
        // The job counted as running because of this wait; another one of it may have no end.
        if on.has_ended() && state.waits.is_waiting(self.waiting) {
            self.pool.end_deadlocks(state);
        } else {
            drop(state);
        }
        drop(on); // without the lock, as its waker is foreign code
    }
}
