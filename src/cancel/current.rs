//! Where in the scope tree the code that is being polled on this thread stands.
//!
//! Whoever polls a future of the tree [`enter`]s its node for the length of the poll; whoever is polled for the first
//! time [`attach`]es below. A nursery's child gets a node only when something below it attaches, so a plain child costs
//! none.

use std::cell::{Cell as StdCell, RefCell};
use std::sync::Arc;

use super::node::{AlreadyCancelled, Cell, Node, Shared};
use super::tree::{Kind, NodeId};
use crate::job::role::refuse_unless_hooked;
use crate::time::{Instant, Timers};
use crate::tree_var::Values;

thread_local! {
    static CURRENT: Current = const { Current {
        place: RefCell::new(None),
        node: StdCell::new(None),
        values: RefCell::new(None),
    } };
}

type Place = (Arc<Shared>, Option<NodeId>);

/// This thread's place in a tree.
struct Current {
    /// The tree, and the node that is certain to exist: that of the scope, or of the nursery around the child. Without
    /// a node, above the root.
    place: RefCell<Option<Place>>,
    /// The node of the code itself; `None` while a child has not needed one.
    node: StdCell<Option<NodeId>>,
    /// What the tree variables are set to.
    values: RefCell<Option<Values>>,
}

/// Puts this thread's place back when dropped, also when a poll panics.
#[must_use]
pub(crate) struct Entered {
    place: Option<Place>,
    node: Option<NodeId>,
}

/// Stands at `node` until the guard is dropped.
pub(crate) fn enter(shared: &Arc<Shared>, node: NodeId) -> Entered {
    enter_place(shared, Some(node))
}

/// Stands above the root of a tree until the guard is dropped: whoever attaches becomes a root.
pub(crate) fn enter_above_root(shared: &Arc<Shared>) -> Entered {
    enter_place(shared, None)
}

fn enter_place(shared: &Arc<Shared>, node: Option<NodeId>) -> Entered {
    CURRENT.with(|current| Entered {
        place: current.place.replace(Some((shared.clone(), node))),
        node: current.node.replace(node),
    })
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.with(|current| {
            current.place.replace(self.place.take());
            current.node.set(self.node);
        });
    }
}

/// Within [`enter`] of a nursery's node: stands at a child of it, whose node may not exist yet, and returns the
/// child's node, which may exist now. Afterwards this thread stands at the nursery's own node again: the child's may be
/// removed, and what is dropped then may look where it stands. `poll` must not panic.
pub(crate) fn in_child<T>(node: Option<NodeId>, poll: impl FnOnce() -> T) -> (T, Option<NodeId>) {
    CURRENT.with(|current| {
        let around = current.node.replace(node);
        let value = poll();
        (value, current.node.replace(around))
    })
}

/// The tree and the node at which this thread stands, made if need be. `None` outside of any tree.
fn here(current: &Current) -> Option<Place> {
    let place = current.place.borrow();
    let (shared, certain) = place.as_ref()?;
    let node = current.node.get().or_else(|| {
        let node = shared.add(Some((*certain)?), Kind::Plain, None);
        current.node.set(Some(node));
        Some(node)
    });
    Some((shared.clone(), node))
}

/// Adds a node below where this thread stands; outside of any tree, the root of a new one.
pub(crate) fn attach(kind: Kind, cell: Option<Arc<Cell>>) -> Node {
    let (shared, parent) = CURRENT.with(here).unwrap_or_else(|| {
        refuse_unless_hooked("a cancel scope, shield or nursery");
        (Shared::new(None), None)
    });
    Node {
        id: shared.add(parent, kind, cell),
        shared,
    }
}

/// Where this thread stands is cancelled: dooms that place, so that its end is certain. False if it is not cancelled.
pub(crate) fn give_up() -> bool {
    CURRENT.with(|current| {
        let cancelled = certain(current).is_some_and(|(shared, node)| shared.is_effective(node));
        // Only now a child that had no node gets one: the one who is not cancelled pays nothing.
        cancelled
            && here(current)
                .is_some_and(|(shared, node)| node.is_some_and(|node| shared.give_up(node)))
    })
}

/// The earliest deadline that cancels the code that is running.
pub(crate) fn effective_deadline() -> Result<Option<Instant>, AlreadyCancelled> {
    CURRENT.with(|current| match certain(current) {
        Some((shared, node)) => shared.effective_deadline(node),
        None => Ok(None),
    })
}

/// The tree and the innermost node around this thread's place that exists. A plain child is as cancelled as its nursery.
fn certain(current: &Current) -> Option<(Arc<Shared>, NodeId)> {
    let place = current.place.borrow();
    let (shared, certain) = place.as_ref()?;
    Some((shared.clone(), current.node.get().or(*certain)?))
}

/// The timers of the run that this thread is polling; `None` outside of a run.
pub(crate) fn timers() -> Option<Arc<Timers>> {
    CURRENT.with(|current| current.place.borrow().as_ref()?.0.timers().cloned())
}

/// The tree of the run that this thread is polling; `None` outside of a run. It has its [`Shared::run`].
pub(crate) fn tree_of_run() -> Option<Arc<Shared>> {
    CURRENT.with(|current| {
        let place = current.place.borrow();
        let (shared, _) = place.as_ref()?;
        shared.run().is_some().then(|| shared.clone())
    })
}

/// Whether this thread is polling in a run, and in a task of it: not above its roots.
pub(crate) fn in_task_of_run() -> bool {
    CURRENT.with(|current| {
        let place = current.place.borrow();
        place
            .as_ref()
            .is_some_and(|(shared, node)| shared.run().is_some() && node.is_some())
    })
}

/// Exchanges the tree variables' values of this thread.
pub(crate) fn replace_values(values: Option<Values>) -> Option<Values> {
    CURRENT.with(|current| current.values.replace(values))
}

/// Looks at the tree variables' values of this thread.
pub(crate) fn with_values<T>(look: impl FnOnce(Option<&Values>) -> T) -> T {
    CURRENT.with(|current| look(current.values.borrow().as_ref()))
}
