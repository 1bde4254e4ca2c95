//! The common part of senders and receivers: a handle to a channel.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;

use super::core::{Core, HandleId};
use crate::sync::locked::Locked;
use crate::sys::primitives::{AtomicBool, AtomicUsize};

/// A handle to a channel. Its atomics change only under the mutex of the core.
pub(super) struct Handle<T> {
    pub(super) core: Arc<Locked<Core<T, Waker>>>,
    pub(super) id: HandleId,
    closed: AtomicBool,
    /// Number of futures that wait on this handle. If it is 0, `close` need not search the queue.
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

    /// Creates another handle to the same channel with `open`; a closed one if this one is closed.
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

    /// Marks the handle closed, under the mutex. `None` if it was closed already; otherwise,
    /// whether futures may wait on it.
    pub(super) fn mark_closed(&self) -> Option<bool> {
        let was_closed = self.closed.swap(true, Ordering::Relaxed);
        (!was_closed).then(|| self.waiters.load(Ordering::Relaxed) > 0)
    }

    /// Counts one more waiter, under the mutex.
    pub(super) fn count_waiter(&self) {
        self.waiters.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one waiter less, under the mutex.
    pub(super) fn uncount_waiter(&self) {
        self.waiters.fetch_sub(1, Ordering::Relaxed);
    }
}
