//! The tokens of a limiter or a semaphore, shared by threads: a [`TokenQueue`] behind a mutex, and a way past it.
//!
//! While nobody waits, the queue has nothing to decide, and taking a token or giving one back is one step on `free`.
//! Whoever needs the queue [opens](TokenPool::lock_queue) it, and thereby takes the count away from everybody else; who closes it
//! with nobody waiting puts the count back. So either the count is in `free` (and the queue's own is out of date), or it
//! is in the queue, `free` is [`IN_QUEUE`], and everybody has to go through the mutex.
//!
//! Choice: this is worth its while because the uncontended case is the common one and a mutex costs two atomic steps
//! where this costs one. A `IN_QUEUE` count and the waiters' order cannot disagree: both change under the mutex only.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::Ordering;
use std::task::{Poll, Waker};

use super::locked::{Deferred, Locked};
use super::token_queue::TokenQueue;
use super::wait_list::WaiterKey;
use crate::sys::primitives::{AtomicUsize, MutexGuard};

/// The count is in the queue.
const IN_QUEUE: usize = usize::MAX;

/// TokenPool, and those who wait for them.
#[derive(Debug)]
pub(super) struct TokenPool {
    /// How many tokens may be taken without the queue, or [`IN_QUEUE`].
    free: AtomicUsize,
    queue: Locked<TokenQueue<Waker>>,
}

impl TokenPool {
    /// So many tokens, all of them free; `None` for no limit.
    pub(super) fn new(total: Option<usize>) -> Self {
        let queue = TokenQueue::new(total);
        TokenPool {
            free: AtomicUsize::new(queue.free_for_all().unwrap_or(IN_QUEUE)),
            queue: Locked::new(queue),
        }
    }

    /// Takes a token if one is free, and so nobody waits.
    #[inline]
    pub(super) fn try_take(&self) -> bool {
        // Acquire: what the token's last holder did is visible to the next.
        match self.update_free(Ordering::Acquire, |free| free.checked_sub(1)) {
            FastPath::Done => true,
            FastPath::NoneFree => false,
            FastPath::Unavailable => self.lock_queue().try_take(),
        }
    }

    /// Gives a token back. If somebody waits, the longest waiter owns it before this returns.
    #[inline]
    pub(super) fn give_back(&self) {
        // Release: the counterpart. `IN_QUEUE` is never reached by counting: there are fewer tokens.
        if let FastPath::Unavailable = self.update_free(Ordering::Release, |free| Some(free + 1)) {
            let next = self.lock_queue().give_back();
            Deferred::wake(next).run();
        }
    }

    /// Takes the count to the queue, until the guard is dropped.
    pub(super) fn lock_queue(&self) -> QueueGuard<'_> {
        let mut queue = self.queue.lock();
        // Acquire, for those who gave back without the queue; the mutex does for all others.
        let free = self.free.swap(IN_QUEUE, Ordering::Acquire);
        if free != IN_QUEUE {
            queue.set_free(free);
        }
        QueueGuard {
            free: &self.free,
            queue,
        }
    }

    /// Whether the waiter has a token; if not, makes `waker` the one to wake.
    pub(super) fn poll_granted(&self, key: &WaiterKey, waker: &Waker) -> Poll<()> {
        self.queue
            .poll_granted(waker, |queue| queue.payload_mut(key))
    }

    /// A waiter that has a token takes it.
    pub(super) fn claim(&self, key: WaiterKey) {
        // Changes nothing that is counted.
        self.queue.lock().claim(key);
    }

    #[inline]
    fn update_free(&self, success: Ordering, next: impl Fn(usize) -> Option<usize>) -> FastPath {
        let mut free = self.free.load(Ordering::Relaxed);
        loop {
            if free == IN_QUEUE {
                return FastPath::Unavailable;
            }
            let Some(next) = next(free) else {
                return FastPath::NoneFree;
            };
            match self
                .free
                .compare_exchange_weak(free, next, success, Ordering::Relaxed)
            {
                Ok(_) => return FastPath::Done,
                Err(now) => free = now,
            }
        }
    }
}

enum FastPath {
    Done,
    /// No token is free.
    NoneFree,
    /// Somebody uses the queue, or waits in it.
    Unavailable,
}

/// The queue, with the count in it.
pub(super) struct QueueGuard<'a> {
    free: &'a AtomicUsize,
    queue: MutexGuard<'a, TokenQueue<Waker>>,
}

impl Deref for QueueGuard<'_> {
    type Target = TokenQueue<Waker>;

    fn deref(&self) -> &Self::Target {
        &self.queue
    }
}

impl DerefMut for QueueGuard<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.queue
    }
}

impl Drop for QueueGuard<'_> {
    fn drop(&mut self) {
        // Before the mutex is given back, so that nobody finds the count in neither place. Release: whoever takes a
        // token by this count sees what was done by those whose tokens are in it.
        if let Some(free) = self.queue.free_for_all() {
            self.free.store(free, Ordering::Release);
        }
    }
}
