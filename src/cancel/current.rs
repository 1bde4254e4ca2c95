//! Where in the scope tree the code that is being polled on this thread stands.
//!
//! Whoever polls a future of the tree stands at its node for the length of the poll: [`enter`]. A future that is polled
//! for the first time may do so before it has a node, by a plan for one: most scopes and shields that end without waiting,
//! and most children of a nursery, never need a node, and so cost none. The plans of a thread are carried out, from the
//! outermost inwards, when something below them [`attach`]es, looks whether it is cancelled, or has to wait.
//!
//! Nothing is lost by a node that comes late. Until its first poll is over nobody else can drop what is planned here: all
//! that is around it is being polled on this very stack, and decides afterwards. (What is around a child on an executor is
//! polled elsewhere. If it is cancelled during that first poll, then to no other effect than if it had been just before.)
//!
//! A thread that ends stands nowhere once its variables are gone. Nothing is polled there any more, but what other
//! thread-locals hold may still be dropped, and may look.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::task::Poll;

use super::node::{AlreadyCancelled, Node, Shared, Watched};
use super::reason::CancelReason;
use super::scope::CancelScope;
use super::tree::{Kind, NodeId};
use crate::sys::role::refuse_unless_hooked;
use crate::time::{Instant, Timers};
use crate::tree_var::Values;

thread_local! {
    static CURRENT: Current = const { Current {
        shared: RefCell::new(None),
        places: RefCell::new(Vec::new()),
        child: Cell::new(Child::None),
        values: RefCell::new(None),
    } };
}

/// This thread's place in a tree.
struct Current {
    /// The tree that the innermost place is in.
    shared: RefCell<Option<Arc<Shared>>>,
    /// The places that are being polled, innermost last. Plans lie above a place that exists, or that is above the root.
    places: RefCell<Vec<Level>>,
    /// The nursery's child, or body, that is being polled at the innermost of them. Children change so often that they are
    /// not worth a level each.
    child: Cell<Child>,
    /// What the tree variables are set to.
    values: RefCell<Option<Values>>,
}

struct Level {
    place: Place,
    /// The child that the place is in.
    inside: Child,
}

/// A nursery's child, or its body, at the nursery's own place.
#[derive(Clone, Copy)]
enum Child {
    /// The nursery is not polling any.
    None,
    /// It has no node.
    Planned,
    At(NodeId),
}

impl Child {
    /// The child's node, made if need be below that of the nursery; without a child, the nursery's.
    fn settle(&mut self, shared: &Shared, nursery: Option<NodeId>) -> Option<NodeId> {
        if let Child::Planned = self {
            *self = Child::At(shared.add(nursery, Kind::Plain, None));
        }
        match *self {
            Child::At(node) => Some(node),
            Child::None | Child::Planned => nursery,
        }
    }
}

enum Place {
    AboveRoot,
    At(NodeId),
    Planned(Plan),
}

/// What a node will be, once it is needed.
pub(super) enum Plan {
    Scope(CancelScope),
    Shield,
}

impl Plan {
    /// Runs no code of the user's: nobody waits for a node that is new.
    fn carry_out(&self, shared: &Arc<Shared>, parent: Option<NodeId>) -> NodeId {
        match self {
            Plan::Scope(scope) => scope.take_place(shared, parent),
            Plan::Shield => shared.add(parent, Kind::Hides, None),
        }
    }
}

/// The tree to go back to, if it is another one than that of the place which was entered.
type Around = Option<Option<Arc<Shared>>>;

/// Does something with this thread's place. `None` if the thread is ending.
#[inline]
fn with<T>(act: impl FnOnce(&Current) -> T) -> Option<T> {
    CURRENT.try_with(act).ok()
}

/// Leaves the place that was entered when dropped, also when a poll panics.
#[must_use]
pub(crate) struct Entered {
    around: Around,
}

/// Stands at `node` until the guard is dropped.
pub(crate) fn enter(shared: &Arc<Shared>, node: NodeId) -> Entered {
    Entered {
        around: with(|current| current.enter(shared, Place::At(node))).flatten(),
    }
}

/// Stands above the root of a tree until the guard is dropped: whoever attaches becomes a root.
pub(crate) fn enter_above_root(shared: &Arc<Shared>) -> Entered {
    Entered {
        around: with(|current| current.enter(shared, Place::AboveRoot)).flatten(),
    }
}

