//! What senders and receivers have in common: a handle to a channel.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;

use super::core::{Core, HandleId};
use crate::sync::locked::Locked;
use crate::sys::primitives::{AtomicBool, AtomicUsize};

/// What both sides' handles have in common. Its atomics change only under the mutex of the core.
pub(super) struct Handle<T> {
    pub(super) core: Arc<Locked<Core<T, Waker>>>,
    pub(super) id: HandleId,
    closed: AtomicBool,
    /// Number of waiters that were drawn for this handle and not given back: 0 if nobody is blocked on it, so that
    /// closing need not look through the queue.
    waiters: AtomicUsize,
}

impl<T> Handle<T> {
    pub(super) fn new(core: Arc<Locked<Core<T, Waker>>>, id: HandleId, closed: bool) -> Self {
        Handle {
            core,
            id,
            closed: AtomicBool::new(closed),
            waiters: AtomicUsize::new(0),
        }
    }

    /// A handle to the same channel; closed if this one is. `open` opens one.
    pub(super) fn another(&self, open: impl Fn(&mut Core<T, Waker>) -> HandleId) -> Self {
        let mut core = self.core.lock();
        let closed = self.is_closed();
        let id = if closed {
            core.next_handle()
        } else {
            open(&mut core)
        };
        drop(core);
        Handle::new(self.core.clone(), id, closed)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Marks it closed, under the mutex; `None` if it was. Otherwise, whether anybody may be blocked on it.
    pub(super) fn mark_closed(&self) -> Option<bool> {
        let was_closed = self.closed.swap(true, Ordering::Relaxed);
        (!was_closed).then(|| self.waiters.load(Ordering::Relaxed) > 0)
    }

    /// Counts a key, under the mutex.
    pub(super) fn count_waiter(&self) {
        self.waiters.fetch_add(1, Ordering::Relaxed);
    }

    /// No longer counts one, under the mutex.
    pub(super) fn uncount_waiter(&self) {
        self.waiters.fetch_sub(1, Ordering::Relaxed);
    }
}
