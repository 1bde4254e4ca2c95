//! The tasks that a change of the pool wakes.

use std::sync::Arc;

use super::state::Slot;
use crate::delayed::error::JobError;
use crate::delayed::value::watcher::Watcher;
use crate::sync::Event;

/// A task that waits for a change of the pool.
pub(super) enum Waiter {
    /// Reads the statistics.
    Observer(Event),
    /// Waits for a job that cannot start before the wait has ended.
    InDeadlock(Arc<Watcher>, JobError),
    /// Has its allocation, or was refused.
    Job(Arc<Slot>),
}

impl Waiter {
    /// Tells the task. Called without a lock, as wakers are foreign code.
    pub(super) fn wake(self) {
        match self {
            Self::Observer(event) => event.set(),
            Self::InDeadlock(watcher, error) => watcher.give_up(error),
            Self::Job(slot) => slot.waker.wake(),
        }
    }
}
