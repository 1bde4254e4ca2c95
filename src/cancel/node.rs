//! Drives [`tree`](super::tree): puts it behind a lock, carries out its wake-ups, gives nodes back when dropped.
//!
//! All nodes of one run share one lock. It is held for a few instructions, never while a waker, a future or anything
//! else of the user's runs. Whether a node is cancelled is mirrored in its [`Cell`], so that the common question, asked
//! at every poll, is one load.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Instant;

use super::reason::{CancelReason, CancelSource};
use super::tree::{Changed, End, Kind, NodeId, Tree};
use crate::run_var::Variables;
use crate::sys::primitives::{AtomicBool, AtomicWaker, Mutex, OnceLock, lock};
use crate::time::Timers;

/// What a node's owner and those who cancel it share.
#[derive(Debug, Default)]
pub(crate) struct Cell {
    /// The tree's `effective`, written under the tree's lock.
    effective: AtomicBool,
    /// Whoever polls the node's owner.
    pub(crate) waker: AtomicWaker,
    /// Counts for `current_effective_deadline`. Its lock is a leaf: nothing else is locked while it is held.
    deadline: Mutex<Option<Instant>>,
    /// Why the node was cancelled itself; the first cause stays.
    pub(crate) reason: OnceLock<Box<CancelReason>>,
}

impl Cell {
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

/// Whoever drives a node, with the cell in it.
pub(crate) trait Watched: Send + Sync {
    fn cell(&self) -> &Cell;
}

impl Watched for Cell {
    fn cell(&self) -> &Cell {
        self
    }
}

/// Whom a node's changes concern.
#[derive(Clone)]
enum Watcher {
    /// Whoever drives the node: a scope, a nursery's block, `on_cancel`.
    Driver(Arc<dyn Watched>),
    /// A nursery's child or body. The nursery decides over it, whenever it is woken.
    Child(Waker),
}

/// One scope tree, and the run that it belongs to (none: real time).
pub(crate) struct Shared {
    tree: Mutex<Tree<Option<Watcher>>>,
    run: Option<OfRun>,
}

/// What a run has, for whoever is polled in it.
pub(crate) struct OfRun {
    timers: Arc<Timers>,
    variables: Variables,
    /// The way in from outside, which belongs to the module `run`.
    entrance: Arc<dyn Any + Send + Sync>,
}

impl OfRun {
    pub(crate) fn new(timers: Arc<Timers>, entrance: Arc<dyn Any + Send + Sync>) -> Self {
        OfRun {
            timers,
            variables: Variables::default(),
            entrance,
        }
    }

    pub(crate) fn timers(&self) -> &Arc<Timers> {
        &self.timers
    }

    pub(crate) fn variables(&self) -> &Variables {
        &self.variables
    }

    pub(crate) fn entrance(&self) -> &Arc<dyn Any + Send + Sync> {
        &self.entrance
    }
}

impl Shared {
    pub(crate) fn new(run: Option<OfRun>) -> Arc<Self> {
        Arc::new(Shared {
            tree: Mutex::new(Tree::new()),
            run,
        })
    }

    pub(crate) fn run(&self) -> Option<&OfRun> {
        self.run.as_ref()
    }

    pub(crate) fn timers(&self) -> Option<&Arc<Timers>> {
        self.run().map(OfRun::timers)
    }

    /// The time of the run; without one, the system's.
    pub(crate) fn now(&self) -> Instant {
        self.timers()
            .map_or_else(Instant::now, |timers| timers.now())
    }

    /// Adds a node. Its owner removes it, usually by way of [`Node`].
    pub(crate) fn add(
        &self,
        parent: Option<NodeId>,
        kind: Kind,
        watched: Option<Arc<dyn Watched>>,
    ) -> NodeId {
        let mut tree = lock(&self.tree);
        let id = tree.add(parent, kind, watched.map(Watcher::Driver));
        let effective = tree.is_effective(id);
        if let Some(Watcher::Driver(watched)) = tree.payload(id) {
            watched.cell().effective.store(effective, Ordering::Release);
        }
        id
    }

    /// Says who is to be woken when something changes for a nursery's child.
    pub(crate) fn set_child_waker(&self, id: NodeId, waker: Waker) {
        let before = lock(&self.tree).replace_payload(id, Some(Watcher::Child(waker)));
        // Dropped here, where no lock is held.
        drop(before);
    }

    pub(crate) fn remove(&self, id: NodeId) -> Wake {
        let mut removed = None;
        let wake = self.change(|tree, changed| removed = tree.remove(id, changed));
        // Dropped here, where no lock is held.
        drop(removed);
        wake
    }

