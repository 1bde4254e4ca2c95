//! Assigns tokens to waiters: those of a limiter, whose total is a setting, and those of a
//! semaphore, which come into existence and vanish.
//!
//! The queue is pure: no mutex, waker or clock. A waiter is a payload `W`. The drivers put a
//! `TokenQueue` behind a mutex and wake the returned payloads after unlocking.
//!
//! Decision: tokens are handed over directly, as in Trio. Returning a token assigns it to the
//! longest waiter in the same step, so no other task can barge in. With the alternative (release,
//! wake, and let the woken task compete), as in `async-lock`, throughput under contention is
//! higher, but waiters can starve.
//!
//! Decision: the maximum of [`create`](TokenQueue::create) counts all tokens, not only the free
//! ones. So one release too many is an error in every case, and for the task that makes it. (Trio
//! compares only the free permits with the bound, and only without waiters.) A returned token
//! always fits, so dropping one cannot fail.
//!
//! Invariants, after every call:
//!
//! * `taken` = tokens held + granted waiters that have not claimed yet.
//! * With waiters, no token is free. So a free token means that there are no waiters.

use crate::sync::locked::Deferred;
use crate::sync::wait_list::{Removed, WaitList, WaiterKey};

/// Tokens, and the queue of waiters for them.
#[derive(Debug)]
pub(in crate::sync) struct TokenQueue<W> {
    /// The number of tokens; `None` for no limit.
    total: Option<usize>,
    /// The number of tokens that are taken; above `total` after the total was lowered.
    taken: usize,
    waiters: WaitList<W>,
}

impl<W> TokenQueue<W> {
    /// A queue with all tokens free.
    pub(in crate::sync) const fn new(total: Option<usize>) -> Self {
        TokenQueue {
            total,
            taken: 0,
            waiters: WaitList::new(),
        }
    }

    /// The number of tokens; `None` for no limit.
    pub(in crate::sync) fn total(&self) -> Option<usize> {
        self.total
    }

    /// Returns the number of tokens that are taken, including those of granted waiters.
    pub(in crate::sync) fn taken(&self) -> usize {
        self.taken
    }

    /// Returns the number of tokens that may be taken and returned without this queue. `None` if
    /// there are waiters, or if more tokens are taken than there are: then a returned token is not
    /// free.
    pub(in crate::sync) fn free_for_all(&self) -> Option<usize> {
        match self.waiters.waiting() {
            0 => self.limit().checked_sub(self.taken),
            _ => None,
        }
    }

    /// Sets the number of free tokens, after tokens were taken and returned [without this
    /// queue](Self::free_for_all).
    pub(in crate::sync) fn set_free(&mut self, free: usize) {
        self.taken = self.limit() - free;
    }

    /// Returns the number of tokens that may be taken at one time. It is below `usize::MAX`, which
    /// [`TokenPool`](crate::sync::token_pool) uses as a mark.
    fn limit(&self) -> usize {
        self.total.unwrap_or(usize::MAX).min(usize::MAX - 1)
    }

    /// Returns the number of waiters.
    pub(in crate::sync) fn waiting(&self) -> usize {
        self.waiters.waiting()
    }

    /// Takes a token if one is free. By the invariant, there are no waiters then.
    #[inline]
    pub(in crate::sync) fn try_take(&mut self) -> bool {
        let free = self.total.is_none_or(|total| self.taken < total);
        if free {
            self.taken += 1;
        }
        free
    }

    /// Adds a waiter at the end of the queue, after [`try_take`](Self::try_take) has failed.
    pub(in crate::sync) fn push(&mut self, payload: W) -> WaiterKey {
        debug_assert!(
            self.total.is_some_and(|total| total <= self.taken),
            "nobody waits while a token is free"
        );
        self.waiters.push(payload)
    }

    /// Returns the payload of a waiter; `None` once it has a token, which it must
    /// [`claim`](Self::claim).
    pub(in crate::sync) fn payload_mut(&mut self, key: &WaiterKey) -> Option<&mut W> {
        self.waiters.payload_mut(key)
    }

    /// Removes a granted waiter, which keeps its token.
    pub(in crate::sync) fn claim(&mut self, key: WaiterKey) {
        let removed = self.waiters.remove(key);
        debug_assert!(
            matches!(removed, Removed::Granted(())),
            "only a granted waiter may claim"
        );
    }

    /// Removes a waiter without a token. If it had been granted one, that goes to the next waiter.
    pub(in crate::sync) fn give_up(&mut self, key: WaiterKey) -> Deferred<W> {
        match self.waiters.remove(key) {
            Removed::Waiting(payload) => Deferred::Drop(payload),
            Removed::Granted(()) => Deferred::wake(self.give_back()),
        }
    }

    /// Returns a token. The longest waiter gets it, unless the total was lowered; the result is to
    /// be woken.
    #[inline]
    pub(in crate::sync) fn give_back(&mut self) -> Option<W> {
        self.taken -= 1;
        self.admit_first()
    }

    /// Sets the number of tokens. The longest waiters get new ones; they are returned in order, to
    /// be woken.
    pub(in crate::sync) fn set_total(&mut self, total: Option<usize>) -> Vec<W> {
        self.total = total;
        std::iter::from_fn(|| self.admit_first()).collect()
    }

    /// Adds a token; an error if there are `max` already. The longest waiter gets it and is
    /// returned, to be woken. Without a limit, nothing changes.
    pub(in crate::sync) fn create(&mut self, max: usize) -> Result<Option<W>, Full> {
        if let Some(total) = &mut self.total {
            if *total >= max {
                return Err(Full);
            }
            *total += 1;
        }
        Ok(self.admit_first())
    }

    /// Removes a token that is taken.
    pub(in crate::sync) fn destroy(&mut self) {
        self.taken -= 1;
        if let Some(total) = &mut self.total {
            *total -= 1;
        }
    }

    /// Grants the longest waiter a token, if there are both.
    #[inline]
    fn admit_first(&mut self) -> Option<W> {
        if self.waiters.waiting() == 0 || !self.try_take() {
            return None;
        }
        self.waiters.grant_first()
    }
}

/// The number of tokens has reached its maximum.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::sync) struct Full;
