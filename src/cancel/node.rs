//! One scope tree behind a lock: [`tree`](super::tree) decides, this file wakes the owners of the
//! nodes that changed.
//!
//! All nodes of one run share one lock. It is held for a few instructions, never while a waker, a
//! future or other code of the user runs. Each node that has an owner mirrors in its [`NodeState`]
//! whether it is cancelled, so that the most frequent question, asked at every poll, is one atomic
//! load.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Instant;

use super::reason::{CancelReason, CancelSource};
use super::tree::{Changed, End, Kind, NodeId, Tree};
use crate::ambient::Run;
use crate::sys::primitives::{AtomicBool, AtomicUsize, AtomicWaker, Mutex, OnceLock, lock};
use crate::sys::unwind;
use crate::time::Timers;

/// The state that the owner of a node shares with the code that cancels it.
#[derive(Debug, Default)]
pub(crate) struct NodeState {
    /// Mirrors the tree's `effective`; written under the tree's lock.
    effective: AtomicBool,
    /// Wakes the task that polls the node's owner.
    pub(crate) waker: AtomicWaker,
    /// Counts for `current_effective_deadline`. No other lock is taken while this one is held.
    deadline: Mutex<Option<Instant>>,
    /// Why the node itself was cancelled; the first reason stays.
    pub(crate) reason: OnceLock<Box<CancelReason>>,
}

impl NodeState {
    pub(crate) fn is_effective(&self) -> bool {
        self.effective.load(Ordering::Acquire)
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        *lock(&self.deadline)
    }

    pub(crate) fn set_deadline(&self, deadline: Option<Instant>) {
        *lock(&self.deadline) = deadline;
    }
}

/// The owner of a node, which contains the node's state.
pub(crate) trait NodeOwner: Send + Sync {
    fn node_state(&self) -> &NodeState;
}

impl NodeOwner for NodeState {
    fn node_state(&self) -> &NodeState {
        self
    }
}

/// The waker for changes of a node.
#[derive(Clone)]
enum NodeWaker {
    /// The owner of the node: a scope, a nursery's block or `on_cancel`.
    Owner(Arc<dyn NodeOwner>),
    /// A nursery's child or body, which the nursery drops when it is woken.
    Child(Waker),
}

/// One scope tree, and the run that it belongs to. Without a run, its time is real time.
pub(crate) struct SharedTree {
    tree: Mutex<Tree<Option<NodeWaker>>>,
    run: Option<Arc<Run>>,
    /// How often a node was cancelled. A waiter looks for a cancellation only if this has changed.
    cancellations: AtomicUsize,
    /// The run's timers, because every scope reads them.
    timers: Option<Arc<Timers>>,
}

impl SharedTree {
    pub(crate) fn new(run: Option<Arc<Run>>) -> Arc<Self> {
        Arc::new(SharedTree {
            tree: Mutex::new(Tree::new()),
            cancellations: AtomicUsize::new(0),
            timers: run.as_ref().and_then(|run| run.get_arc()),
            run,
        })
    }

    pub(crate) fn run(&self) -> Option<&Arc<Run>> {
        self.run.as_ref()
    }

    pub(crate) fn timers(&self) -> Option<&Arc<Timers>> {
        self.timers.as_ref()
    }

    /// Returns the time of the run; without a run, the system's.
    pub(crate) fn now(&self) -> Instant {
        self.timers()
            .map_or_else(Instant::now, |timers| timers.now())
    }

    /// Adds a node. Its creator removes it, usually by way of [`Node`].
    pub(crate) fn add(
        &self,
        parent: Option<NodeId>,
        kind: Kind,
        owner: Option<Arc<dyn NodeOwner>>,
    ) -> NodeId {
        let mut tree = lock(&self.tree);
        let id = tree.add(parent, kind, owner.map(NodeWaker::Owner));
        let effective = tree.is_effective(id);
        if let Some(Some(NodeWaker::Owner(owner))) = tree.payload(id) {
            let state = owner.node_state();
            state.effective.store(effective, Ordering::Release);
        }
        id
    }

    /// Sets the waker that is woken when the node of a nursery's child changes.
    pub(crate) fn set_child_waker(&self, id: NodeId, waker: Waker) {
        let before = lock(&self.tree).replace_payload(id, Some(NodeWaker::Child(waker)));
        // Dropped after the lock is released.
        drop(before);
    }

