//! What the scope tree decides: who is cancelled, who must wait for a shield, who absorbs.
//!
//! This file is pure: it knows neither clocks, wakers, locks nor futures, so that it can be tested against a slow
//! model. The drivers in [`node`](super::node) keep one such tree behind a lock and obey it.
//!
//! A node stands for a place at which a future can be dropped (a scope, a nursery, a nursery's child, `on_cancel`) or
//! kept alive (a shield). Its words:
//!
//! * **own**: this node was cancelled itself. Never taken back.
//! * **hides**: cancellation from above does not reach this node (a shield). A hiding node holds its ancestors.
//! * **holds**: nodes above must not drop what contains this node yet, although cancellation does reach it.
//! * **doomed**: something below was already dropped because of a cancellation that another node above will absorb.
//!   From then on the node can only end by being dropped, whatever shields are put up later. Without this word, a
//!   shield raised at the wrong moment would leave somebody waiting for ever for a thing that is gone.
//! * **effective** = own, or doomed, or (not hides, and the parent is effective). Kept up to date eagerly, downwards.
//! * **held** counts the children that block their parent; a node **blocks** if it hides, holds or is held.
//!
//! Invariants, checked by the property test: `effective` and `held` equal what their definitions say; an ancestor of
//! a blocking node is held; and every doomed node is effective and has an absorbing node above it.
//!
//! A doomed node goes on blocking its ancestors if it hides or holds. Whoever drives it takes it out once it is dead.
//!
//! No operation recurses: a chain of 100,000 nodes is walked in a loop.

use std::num::NonZeroU32;

/// Names a node of one tree. Ids are reused after [`Tree::remove`], so only a node's owner may keep one.
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

/// What a node does to cancellation that passes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Lets it through: a scope, a nursery, a child.
    Plain,
    /// Keeps it off everything below, and makes everything above wait: a shield.
    Hides,
    /// Lets it through, and makes everything above wait: `on_cancel`.
    Holds,
}

/// Where the cancellation ends that made a node drop its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// At this node: it was cancelled itself, and nothing above it that it can see was.
    Here,
    /// Further up. The node is doomed, and so is everything up to the absorbing node.
    Above,
}

/// Nodes whose owners have to look again: [`Tree::is_effective`] has changed, or [`Tree::must_drop`] has become true.
pub(crate) type Changed = Vec<NodeId>;

#[derive(Debug)]
struct Node<P> {
    parent: Option<NodeId>,
    first_child: Option<NodeId>,
    next: Option<NodeId>,
    prev: Option<NodeId>,
    own: bool,
    doomed: bool,
    hides: bool,
    holds: bool,
    effective: bool,
    held: u32,
    payload: P,
}

impl<P> Node<P> {
    fn blocks(&self) -> bool {
        self.hides || self.holds || self.held > 0
    }
}

#[derive(Debug)]
enum Slot<P> {
    Used(Node<P>),
    Free { next: Option<NodeId> },
}

