//! The tokens of a limiter or a semaphore, shared by threads: a [`TokenQueue`] behind a mutex, and a way past it.
//!
//! While nobody waits, the queue has nothing to decide, and taking a token or giving one back is one step on `free`.
//! Whoever needs the queue [opens](Tokens::open) it, and thereby takes the count away from everybody else; who closes it
//! with nobody waiting puts the count back. So either the count is in `free` (and the queue's own is out of date), or it
//! is in the queue, `free` is [`CLOSED`], and everybody has to go through the mutex.
//!
//! Choice: this is worth its while because the uncontended case is the common one and a mutex costs two atomic steps
//! where this costs one. A `CLOSED` count and the waiters' order cannot disagree: both change under the mutex only.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::Ordering;
use std::task::Waker;

use super::guarded::{Guarded, Then};
use super::token_queue::TokenQueue;
use super::wait_list::Ticket;
use crate::sys::primitives::{AtomicUsize, MutexGuard};

/// The count is in the queue.
const CLOSED: usize = usize::MAX;

/// Tokens, and those who wait for them.
#[derive(Debug)]
pub(super) struct Tokens {
    /// How many tokens may be taken without the queue, or [`CLOSED`].
    free: AtomicUsize,
    queue: Guarded<TokenQueue<Waker>>,
}

impl Tokens {
    /// So many tokens, all of them free; `None` for no limit.
    pub(super) fn new(total: Option<usize>) -> Self {
        let queue = TokenQueue::new(total);
        Tokens {
            free: AtomicUsize::new(queue.free_for_all().unwrap_or(CLOSED)),
            queue: Guarded::new(queue),
        }
    }

    /// Takes a token if one is free, and so nobody waits.
    #[inline]
    pub(super) fn try_take(&self) -> bool {
        // Acquire: what the token's last holder did is visible to the next.
        match self.step(Ordering::Acquire, |free| free.checked_sub(1)) {
            Step::Done => true,
            Step::Impossible => false,
            Step::Closed => self.open().try_take(),
        }
    }

    /// Gives a token back. If somebody waits, the longest waiter owns it before this returns.
    #[inline]
    pub(super) fn give_back(&self) {
        // Release: the counterpart. `CLOSED` is never reached by counting: there are fewer tokens.
        if let Step::Closed = self.step(Ordering::Release, |free| Some(free + 1)) {
            let next = self.open().give_back();
            Then::wake(next).run();
        }
    }

    /// Takes the count to the queue, until the guard is dropped.
    pub(super) fn open(&self) -> Open<'_> {
        let mut queue = self.queue.lock();
        // Acquire, for those who gave back without the queue; the mutex does for all others.
        let free = self.free.swap(CLOSED, Ordering::Acquire);
        if free != CLOSED {
            queue.set_free(free);
        }
        Open {
            free: &self.free,
            queue,
        }
    }

    /// Whether the waiter has a token; if not, makes `waker` the one to wake.
    pub(super) fn is_granted(&self, ticket: &Ticket, waker: &Waker) -> bool {
        self.queue
            .is_granted(waker, |queue| queue.payload_mut(ticket))
    }

    /// A waiter that has a token takes it.
    pub(super) fn claim(&self, ticket: Ticket) {
        // Changes nothing that is counted.
        self.queue.lock().claim(ticket);
    }

    #[inline]
    fn step(&self, success: Ordering, next: impl Fn(usize) -> Option<usize>) -> Step {
        let mut free = self.free.load(Ordering::Relaxed);
        loop {
            if free == CLOSED {
                return Step::Closed;
            }
            let Some(next) = next(free) else {
                return Step::Impossible;
            };
            match self
                .free
                .compare_exchange_weak(free, next, success, Ordering::Relaxed)
            {
                Ok(_) => return Step::Done,
                Err(now) => free = now,
            }
        }
    }
}

enum Step {
    Done,
    /// No token is free.
    Impossible,
    /// Somebody uses the queue, or waits in it.
    Closed,
}

/// The queue, with the count in it.
pub(super) struct Open<'a> {
    free: &'a AtomicUsize,
    queue: MutexGuard<'a, TokenQueue<Waker>>,
}

impl Deref for Open<'_> {
    type Target = TokenQueue<Waker>;

    fn deref(&self) -> &Self::Target {
        &self.queue
    }
}

impl DerefMut for Open<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.queue
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        // Before the mutex is given back, so that nobody finds the count in neither place. Release: whoever takes a
        // token by this count sees what was done by those whose tokens are in it.
        if let Some(free) = self.queue.free_for_all() {
            self.free.store(free, Ordering::Release);
        }
    }
}
