//! The tokens of a limiter or a semaphore, shared by threads: a [`TokenQueue`] behind a mutex, with
//! a fast path that does not lock it.
//!
//! Without waiters, taking or returning a token is one atomic step on `free`. The slow path [locks
//! the queue](TokenPool::lock_queue) and sets `free` to [`IN_QUEUE`], which sends all other threads
//! to the slow path too. Unlocking the queue without waiters moves the count back into `free`. So
//! the count is either in `free` (and the queue's own count is stale), or in the queue.
//!
//! Decision: two places for one count are worth the code, because the uncontended case is the
//! common one, and a mutex costs two atomic steps where this costs one. The count and the order of
//! the waiters cannot disagree: with waiters, both change under the mutex only.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::Ordering;
use std::task::{Poll, Waker};

use super::locked::{Deferred, Locked};
use super::token_queue::TokenQueue;
use super::wait_list::WaiterKey;
use crate::sys::primitives::{AtomicUsize, MutexGuard};

/// Value of `free` while the count is in the queue.
const IN_QUEUE: usize = usize::MAX;

/// Tokens, and the futures that wait for them.
#[derive(Debug)]
pub(super) struct TokenPool {
    /// The number of tokens that may be taken without the queue, or [`IN_QUEUE`].
    free: AtomicUsize,
    queue: Locked<TokenQueue<Waker>>,
}

impl TokenPool {
    /// Creates a pool of `total` free tokens; `None` for no limit.
    pub(super) fn new(total: Option<usize>) -> Self {
        let queue = TokenQueue::new(total);
        TokenPool {
            free: AtomicUsize::new(queue.free_for_all().unwrap_or(IN_QUEUE)),
            queue: Locked::new(queue),
        }
    }

    /// Takes a token if one is free. Then there are no waiters.
    #[inline]
    pub(super) fn try_take(&self) -> bool {
        // Acquire: the writes of the token's last holder are visible to its next one.
        match self.update_free(Ordering::Acquire, |free| free.checked_sub(1)) {
            FastPath::Done => true,
            FastPath::NoneFree => false,
            FastPath::Unavailable => self.lock_queue().try_take(),
        }
    }

    /// Returns a token. The longest waiter, if any, owns it before this returns.
    #[inline]
    pub(super) fn give_back(&self) {
        // Release: pairs with the acquire in `try_take`. The sum never reaches `IN_QUEUE`: there
        // are fewer tokens.
        if let FastPath::Unavailable = self.update_free(Ordering::Release, |free| Some(free + 1)) {
            let next = self.lock_queue().give_back();
            Deferred::wake(next).run();
        }
    }

    /// Locks the queue and moves the count into it, until the guard is dropped.
    pub(super) fn lock_queue(&self) -> QueueGuard<'_> {
        let mut queue = self.queue.lock();
        // Acquire: pairs with returns on the fast path. The mutex orders all others.
        let free = self.free.swap(IN_QUEUE, Ordering::Acquire);
        if free != IN_QUEUE {
            queue.set_free(free);
        }
        QueueGuard {
            free: &self.free,
            queue,
        }
    }

    /// Takes a token if one is free, and joins the queue otherwise.
    #[cold]
    pub(super) fn arrive(&self, waker: &Waker) -> Option<WaiterKey> {
        // Cloned before the mutex is locked, because a clone runs foreign code. An unused clone is
        // dropped after the unlock.
        let waker = waker.clone();
        let mut queue = self.lock_queue();
        if queue.try_take() {
            return None;
        }
        Some(queue.push(waker))
    }

    /// Ready if the waiter has a token; otherwise stores `waker` as the one to wake.
    pub(super) fn poll_granted(&self, key: &WaiterKey, waker: &Waker) -> Poll<()> {
        self.queue
            .poll_granted(waker, |queue| queue.payload_mut(key))
    }

    /// Hands a granted waiter its token.
    pub(super) fn claim(&self, key: WaiterKey) {
        // The fast path stays open: this changes no count.
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

/// The outcome of an attempt on the fast path.
enum FastPath {
    Done,
    /// No token is free.
    NoneFree,
    /// The queue is locked, or has waiters.
    Unavailable,
}

/// The locked queue, with the count in it.
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
        // The mutex is still locked, so the count is always in one of the two places. Release:
        // taking a token on the fast path sees the writes of the holders that returned theirs to
        // the queue.
        if let Some(free) = self.queue.free_for_all() {
            self.free.store(free, Ordering::Release);
        }
    }
}
