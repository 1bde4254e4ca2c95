//! Waits for allocations, and gives them back.
//!
//! The decisions are those of `resource::{Ledger, Queue}`; here they are put behind a lock, and
//! waiters are woken. An allocation is owned: by the slot of its waiter until that takes it, then by
//! a [`Grant`]. Dropping either gives it back, so that no end of a job can lose it.

use std::collections::HashMap;
use std::future::poll_fn;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use atomic_waker::AtomicWaker;

use super::options::Checked;
use super::statistics::{ResourceStatistics, Statistics};
use super::waits::{Deadlock, WaitNumber, Waits};
use crate::delayed::error::JobError;
use crate::delayed::job_statistics::JobStatistics;
use crate::delayed::setup::Setup;
use crate::delayed::value::awaiter::JobId;
use crate::delayed::value::watcher::Watcher;
use crate::resource::{Allocation, Ledger, Queue, Request, Resources, TicketId, ZERO};
use crate::sync::CapacityLimiter;
use crate::sys::primitives::lock;
use crate::time::current_time;
use crate::wait::{Wait, pending};
use crate::worker::ContextSet;

/// The resources and the workers of a block.
pub(super) struct Pool {
    state: Mutex<State>,
    /// The error of the setup. If there is one, no job can run.
    fault: Option<String>,
    /// Whether all jobs are prioritised.
    pub(super) is_prioritized: bool,
    /// When the wall time of the resources is up.
    ends_at: Option<Instant>,
    pub(super) workers: Arc<ContextSet>,
    /// The limiter of calls whose number the cores limit.
    pub(super) unlimited: CapacityLimiter,
}

struct State {
    ledger: Ledger,
    queue: Queue<Arc<Slot>>,
    /// The tickets of the jobs in the queue.
    tickets: HashMap<JobId, TicketId>,
    waits: Waits,
    running: usize,
    succeeded: usize,
    failed: usize,
    /// The sums over the jobs that have ended.
    total: JobStatistics,
}

/// Where a waiting job finds its allocation.
struct Slot {
    job: JobId,
    name: &'static str,
    /// Leaves `Waiting` only while the pool is locked. The owner takes it at any time.
    turn: Mutex<Turn>,
    waker: AtomicWaker,
}

enum Turn {
    Waiting,
    Granted(Allocation),
    /// The job can no longer get what it asks for.
    Refused(String),
    Taken,
}

impl Pool {
    /// Makes the pool of a block that begins now, in the current context of workers.
    pub(super) fn new(setup: &Setup, workers: Arc<ContextSet>) -> Self {
        let (resources, fault) = match setup.load() {
            Ok(resources) => (resources, None),
            Err(error) => (Resources::none(), Some(error.to_string())),
        };
        workers.use_current_configuration(setup.block_name());
        Self {
            fault,
            is_prioritized: setup.is_prioritized(),
            state: Mutex::new(State {
                ledger: Ledger::new(&resources),
                queue: Queue::new(),
                tickets: HashMap::new(),
                waits: Waits::default(),
                running: 0,
                succeeded: 0,
                failed: 0,
                total: JobStatistics::default(),
            }),
            ends_at: resources
                .time()
                .and_then(|time| current_time().checked_add(time)),
            workers,
            unlimited: CapacityLimiter::unlimited(),
        }
    }

    fn time_left(&self) -> Option<Duration> {
        let ends_at = self.ends_at?;
        Some(ends_at.saturating_duration_since(current_time()))
    }

    /// Returns a number that no other pool has while this one exists.
    pub(super) fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Compares a request with what there is. `held` is what is not free before the job has ended.
    pub(super) fn check(&self, request: Request, held: &[Arc<Allocation>]) -> Checked {
        let check = || {
            let state = lock(&self.state);
            let time_left = self.time_left();
            if let Err(reason) = state.ledger.check(&request, time_left) {
                return Some(reason);
            }
            let fits = held.is_empty() || state.ledger.fits_besides(held, &request, time_left);
            (!fits).then(|| {
                format!(
                    "it asks for {request}, and the future that opened its block holds {} until \
                     the block has ended. Open the block outside of that future, or let one of \
                     both ask for less",
                    list(held)
                )
            })
        };
        let fault = self.fault.clone().or_else(check);
        Checked {
            is_for_nothing: request == ZERO,
            request,
            fault,
        }
    }