/// Polls at the node in `slot`; the first time, at a plan for one, which is made for the tree that it will be in. Unless
/// that poll was the last, and nothing below needed the node, it is in `slot` afterwards. Fails if the plan does.
pub(super) fn poll_at<T, E>(
    slot: &mut Option<Node>,
    plan: impl FnOnce(&Arc<Shared>) -> Result<Plan, E>,
    poll: impl FnOnce() -> Poll<T>,
) -> Result<Poll<T>, E> {
    if let Some(node) = slot {
        let _entered = enter(&node.shared, node.id);
        return Ok(poll());
    }
    let mut planned = Planned::enter(slot, plan)?;
    let polled = poll();
    planned.ended = polled.is_ready();
    Ok(polled)
}

/// Stands at a plan until dropped, and then gives the node to its owner, if there is one by then.
struct Planned<'a> {
    slot: &'a mut Option<Node>,
    around: Around,
    /// Nobody polls again. Else the plan is carried out; also after a panic, because who polls again may do it elsewhere.
    ended: bool,
}

impl<'a> Planned<'a> {
    /// `plan` runs no foreign code, and so does not panic: the tree is borrowed.
    fn enter<E>(
        slot: &'a mut Option<Node>,
        plan: impl FnOnce(&Arc<Shared>) -> Result<Plan, E>,
    ) -> Result<Self, E> {
        CURRENT.with(|current| {
            let here = current.shared.borrow();
            let (plan, around) = match &*here {
                Some(shared) => (plan(shared)?, None),
                None => {
                    drop(here);
                    let new = new_tree();
                    let plan = plan(&new)?;
                    (plan, Some(current.shared.replace(Some(new))))
                }
            };
            current.push(Place::Planned(plan));
            Ok(Planned {
                slot,
                around,
                ended: false,
            })
        })
    }
}

impl Drop for Planned<'_> {
    fn drop(&mut self) {
        CURRENT.with(|current| {
            if !self.ended {
                here(current);
            }
            if let Some(id) = current.pop() {
                let shared = current.shared.borrow().clone();
                let shared = shared.expect("one stands in a tree here");
                *self.slot = Some(Node { shared, id });
            }
            current.leave_tree(&mut self.around);
        });
    }
}

impl Current {
    #[inline]
    fn push(&self, place: Place) {
        let inside = self.child.replace(Child::None);
        self.places.borrow_mut().push(Level { place, inside });
    }

    /// Leaves the innermost place, and returns its node. A plan that is forgotten here is not the last to know its scope,
    /// so nothing of the user's runs. (The level is dropped where it lies: moving it out costs more than all the rest.)
    #[inline]
    fn pop(&self) -> Option<NodeId> {
        let mut places = self.places.borrow_mut();
        let Some(Level { place, inside }) = places.last() else {
            unreachable!("places are left in the reverse order of entering")
        };
        self.child.set(*inside);
        let node = match place {
            Place::At(node) => Some(*node),
            Place::AboveRoot | Place::Planned(_) => None,
        };
        let left = places.len() - 1;
        places.truncate(left);
        node
    }

    /// Stands at a place in that tree.
    fn enter(&self, shared: &Arc<Shared>, place: Place) -> Around {
        let mut here = self.shared.borrow_mut();
        let around = match &*here {
            Some(here) if Arc::ptr_eq(here, shared) => None,
            _ => Some(here.replace(shared.clone())),
        };
        drop(here);
        self.push(place);
        around
    }

