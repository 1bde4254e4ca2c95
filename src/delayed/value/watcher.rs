//! The part of an evaluation that it leaves at each node that it waits for.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use atomic_waker::AtomicWaker;

use crate::delayed::error::JobError;

/// Counts the nodes that an evaluation waits for, and wakes it when all have values or one has
/// failed.
pub(in crate::delayed) struct Watcher {
    waker: AtomicWaker,
    /// The number of nodes without a result, and one for the evaluation while it adds nodes.
    pending: AtomicUsize,
    failure: OnceLock<JobError>,
}

impl Watcher {
    pub(in crate::delayed) fn new() -> Self {
        Self {
            waker: AtomicWaker::new(),
            pending: AtomicUsize::new(1),
            failure: OnceLock::new(),
        }
    }

    /// Counts a node, which will call [`settled`](Self::settled).
    pub(super) fn expect_one(&self) {
        self.pending.fetch_add(1, Ordering::Relaxed);
    }

    /// Records that a node has its result, or that the evaluation has added all nodes.
    pub(super) fn settled(&self, failure: Option<&JobError>) {
        if let Some(failure) = failure {
            let _ = self.failure.set(failure.clone()); // the first is kept; owners report the others
        }
        let left = self.pending.fetch_sub(1, Ordering::AcqRel) - 1;
        if left == 0 || failure.is_some() {
            self.waker.wake();
        }
    }

    /// Ends the wait with an error that no node has. Wakes nothing, so that it can be called with a
    /// lock; [`wake`](Self::wake) follows.
    pub(in crate::delayed) fn give_up(&self, error: JobError) {
        let _ = self.failure.set(error); // an error of a node comes first
    }

    pub(in crate::delayed) fn wake(&self) {
        self.waker.wake();
    }

    /// Returns whether the wait has ended. The evaluation may not have been polled since.
    pub(in crate::delayed) fn has_ended(&self) -> bool {
        self.failure.get().is_some() || self.pending.load(Ordering::Acquire) == 0
    }

    /// Waits until all nodes have values, or one has failed.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<(), JobError>> {
        self.waker.register(cx.waker());
        if let Some(failure) = self.failure.get() {
            return Poll::Ready(Err(failure.clone()));
        }
        match self.pending.load(Ordering::Acquire) {
            0 => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
    }
}

/// The watchers of a node.
#[derive(Default)]
pub(super) struct Watchers {
    list: Vec<Arc<Watcher>>,
    /// The length at which watchers of dropped evaluations are removed.
    prune_at: usize,
}

impl Watchers {
    /// Adds a watcher. Returns those that were removed, to be dropped without a lock: their wakers
    /// are foreign code.
    #[must_use]
    pub(super) fn add(&mut self, watcher: &Arc<Watcher>) -> Vec<Arc<Watcher>> {
        let mut removed = Vec::new();
        if self.list.len() >= self.prune_at {
            let is_dropped = |watcher: &mut Arc<Watcher>| Arc::strong_count(watcher) == 1;
            removed = self.list.extract_if(.., is_dropped).collect();
            self.prune_at = (2 * self.list.len()).max(4);
        }
        self.list.push(watcher.clone());
        removed
    }

    /// Tells all watchers that the node has its result.
    pub(super) fn settle(self, failure: Option<&JobError>) {
        crate::sys::unwind::for_each(self.list, |watcher| watcher.settled(failure));
    }
}
