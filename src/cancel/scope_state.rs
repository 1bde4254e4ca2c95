//! The state that all handles of one `CancelScope` and the future that runs in it share.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::node::{NodeOwner, NodeState, SharedTree, Wakeups};
use super::reason::{CancelReason, CancelSource};
use super::tree::{Kind, NodeId};
use crate::sys::primitives::{AtomicBool, Mutex, lock};
use crate::time::{Timers, current_time};

#[derive(Default)]
pub(super) struct ScopeState {
    /// Has a reason once the scope was cancelled, which is never taken back.
    pub(super) node: NodeState,
    phase: Mutex<Phase>,
    /// Whether a deadline was ever set. Scopes without one never read the clock.
    timed: AtomicBool,
}

enum Phase {
    /// Not polled yet. The settings are kept for the node.
    New {
        shield: bool,
        timeout: Option<Duration>,
    },
    /// Being polled for the first time, with a pending node. `timers` are the run's if its clock is
    /// not the system's.
    FirstPoll {
        shield: bool,
        timers: Option<Arc<Timers>>,
    },
    /// Being polled, with a node. The driver leaves this phase, under the same lock, before it
    /// removes the node.
    InTree {
        tree: Arc<SharedTree>,
        id: NodeId,
    },
    Ended,
}

impl Default for Phase {
    fn default() -> Self {
        Phase::New {
            shield: false,
            timeout: None,
        }
    }
}

/// A scope that has begun was to begin again.
#[derive(Debug)]
pub(super) struct RunTwiceError;

impl NodeOwner for ScopeState {
    fn node_state(&self) -> &NodeState {
        &self.node
    }
}

impl ScopeState {
    /// Begins the scope in this tree. Returns the timeout that counts from now.
    pub(super) fn begin(&self, tree: &Arc<SharedTree>) -> Result<Option<Duration>, RunTwiceError> {
        let mut phase = lock(&self.phase);
        let Phase::New { shield, timeout } = *phase else {
            return Err(RunTwiceError);
        };
        let timers = tree.timers().filter(|timers| !timers.are_real());
        *phase = Phase::FirstPoll {
            shield,
            timers: timers.cloned(),
        };
        Ok(timeout)
    }

    /// Starts the timeout, and cancels the scope if its deadline has passed.
    pub(super) fn begin_deadline(&self, timeout: Option<Duration>) {
        let now = self.now();
        if let Some(timeout) = timeout {
            self.node.set_deadline(now.checked_add(timeout));
            self.timed.store(true, Ordering::Release);
        }
        if self.node.deadline().is_some_and(|deadline| deadline <= now) {
            self.expire();
        }
    }

    /// Adds the scope's node to the tree, below `parent`. Wakes no task: the driver looks at the
    /// scope after the poll.
    pub(super) fn add_to(
        self: &Arc<Self>,
        tree: &Arc<SharedTree>,
        parent: Option<NodeId>,
    ) -> NodeId {
        let mut phase = lock(&self.phase);
        let shield = matches!(*phase, Phase::FirstPoll { shield: true, .. });
        let kind = if shield { Kind::Shield } else { Kind::Plain };
        let id = tree.add(parent, kind, Some(self.clone()));
        if self.was_cancelled() {
            // There is no waker yet: nothing is below the node, and the driver has not registered.
            let _none = tree.cancel(id);
        }
        *phase = Phase::InTree {
            tree: tree.clone(),
            id,
        };
        id
    }

    /// Ends the scope. The caller removes the node afterwards, so no other thread finds a node that
    /// is gone.
    pub(super) fn end(&self) {
        let mut phase = lock(&self.phase);
        if let Phase::FirstPoll { timers: None, .. } = *phase {
            *phase = Phase::Ended;
            return;
        }
        let before = std::mem::replace(&mut *phase, Phase::Ended);
        drop(phase);
        // Dropped after the lock is released.
        drop(before);
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(*lock(&self.phase), Phase::Ended)
    }