    /// Puts a job into the queue.
    pub(super) fn submit(
        self: &Arc<Self>,
        (job, name): (JobId, &'static str),
        request: &Request,
        is_prioritized: bool,
    ) -> Ticket {
        let slot = Arc::new(Slot {
            job,
            name,
            turn: Mutex::new(Turn::Waiting),
            waker: AtomicWaker::new(),
        });
        let mut state = lock(&self.state);
        let id = state
            .queue
            .push(request.clone(), is_prioritized, slot.clone());
        state.tickets.insert(job, id);
        self.grant(state);
        Ticket {
            pool: self.clone(),
            slot,
            id,
            submitted: current_time(),
        }
    }

    /// Grants what fits, in the order of the queue. Unlocks the state, and wakes the waiters.
    fn grant(&self, mut state: MutexGuard<'_, State>) {
        let woken = self.choose(&mut state);
        let deadlock = self.take_deadlock(&mut state);
        drop(state);
        if let Some((watcher, error)) = deadlock {
            watcher.give_up(error);
        }
        wake(woken);
    }

    /// Gives the waiters their allocations. Returns those to be woken.
    fn choose(&self, state: &mut State) -> Vec<Arc<Slot>> {
        let State {
            ledger,
            queue,
            tickets,
            running,
            ..
        } = state;
        let time_left = self.time_left();
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

    fn release(&self, job: JobId, allocation: &Allocation) {
        let mut state = lock(&self.state);
        state.ledger.release(allocation);
        state.running -= 1;
        let ended = state.waits.remove_all(job);
        self.grant(state);
        drop(ended);
    }

    /// Records that a job, which may be a holder of resources, waits for the results of others.
    /// `held` is what it, and the jobs around it, hold.
    ///
    /// # Errors
    ///
    /// If the wait has no end.
    pub(super) fn begin_wait(
        &self,
        (waiting, is_holder): (JobId, bool),
        jobs: Vec<JobId>,
        held: &[Arc<Allocation>],
        watcher: &Arc<Watcher>,
    ) -> Result<WaitNumber, JobError> {
        let mut state = lock(&self.state);
        if !held.is_empty()
            && let Some((request, name)) = self.find_obstructed(&state, &jobs, held)
        {
            let reason = format!(
                "it asks for {request}, and the future that waits for it holds {}, so that neither \
                 could go on. Wait for it outside of that future, or let one of both ask for less",
                list(held)
            );
            return Err(JobError::deadlock(name, reason));
        }
        let number = state.waits.add(waiting, is_holder, jobs, watcher);
        self.grant(state);
        Ok(number)
    }

    /// Finds a job in the queue among `jobs` and those that they wait for, that does not fit next to
    /// `held`. Returns its request and its name.
    fn find_obstructed<'a>(
        &self,
        state: &'a State,
        jobs: &[JobId],
        held: &[Arc<Allocation>],
    ) -> Option<(&'a Request, &'static str)> {
        let time_left = self.time_left();
        let queued = |job| state.queue.get(*state.tickets.get(&job)?);
        // Most of many jobs ask for the same.
        let mut fitting: Option<&Request> = None;
        let found = state.waits.find(jobs, |job| {
            let Some((request, _)) = queued(job).filter(|(request, _)| fitting != Some(request))
            else {
                return false;
            };
            let fits = state.ledger.fits_besides(held, request, time_left);
            if fits {
                fitting = Some(request);
            }
            !fits
        })?;
        queued(found).map(|(request, slot)| (request, slot.name))
    }

    pub(super) fn end_wait(&self, waiting: JobId, number: WaitNumber) {
        let watcher = lock(&self.state).waits.remove(waiting, number);
        drop(watcher);
    }

    /// Ends a wait, if all jobs that hold resources wait for jobs in the queue, of which none can
    /// start.
    fn take_deadlock(&self, state: &mut State) -> Option<(Arc<Watcher>, JobError)> {
        let State {
            queue,
            tickets,
            waits,
            running,
            ..
        } = state;
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

    /// Counts a job that has ended.
    pub(super) fn count(&self, cost: &JobStatistics, has_succeeded: bool) {
        let mut state = lock(&self.state);
        let count = if has_succeeded {
            &mut state.succeeded
        } else {
            &mut state.failed
        };
        *count += 1;
        state.total.add(cost);
    }

    pub(super) fn statistics(&self) -> Statistics {
        let state = lock(&self.state);
        let head = state.queue.head().map(|(request, slot)| {
            let reason = state.ledger.explain(request, self.time_left());
            format!("`{}` {reason}", slot.name)
        });
        let resources = state
            .ledger
            .amounts()
            .map(|(name, free, total)| ResourceStatistics {
                name: name.to_owned(),
                free,
                total,
            });
        Statistics {
            queued: state.queue.len(),
            running: state.running,
            succeeded: state.succeeded,
            failed: state.failed,
            total: state.total,
            resources: resources.collect(),
            head,
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // Every ticket and every grant has a handle on the pool.
        let state = self
            .state
            .get_mut()
            .unwrap_or_else(|error| error.into_inner());
        debug_assert!(state.ledger.is_all_free(), "an allocation was lost");
    }
}

/// Writes what several jobs hold.
fn list(held: &[Arc<Allocation>]) -> String {
    let held: Vec<String> = held.iter().map(|held| held.to_string()).collect();
    held.join(", ")
}

fn wake(slots: Vec<Arc<Slot>>) {
    crate::sys::unwind::for_each(slots, |slot| slot.waker.wake());
}

/// The place of a job in the queue. Dropping it leaves the queue, or gives back the allocation.
pub(super) struct Ticket {
    pool: Arc<Pool>,
    slot: Arc<Slot>,
    id: TicketId,
    submitted: Instant,
}

impl Ticket {
    /// Waits for the allocation. Sets `queued` to the time since the job was submitted.
    ///
    /// # Errors
    ///
    /// The reason why the job can no longer get it.
    pub(super) async fn granted(self, queued: &mut Duration) -> Result<Grant, String> {
        let granted = poll_fn(|cx| self.poll_granted(cx)).await;
        *queued = current_time().saturating_duration_since(self.submitted);
        granted
    }

    fn poll_granted(&self, cx: &mut Context<'_>) -> Poll<Result<Grant, String>> {
        self.slot.waker.register(cx.waker());
        let mut turn = lock(&self.slot.turn);
        match mem::replace(&mut *turn, Turn::Taken) {
            Turn::Granted(allocation) => Poll::Ready(Ok(Grant {
                pool: self.pool.clone(),
                job: self.slot.job,
                allocation: Arc::new(allocation),
            })),
            Turn::Refused(reason) => Poll::Ready(Err(reason)),
            Turn::Waiting => {
                *turn = Turn::Waiting;
                pending(&Wait::For("its resources"))
            }
            Turn::Taken => panic!("a ticket was polled after its turn"),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = lock(&self.pool.state);
        match state.queue.remove(self.id) {
            // A job that leaves the head may let the next one start.
            Some(_) => {
                state.tickets.remove(&self.slot.job);
                self.pool.grant(state);
            }
            None => {
                drop(state);
                let turn = mem::replace(&mut *lock(&self.slot.turn), Turn::Taken);
                if let Turn::Granted(allocation) = turn {
                    self.pool.release(self.slot.job, &allocation);
                }
            }
        }
    }
}

/// An allocation of a running job. Dropping it gives it back.
pub(super) struct Grant {
    pool: Arc<Pool>,
    job: JobId,
    pub(super) allocation: Arc<Allocation>,
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.pool.release(self.job, &self.allocation);
    }
}