    fn leave_tree(&self, around: &mut Around) {
        if let Some(around) = around.take() {
            // Dropped when nothing here is borrowed: it may be the last that holds the tree.
            drop(self.shared.replace(around));
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        with(|current| {
            current.pop();
            current.leave_tree(&mut self.around);
        });
    }
}

/// Within [`enter`] of a nursery's node: stands at a child of it, whose node may not exist yet, and returns the
/// child's node, which may exist now. Afterwards this thread stands at the nursery's own node again: the child's may be
/// removed, and what is dropped then may look where it stands. `poll` must not panic.
#[inline]
pub(crate) fn in_child<T>(node: Option<NodeId>, poll: impl FnOnce() -> T) -> (T, Option<NodeId>) {
    let around = replace_child(node.map_or(Child::Planned, Child::At));
    let value = poll();
    match replace_child(around) {
        Child::At(node) => (value, Some(node)),
        Child::None | Child::Planned => (value, None),
    }
}

#[inline]
fn replace_child(child: Child) -> Child {
    CURRENT.with(|current| current.child.replace(child))
}

/// The tree and the node at which this thread stands, made if need be; no node above the root. `None` outside of any tree.
fn here(current: &Current) -> Option<(Arc<Shared>, Option<NodeId>)> {
    let shared = current.shared.borrow().clone()?;
    let mut places = current.places.borrow_mut();
    let exists = |level: &Level| !matches!(level.place, Place::Planned(_));
    let plans = places.iter().rposition(exists).map_or(0, |at| at + 1);
    let mut node = plans.checked_sub(1).and_then(|at| match places[at].place {
        Place::At(node) => Some(node),
        Place::AboveRoot | Place::Planned(_) => None,
    });
    for level in &mut places[plans..] {
        let parent = level.inside.settle(&shared, node);
        if let Place::Planned(plan) = &level.place {
            let id = plan.carry_out(&shared, parent);
            level.place = Place::At(id);
            node = Some(id);
        }
    }
    drop(places);
    let mut child = current.child.get();
    let node = child.settle(&shared, node);
    current.child.set(child);
    Some((shared, node))
}

/// Adds a node below where this thread stands; outside of any tree, the root of a new one.
pub(crate) fn attach(kind: Kind, watched: Option<Arc<dyn Watched>>) -> Node {
    attach_by(|shared, parent| shared.add(parent, kind, watched))
}

/// The same, by whoever adds it.
pub(super) fn attach_by(add: impl FnOnce(&Arc<Shared>, Option<NodeId>) -> NodeId) -> Node {
    let (shared, parent) = with(here).flatten().unwrap_or_else(|| (new_tree(), None));
    Node {
        id: add(&shared, parent),
        shared,
    }
}

/// A tree outside of any run.
fn new_tree() -> Arc<Shared> {
    refuse_unless_hooked("a cancel scope, shield or nursery");
    Shared::new(None)
}

/// Carries out the plans of this thread, so that whoever was planned can be asked.
pub(super) fn carry_out_plans() {
    drop(with(here));
}

/// Where this thread stands is cancelled: dooms that place, so that its end is certain. False if it is not cancelled.
pub(crate) fn give_up() -> bool {
    let gives_up = |current: &Current| {
        let cancelled = certain(current).is_some_and(|(shared, node)| shared.is_effective(node));
        // Only now a child that had no node gets one: the one who is not cancelled pays nothing.
        cancelled
            && here(current)
                .is_some_and(|(shared, node)| node.is_some_and(|node| shared.give_up(node)))
    };
    with(gives_up) == Some(true)
}

/// The earliest deadline that cancels the code that is running.
pub(crate) fn effective_deadline() -> Result<Option<Instant>, AlreadyCancelled> {
    match with(certain).flatten() {
        Some((shared, node)) => shared.effective_deadline(node),
        None => Ok(None),
    }
}

/// Why the code that is running is cancelled, shields or not.
pub(crate) fn cancel_reason() -> Option<CancelReason> {
    let (shared, node) = with(certain).flatten()?;
    shared.reason(node)
}

/// The tree and the node by which is decided whether this thread's place is cancelled. A plain child is as cancelled as
/// its nursery, and so needs none of its own.
fn certain(current: &Current) -> Option<(Arc<Shared>, NodeId)> {
    let known = match (current.child.get(), current.places.borrow().last()) {
        (Child::At(node), _) => Some(node),
        (
            _,
            Some(&Level {
                place: Place::At(node),
                ..
            }),
        ) => Some(node),
        _ => None,
    };
    match known {
        Some(node) => Some((current.shared.borrow().clone()?, node)),
        None => here(current).and_then(|(shared, node)| Some((shared, node?))),
    }
}

/// The timers of the run that this thread is polling; `None` outside of a run.
pub(crate) fn timers() -> Option<Arc<Timers>> {
    with(|current| current.shared.borrow().as_ref()?.timers().cloned()).flatten()
}

/// The tree of the run that this thread is polling; `None` outside of a run. It has its [`Shared::run`].
pub(crate) fn tree_of_run() -> Option<Arc<Shared>> {
    let shared = with(|current| current.shared.borrow().clone()).flatten();
    shared.filter(|shared| shared.run().is_some())
}

/// Whether this thread is polling in a run, and in a task of it: not above its roots.
pub(crate) fn in_task_of_run() -> bool {
    let in_task = |current: &Current| {
        let shared = current.shared.borrow();
        let in_run = shared.as_ref().is_some_and(|shared| shared.run().is_some());
        let places = current.places.borrow();
        in_run
            && !matches!(
                places.last().map(|level| &level.place),
                None | Some(Place::AboveRoot)
            )
    };
    with(in_task) == Some(true)
}

/// Exchanges the tree variables' values of this thread.
pub(crate) fn replace_values(values: Option<Values>) -> Option<Values> {
    with(|current| current.values.replace(values)).flatten()
}

/// The tree variables' values of this thread.
pub(crate) fn values() -> Option<Values> {
    with(|current| current.values.borrow().clone()).flatten()
}
