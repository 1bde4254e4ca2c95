//! The tasks that a change of the pool wakes.

use std::sync::Arc;

use super::state::Slot;
use crate::delayed::value::watcher::Watcher;
use crate::sync::Event;

/// A task that waits for a change of the pool.
pub(super) enum Waiter {
    /// Reads the statistics.
    Observer(Event),
    /// Waited for a job that cannot start before the wait has ended; its watcher has an error.
    InDeadlock(Arc<Watcher>),
    /// Has its allocation, or was refused.
    Job(Arc<Slot>),
}

impl Waiter {
    /// Tells the task. Called without a lock, as wakers are foreign code.
    pub(super) fn wake(self) {
        match self {
            Self::Observer(event) => event.set(),
            Self::InDeadlock(watcher) => watcher.wake(),
            Self::Job(slot) => slot.waker.wake(),
        }
    }
}
