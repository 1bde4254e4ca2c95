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
//! * **removed**: the owner has removed the node while others were below it. They belong to futures
//!   that are polled by reference and have outlived the node. The node has no other property from
//!   then on, and does not block: what is below it is polled by nothing, until a poll at another
//!   place moves it there ([`Tree::move_below`]). So a forgotten shield blocks no node beyond the
//!   one that it was polled in. The slot is kept until the last of these nodes has left, because
//!   they know their parent by its id.
//!
//! Invariants, checked by the property test: `effective` and `deferred_by` equal their definitions;
//! all ancestors of a blocking node are deferred, up to one that is removed; every committed node
//! is effective and has an absorbing node above it, unless that was removed first; the parent of a
//! removed node is not removed.
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
/// become true, or the node is committed and no node above it is cancelled any more.
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
    /// `None` if the node is removed.
    payload: Option<P>,
}

impl<P> Node<P> {
    fn blocks(&self) -> bool {
        !self.is_removed() && (self.shielded || self.defers || self.deferred_by > 0)
    }

    fn is_removed(&self) -> bool {
        self.payload.is_none()
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

    /// Returns the number of nodes, including removed ones.
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
            payload: Some(payload),
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

    /// Removes a node. The nodes left below it are as cancelled as its parent is, and block nothing
    /// further up.
    pub(crate) fn remove(&mut self, id: NodeId, changed: &mut Changed) -> P {
        let node = self.node_mut(id);
        let (blocks, parent, first_child) = (node.blocks(), node.parent, node.first_child);
        let Some(payload) = node.payload.take() else {
            unreachable!("a node is removed once, by its owner")
        };
        if blocks {
            self.count_deferring(parent, false, changed);
        }
        if first_child.is_some() {
            self.keep_removed(id, changed);
        }
        self.free_unused(Some(id));
        payload
    }

    /// Clears the properties of a node that was removed while others are below it.
    #[cold]
    fn keep_removed(&mut self, id: NodeId, changed: &mut Changed) {
        let node = self.node_mut(id);
        (node.cancelled, node.committed) = (false, false);
        (node.shielded, node.defers) = (false, false);
        self.propagate(id, changed);
        let mut next = self.node(id).first_child;
        while let Some(child) = next {
            next = self.node(child).next;
            if self.is_removed(child) {
                self.lift(child);
            }
        }
        let before = self.node(id).parent;
        self.lift(id);
        self.free_unused(before);
    }

    /// Moves a removed node up to the next ancestor that is not removed, so that removed nodes form
    /// no chains. Changes nothing that an owner can see.
    fn lift(&mut self, id: NodeId) {
        let above = |id| {
            self.node(id)
                .parent
                .filter(|&parent| self.is_removed(parent))
        };
        let last = std::iter::successors(above(id), |&at| above(at)).last();
        if let Some(last) = last {
            let parent = self.node(last).parent;
            self.unlink(id);
            self.link(id, parent);
        }
    }

    fn is_removed(&self, id: NodeId) -> bool {
        self.node(id).is_removed()
    }

    /// Frees the slots of this node and the ones above it, as far as they are removed and have no
    /// children.
    fn free_unused(&mut self, mut at: Option<NodeId>) {
        let is_unused = |tree: &Self, id| {
            let node: &Node<P> = tree.node(id);
            node.is_removed() && node.first_child.is_none()
        };
        while let Some(id) = at.filter(|&id| is_unused(self, id)) {
            at = self.node(id).parent;
            self.unlink(id);
            self.used -= 1;
            let next = self.free.replace(id);
            self.slots[id.index()] = Slot::Free { next };
        }
    }

    /// Moves a node, with everything below it, below another parent, or makes it a root. Does
    /// nothing if the new parent is below the node.
    pub(crate) fn move_below(
        &mut self,
        id: NodeId,
        parent: Option<NodeId>,
        changed: &mut Changed,
    ) -> bool {
        if parent.is_some_and(|parent| self.ancestry(parent).any(|above| above == id)) {
            return false;
        }
        // Counted at the new parent first, so that nothing changes where both are the same.
        let (blocks, before) = (self.node(id).blocks(), self.node(id).parent);
        if blocks {
            self.count_deferring(parent, true, changed);
        }
        self.unlink(id);
        self.link(id, parent);
        if blocks {
            self.count_deferring(before, false, changed);
        }
        self.propagate(id, changed);
        self.free_unused(before);
        if self.node(id).committed {
            self.commit_path(parent);
        }
        true
    }

    /// Returns the payload; `None` if the node is removed.
    pub(crate) fn payload(&self, id: NodeId) -> Option<&P> {
        self.node(id).payload.as_ref()
    }

    pub(crate) fn replace_payload(&mut self, id: NodeId, payload: P) -> Option<P> {
        self.node_mut(id).payload.replace(payload)
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
        self.commit_path(Some(id));
        End::Above
    }

    /// Commits this node and its ancestors, up to one that absorbs or is committed already.
    fn commit_path(&mut self, mut at: Option<NodeId>) {
        while let Some(id) = at.filter(|&id| self.is_committable(id)) {
            let node = self.node_mut(id);
            node.committed = !node.is_removed();
            at = node.parent;
        }
    }

    /// Returns whether a cancellation that arrives at this node from below goes further up, and the
    /// node does not know that yet.
    fn is_committable(&self, id: NodeId) -> bool {
        let node = self.node(id);
        node.effective && !node.committed && !self.absorbs(id)
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
            let updated = self.update(at);
            if (updated || self.is_committed_to_nothing(at)) && !self.is_removed(at) {
                changed.push(at);
            }
            let down = self.node(at).first_child.filter(|_| updated);
            at = match down.or_else(|| self.next_below(at, top)) {
                Some(next) => next,
                None => return,
            };
        }
    }

    /// Returns whether the node is committed, and nothing above it is cancelled any more: it has
    /// outlived the node that absorbs the cancellation, so its owner must learn that it can never
    /// be completed.
    fn is_committed_to_nothing(&self, id: NodeId) -> bool {
        let node = self.node(id);
        node.committed
            && !node
                .parent
                .is_some_and(|parent| self.node(parent).effective)
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
            if released && !self.is_removed(id) {
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
mod depth_tests;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
