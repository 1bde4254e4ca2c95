//! The rules of the scope tree: which nodes are cancelled, which wait for a shield, which absorb a
//! cancellation.
//!
//! This file is pure: it knows no clocks, wakers, locks or futures, and is tested against a slow
//! model. [`node`](super::node) keeps one such tree behind a lock and obeys it.
//!
//! A node stands for a place at which a future can be dropped (a scope, a nursery, a nursery's
//! child, `on_cancel`) or kept alive (a shield). Its properties:
//!
//! * **cancelled**: this node itself was cancelled. Never taken back.
//! * **shielded**: cancellation from above does not reach this node. A shielded node makes its
//!   ancestors wait.
//! * **defers**: cancellation from above does reach this node, but its ancestors must not drop what
//!   contains it yet.
//! * **committed**: something below was already dropped because of a cancellation that a node
//!   further up will absorb. From then on the node can only end by being dropped, whatever shields
//!   are put up later. Without this property, a shield put up at the wrong moment would leave a
//!   future waiting forever for something that is gone.
//! * **effective** = cancelled, or committed, or (not shielded, and the parent is effective).
//!   Updated eagerly, downwards.
//! * **deferred_by** counts the children that block their parent. A node **blocks** if it is
//!   shielded, defers, or is itself deferred.
//!
//! Invariants, checked by the property test: `effective` and `deferred_by` equal their definitions;
//! all ancestors of a blocking node are deferred; every committed node is effective and has an
//! absorbing node above it.
//!
//! A committed node that is shielded or defers goes on blocking its ancestors until its owner
//! removes it.
//!
//! No operation recurses: a chain of 100,000 nodes is walked in a loop.

use std::num::NonZeroU32;

/// Identifies a node of one tree. Ids are reused after [`Tree::remove`], so only the owner of a
/// node may keep its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NodeId(NonZeroU32);

impl NodeId {
    fn from_index(index: usize) -> Self {
        let number = u32::try_from(index + 1).expect("fewer than 2^32 scopes in one tree");
        NodeId(NonZeroU32::MIN.saturating_add(number - 1))
    }

    fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// The effect of a node on a cancellation from above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Lets the cancellation through: a scope, a nursery, a child.
    Plain,
    /// Keeps the cancellation off everything below, and makes everything above wait: a shield.
    Shield,
    /// Lets the cancellation through, and makes everything above wait: `on_cancel`.
    Defer,
}

/// Where a cancellation ends that made a node drop its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// At this node: it was cancelled itself, and no node above it, up to the next shield, was.
    Here,
    /// Further up. The node is committed, and so is everything up to the absorbing node.
    Above,
}

/// Nodes whose owners must be woken: [`Tree::is_effective`] has changed, or [`Tree::must_drop`] has
/// become true.
pub(crate) type Changed = Vec<NodeId>;

#[derive(Debug)]
struct Node<P> {
    parent: Option<NodeId>,
    first_child: Option<NodeId>,
    next: Option<NodeId>,
    prev: Option<NodeId>,
    cancelled: bool,
    committed: bool,
    shielded: bool,
    defers: bool,
    effective: bool,
    deferred_by: u32,
    payload: P,
}

impl<P> Node<P> {
    fn blocks(&self) -> bool {
        self.shielded || self.defers || self.deferred_by > 0
    }
}

#[derive(Debug)]
enum Slot<P> {
    Used(Node<P>),
    Free { next: Option<NodeId> },
}

/// A forest of nodes, each with a payload for its owner.
#[derive(Debug)]
pub(crate) struct Tree<P> {
    slots: Vec<Slot<P>>,
    free: Option<NodeId>,
    used: usize,
}

impl<P> Tree<P> {
    pub(crate) const fn new() -> Self {
        Tree {
            slots: Vec::new(),
            free: None,
            used: 0,
        }
    }

    /// Returns the number of nodes.
    pub(crate) fn len(&self) -> usize {
        self.used
    }

    /// Adds a node below `parent`, or a root.
    pub(crate) fn add(&mut self, parent: Option<NodeId>, kind: Kind, payload: P) -> NodeId {
        let shielded = kind == Kind::Shield;
        let node = Node {
            parent: None,
            first_child: None,
            next: None,
            prev: None,
            cancelled: false,
            committed: false,
            shielded,
            defers: kind == Kind::Defer,
            effective: !shielded && parent.is_some_and(|p| self.node(p).effective),
            deferred_by: 0,
            payload,
        };
        let blocks = node.blocks();
        let id = self.store(node);
        self.link(id, parent);
        if blocks {
            // One more blocking child releases no node, so no owner must be woken.
            self.count_deferring(parent, true, &mut Changed::new());
        }
        id
    }