    pub(crate) fn remove(&self, id: NodeId) -> Wakeups {
        let mut removed = None;
        let wakeups = self.change(|tree, changed| removed = tree.remove(id, changed));
        // Dropped after the lock is released.
        drop(removed);
        wakeups
    }

    /// Moves a node below another one of this tree, or makes it a root. Returns whether it was
    /// moved: a node is not moved below itself.
    pub(super) fn move_below(&self, id: NodeId, parent: Option<NodeId>) -> (bool, Wakeups) {
        let mut moved = false;
        let wakeups = self.change(|tree, changed| moved = tree.move_below(id, parent, changed));
        (moved, wakeups)
    }

    /// Makes a node plain whose content is gone: it makes no ancestor wait, and sees whether one is
    /// cancelled.
    pub(crate) fn set_plain(&self, id: NodeId) -> Wakeups {
        self.change(|tree, changed| {
            tree.set_defers(id, false, changed);
            tree.set_shielded(id, false, changed);
        })
    }

    pub(crate) fn cancel(&self, id: NodeId) -> Wakeups {
        // Before the wake-ups, after which waiters look.
        self.cancellations.fetch_add(1, Ordering::Relaxed);
        self.change(|tree, changed| tree.cancel(id, changed))
    }

    pub(crate) fn set_shielded(&self, id: NodeId, shielded: bool) -> Wakeups {
        self.change(|tree, changed| tree.set_shielded(id, shielded, changed))
    }

    pub(crate) fn set_defers(&self, id: NodeId, defers: bool) -> Wakeups {
        self.change(|tree, changed| tree.set_defers(id, defers, changed))
    }

    pub(crate) fn is_effective(&self, id: NodeId) -> bool {
        lock(&self.tree).is_effective(id)
    }

    /// Decides whether the node's content is dropped now.
    ///
    /// The decision and its record are one step under the lock. Otherwise a shield that is put up
    /// in between could hide a cancellation that has already dropped something.
    fn try_drop(&self, id: NodeId) -> bool {
        let mut tree = lock(&self.tree);
        let must_drop = tree.must_drop(id);
        if must_drop {
            tree.commit(id);
        }
        must_drop
    }

    /// Returns where the cancellation ends that has dropped the node's content. The drop may have
    /// cancelled a node further up, which then absorbs.
    pub(crate) fn end_after_drop(&self, id: NodeId) -> End {
        let mut tree = lock(&self.tree);
        if tree.is_effective(id) {
            tree.commit(id)
        } else {
            End::Here
        }
    }

    /// Decides whether a child or the body of a nursery is dropped now: if the nursery's node is
    /// cancelled, and nothing below the child's own node, if it has one, defers that.
    pub(crate) fn try_drop_child(&self, nursery: NodeId, child: Option<NodeId>) -> Option<End> {
        let mut tree = lock(&self.tree);
        let deferred = child.is_some_and(|child| tree.is_deferred(child));
        (tree.is_effective(nursery) && !deferred).then(|| tree.commit(nursery))
    }

    pub(crate) fn is_deferred(&self, id: NodeId) -> bool {
        lock(&self.tree).is_deferred(id)
    }

    /// Commits the node to its end if it is cancelled; returns whether it is.
    pub(crate) fn commit_if_cancelled(&self, id: NodeId) -> bool {
        let mut tree = lock(&self.tree);
        let cancelled = tree.is_effective(id);
        if cancelled {
            tree.commit(id);
        }
        cancelled
    }

    /// Returns the earliest deadline that cancels code at this node; an error if the node is
    /// cancelled already.
    pub(crate) fn effective_deadline(
        &self,
        id: NodeId,
    ) -> Result<Option<Instant>, AlreadyCancelledError> {
        let tree = lock(&self.tree);
        if tree.is_effective(id) {
            return Err(AlreadyCancelledError);
        }
        let deadlines = tree.visible(id).filter_map(|id| match tree.payload(id)? {
            Some(NodeWaker::Owner(owner)) => owner.node_state().deadline(),
            Some(NodeWaker::Child(_)) | None => None,
        });
        Ok(deadlines.min())
    }