/// A forest of nodes, each with a `P` for its driver.
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

    /// How many nodes there are.
    pub(crate) fn len(&self) -> usize {
        self.used
    }

    /// Adds a node below `parent`, or a root.
    pub(crate) fn add(&mut self, parent: Option<NodeId>, kind: Kind, payload: P) -> NodeId {
        let hides = kind == Kind::Hides;
        let node = Node {
            parent: None,
            first_child: None,
            next: None,
            prev: None,
            own: false,
            doomed: false,
            hides,
            holds: kind == Kind::Holds,
            effective: !hides && parent.is_some_and(|p| self.node(p).effective),
            held: 0,
            payload,
        };
        let blocks = node.blocks();
        let id = self.store(node);
        self.link(id, parent);
        if blocks {
            // Nobody is released by one child more, so nobody has to look again.
            self.count_held(parent, true, &mut Changed::new());
        }
        id
    }

    /// Takes a node out. What still hangs below it is adopted by its parent, and becomes as cancelled as that is.
    pub(crate) fn remove(&mut self, id: NodeId, changed: &mut Changed) -> P {
        let parent = self.node(id).parent;
        while let Some(child) = self.node(id).first_child {
            // Counted at its new place before it is at its old one, so that nobody further up notices.
            let blocks = self.node(child).blocks();
            if blocks {
                self.count_held(parent, true, changed);
            }
            self.unlink(child);
            self.link(child, parent);
            if blocks {
                self.count_held(Some(id), false, changed);
            }
            self.spread(child, changed);
        }
        let blocks = self.node(id).blocks();
        self.unlink(id);
        if blocks {
            self.count_held(parent, false, changed);
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

    /// Cancels this node and everything below that is not hidden from it.
    pub(crate) fn cancel(&mut self, id: NodeId, changed: &mut Changed) {
        self.node_mut(id).own = true;
        self.spread(id, changed);
    }

    /// Puts up or takes down a shield at this node.
    pub(crate) fn set_hides(&mut self, id: NodeId, hides: bool, changed: &mut Changed) {
        self.set_blocking(id, changed, |node| node.hides = hides);
        self.spread(id, changed);
    }

    /// Makes everything above wait for this node, or lets it go again.
    pub(crate) fn set_holds(&mut self, id: NodeId, holds: bool, changed: &mut Changed) {
        self.set_blocking(id, changed, |node| node.holds = holds);
    }

    /// Whether code at this node is cancelled, by whomever.
    pub(crate) fn is_effective(&self, id: NodeId) -> bool {
        self.node(id).effective
    }

    /// Whether this node was cancelled itself.
    pub(crate) fn is_own(&self, id: NodeId) -> bool {
        self.node(id).own
    }

    /// Whether something below has to end before this node's content may be dropped.
    pub(crate) fn is_held(&self, id: NodeId) -> bool {
        self.node(id).held > 0
    }

    /// Whether this node's content is to be dropped when it is next polled.
    pub(crate) fn must_drop(&self, id: NodeId) -> bool {
        let node = self.node(id);
        node.effective && node.held == 0
    }

    /// Records that something at this node was dropped because the node is effectively cancelled, and says where that
    /// cancellation ends. Asked again later, the answer can only change from `Here` to `Above`.
    pub(crate) fn dropped(&mut self, id: NodeId) -> End {
        debug_assert!(
            self.is_effective(id),
            "only a cancelled node drops its content"
        );
        if self.absorbs(id) {
            return End::Here;
        }
        let mut at = Some(id);
        while let Some(node) = at.filter(|&node| !self.absorbs(node) && !self.node(node).doomed) {
            self.node_mut(node).doomed = true;
            at = self.node(node).parent;
        }
        End::Above
    }

    /// The node and what is above it, up to and including the first that hides.
    pub(crate) fn visible(&self, id: NodeId) -> impl Iterator<Item = NodeId> {
        std::iter::successors(Some(id), |&at| {
            let node = self.node(at);
            node.parent.filter(|_| !node.hides)
        })
    }

    /// The node and everything above it, shields or not.
    pub(crate) fn ancestry(&self, id: NodeId) -> impl Iterator<Item = NodeId> {
        std::iter::successors(Some(id), |&at| self.node(at).parent)
    }

    /// Whether cancellation that arrives at this node goes no further up.
    fn absorbs(&self, id: NodeId) -> bool {
        let node = self.node(id);
        let from_above = !node.hides && node.parent.is_some_and(|p| self.node(p).effective);
        node.own && !node.doomed && !from_above
    }

    /// Brings `effective` up to date at `top` and below it, as far down as it changes.
    fn spread(&mut self, top: NodeId, changed: &mut Changed) {
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

    /// Recomputes `effective`; true if it changed.
    fn update(&mut self, id: NodeId) -> bool {
        let node = self.node(id);
        let from_above = !node.hides && node.parent.is_some_and(|p| self.node(p).effective);
        let effective = node.own || node.doomed || from_above;
        std::mem::replace(&mut self.node_mut(id).effective, effective) != effective
    }

    /// The next node in pre-order after everything below `at`, within the subtree of `top`.
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

    /// Changes what makes a node block, and lets its ancestors know.
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
            self.count_held(parent, after, changed);
        }
    }

    /// One child more, or one less, blocks `at`. Goes up only as far as somebody starts or stops to block by that.
    fn count_held(&mut self, mut at: Option<NodeId>, more: bool, changed: &mut Changed) {
        while let Some(id) = at {
            let node = self.node_mut(id);
            let before = node.blocks();
            node.held = if more { node.held + 1 } else { node.held - 1 };
            let after = node.blocks();
            let released = node.effective && node.held == 0;
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
