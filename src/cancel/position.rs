//! The position of the code that this thread is polling in the scope tree.
//!
//! A future that has a node polls its content within [`enter`]. A future that is polled for the
//! first time polls it at a *pending* node instead: most scopes and shields, and most children of a
//! nursery, end without waiting, and then their node is never added to the tree. The pending nodes
//! of a thread are added, outermost first, when code below them [`attach`]es a node, asks whether
//! it is cancelled, or has to wait.
//!
//! Adding a node late changes nothing that others can see. Until the first poll is over, no other
//! code can drop the future: everything around it is being polled on the same stack and decides
//! afterwards. (The parent of a child on an executor is polled elsewhere. If it is cancelled during
//! the child's first poll, the effect is the same as if it had been cancelled just before.)
//!
//! A future that is awaited by reference, in a `FuturesUnordered` or in a `Shared` may be polled at
//! another position next time. It belongs to the code that polls it, so its node [`follow`]s it
//! there. In the usual case this is a comparison.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use super::node::{AlreadyCancelledError, Node, NodeOwner, SharedTree};
use super::reason::CancelReason;
use super::scope_state::ScopeState;
use super::tree::{Kind, NodeId};
use crate::ambient;
use crate::sys::role::refuse_unless_hooked;

thread_local! {
    static POSITION: Position = const { Position {
        tree: RefCell::new(None),
        levels: RefCell::new(Vec::new()),
        child: Cell::new(Child::None),
    } };
}

/// This thread's position in a tree.
struct Position {
    /// The tree of the innermost level. Its run is the thread's current run.
    tree: RefCell<Option<Arc<SharedTree>>>,
    /// The nodes that are being polled, innermost last. Pending nodes follow a node that exists, or
    /// one above the root.
    levels: RefCell<Vec<Level>>,
    /// The child or body of the innermost level, if that is a nursery. It has no level of its own,
    /// because it changes too often.
    child: Cell<Child>,
}

struct Level {
    at: LevelNode,
    /// The child, of the level outside of this one, that this level is in.
    inside: Child,
}

enum LevelNode {
    /// Nodes that are added here become roots.
    AboveRoot,
    Added(NodeId),
    Pending(PendingNode),
}

/// The child or body that a nursery is polling.
#[derive(Clone, Copy)]
enum Child {
    None,
    /// It has no node yet.
    Pending,
    Added(NodeId),
}

impl Child {
    /// Returns the child's node, which is added below that of the nursery if it is pending. Without
    /// a child, returns the node of the nursery.
    fn ensure_node(&mut self, tree: &SharedTree, nursery: Option<NodeId>) -> Option<NodeId> {
        if let Child::Pending = self {
            *self = Child::Added(tree.add(nursery, Kind::Plain, None));
        }
        match *self {
            Child::Added(node) => Some(node),
            Child::None | Child::Pending => nursery,
        }
    }
}

/// A node that is added to the tree once it is needed.
pub(super) enum PendingNode {
    Scope(Arc<ScopeState>),
    Shield,
}

impl PendingNode {
    /// Adds the node. Runs no foreign code, because a new node wakes no task.
    fn add_to(&self, tree: &Arc<SharedTree>, parent: Option<NodeId>) -> NodeId {
        match self {
            PendingNode::Scope(scope) => scope.add_to(tree, parent),
            PendingNode::Shield => tree.add(parent, Kind::Shield, None),
        }
    }
}

/// The thread's tree before another one was entered; `None` if the tree has not changed.
type Around = Option<Option<Arc<SharedTree>>>;

/// Does something with this thread's position. `None` if the thread is ending.
#[inline]
fn with<T>(act: impl FnOnce(&Position) -> T) -> Option<T> {
    POSITION.try_with(act).ok()
}

/// Leaves the node that was entered when it is dropped, also when a poll panics.
#[must_use]
pub(crate) struct Entered {
    around: Around,
}

/// Sets this thread's position to `node` until the guard is dropped.
pub(crate) fn enter(tree: &Arc<SharedTree>, node: NodeId) -> Entered {
    Entered {
        around: with(|position| position.enter(tree, LevelNode::Added(node))).flatten(),
    }
}

/// Moves a node below this thread's position if its future was last polled at another one. Each
/// poll of a future that has a node begins with this.
#[inline]
pub(crate) fn follow(node: &mut Node) {
    follow_shared(&node.shared, node.id, &mut node.parent);
}

