//! The resources of a block, and its queue.
//!
//! The decisions are those of `resource::{Ledger, Queue}`; here they are put behind a lock, and
//! waiters are woken.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::observed::Observed;
use super::options::Checked;
use super::state::{Slot, State, Told};
use super::statistics::{ResourceStatistics, Statistics};
use super::trace::Trace;
use super::trace_slot::TraceSlot;
use super::waiter::Waiter;
use crate::delayed::executor::Executor;
use crate::delayed::learned::{Group, Learned};
use crate::delayed::setup::Setup;
use crate::delayed::value::awaiter::JobId;
use crate::resource::{Allocation, Amount, Ledger, Request, Resources, ZERO};
use crate::sync::Event;
use crate::sys::primitives::lock;
use crate::sys::unwind;
use crate::time::current_time;

/// The resources and the workers of a block.
pub(super) struct Pool {
    state: Mutex<State>,
    /// The numbers of the cores.
    cores: Vec<usize>,
    name: Option<Arc<str>>,
    trace: TraceSlot,
    /// The error of the setup. If there is one, no job can run.
    fault: Option<String>,
    /// Whether all jobs are prioritised.
    pub(super) is_prioritized: bool,
    /// When the wall time of the resources is up.
    ends_at: Option<Instant>,
    /// The place where calls are executed.
    pub(super) executor: Arc<dyn Executor>,
    /// The folder of results that are kept for later runs.
    pub(super) cache_folder: Arc<Path>,
    /// The groups from whose jobs limits are learned.
    groups: Mutex<HashMap<Arc<str>, Arc<Group>>>,
}

impl Pool {
    /// Makes the pool of a block that begins now.
    pub(super) fn new(setup: &Setup, executor: Arc<dyn Executor>) -> Self {
        let (resources, fault) = match executor.begin() {
            Ok(resources) => (resources, None),
            Err(reason) => (Resources::none(), Some(reason)),
        };
        Self {
            fault,
            is_prioritized: setup.is_prioritized(),
            state: Mutex::new(State::new(Ledger::new(&resources))),
            cores: resources.core_numbers(),
            name: setup.block_name().cloned(),
            trace: TraceSlot::default(),
            ends_at: resources
                .time()
                .and_then(|time| current_time().checked_add(time)),
            executor,
            cache_folder: setup.cache_folder_path(),
            groups: Mutex::default(),
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

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Grants what fits, in the order of the queue, and ends deadlocks. Unlocks the state, and
    /// wakes the waiters.
    pub(super) fn grant(&self, mut state: MutexGuard<'_, State>) {
        let granted = state.choose(self.time_left());
        let observed = state.changed();
        self.end_deadlocks_and_wake(state, observed, granted);
    }

    /// Ends deadlocks after a job that counted as running waits again. Unlocks the state, and wakes
    /// the waiters.
    pub(super) fn end_deadlocks(&self, state: MutexGuard<'_, State>) {
        self.end_deadlocks_and_wake(state, None, Vec::new());
    }

    /// Ends deadlocks, and unlocks the state. Wakes the observer, these jobs, and the waiters of
    /// the deadlocks, the rest also after a waker of one has panicked.
    fn end_deadlocks_and_wake(
        &self,
        mut state: MutexGuard<'_, State>,
        mut observed: Option<Event>,
        mut jobs: Vec<Arc<Slot>>,
    ) {
        let mut ended = Vec::new();
        while let Some(told) = state.end_deadlock() {
            match told {
                Told::Wait(watcher) => ended.push(watcher),
                Told::Job(refused) => {
                    jobs.push(refused);
                    // A job that leaves the queue may let the next one start.
                    jobs.append(&mut state.choose(self.time_left()));
                    observed = state.changed().or(observed);
                }
            }
        }
        drop(state);
        let observed = observed.into_iter().map(Waiter::Observer);
        let ended = ended.into_iter().map(Waiter::InDeadlock);
        let jobs = jobs.into_iter().map(Waiter::Job);
        unwind::for_each(observed.chain(ended).chain(jobs), Waiter::wake);
    }

    /// Changes what the statistics show, and wakes the observers.
    pub(super) fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = lock(&self.state);
        change(&mut state);
        let observed = state.changed();
        drop(state);
        if let Some(event) = observed {
            event.set();
        }
    }

    /// Gives back the allocation of a job that has ended.
    pub(super) fn release(&self, job: JobId, allocation: &Allocation) {
        let mut state = lock(&self.state);
        state.ledger.release(allocation);
        state.holders.remove(&job);
        let ended = state.waits.remove_all(job);
        self.grant(state);
        drop(ended);
    }

    /// Returns the number of waiting jobs that hold resources.
    #[cfg(all(test, not(loom)))]
    pub(super) fn waiting_holders(&self) -> usize {
        lock(&self.state).waits.holders()
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
        self.trace.end();
        // The last step, because it calls wakers of observers, which may panic.
        self.change(|state| state.is_closed = true);
    }

    /// Begins a trace in what `create` makes.
    ///
    /// # Errors
    ///
    /// If the block has a trace or has ended; `create` is not called then. The error of `create`.
    pub(super) fn begin_trace<W: Write + Send + 'static>(
        &self,
        create: impl FnOnce() -> io::Result<W>,
    ) -> io::Result<()> {
        let name = self.name.as_deref().unwrap_or("jobs");
        let begin = |out| Trace::new(out, name, &self.cores, current_time());
        self.trace.begin(create, begin)
    }

    /// Returns whether a trace is written, or was until the block ended.
    pub(super) fn is_traced(&self) -> bool {
        self.trace.has_begun()
    }

    /// Calls `record` with the trace, if there is one.
    pub(super) fn trace(&self, record: impl FnOnce(&mut Trace)) {
        self.trace.record(record);
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

    pub(super) fn statistics(&self) -> Statistics {
        let state = lock(&self.state);
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
            running: state.holders.len(),
            succeeded: state.succeeded,
            failed: state.failed,
            cancelled: state.cancelled,
            cached: state.cached,
            total: state.total,
            resources: resources.collect(),
            head: state.explain_head(self.time_left()),
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
pub(super) fn list(held: &[Arc<Allocation>]) -> String {
    let held: Vec<String> = held.iter().map(|held| held.to_string()).collect();
    held.join(", ")
}
