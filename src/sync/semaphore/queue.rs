//! Decides who has a permit of a semaphore and who waits for one.
//!
//! Pure, as the limiter's queue: a waiter is a payload `W` that is stored and handed back. What differs is that the
//! number of permits in existence is nobody's setting: it grows by `release` and shrinks by `forget`.
//!
//! Choice: permits that are held count against the bound, not only free ones. So a release too many is noticed in every
//! case, and by whoever makes it. (Trio compares only the free permits with the bound, and only when nobody waits.) And
//! a permit that comes home always fits, so that dropping one cannot fail.
//!
//! Invariants, after every call:
//!
//! * `held` = permits held + waiters granted that have not claimed yet; `free + held <= max`.
//! * If somebody waits, no permit is free. So "is a permit free" is also "and nobody waits".

use crate::sync::guarded::Then;
use crate::sync::wait_list::{Removed, Ticket, WaitList};

/// Permits and those who wait for them.
#[derive(Debug)]
pub(super) struct Queue<W> {
    free: usize,
    held: usize,
    /// How many may exist; `usize::MAX` without a bound.
    max: usize,
    waiters: WaitList<W>,
}

impl<W> Queue<W> {
    /// A queue with so many permits, all free.
    pub(super) const fn new(free: usize, max: usize) -> Self {
        Queue {
            free,
            held: 0,
            max,
            waiters: WaitList::new(),
        }
    }

    /// How many permits are free.
    pub(super) fn free(&self) -> usize {
        self.free
    }

    /// How many permits are held, counting those on their way to a granted waiter.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiters.waiting()
    }

    /// Takes a permit if one is free, and by the invariant nobody waits.
    pub(super) fn try_take(&mut self) -> bool {
        let any = self.free > 0;
        if any {
            self.free -= 1;
            self.held += 1;
        }
        any
    }

    /// Waits at the end of the queue, after [`try_take`](Self::try_take) has failed.
    pub(super) fn push(&mut self, payload: W) -> Ticket {
        debug_assert_eq!(self.free, 0, "nobody waits while a permit is free");
        self.waiters.push(payload)
    }

    /// The payload of somebody who waits; `None` once a permit is theirs, which they should then
    /// [`claim`](Self::claim).
    pub(super) fn payload_mut(&mut self, ticket: &Ticket) -> Option<&mut W> {
        self.waiters.payload_mut(ticket)
    }

    /// A granted waiter takes its permit.
    pub(super) fn claim(&mut self, ticket: Ticket) {
        let removed = self.waiters.remove(ticket);
        debug_assert!(
            matches!(removed, Removed::Granted(())),
            "only a granted waiter may claim"
        );
    }

    /// A waiter leaves without a permit; one that was its own already goes to the next.
    pub(super) fn give_up(&mut self, ticket: Ticket) -> Then<W> {
        match self.waiters.remove(ticket) {
            Removed::Waiting(payload) => Then::Drop(payload),
            Removed::Granted(()) => Then::wake(self.give_back()),
        }
    }

    /// A held permit comes home. The longest waiter gets it at once, and is the one to wake.
    pub(super) fn give_back(&mut self) -> Option<W> {
        self.held -= 1;
        self.admit()
    }

    /// A held permit ceases to exist.
    pub(super) fn forget(&mut self) {
        self.held -= 1;
    }

    /// A permit comes into existence; refused if there would be more than may be. The longest waiter gets it at once,
    /// and is the one to wake.
    pub(super) fn release(&mut self) -> Result<Option<W>, Full> {
        // No overflow: the sum is at most `max`.
        if self.free + self.held == self.max {
            return Err(Full);
        }
        Ok(self.admit())
    }

    /// Gives a permit that is neither free nor held to the longest waiter, or makes it free.
    fn admit(&mut self) -> Option<W> {
        let next = self.waiters.grant_first();
        match next {
            Some(_) => self.held += 1,
            None => self.free += 1,
        }
        next
    }
}

/// There are as many permits as may be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

#[cfg(test)]
mod tests;
