//! The place of a job in the queue, and the allocation that it gets there.
//!
//! An allocation is owned: by the slot of its ticket until that takes it, then by a [`Grant`].
//! Dropping either gives it back, so that no end of a job can lose it.

use std::future::poll_fn;
use std::mem;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use atomic_waker::AtomicWaker;

use super::options::Checked;
use super::pool::Pool;
use super::state::{Refusal, Slot, Turn};
use crate::delayed::value::awaiter::JobId;
use crate::resource::{Allocation, TicketId};
use crate::sys::primitives::lock;
use crate::time::current_time;
use crate::wait::{Wait, pending};

/// The place of a job in the queue. Dropping it leaves the queue, or gives back the allocation.
pub(super) struct Ticket {
    pool: Arc<Pool>,
    slot: Arc<Slot>,
    id: TicketId,
    submitted: Instant,
}

impl Ticket {
    /// Puts a job into the queue. Returns `None` for a job that asks for nothing.
    ///
    /// # Errors
    ///
    /// The reason why the job can never have what it asks for.
    pub(super) fn submit(
        pool: &Arc<Pool>,
        (job, name): (JobId, &'static str),
        checked: &Checked,
        is_prioritized: bool,
    ) -> Result<Option<Self>, String> {
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
        let mut state = pool.lock();
        let id = state
            .queue
            .push(checked.request.clone(), is_prioritized, slot.clone());
        state.tickets.insert(job, id);
        // Made before any waker is called: if one panics, the job leaves the queue.
        let ticket = Self {
            pool: pool.clone(),
            slot,
            id,
            submitted,
        };
        pool.grant(state);
        Ok(Some(ticket))
    }

    /// Waits for the allocation of the job. Adds the time since it was submitted to `queued`.
    ///
    /// # Errors
    ///
    /// The reason why the job can no longer get it.
    pub(super) async fn granted(self, queued: &mut Duration) -> Result<Grant, Refusal> {
        let granted = poll_fn(|cx| self.poll_granted(cx)).await;
        *queued += current_time().saturating_duration_since(self.submitted);
        granted
    }

    fn poll_granted(&self, cx: &mut Context<'_>) -> Poll<Result<Grant, Refusal>> {
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
                    allocation,
                }))
            }
            Turn::Refused(refusal) => Poll::Ready(Err(refusal)),
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
        let mut state = self.pool.lock();
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