    /// Removes a node. Its parent adopts its children, which become as cancelled as that is.
    pub(crate) fn remove(&mut self, id: NodeId, changed: &mut Changed) -> P {
        let parent = self.node(id).parent;
        while let Some(child) = self.node(id).first_child {
            // Counted at the new parent before it is discounted at the old one, so that nothing
            // changes further up.
            let blocks = self.node(child).blocks();
            if blocks {
                self.count_deferring(parent, true, changed);
            }
            self.unlink(child);
            self.link(child, parent);
            if blocks {
                self.count_deferring(Some(id), false, changed);
            }
            self.propagate(child, changed);
        }
        let blocks = self.node(id).blocks();
        self.unlink(id);
        if blocks {
            self.count_deferring(parent, false, changed);
        }
        changed.retain(|&other| other != id);
        self.used -= 1;
        let next = self.free.replace(id);
        match std::mem::replace(&mut self.slots[id.index()], Slot::Free { next }) {
            Slot::Used(node) => node.payload,
            Slot::Free { .. } => unreachable!("a node is removed once, by its owner"),
        }
    }

    pub(crate) fn payload(&self, id: NodeId) -> &P {
        &self.node(id).payload
    }

    pub(crate) fn replace_payload(&mut self, id: NodeId, payload: P) -> P {
        std::mem::replace(&mut self.node_mut(id).payload, payload)
    }

    /// Cancels this node and everything below it that is not behind a shield.
    pub(crate) fn cancel(&mut self, id: NodeId, changed: &mut Changed) {
        self.node_mut(id).cancelled = true;
        self.propagate(id, changed);
    }

    /// Puts up or takes down a shield at this node.
    pub(crate) fn set_shielded(&mut self, id: NodeId, shielded: bool, changed: &mut Changed) {
        self.set_blocking(id, changed, |node| node.shielded = shielded);
        self.propagate(id, changed);
    }

    /// Makes everything above wait for this node, or no longer.
    pub(crate) fn set_defers(&mut self, id: NodeId, defers: bool, changed: &mut Changed) {
        self.set_blocking(id, changed, |node| node.defers = defers);
    }

    /// Returns whether code at this node is cancelled, by this node or one above it.
    pub(crate) fn is_effective(&self, id: NodeId) -> bool {
        self.node(id).effective
    }

    /// Returns whether this node itself was cancelled.
    pub(crate) fn was_cancelled(&self, id: NodeId) -> bool {
        self.node(id).cancelled
    }

    pub(crate) fn is_shielded(&self, id: NodeId) -> bool {
        self.node(id).shielded
    }

    /// Iterates over all nodes below this one.
    pub(crate) fn below(&self, top: NodeId) -> impl Iterator<Item = NodeId> {
        std::iter::successors(self.node(top).first_child, move |&at| {
            self.node(at)
                .first_child
                .or_else(|| self.next_below(at, top))
        })
    }

    /// Returns whether something below has to end before this node's content may be dropped.
    pub(crate) fn is_deferred(&self, id: NodeId) -> bool {
        self.node(id).deferred_by > 0
    }

    /// Returns whether this node's content has to be dropped at its next poll.
    pub(crate) fn must_drop(&self, id: NodeId) -> bool {
        let node = self.node(id);
        node.effective && node.deferred_by == 0
    }

    /// Records that something at this node is dropped because the node is effectively cancelled,
    /// and returns where that cancellation ends. A later call for the same node may return `Above`
    /// after `Here`, never `Here` after `Above`.
    pub(crate) fn commit(&mut self, id: NodeId) -> End {
        debug_assert!(
            self.is_effective(id),
            "only a cancelled node drops its content"
        );
        if self.absorbs(id) {
            return End::Here;
        }
        let mut at = Some(id);
        while let Some(node) = at.filter(|&node| !self.absorbs(node) && !self.node(node).committed)
        {
            self.node_mut(node).committed = true;
            at = self.node(node).parent;
        }
        End::Above
    }

    /// Iterates over the node and its ancestors, up to and including the first that is shielded.
    pub(crate) fn visible(&self, id: NodeId) -> impl Iterator<Item = NodeId> {
        std::iter::successors(Some(id), |&at| {
            let node = self.node(at);
            node.parent.filter(|_| !node.shielded)
        })
    }

