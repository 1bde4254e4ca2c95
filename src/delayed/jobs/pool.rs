//! Waits for allocations, and gives them back.
//!
//! The decisions are those of `resource::{Ledger, Queue}`; here they are put behind a lock, and
//! waiters are woken. An allocation is owned: by the slot of its waiter until that takes it, then
//! by a [`Grant`]. Dropping either gives it back, so that no end of a job can lose it.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io::{self, Write};
use std::mem;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use atomic_waker::AtomicWaker;

use super::observed::Observed;
use super::options::Checked;
use super::state::{Slot, State, Turn};
use super::statistics::{ResourceStatistics, Statistics};
use super::trace::Trace;
use super::waiter::Waiter;
use super::waits::WaitNumber;
use crate::delayed::error::JobError;
use crate::delayed::job_statistics::JobStatistics;
use crate::delayed::learned::{Group, Learned};
use crate::delayed::setup::Setup;
use crate::delayed::value::awaiter::JobId;
use crate::delayed::value::watcher::Watcher;
use crate::resource::{Allocation, Amount, Ledger, Request, Resources, TicketId, ZERO};
use crate::sync::CapacityLimiter;
use crate::sys::primitives::lock;
use crate::sys::unwind;
use crate::time::current_time;
use crate::wait::{Wait, pending};
use crate::worker::ContextSet;

