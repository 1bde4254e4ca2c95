//! Decides who has a token of a limiter and who waits for one.
//!
//! Pure: no lock, no waker, no clock. A waiter is a payload `W` that is stored and handed back. The driver (`mod.rs`)
//! guards a `Queue` with a mutex and wakes the payloads that come back *granted*, after unlocking.
//!
//! Choice: tokens are handed over directly, as in Trio. Whoever gives one back assigns it, in the same step, to the
//! longest waiter; from then on it counts as borrowed, although its new owner has yet to be polled. Nobody can barge
//! in between. The alternative (release, wake, and let the woken one compete) is what `async-lock` does; it is faster
//! under contention, and starves.
//!
//! Invariants, after every call:
//!
//! * `borrowed` = tokens held + waiters granted that have not claimed yet.
//! * If somebody waits, no token is free. So "is a token free" is also "and nobody waits".

use crate::sync::wait_list::{Removed, Ticket, WaitList};

/// Tokens and those who wait for them.
#[derive(Debug)]
pub(super) struct Queue<W> {
    /// How many tokens there are; `None` for no limit.
    total: Option<usize>,
    /// How many are given out; above `total` after the limit was lowered.
    borrowed: usize,
    waiters: WaitList<W>,
}

/// What an arrival got.
#[derive(Debug)]
pub(super) enum Arrival<W> {
    /// A token; the payload was not needed.
    Admitted(W),
    /// A place at the end of the queue.
    Queued(Ticket),
}

impl<W> Queue<W> {
    /// A queue with nothing borrowed.
    pub(super) const fn new(total: Option<usize>) -> Self {
        Queue {
            total,
            borrowed: 0,
            waiters: WaitList::new(),
        }
    }

    /// How many tokens there are; `None` for no limit.
    pub(super) fn total(&self) -> Option<usize> {
        self.total
    }

    /// How many tokens are given out, counting those on their way to a granted waiter.
    pub(super) fn borrowed(&self) -> usize {
        self.borrowed
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiters.waiting()
    }

    /// Takes a token if one is free, and by the invariant nobody waits.
    pub(super) fn try_take(&mut self) -> bool {
        let free = self.total.is_none_or(|total| self.borrowed < total);
        if free {
            self.borrowed += 1;
        }
        free
    }

    /// Takes a token if one is free, otherwise waits at the end of the queue.
    pub(super) fn arrive(&mut self, payload: W) -> Arrival<W> {
        if self.try_take() {
            Arrival::Admitted(payload)
        } else {
            Arrival::Queued(self.waiters.push(payload))
        }
    }

    /// The payload of somebody who waits; `None` once a token is theirs, which they should then [`claim`](Self::claim).
    pub(super) fn payload_mut(&mut self, ticket: &Ticket) -> Option<&mut W> {
        self.waiters.payload_mut(ticket)
    }

    /// A granted waiter takes its token.
    pub(super) fn claim(&mut self, ticket: Ticket) {
        let removed = self.waiters.remove(ticket);
        debug_assert!(
            matches!(removed, Removed::Granted(())),
            "only a granted waiter may claim"
        );
    }

    /// A waiter leaves without a token. What comes back is whom to wake (a grant passed on) and what to drop (its own
    /// payload).
    pub(super) fn give_up(&mut self, ticket: Ticket) -> GivenUp<W> {
        match self.waiters.remove(ticket) {
            Removed::Waiting(payload) => GivenUp::Left(payload),
            Removed::Granted(()) => GivenUp::PassedOn(self.release()),
        }
    }

    /// A token comes back. The longest waiter gets it at once, unless the limit was lowered; it is the one to wake.
    pub(super) fn release(&mut self) -> Option<W> {
        self.borrowed -= 1;
        self.admit_first()
    }

    /// Changes the number of tokens. The longest waiters get the new ones at once; they are the ones to wake, in
    /// order.
    pub(super) fn set_total(&mut self, total: Option<usize>) -> Vec<W> {
        self.total = total;
        std::iter::from_fn(|| self.admit_first()).collect()
    }

    /// Gives the longest waiter a token, if there are both.
    fn admit_first(&mut self) -> Option<W> {
        if self.waiters.waiting() == 0 || !self.try_take() {
            return None;
        }
        self.waiters.grant_first()
    }
}

/// What became of a waiter that gave up.
#[derive(Debug)]
pub(super) enum GivenUp<W> {
    /// It only waited; its payload is of no more use.
    Left(W),
    /// A token was already its own, and now belongs to the next waiter, who is to be woken; `None` if nobody waits.
    PassedOn(Option<W>),
}

#[cfg(test)]
mod tests;
