//! Waits for allocations, and gives them back.
//!
//! The decisions are those of `resource::{Ledger, Queue}`; here they are put behind a lock, and
//! waiters are woken. An allocation is owned: by the slot of its waiter until that takes it, then by
//! a [`Grant`]. Dropping either gives it back, so that no end of a job can lose it.

use std::future::poll_fn;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use atomic_waker::AtomicWaker;

use super::options::Checked;
use super::statistics::{ResourceStatistics, Statistics};
use crate::delayed::job_statistics::JobStatistics;
use crate::delayed::setup::Setup;
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
    running: usize,
    succeeded: usize,
    failed: usize,
    /// The sums over the jobs that have ended.
    total: JobStatistics,
}

/// Where a waiting job finds its allocation.
struct Slot {
    job: &'static str,
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

    /// Compares a request with what there is.
    pub(super) fn check(&self, request: Request) -> Checked {
        let check = || {
            let state = lock(&self.state);
            state.ledger.check(&request, self.time_left()).err()
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
        job: &'static str,
        request: &Request,
        is_prioritized: bool,
    ) -> Ticket {
        let slot = Arc::new(Slot {
            job,
            turn: Mutex::new(Turn::Waiting),
            waker: AtomicWaker::new(),
        });
        let mut state = lock(&self.state);
        let id = state
            .queue
            .push(request.clone(), is_prioritized, slot.clone());
        let woken = self.grant(&mut state);
        drop(state);
        wake(woken);
        Ticket {
            pool: self.clone(),
            slot,
            id,
            submitted: current_time(),
        }
    }

    /// Grants what fits, in the order of the queue. Returns the waiters to be woken.
    fn grant(&self, state: &mut MutexGuard<'_, State>) -> Vec<Arc<Slot>> {
        let State {
            ledger,
            queue,
            running,
            ..
        } = &mut **state;
        let time_left = self.time_left();
        let mut woken = Vec::new();
        loop {
            if let Some((slot, allocation)) = queue.grant_next(ledger, time_left) {
                *running += 1;
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
            *lock(&slot.turn) = Turn::Refused(reason);
            woken.push(slot);
        }
    }

    fn release(&self, allocation: &Allocation) {
        let mut state = lock(&self.state);
        state.ledger.release(allocation);
        state.running -= 1;
        let woken = self.grant(&mut state);
        drop(state);
        wake(woken);
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
            format!("`{}` {reason}", slot.job)
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
        let removed = lock(&self.pool.state).queue.remove(self.id);
        match removed {
            // A job that leaves the head may let the next one start.
            Some(_) => {
                let mut state = lock(&self.pool.state);
                let woken = self.pool.grant(&mut state);
                drop(state);
                wake(woken);
            }
            None => {
                let turn = mem::replace(&mut *lock(&self.slot.turn), Turn::Taken);
                if let Turn::Granted(allocation) = turn {
                    self.pool.release(&allocation);
                }
            }
        }
    }
}

/// An allocation of a running job. Dropping it gives it back.
pub(super) struct Grant {
    pool: Arc<Pool>,
    pub(super) allocation: Arc<Allocation>,
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.pool.release(&self.allocation);
    }
}
