//! Where in the scope tree the code that is being polled on this thread stands.
//!
//! Whoever polls a future of the tree [`enter`]s its node for the length of the poll; whoever is polled for the first
//! time [`attach`]es below. A nursery's child gets a node only when something below it attaches, so a plain child costs
//! none.

use std::cell::{Cell as StdCell, RefCell};
use std::sync::Arc;

use super::node::{AlreadyCancelled, Cell, Node, Shared};
use super::tree::{Kind, NodeId};
use crate::time::{Instant, Timers};
use crate::tree_var::Values;

thread_local! {
    static CURRENT: Current = const { Current {
        place: RefCell::new(None),
        node: StdCell::new(None),
        values: RefCell::new(None),
    } };
}

/// This thread's place in a tree.
struct Current {
    /// The tree and the node that is certain to exist: that of the scope, or of the nursery around the child.
    place: RefCell<Option<(Arc<Shared>, NodeId)>>,
    /// The node of the code itself; `None` while a child has not needed one.
    node: StdCell<Option<NodeId>>,
    /// What the tree variables are set to.
    values: RefCell<Option<Values>>,
}

/// Puts this thread's place back when dropped, also when a poll panics.
#[must_use]
pub(crate) struct Entered {
    place: Option<(Arc<Shared>, NodeId)>,
    node: Option<NodeId>,
}

/// Stands at `node` until the guard is dropped.
pub(crate) fn enter(shared: &Arc<Shared>, node: NodeId) -> Entered {
    CURRENT.with(|current| Entered {
        place: current.place.replace(Some((shared.clone(), node))),
        node: current.node.replace(Some(node)),
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
/// child's node, which may exist now. The caller enters the next child, or drops the guard.
pub(crate) fn in_child<T>(node: Option<NodeId>, poll: impl FnOnce() -> T) -> (T, Option<NodeId>) {
    CURRENT.with(|current| {
        current.node.set(node);
        let value = poll();
        (value, current.node.get())
    })
}

/// The tree and the node at which this thread stands, made if need be. `None` outside of any tree.
fn here(current: &Current) -> Option<(Arc<Shared>, NodeId)> {
    let place = current.place.borrow();
    let (shared, certain) = place.as_ref()?;
    let node = current.node.get().unwrap_or_else(|| {
        let node = shared.add(Some(*certain), Kind::Plain, None);
        current.node.set(Some(node));
        node
    });
    Some((shared.clone(), node))
}

/// Adds a node below where this thread stands; outside of any tree, the root of a new one.
pub(crate) fn attach(kind: Kind, cell: Option<Arc<Cell>>) -> Node {
    match CURRENT.with(here) {
        Some((shared, parent)) => Node {
            id: shared.add(Some(parent), kind, cell),
            shared,
        },
        None => attach_root(Shared::new(None), kind, cell),
    }
}

/// Makes the root of `shared`.
pub(crate) fn attach_root(shared: Arc<Shared>, kind: Kind, cell: Option<Arc<Cell>>) -> Node {
    Node {
        id: shared.add(None, kind, cell),
        shared,
    }
}

/// Where this thread stands is cancelled: dooms that place, so that its end is certain. False if it is not cancelled.
pub(crate) fn give_up() -> bool {
    CURRENT.with(|current| {
        let cancelled = match &*current.place.borrow() {
            Some((shared, certain)) => shared.is_effective(current.node.get().unwrap_or(*certain)),
            None => false,
        };
        cancelled && here(current).is_some_and(|(shared, node)| shared.give_up(node))
    })
}

/// The earliest deadline that cancels the code that is running.
pub(crate) fn effective_deadline() -> Result<Option<Instant>, AlreadyCancelled> {
    CURRENT.with(|current| match &*current.place.borrow() {
        Some((shared, certain)) => {
            shared.effective_deadline(current.node.get().unwrap_or(*certain))
        }
        None => Ok(None),
    })
}

/// The timers of the run that this thread is polling; `None` outside of a run.
pub(crate) fn timers() -> Option<Arc<Timers>> {
    CURRENT.with(|current| current.place.borrow().as_ref()?.0.timers().cloned())
}

/// Exchanges the tree variables' values of this thread.
pub(crate) fn replace_values(values: Option<Values>) -> Option<Values> {
    CURRENT.with(|current| current.values.replace(values))
}

/// Looks at the tree variables' values of this thread.
pub(crate) fn with_values<T>(look: impl FnOnce(Option<&Values>) -> T) -> T {
    CURRENT.with(|current| look(current.values.borrow().as_ref()))
}