/// Moves a node like [`follow`], for the one owner of the node that keeps its `parent`.
#[inline]
pub(crate) fn follow_shared(tree: &Arc<SharedTree>, id: NodeId, parent: &mut Option<NodeId>) {
    with(|position| {
        if !position.is_at(tree, *parent) {
            position.pull(tree, id, parent);
        }
    });
}

/// Sets this thread's position to above the roots of a tree until the guard is dropped.
pub(crate) fn enter_above_root(tree: &Arc<SharedTree>) -> Entered {
    Entered {
        around: with(|position| position.enter(tree, LevelNode::AboveRoot)).flatten(),
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        with(|position| {
            position.pop();
            position.leave_tree(&mut self.around);
        });
    }
}

/// Polls at the node in `slot`. The first time, polls at the pending node that `begin` makes for
/// this thread's tree, and stores it in `slot` afterwards if it was added: because code below
/// needed it, or because the poll was not the last.
///
/// # Errors
///
/// The error of `begin`; then nothing was polled.
pub(super) fn poll_at<T, E>(
    slot: &mut Option<Node>,
    begin: impl FnOnce(&Arc<SharedTree>) -> Result<PendingNode, E>,
    poll: impl FnOnce() -> Poll<T>,
) -> Result<Poll<T>, E> {
    if let Some(node) = slot {
        follow(node);
        let _entered = enter(&node.shared, node.id);
        return Ok(poll());
    }
    let mut pending = EnteredPending::new(slot, begin)?;
    let polled = poll();
    pending.ended = polled.is_ready();
    Ok(polled)
}

/// Whether this thread is ending and has no position any more, so that no scope or shield can be
/// polled here: this is the destructor of a thread-local.
#[cfg(all(feature = "workers", target_os = "linux"))]
pub(crate) fn is_thread_ending() -> bool {
    POSITION.try_with(|_| ()).is_err()
}

/// Keeps this thread's position at a pending node until it is dropped; then stores the node, if it
/// was added.
struct EnteredPending<'a> {
    slot: &'a mut Option<Node>,
    around: Around,
    /// The future is not polled again, so it needs no node. False after a panic: the future may be
    /// polled again, by another thread.
    ended: bool,
}

impl<'a> EnteredPending<'a> {
    /// `begin` runs no foreign code, so it does not panic while the tree is borrowed.
    fn new<E>(
        slot: &'a mut Option<Node>,
        begin: impl FnOnce(&Arc<SharedTree>) -> Result<PendingNode, E>,
    ) -> Result<Self, E> {
        POSITION.with(|position| {
            let tree = position.tree.borrow();
            let (pending, around) = match &*tree {
                Some(tree) => (begin(tree)?, None),
                None => {
                    drop(tree);
                    let new = new_tree();
                    let pending = begin(&new)?;
                    // It has no run, as this thread has none.
                    (pending, Some(position.tree.replace(Some(new))))
                }
            };
            position.push(LevelNode::Pending(pending));
            Ok(EnteredPending {
                slot,
                around,
                ended: false,
            })
        })
    }
}

impl Drop for EnteredPending<'_> {
    fn drop(&mut self) {
        POSITION.with(|position| {
            if !self.ended {
                add_pending(position);
            }
            if let Some(id) = position.pop() {
                let shared = position.tree.borrow().clone();
                let shared = shared.expect("set for as long as a level is entered");
                let parent = position.innermost().flatten();
                *self.slot = Some(Node { shared, id, parent });
            }
            position.leave_tree(&mut self.around);
        });
    }
}

impl Position {
    #[inline]
    fn push(&self, at: LevelNode) {
        let inside = self.child.replace(Child::None);
        self.levels.borrow_mut().push(Level { at, inside });
    }

    /// Leaves the innermost level, and returns its node if it has one. Runs no foreign code,
    /// because the future that is being polled keeps the scope of a pending node.
    #[inline]
    fn pop(&self) -> Option<NodeId> {
        let mut levels = self.levels.borrow_mut();
        let Some(Level { at, inside }) = levels.last() else {
            unreachable!("levels are left in the reverse order of entering")
        };
        self.child.set(*inside);
        let node = match at {
            LevelNode::Added(node) => Some(*node),
            LevelNode::AboveRoot | LevelNode::Pending(_) => None,
        };
        // The level is dropped in place: moving it out costs more than the rest of this function.
        let left = levels.len() - 1;
        levels.truncate(left);
        node
    }

