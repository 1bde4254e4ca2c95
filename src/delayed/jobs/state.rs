//! The state behind the lock of a pool: the resources, the queue, and which job waits for which.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use atomic_waker::AtomicWaker;

use super::waits::{Deadlock, Waits};
use crate::delayed::error::JobError;
use crate::delayed::job_statistics::JobStatistics;
use crate::delayed::value::awaiter::JobId;
use crate::delayed::value::watcher::Watcher;
use crate::resource::{Allocation, Ledger, Queue, Request, TicketId};
use crate::sync::Event;
use crate::sys::primitives::lock;

/// The resources and the queue of a pool, behind its lock.
pub(super) struct State {
    pub(super) ledger: Ledger,
    pub(super) queue: Queue<Arc<Slot>>,
    /// The tickets of the jobs in the queue.
    pub(super) tickets: HashMap<JobId, TicketId>,
    pub(super) waits: Waits,
    pub(super) running: usize,
    pub(super) succeeded: usize,
    pub(super) failed: usize,
    pub(super) submitted: usize,
    pub(super) cancelled: usize,
    pub(super) cached: usize,
    /// The number of changes of what the statistics show.
    pub(super) changes: u64,
    /// Set at the next change, if there is an observer.
    pub(super) observed: Option<Event>,
    /// Whether the block has ended.
    pub(super) is_closed: bool,
    /// The sums over the jobs that have ended.
    pub(super) total: JobStatistics,
}

/// Where a waiting job finds its allocation.
pub(super) struct Slot {
    pub(super) job: JobId,
    pub(super) name: &'static str,
    /// Leaves `Waiting` only while the pool is locked. The owner takes it at any time.
    pub(super) turn: Mutex<Turn>,
    pub(super) waker: AtomicWaker,
}

pub(super) enum Turn {
    Waiting,
    Granted(Allocation),
    /// The job can no longer get what it asks for.
    Refused(String),
    Taken,
}

impl State {
    pub(super) fn new(ledger: Ledger) -> Self {
        Self {
            ledger,
            queue: Queue::new(),
            tickets: HashMap::new(),
            waits: Waits::default(),
            running: 0,
            succeeded: 0,
            failed: 0,
            submitted: 0,
            cancelled: 0,
            cached: 0,
            changes: 0,
            observed: None,
            is_closed: false,
            total: JobStatistics::default(),
        }
    }

    /// Counts a change. Returns the event of an observer, to be set without a lock.
    #[must_use]
    pub(super) fn changed(&mut self) -> Option<Event> {
        self.changes += 1;
        self.observed.take()
    }

    /// Gives the waiters their allocations. Returns those to be woken.
    pub(super) fn choose(&mut self, time_left: Option<Duration>) -> Vec<Arc<Slot>> {
        let Self {
            ledger,
            queue,
            tickets,
            running,
            ..
        } = self;
        let mut woken = Vec::new();
        loop {
            if let Some((slot, allocation)) = queue.grant_next(ledger, time_left) {
                *running += 1;
                tickets.remove(&slot.job);
                *lock(&slot.turn) = Turn::Granted(allocation);
                woken.push(slot);
                continue;
            }
            // Time is the only resource that does not come back.
            let refused = time_left.and_then(|_| {
                let (request, _) = queue.head()?;
                let reason = ledger.check(request, time_left).err()?;
                Some((queue.remove_head()?, reason))
            });
            let Some((slot, reason)) = refused else {
                return woken;
            };
            tickets.remove(&slot.job);
            *lock(&slot.turn) = Turn::Refused(reason);
            woken.push(slot);
        }
    }

    /// Finds a job in the queue among `jobs` and those that they wait for, that does not fit next
    /// to `held`. Returns its request and its name.
    pub(super) fn find_obstructed(
        &self,
        jobs: &[JobId],
        held: &[Arc<Allocation>],
        time_left: Option<Duration>,
    ) -> Option<(&Request, &'static str)> {
        let queued = |job| self.queue.get(*self.tickets.get(&job)?);
        // Most of many jobs ask for the same.
        let mut fitting: Option<&Request> = None;
        let found = self.waits.find(jobs, |job| {
            let Some((request, _)) = queued(job).filter(|(request, _)| fitting != Some(request))
            else {
                return false;
            };
            let fits = self.ledger.fits_besides(held, request, time_left);
            if fits {
                fitting = Some(request);
            }
            !fits
        })?;
        queued(found).map(|(request, slot)| (request, slot.name))
    }

    /// Ends a wait, if all jobs that hold resources wait for jobs in the queue, of which none can
    /// start.
    pub(super) fn take_deadlock(&mut self) -> Option<(Arc<Watcher>, JobError)> {
        let Self {
            queue,
            tickets,
            waits,
            running,
            ..
        } = self;
        let (_, head) = queue.head()?;
        if *running == 0 || *running > waits.holders() {
            return None;
        }
        let Deadlock { watcher, job } = waits.take_deadlock(|job| tickets.contains_key(&job))?;
        let (request, slot) = queue.get(*tickets.get(&job)?)?;
        let reason = format!(
            "it asks for {request} and is in the queue{}, and each job that holds resources waits \
             for another one in the queue, as the future does that waits for this one. Wait outside \
             of futures that hold resources, or let them ask for less",
            if head.job == slot.job {
                String::new()
            } else {
                format!(" behind `{}`", head.name)
            }
        );
        Some((watcher, JobError::deadlock(slot.name, reason)))
    }
}