    pub(crate) fn cancel(&self, id: NodeId) -> Wake {
        self.change(|tree, changed| tree.cancel(id, changed))
    }

    pub(crate) fn set_hides(&self, id: NodeId, hides: bool) -> Wake {
        self.change(|tree, changed| tree.set_hides(id, hides, changed))
    }

    pub(crate) fn set_holds(&self, id: NodeId, holds: bool) -> Wake {
        self.change(|tree, changed| tree.set_holds(id, holds, changed))
    }

    pub(crate) fn is_effective(&self, id: NodeId) -> bool {
        lock(&self.tree).is_effective(id)
    }

    /// If the node's content is to be dropped now, decides that it will be, and says where the cancellation ends.
    ///
    /// Deciding and recording are one step under the lock: a shield that is put up in between would otherwise hide a
    /// cancellation that has already taken its toll.
    pub(crate) fn try_drop(&self, id: NodeId) -> Option<End> {
        let mut tree = lock(&self.tree);
        tree.must_drop(id).then(|| tree.dropped(id))
    }

    /// The same for a nursery's child, or body: decides by the nursery's node and by what holds the child's own.
    pub(crate) fn try_drop_child(&self, nursery: NodeId, child: Option<NodeId>) -> Option<End> {
        let mut tree = lock(&self.tree);
        let held = child.is_some_and(|child| tree.is_held(child));
        (tree.is_effective(nursery) && !held).then(|| tree.dropped(nursery))
    }

    pub(crate) fn is_held(&self, id: NodeId) -> bool {
        lock(&self.tree).is_held(id)
    }

    /// Dooms a node that is cancelled. False, and nothing done, if it is not.
    pub(crate) fn give_up(&self, id: NodeId) -> bool {
        let mut tree = lock(&self.tree);
        let cancelled = tree.is_effective(id);
        if cancelled {
            tree.dropped(id);
        }
        cancelled
    }

    /// The earliest deadline that cancels code at this node; `Err` if it is cancelled already.
    pub(crate) fn effective_deadline(
        &self,
        id: NodeId,
    ) -> Result<Option<Instant>, AlreadyCancelled> {
        let tree = lock(&self.tree);
        if tree.is_effective(id) {
            return Err(AlreadyCancelled);
        }
        let deadlines = tree.visible(id).filter_map(|id| match tree.payload(id) {
            Some(Watcher::Driver(watched)) => watched.cell().deadline(),
            Some(Watcher::Child(_)) | None => None,
        });
        Ok(deadlines.min())
    }

    /// Why the node is cancelled, by itself or by what is above it, shields or not.
    pub(crate) fn reason(&self, id: NodeId) -> Option<CancelReason> {
        let tree = lock(&self.tree);
        let cancelled = tree.ancestry(id).find(|&id| tree.is_own(id))?;
        match tree.payload(cancelled) {
            Some(Watcher::Driver(watched)) => {
                watched.cell().reason.get().map(|reason| (**reason).clone())
            }
            // Only its task can cancel a child by itself.
            Some(Watcher::Child(_)) | None => Some(CancelReason::new(CancelSource::Task)),
        }
    }

    /// Changes the tree and brings the cells up to date.
    fn change(&self, act: impl FnOnce(&mut Tree<Option<Watcher>>, &mut Changed)) -> Wake {
        let mut changed = Changed::new();
        let mut tree = lock(&self.tree);
        act(&mut tree, &mut changed);
        let mut concerned = Vec::with_capacity(changed.len());
        for id in changed {
            let effective = tree.is_effective(id);
            let watcher = tree.payload(id);
            if let Some(Watcher::Driver(watched)) = watcher {
                watched.cell().effective.store(effective, Ordering::Release);
            }
            concerned.extend(watcher.clone());
        }
        Wake(concerned)
    }
}

/// Whoever has to look again after a change. Waking runs foreign code, so it is done when no lock is held.
#[must_use]
pub(crate) struct Wake(Vec<Watcher>);

impl Wake {
    pub(crate) fn now(self) {
        for watcher in self.0 {
            match watcher {
                Watcher::Driver(watched) => watched.cell().waker.wake(),
                Watcher::Child(waker) => waker.wake(),
            }
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("nodes", &lock(&self.tree).len())
            .finish_non_exhaustive()
    }
}

/// The code in question is cancelled already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AlreadyCancelled;

/// A node that is removed when dropped.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) shared: Arc<Shared>,
    pub(crate) id: NodeId,
}

impl Node {
    pub(crate) fn try_drop(&self) -> Option<End> {
        self.shared.try_drop(self.id)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shared.remove(self.id).now();
    }
}