    /// Returns whether this is the position below `parent`, or above the roots of `tree`. A root is
    /// also where it belongs if this thread has no tree.
    #[inline]
    fn is_at(&self, tree: &Arc<SharedTree>, parent: Option<NodeId>) -> bool {
        match &*self.tree.borrow() {
            Some(current) => Arc::ptr_eq(current, tree) && self.innermost() == Some(parent),
            None => parent.is_none(),
        }
    }

    /// Returns the node below which a new one is added, if no pending node is in between. The inner
    /// `None` is above the roots.
    #[inline]
    fn innermost(&self) -> Option<Option<NodeId>> {
        match self.child.get() {
            Child::Added(node) => Some(Some(node)),
            Child::Pending => None,
            Child::None => match self.levels.borrow().last()?.at {
                LevelNode::Added(node) => Some(Some(node)),
                LevelNode::AboveRoot => Some(None),
                LevelNode::Pending(_) => None,
            },
        }
    }

    /// Moves a node below this position. In another tree, or in none, it becomes a root of its own
    /// tree.
    #[cold]
    fn pull(&self, tree: &Arc<SharedTree>, id: NodeId, parent: &mut Option<NodeId>) {
        let here = match add_pending(self) {
            Some((current, here)) if Arc::ptr_eq(&current, tree) => here,
            Some(_) | None => None,
        };
        if here != *parent {
            let (moved, wakeups) = tree.move_below(id, here);
            if moved {
                *parent = here;
            }
            wakeups.now();
        }
    }

    fn enter(&self, tree: &Arc<SharedTree>, at: LevelNode) -> Around {
        let is_current = |current: &Arc<SharedTree>| Arc::ptr_eq(current, tree);
        let changes = !self.tree.borrow().as_ref().is_some_and(is_current);
        let around = changes.then(|| self.replace_tree(Some(tree.clone())));
        self.push(at);
        around
    }

    fn leave_tree(&self, around: &mut Around) {
        if let Some(around) = around.take() {
            // Dropped while nothing here is borrowed: it may be the last reference to the tree.
            drop(self.replace_tree(around));
        }
    }

    /// Makes a tree and its run current, and returns the tree of before.
    fn replace_tree(&self, tree: Option<Arc<SharedTree>>) -> Option<Arc<SharedTree>> {
        let run_of = |tree: &Option<Arc<SharedTree>>| tree.as_ref()?.run().cloned();
        let run = run_of(&tree);
        let before = self.tree.replace(tree);
        if run.is_some() || before.as_ref().is_some_and(|tree| tree.run().is_some()) {
            drop(ambient::replace_run(run));
        }
        before
    }
}

/// Within [`enter`] of a nursery's node: sets the position to a child of the nursery while `poll`
/// runs. `node` is the child's node, if it has one. Returns the child's node, which may have been
/// added.
///
/// Afterwards the position is the nursery's own node again, because the child's node may be
/// removed, and destructors that then run may ask for their position. `poll` must not panic.
#[inline(always)]
pub(crate) fn in_child<T>(node: Option<NodeId>, poll: impl FnOnce() -> T) -> (T, Option<NodeId>) {
    let around = replace_child(node.map_or(Child::Pending, Child::Added));
    let value = poll();
    match replace_child(around) {
        Child::Added(node) => (value, Some(node)),
        Child::None | Child::Pending => (value, None),
    }
}

#[inline]
fn replace_child(child: Child) -> Child {
    POSITION.with(|position| position.child.replace(child))
}

/// Adds all pending nodes of this thread. Returns the tree and the innermost node; no node above
/// the roots, and `None` outside of any tree.
fn add_pending(position: &Position) -> Option<(Arc<SharedTree>, Option<NodeId>)> {
    let tree = position.tree.borrow().clone()?;
    let mut levels = position.levels.borrow_mut();
    let exists = |level: &Level| !matches!(level.at, LevelNode::Pending(_));
    let pending = levels.iter().rposition(exists).map_or(0, |last| last + 1);
    let mut node = pending
        .checked_sub(1)
        .and_then(|last| match levels[last].at {
            LevelNode::Added(node) => Some(node),
            LevelNode::AboveRoot | LevelNode::Pending(_) => None,
        });
    for level in &mut levels[pending..] {
        let parent = level.inside.ensure_node(&tree, node);
        if let LevelNode::Pending(pending) = &level.at {
            let id = pending.add_to(&tree, parent);
            level.at = LevelNode::Added(id);
            node = Some(id);
        }
    }
    drop(levels);
    let mut child = position.child.get();
    let node = child.ensure_node(&tree, node);
    position.child.set(child);
    Some((tree, node))
}