/// The resources and the workers of a block.
pub(super) struct Pool {
    state: Mutex<State>,
    /// The numbers of the cores.
    cores: Vec<usize>,
    name: Option<Arc<str>>,
    /// `None` in the cell if the trace has ended.
    trace: OnceLock<Mutex<Option<Trace>>>,
    /// Locked while a trace is begun.
    beginning_trace: Mutex<()>,
    /// The error of the setup. If there is one, no job can run.
    fault: Option<String>,
    /// Whether all jobs are prioritised.
    pub(super) is_prioritized: bool,
    /// When the wall time of the resources is up.
    ends_at: Option<Instant>,
    pub(super) workers: Arc<ContextSet>,
    /// The folder of results that are kept for later runs.
    pub(super) cache_folder: Arc<Path>,
    /// The groups from whose jobs limits are learned.
    groups: Mutex<HashMap<Arc<str>, Arc<Group>>>,
    /// The limiter of calls whose number the cores limit.
    pub(super) unlimited: CapacityLimiter,
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
            state: Mutex::new(State::new(Ledger::new(&resources))),
            cores: resources.core_numbers(),
            name: setup.block_name().cloned(),
            trace: OnceLock::new(),
            beginning_trace: Mutex::new(()),
            ends_at: resources
                .time()
                .and_then(|time| current_time().checked_add(time)),
            workers,
            cache_folder: setup.cache_folder_path(),
            groups: Mutex::default(),
            unlimited: CapacityLimiter::unlimited(),
        }
    }

    pub(super) fn time_left(&self) -> Option<Duration> {
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

    /// Puts a job into the queue. Returns `None` for a job that asks for nothing.
    ///
    /// # Errors
    ///
    /// The reason why the job can never have what it asks for.
    pub(super) fn submit(
        self: &Arc<Self>,
        (job, name): (JobId, &'static str),
        checked: &Checked,
        is_prioritized: bool,
    ) -> Result<Option<Ticket>, String> {
        if let Some(fault) = &checked.fault {
            return Err(fault.clone());
        }
        if checked.is_for_nothing {
            return Ok(None);
        }
        let submitted = current_time();
        let slot = Arc::new(Slot {
            job,
            name,
            turn: Mutex::new(Turn::Waiting),
            waker: AtomicWaker::new(),
        });
        let mut state = lock(&self.state);
        let id = state
            .queue
            .push(checked.request.clone(), is_prioritized, slot.clone());
        state.tickets.insert(job, id);
        // Made before any waker is called: if one panics, the job leaves the queue.
        let ticket = Ticket {
            pool: self.clone(),
            slot,
            id,
            submitted,
        };
        self.grant(state);
        Ok(Some(ticket))
    }

    /// Grants what fits, in the order of the queue. Unlocks the state, and wakes the waiters, the
    /// rest also after a waker of one has panicked.
    fn grant(&self, mut state: MutexGuard<'_, State>) {
        let granted = state.choose(self.time_left());
        let deadlock = state.take_deadlock();
        let observed = state.changed();
        drop(state);
        let observed = observed.into_iter().map(Waiter::Observer);
        let deadlock = deadlock.into_iter();
        let deadlock = deadlock.map(|(watcher, error)| Waiter::InDeadlock(watcher, error));
        let granted = granted.into_iter().map(Waiter::Job);
        unwind::for_each(observed.chain(deadlock).chain(granted), Waiter::wake);
    }

    /// Changes what the statistics show, and wakes the observers.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = lock(&self.state);
        change(&mut state);
        let observed = state.changed();
        drop(state);
        if let Some(event) = observed {
            event.set();
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

    /// Records that a job, which may be a holder of resources, waits for the results of others,
    /// until the returned value is dropped. `held` is what it, and the jobs around it, hold.
    ///
    /// # Errors
    ///
    /// If the wait has no end.
    pub(super) fn begin_wait(
        self: &Arc<Self>,
        (waiting, is_holder): (JobId, bool),
        jobs: Vec<JobId>,
        held: &[Arc<Allocation>],
        watcher: &Arc<Watcher>,
    ) -> Result<RecordedWait, JobError> {
        let mut state = lock(&self.state);
        if !held.is_empty()
            && let Some((request, name)) = state.find_obstructed(&jobs, held, self.time_left())
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
        let recorded = RecordedWait {
            pool: self.clone(),
            waiting,
            number,
        };
        self.grant(state);
        Ok(recorded)
    }

    /// Returns the number of waiting jobs that hold resources.
    #[cfg(all(test, not(loom)))]
    pub(super) fn waiting_holders(&self) -> usize {
        lock(&self.state).waits.holders()
    }

    /// Counts a job that was submitted.
    pub(super) fn count_submitted(&self) {
        self.change(|state| state.submitted += 1);
    }

    /// Counts a job that could not begin, because its argument has failed or it was refused.
    pub(super) fn count_failed(&self) {
        self.change(|state| state.failed += 1);
    }

    /// Counts a job that was cancelled before it had a result.
    pub(super) fn count_cancelled(&self) {
        self.change(|state| state.cancelled += 1);
    }

    /// Returns the statistics, if there have been other than so many changes.
    pub(super) fn observe(&self, seen: Option<u64>) -> Observed {
        let mut state = lock(&self.state);
        if seen != Some(state.changes) {
            let changes = state.changes;
            drop(state);
            return Observed::Changed(self.statistics(), changes);
        }
        if state.is_closed {
            return Observed::Ended;
        }
        Observed::Unchanged(state.observed.get_or_insert_default().wait())
    }

    /// Ends the trace and the streams of statistics, at the end of the block.
    pub(super) fn close(&self) {
        let trace = self.trace.get().and_then(|trace| lock(trace).take());
        if let Some(Err(error)) = trace.map(Trace::finish) {
            tracing::warn!(%error, "the trace of a block of jobs could not be written");
        }
        // The last step, because it calls wakers of observers, which may panic.
        self.change(|state| state.is_closed = true);
    }

    /// Begins a trace in the file that `create` makes. Returns false, and does not call that, if
    /// the pool has a trace.
    ///
    /// # Errors
    ///
    /// The error of `create`. The pool has no trace then.
    pub(super) fn begin_trace<W: Write + Send + 'static>(
        &self,
        create: impl FnOnce() -> io::Result<W>,
    ) -> io::Result<bool> {
        let now = current_time();
        let _only_one = lock(&self.beginning_trace);
        if self.is_traced() {
            return Ok(false);
        }
        let out = create()?;
        let name = self.name.as_deref().unwrap_or("jobs");
        self.trace
            .get_or_init(|| Mutex::new(Some(Trace::new(out, name, &self.cores, now))));
        Ok(true)
    }

    /// Returns whether the pool has had a trace, which may have ended.
    pub(super) fn is_traced(&self) -> bool {
        self.trace.get().is_some()
    }

    /// Calls `record` with the trace, if there is one.
    pub(super) fn trace(&self, record: impl FnOnce(&mut Trace)) {
        if let Some(trace) = self.trace.get() {
            lock(trace).as_mut().map(record);
        }
    }

    /// Returns what was learned from the jobs of this group.
    pub(super) fn group(&self, learned: &Learned) -> Arc<Group> {
        let mut groups = lock(&self.groups);
        groups.entry(learned.group().clone()).or_default().clone()
    }

    /// Returns how much there is of a resource, if there is such a resource.
    pub(super) fn total(&self, kind: &str) -> Option<Amount> {
        let state = lock(&self.state);
        let mut amounts = state.ledger.amounts();
        amounts.find_map(|(name, _, total)| (name == kind).then_some(total))
    }

    /// Counts a job that has ended.
    pub(super) fn count(&self, cost: &JobStatistics, has_succeeded: bool) {
        self.change(|state| {
            let count = if has_succeeded {
                &mut state.succeeded
            } else {
                &mut state.failed
            };
            *count += 1;
            state.total.add(cost);
        });
    }

    /// Counts a job whose result an earlier run has kept.
    pub(super) fn count_cached(&self) {
        self.change(|state| state.cached += 1);
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
            submitted: state.submitted,
            queued: state.queue.len(),
            running: state.running,
            succeeded: state.succeeded,
            failed: state.failed,
            cancelled: state.cancelled,
            cached: state.cached,
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

/// A wait of a job for the results of others. Dropping it ends the record.
pub(super) struct RecordedWait {
    pool: Arc<Pool>,
    waiting: JobId,
    number: WaitNumber,
}

impl Drop for RecordedWait {
    fn drop(&mut self) {
        let watcher = lock(&self.pool.state)
            .waits
            .remove(self.waiting, self.number);
        drop(watcher); // without the lock, as its waker is foreign code
    }
}

/// The place of a job in the queue. Dropping it leaves the queue, or gives back the allocation.
pub(super) struct Ticket {
    pool: Arc<Pool>,
    slot: Arc<Slot>,
    id: TicketId,
    submitted: Instant,
}

impl Ticket {
    /// Waits for the allocation of a job; there is none for a job that asks for nothing. Adds the
    /// time since the job was submitted to `queued`.
    ///
    /// # Errors
    ///
    /// The reason why the job can no longer get it.
    pub(super) async fn granted(
        ticket: Option<Self>,
        queued: &mut Duration,
    ) -> Result<Option<Grant>, String> {
        let Some(ticket) = ticket else {
            return Ok(None);
        };
        let granted = poll_fn(|cx| ticket.poll_granted(cx)).await;
        *queued += current_time().saturating_duration_since(ticket.submitted);
        granted.map(Some)
    }

    fn poll_granted(&self, cx: &mut Context<'_>) -> Poll<Result<Grant, String>> {
        self.slot.waker.register(cx.waker());
        let mut turn = lock(&self.slot.turn);
        match mem::replace(&mut *turn, Turn::Taken) {
            Turn::Granted(allocation) => {
                self.pool.trace(|trace| {
                    let Slot { job, name, .. } = *self.slot;
                    let cores = allocation.cores();
                    trace.begin(job, name, &cores, allocation.to_string(), current_time());
                });
                Poll::Ready(Ok(Grant {
                    pool: self.pool.clone(),
                    job: self.slot.job,
                    allocation: Arc::new(allocation),
                }))
            }
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

impl Grant {
    pub(super) fn job(&self) -> JobId {
        self.job
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        let job = self.job;
        self.pool.trace(|trace| trace.end(job, current_time()));
        self.pool.release(job, &self.allocation);
    }
}
