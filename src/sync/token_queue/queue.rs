//! Decides who has a token and who waits for one: for the limiter, whose tokens are a setting, and for the semaphore,
//! whose permits anybody may bring into existence or take out of it.
//!
//! Pure: no lock, no waker, no clock. A waiter is a payload `W` that is stored and handed back. The drivers guard a
//! `TokenQueue` with a mutex and wake the payloads that come back *granted*, after unlocking.
//!
//! Choice: tokens are handed over directly, as in Trio. Whoever gives one back assigns it, in the same step, to the
//! longest waiter; from then on it counts as taken, although its new owner has yet to be polled. Nobody can barge in
//! between. The alternative (release, wake, and let the woken one compete) is what `async-lock` does; it is faster
//! under contention, and starves.
//!
//! Choice: a bound on how many may [come into existence](TokenQueue::create) counts all tokens, not only the free ones.
//! So one too many is noticed in every case, and by whoever makes it. (Trio compares only the free permits with the
//! bound, and only when nobody waits.) And a token that comes home always fits, so that dropping one cannot fail.
//!
//! Invariants, after every call:
//!
//! * `taken` = tokens held + waiters granted that have not claimed yet.
//! * If somebody waits, no token is free. So "is a token free" is also "and nobody waits".

use crate::sync::locked::Deferred;
use crate::sync::wait_list::{Removed, WaitList, WaiterKey};

/// TokenPool and those who wait for them.
#[derive(Debug)]
pub(in crate::sync) struct TokenQueue<W> {
    /// How many tokens there are; `None` for no limit.
    total: Option<usize>,
    /// How many are given out; above `total` after that was lowered.
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

    /// How many tokens there are; `None` for no limit.
    pub(in crate::sync) fn total(&self) -> Option<usize> {
        self.total
    }

    /// How many tokens are given out, counting those on their way to a granted waiter.
    pub(in crate::sync) fn taken(&self) -> usize {
        self.taken
    }

    /// How many tokens anybody may take without asking, and bring back, because nobody waits. `None` if somebody does,
    /// or if there are too many tokens out: then what comes back is not free.
    pub(in crate::sync) fn free_for_all(&self) -> Option<usize> {
        match self.waiters.waiting() {
            0 => self.limit().checked_sub(self.taken),
            _ => None,
        }
    }

    /// So many of those that were [free for all](Self::free_for_all) are left, or came back.
    pub(in crate::sync) fn set_free(&mut self, free: usize) {
        self.taken = self.limit() - free;
    }

    /// How many tokens may be taken at one time. Below the greatest number, which is therefore not one of free tokens.
    fn limit(&self) -> usize {
        self.total.unwrap_or(usize::MAX).min(usize::MAX - 1)
    }

    /// How many wait.
    pub(in crate::sync) fn waiting(&self) -> usize {
        self.waiters.waiting()
    }

    /// Takes a token if one is free, and by the invariant nobody waits.
    #[inline]
    pub(in crate::sync) fn try_take(&mut self) -> bool {
        let free = self.total.is_none_or(|total| self.taken < total);
        if free {
            self.taken += 1;
        }
        free
    }

    /// Waits at the end of the queue, after [`try_take`](Self::try_take) has failed.
    pub(in crate::sync) fn push(&mut self, payload: W) -> WaiterKey {
        debug_assert!(
            self.total.is_some_and(|total| total <= self.taken),
            "nobody waits while a token is free"
        );
        self.waiters.push(payload)
    }

    /// The payload of somebody who waits; `None` once a token is theirs, which they should then [`claim`](Self::claim).
    pub(in crate::sync) fn payload_mut(&mut self, key: &WaiterKey) -> Option<&mut W> {
        self.waiters.payload_mut(key)
    }

    /// A granted waiter takes its token.
    pub(in crate::sync) fn claim(&mut self, key: WaiterKey) {
        let removed = self.waiters.remove(key);
        debug_assert!(
            matches!(removed, Removed::Granted(())),
            "only a granted waiter may claim"
        );
    }

    /// A waiter leaves without a token; one that was its own already goes to the next.
    pub(in crate::sync) fn give_up(&mut self, key: WaiterKey) -> Deferred<W> {
        match self.waiters.remove(key) {
            Removed::Waiting(payload) => Deferred::Drop(payload),
            Removed::Granted(()) => Deferred::wake(self.give_back()),
        }
    }

    /// A token comes back. The longest waiter gets it at once, unless the total was lowered; it is the one to wake.
    #[inline]
    pub(in crate::sync) fn give_back(&mut self) -> Option<W> {
        self.taken -= 1;
        self.admit_first()
    }

    /// Changes the number of tokens. The longest waiters get the new ones at once; they are the ones to wake, in
    /// order.
    pub(in crate::sync) fn set_total(&mut self, total: Option<usize>) -> Vec<W> {
        self.total = total;
        std::iter::from_fn(|| self.admit_first()).collect()
    }

    /// A token comes into existence; refused if there would be more than `max`. The longest waiter gets it at once, and
    /// is the one to wake. (Where there is no limit, nothing changes.)
    pub(in crate::sync) fn create(&mut self, max: usize) -> Result<Option<W>, Full> {
        if let Some(total) = &mut self.total {
            if *total >= max {
                return Err(Full);
            }
            *total += 1;
        }
        Ok(self.admit_first())
    }

    /// A token that is held ceases to exist. (Where there is no limit, it is one less that is taken.)
    pub(in crate::sync) fn destroy(&mut self) {
        self.taken -= 1;
        if let Some(total) = &mut self.total {
            *total -= 1;
        }
    }

    /// Gives the longest waiter a token, if there are both.
    #[inline]
    fn admit_first(&mut self) -> Option<W> {
        if self.waiters.waiting() == 0 || !self.try_take() {
            return None;
        }
        self.waiters.grant_first()
    }
}

/// There are as many tokens as may be.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::sync) struct Full;
