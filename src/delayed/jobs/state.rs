//! The state behind the lock of a pool: the resources, the queue, and which job waits for which.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use atomic_waker::AtomicWaker;

use super::waits::{Deadlock, Waits};
use crate::delayed::error::JobError;
use crate::delayed::job_statistics::JobStatistics;
use crate::delayed::tuning::HOLDERS_NAMED;
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
    pub(super) holders: BTreeMap<JobId, Holder>,
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

/// A job that has resources.
pub(super) struct Holder {
    name: &'static str,
    allocation: Arc<Allocation>,
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
    Granted(Arc<Allocation>),
    Refused(Refusal),
    Taken,
}

/// Why a job in the queue will not get what it asks for.
#[derive(Debug)]
pub(super) enum Refusal {
    /// There will never be as much again.
    Impossible(String),
    /// A job that holds it waits for the end of this one.
    Deadlock(String),
}

impl Refusal {
    /// Returns the error of a job that was begun this often.
    pub(super) fn into_error(self, job: &'static str, attempts: u32) -> JobError {
        match self {
            Self::Impossible(reason) => JobError::impossible(job, attempts, reason),
            Self::Deadlock(reason) => JobError::deadlock(job, attempts, reason),
        }
    }

    /// Puts a text before the reason.
    pub(super) fn after(self, text: &str) -> Self {
        match self {
            Self::Impossible(reason) => Self::Impossible(format!("{text}{reason}")),
            Self::Deadlock(reason) => Self::Deadlock(format!("{text}{reason}")),
        }
    }
}

/// The way in which a deadlock was ended.
pub(super) enum Told {
    /// The wait that this watcher belongs to has ended with an error.
    Wait(Arc<Watcher>),
    /// This job was refused.
    Job(Arc<Slot>),
}

impl State {
    pub(super) fn new(ledger: Ledger) -> Self {
        Self {
            ledger,
            queue: Queue::new(),
            tickets: HashMap::new(),
            waits: Waits::default(),
            holders: BTreeMap::new(),
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
            holders,
            ..
        } = self;
        let mut woken = Vec::new();
        loop {
            if let Some((slot, allocation)) = queue.grant_next(ledger, time_left) {
                let allocation = Arc::new(allocation);
                let holder = Holder {
                    name: slot.name,
                    allocation: allocation.clone(),
                };
                holders.insert(slot.job, holder);
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
            *lock(&slot.turn) = Turn::Refused(Refusal::Impossible(reason));
            woken.push(slot);
        }
    }

    /// Says what the first job in the queue waits for, and which jobs have that.
    pub(super) fn explain_head(&self, time_left: Option<Duration>) -> Option<String> {
        let (request, slot) = self.queue.head()?;
        let mut text = format!("`{}` ", slot.name);
        text += &self.ledger.explain(request, time_left);
        let lacking = self.ledger.lacking(request);
        let has_some =
            |holder: &Holder| lacking.is_some_and(|name| holder.allocation.amount(name).is_some());
        let holders = self.holders.iter().filter(|(_, holder)| has_some(holder));
        for (at, (job, Holder { name, allocation })) in holders.enumerate() {
            if at == HOLDERS_NAMED {
                text += ", and others";
                break;
            }
            let separator = if at == 0 { ": " } else { ", " };
            let waits = if self.waits.is_waiting(*job) {
                " and waits for other jobs"
            } else {
                ""
            };
            text += &format!("{separator}`{name}` has {allocation}{waits}");
        }
        Some(text)
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

    /// Ends a wait, or refuses a job, if all jobs that hold resources wait for jobs in the queue,
    /// of which none can start. Returns the task to be woken, whose job then counts as running.
    pub(super) fn end_deadlock(&mut self) -> Option<Told> {
        let Self {
            queue,
            tickets,
            waits,
            holders,
            ..
        } = self;
        let (_, head) = queue.head()?;
        if holders.is_empty() || holders.len() > waits.holders() {
            return None;
        }
        let head = (head.job, head.name);
        let describe = |request: &Request, slot: &Slot| {
            let place = match head {
                (job, _) if job == slot.job => String::new(),
                (_, name) => format!(" behind `{name}`"),
            };
            format!("it asks for {request} and is in the queue{place}")
        };
        match waits.find_deadlock(|job| tickets.contains_key(&job))? {
            Deadlock::Wait(watcher, job) => {
                let (request, slot) = queue.get(*tickets.get(&job)?)?;
                let reason = format!(
                    "{}, and each job that holds resources waits for another one in the queue, as \
                     the future does that waits for this one. Wait outside of futures that hold \
                     resources, or let them ask for less",
                    describe(request, slot)
                );
                watcher.give_up(JobError::deadlock(slot.name, 0, reason));
                Some(Told::Wait(watcher))
            }
            Deadlock::Job(job) => {
                let ticket = tickets.remove(&job)?;
                let (request, slot) = queue.get(ticket)?;
                let place = describe(request, slot);
                let slot = queue.remove(ticket)?;
                let reason = format!(
                    "{place}, and each job that holds resources waits for another one in the queue. One \
                     of them cannot end before this one, because it waits for the end of a block, \
                     or for a place in a limit. Wait outside of futures that hold resources, or let \
                     them ask for less"
                );
                *lock(&slot.turn) = Turn::Refused(Refusal::Deadlock(reason));
                Some(Told::Job(slot))
            }
        }
    }
}