    /// Returns why the node is cancelled, by itself or by an ancestor, through shields too.
    pub(crate) fn reason(&self, id: NodeId) -> Option<CancelReason> {
        let tree = lock(&self.tree);
        let cancelled = tree.ancestry(id).find(|&id| tree.was_cancelled(id))?;
        match tree.payload(cancelled)? {
            Some(NodeWaker::Owner(owner)) => {
                let reason = owner.node_state().reason.get();
                reason.map(|reason| (**reason).clone())
            }
            // The node of a child is cancelled by `Task::cancel` only.
            Some(NodeWaker::Child(_)) | None => Some(CancelReason::new(CancelSource::Task)),
        }
    }

    pub(super) fn cancellations(&self) -> usize {
        self.cancellations.load(Ordering::Relaxed)
    }

    /// Returns whether the node or an ancestor was cancelled, through shields too, and by what.
    pub(super) fn cancellation(&self, id: NodeId) -> Option<Cancellation> {
        let tree = lock(&self.tree);
        let mut cancelled = tree.ancestry(id).filter(|&id| tree.was_cancelled(id));
        let is_by_ctrl_c = |id| match tree.payload(id) {
            Some(Some(NodeWaker::Owner(owner))) => {
                let reason = owner.node_state().reason.get();
                reason.is_some_and(|reason| reason.source() == CancelSource::CtrlC)
            }
            Some(Some(NodeWaker::Child(_)) | None) | None => false,
        };
        let innermost = cancelled.next()?;
        Some(Cancellation {
            by_ctrl_c: is_by_ctrl_c(innermost) || cancelled.any(is_by_ctrl_c),
        })
    }

    /// Returns whether there is a shield below the node. (A scope with a shield does not count.)
    pub(super) fn has_shield_below(&self, id: NodeId) -> bool {
        let tree = lock(&self.tree);
        tree.below(id)
            .any(|id| tree.is_shielded(id) && matches!(tree.payload(id), Some(None)))
    }

    /// Changes the tree, and updates the states of the nodes that changed.
    fn change(&self, act: impl FnOnce(&mut Tree<Option<NodeWaker>>, &mut Changed)) -> Wakeups {
        let mut changed = Changed::new();
        let mut tree = lock(&self.tree);
        act(&mut tree, &mut changed);
        let mut wakers = Vec::with_capacity(changed.len());
        for id in changed {
            let effective = tree.is_effective(id);
            let Some(Some(waker)) = tree.payload(id) else {
                continue;
            };
            if let NodeWaker::Owner(owner) = waker {
                let state = owner.node_state();
                state.effective.store(effective, Ordering::Release);
            }
            wakers.push(waker.clone());
        }
        Wakeups(wakers)
    }
}

/// The wake-ups that a change causes. Wakers are foreign code, so they are woken after the lock is
/// released.
#[must_use]
pub(crate) struct Wakeups(Vec<NodeWaker>);

impl Wakeups {
    pub(crate) fn now(self) {
        unwind::for_each(self.0, |waker| match waker {
            NodeWaker::Owner(owner) => owner.node_state().waker.wake(),
            NodeWaker::Child(waker) => waker.wake(),
        });
    }
}

impl fmt::Debug for SharedTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedTree")
            .field("nodes", &lock(&self.tree).len())
            .finish_non_exhaustive()
    }
}

/// A cancellation that reaches a node, or that a shield keeps off.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cancellation {
    /// It, or another one further out, is that of the run by Ctrl-C.
    pub(super) by_ctrl_c: bool,
}

/// The code in question is cancelled already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AlreadyCancelledError;

/// A node that is removed from its tree when this is dropped.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) shared: Arc<SharedTree>,
    pub(crate) id: NodeId,
    /// The node above it; `None` for a root. Nothing else moves the node, and the id is not used
    /// for another node before this one is moved or removed.
    pub(crate) parent: Option<NodeId>,
}

impl Node {
    /// Adds a node below another one, at which it stays.
    pub(crate) fn below(shared: &Arc<SharedTree>, parent: NodeId, kind: Kind) -> Self {
        Node {
            id: shared.add(Some(parent), kind, None),
            shared: shared.clone(),
            parent: Some(parent),
        }
    }

    /// Decides whether the node's content is dropped now.
    pub(crate) fn try_drop(&self) -> bool {
        self.shared.try_drop(self.id)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shared.remove(self.id).now();
    }
}