    /// Returns whether the scope is being polled for the first time, without a node.
    pub(super) fn is_in_first_poll(&self) -> bool {
        matches!(*lock(&self.phase), Phase::FirstPoll { .. })
    }

    /// Returns what the phase is called in `Debug`.
    pub(super) fn phase_name(&self) -> &'static str {
        match &*lock(&self.phase) {
            Phase::New { .. } => "not entered",
            Phase::FirstPoll { .. } | Phase::InTree { .. } => "running",
            Phase::Ended => "ended",
        }
    }

    /// Returns the time of the run that the scope runs in, on any thread. Before and after it runs,
    /// returns the time of the caller's run.
    pub(super) fn now(&self) -> Instant {
        let timers = match &*lock(&self.phase) {
            Phase::New { .. } | Phase::Ended => return current_time(),
            Phase::FirstPoll { timers, .. } => timers.clone(),
            Phase::InTree { tree, .. } => tree.timers().cloned(),
        };
        timers.map_or_else(Instant::now, |timers| timers.now())
    }

    pub(super) fn cancel(&self, reason: CancelReason) {
        let first = self.node.reason.set(Box::new(reason)).is_ok();
        self.change(|tree, id| tree.cancel(id));
        if first && let Some(reason) = self.node.reason.get() {
            tracing::debug!(%reason, "a cancel scope was cancelled");
        }
    }

    /// Cancels the scope because its deadline has passed.
    pub(super) fn expire(&self) {
        self.cancel(CancelReason::new(CancelSource::Deadline));
    }

    /// Returns whether the scope was cancelled. Does not read the clock.
    pub(super) fn was_cancelled(&self) -> bool {
        self.node.reason.get().is_some()
    }

    /// Returns why the scope is cancelled: by itself, or, while it has a node, by an ancestor.
    pub(super) fn reason(&self) -> Option<CancelReason> {
        let own = self.node.reason.get().map(|reason| (**reason).clone());
        own.or_else(|| match &*lock(&self.phase) {
            Phase::InTree { tree, id } if self.node.is_effective() => tree.reason(*id),
            _ => None,
        })
    }

    /// Returns whether the scope has or had a deadline.
    pub(super) fn is_timed(&self) -> bool {
        self.timed.load(Ordering::Acquire)
    }

    pub(super) fn set_deadline(&self, deadline: Option<Instant>) {
        if let Phase::New { timeout, .. } = &mut *lock(&self.phase) {
            *timeout = None;
        }
        self.node.set_deadline(deadline);
        self.timed.store(true, Ordering::Release);
        self.node.waker.wake();
    }

    pub(super) fn set_timeout(&self, timeout: Duration) {
        if let Phase::New { timeout: slot, .. } = &mut *lock(&self.phase) {
            *slot = Some(timeout);
            self.node.set_deadline(None);
            return;
        }
        self.set_deadline(self.now().checked_add(timeout));
    }

    pub(super) fn set_shielded(&self, shielded: bool) {
        if let Phase::New { shield, .. } | Phase::FirstPoll { shield, .. } = &mut *lock(&self.phase)
        {
            *shield = shielded;
            return;
        }
        self.change(|tree, id| tree.set_shielded(id, shielded));
    }

    /// Makes the scopes around wait for the end of this one.
    pub(super) fn defer_ancestors(&self) {
        self.change(|tree, id| tree.set_defers(id, true));
    }

    /// Changes the scope's node, if it has one, and wakes the tasks that this concerns.
    fn change(&self, act: impl FnOnce(&SharedTree, NodeId) -> Wakeups) {
        let wakeups = match &*lock(&self.phase) {
            Phase::InTree { tree, id } => Some(act(tree, *id)),
            Phase::New { .. } | Phase::FirstPoll { .. } | Phase::Ended => None,
        };
        if let Some(wakeups) = wakeups {
            wakeups.now();
        }
    }
}