    /// Iterates over the node and all its ancestors, through shields too.
    pub(crate) fn ancestry(&self, id: NodeId) -> impl Iterator<Item = NodeId> {
        std::iter::successors(Some(id), |&at| self.node(at).parent)
    }

    /// Returns whether a cancellation that arrives at this node goes no further up.
    fn absorbs(&self, id: NodeId) -> bool {
        let node = self.node(id);
        let from_above = !node.shielded && node.parent.is_some_and(|p| self.node(p).effective);
        node.cancelled && !node.committed && !from_above
    }

    /// Updates `effective` at `top` and below it, as far down as it changes.
    fn propagate(&mut self, top: NodeId, changed: &mut Changed) {
        let mut at = top;
        loop {
            let down = self
                .update(at)
                .then(|| changed.push(at))
                .and(self.node(at).first_child);
            at = match down.or_else(|| self.next_below(at, top)) {
                Some(next) => next,
                None => return,
            };
        }
    }

    /// Recomputes `effective`, and returns whether it changed.
    fn update(&mut self, id: NodeId) -> bool {
        let node = self.node(id);
        let from_above = !node.shielded && node.parent.is_some_and(|p| self.node(p).effective);
        let effective = node.cancelled || node.committed || from_above;
        std::mem::replace(&mut self.node_mut(id).effective, effective) != effective
    }

    /// Returns the next node in pre-order after everything below `at`, within the subtree of `top`.
    fn next_below(&self, mut at: NodeId, top: NodeId) -> Option<NodeId> {
        while at != top {
            let node = self.node(at);
            if node.next.is_some() {
                return node.next;
            }
            at = node.parent?;
        }
        None
    }

    /// Changes a property that makes a node block, and updates the counts of its ancestors.
    fn set_blocking(
        &mut self,
        id: NodeId,
        changed: &mut Changed,
        change: impl FnOnce(&mut Node<P>),
    ) {
        let node = self.node_mut(id);
        let before = node.blocks();
        change(node);
        let (after, parent) = (node.blocks(), node.parent);
        if before != after {
            self.count_deferring(parent, after, changed);
        }
    }

    /// Counts one more, or one less, blocking child of `at`. Goes up only as far as a node starts
    /// or stops blocking.
    fn count_deferring(&mut self, mut at: Option<NodeId>, more: bool, changed: &mut Changed) {
        while let Some(id) = at {
            let node = self.node_mut(id);
            let before = node.blocks();
            node.deferred_by = if more {
                node.deferred_by + 1
            } else {
                node.deferred_by - 1
            };
            let after = node.blocks();
            let released = node.effective && node.deferred_by == 0;
            at = node.parent.filter(|_| before != after);
            if released {
                changed.push(id);
            }
        }
    }

    fn link(&mut self, id: NodeId, parent: Option<NodeId>) {
        self.node_mut(id).parent = parent;
        let Some(parent) = parent else { return };
        let first = self.node_mut(parent).first_child.replace(id);
        self.node_mut(id).next = first;
        if let Some(first) = first {
            self.node_mut(first).prev = Some(id);
        }
    }

    fn unlink(&mut self, id: NodeId) {
        let node = self.node_mut(id);
        let (parent, next, prev) = (node.parent.take(), node.next.take(), node.prev.take());
        let Some(parent) = parent else { return };
        if let Some(next) = next {
            self.node_mut(next).prev = prev;
        }
        match prev {
            Some(prev) => self.node_mut(prev).next = next,
            None => self.node_mut(parent).first_child = next,
        }
    }

    fn store(&mut self, node: Node<P>) -> NodeId {
        self.used += 1;
        let Some(id) = self.free else {
            self.slots.push(Slot::Used(node));
            return NodeId::from_index(self.slots.len() - 1);
        };
        match std::mem::replace(&mut self.slots[id.index()], Slot::Used(node)) {
            Slot::Free { next } => self.free = next,
            Slot::Used(_) => unreachable!("the free list names free slots"),
        }
        id
    }

    fn node(&self, id: NodeId) -> &Node<P> {
        match &self.slots[id.index()] {
            Slot::Used(node) => node,
            Slot::Free { .. } => unreachable!("ids are used by the owner of a live node"),
        }
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node<P> {
        match &mut self.slots[id.index()] {
            Slot::Used(node) => node,
            Slot::Free { .. } => unreachable!("ids are used by the owner of a live node"),
        }
    }
}

#[cfg(test)]
mod tests;