/// Adds the pending nodes of this thread to the tree.
pub(super) fn add_pending_nodes() {
    drop(with(add_pending));
}

/// Adds a node below this thread's position. Outside of any tree, it is the root of a new one.
pub(crate) fn attach(kind: Kind, owner: Option<Arc<dyn NodeOwner>>) -> Node {
    attach_with(|tree, parent| tree.add(parent, kind, owner))
}

/// Has `add` add a node below this thread's position. Outside of any tree, it is the root of a new
/// one.
pub(super) fn attach_with(add: impl FnOnce(&Arc<SharedTree>, Option<NodeId>) -> NodeId) -> Node {
    let (shared, parent) = with(add_pending)
        .flatten()
        .unwrap_or_else(|| (new_tree(), None));
    Node {
        id: add(&shared, parent),
        shared,
        parent,
    }
}

/// Makes a tree outside of any run.
fn new_tree() -> Arc<SharedTree> {
    refuse_unless_hooked("a cancel scope, shield or nursery");
    SharedTree::new(None)
}

/// If the running code is cancelled, commits its node to its end, and returns true. If not, returns
/// false.
pub(crate) fn commit_if_cancelled() -> bool {
    let commit = |position: &Position| {
        let cancelled = deciding_node(position).is_some_and(|(tree, node)| tree.is_effective(node));
        // The pending node of a child is added only now, so a child that is not cancelled needs
        // none.
        cancelled
            && add_pending(position)
                .is_some_and(|(tree, node)| node.is_some_and(|node| tree.commit_if_cancelled(node)))
    };
    with(commit) == Some(true)
}

/// Returns whether the running code is cancelled.
pub(super) fn is_cancelled() -> bool {
    let is_cancelled = |position: &Position| {
        deciding_node(position).is_some_and(|(tree, node)| tree.is_effective(node))
    };
    with(is_cancelled) == Some(true)
}

/// Returns the earliest deadline that cancels the running code; an error if it is cancelled
/// already.
pub(super) fn effective_deadline() -> Result<Option<Instant>, AlreadyCancelledError> {
    match with(deciding_node).flatten() {
        Some((tree, node)) => tree.effective_deadline(node),
        None => Ok(None),
    }
}

/// Returns why the running code is cancelled, through shields too.
pub(super) fn cancel_reason() -> Option<CancelReason> {
    let (tree, node) = with(deciding_node).flatten()?;
    tree.reason(node)
}

/// Returns the tree, and the node of the running code, which is added if it is pending.
pub(super) fn current_node() -> Option<(Arc<SharedTree>, NodeId)> {
    let (tree, node) = with(add_pending).flatten()?;
    Some((tree, node?))
}

/// Returns the tree, and the node that decides whether the running code is cancelled. For a child
/// whose node is pending that is the node of its nursery, because a plain node is cancelled exactly
/// if its parent is.
fn deciding_node(position: &Position) -> Option<(Arc<SharedTree>, NodeId)> {
    let known = match (position.child.get(), position.levels.borrow().last()) {
        (Child::Added(node), _) => Some(node),
        (_, Some(level)) => match level.at {
            LevelNode::Added(node) => Some(node),
            LevelNode::AboveRoot | LevelNode::Pending(_) => None,
        },
        _ => None,
    };
    match known {
        Some(node) => Some((position.tree.borrow().clone()?, node)),
        None => add_pending(position).and_then(|(tree, node)| Some((tree, node?))),
    }
}

/// Returns the tree of the run that this thread is polling; `None` outside of a run.
pub(crate) fn tree_of_run() -> Option<Arc<SharedTree>> {
    let tree = with(|position| position.tree.borrow().clone()).flatten();
    tree.filter(|tree| tree.run().is_some())
}

/// Returns whether this thread is polling a task of a run: in a run, and not above the roots of its
/// tree.
pub(crate) fn is_in_task_of_run() -> bool {
    let is_in_task = |position: &Position| {
        let tree = position.tree.borrow();
        let in_run = tree.as_ref().is_some_and(|tree| tree.run().is_some());
        let levels = position.levels.borrow();
        in_run
            && !matches!(
                levels.last().map(|level| &level.at),
                None | Some(LevelNode::AboveRoot)
            )
    };
    with(is_in_task) == Some(true)
}
