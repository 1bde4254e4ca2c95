//! The block's side of a nursery: its place in the scope tree and the children that it polls and drops.

// Calls what `child` reserves for the block that owns a child: this is that block.
#![allow(unsafe_code)]

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::child::ChildRef;
use super::ready::{Batch, Core};
use super::shuffle;
use crate::cancel::current::{enter, in_child};
use crate::cancel::{
    CancelReason, CancelScope, CancelSource, Driver, End, Entered, Kind, Node, NodeId, lock,
};
use crate::tree_var::{Values, WithValues};

/// What a panic carries.
pub(super) type Payload = Box<dyn Any + Send>;

/// Owns the children of one block, which [ends](Owner::end_hard) them before it drops this.
pub(super) struct Owner {
    pub(super) core: Arc<Core>,
    driver: Driver,
    /// In a service nursery, while the body lives: the children's place, which cancellation of the block does not reach.
    service: Option<Node>,
    /// All children that were polled and have not ended, in no order; each knows its index.
    children: Vec<ChildRef>,
    /// What the tree variables were when the block was opened.
    values: Option<Values>,
    /// Shuffles the children that are ready, if a test asked for that.
    order: Option<fastrand::Rng>,
    /// The body's node, once it has one.
    body_node: Option<NodeId>,
    /// The first panic of the body or a child, until the block resumes it.
    panic: Option<Payload>,
    /// The block has been cancelled for some time: all children that could go at once have gone.
    swept: bool,
    /// Something was dropped because of a cancellation that another scope will absorb: the block never ends by itself.
    doomed: bool,
}

// SAFETY: what keeps this from being `Send` is nothing but the children, and each of them is `Send`, because its future
// is, or it belongs to a local nursery, whose block is made `!Send` by the type of its handle.
unsafe impl Send for Owner {}

impl Owner {
    /// Takes the block's place in the tree: where the first poll happens.
    pub(super) fn begin(service: bool) -> Self {
        let scope = CancelScope::new();
        let mut driver = Driver::new(scope.clone());
        driver.begin();
        let values = crate::cancel::current::with_values(|values| values.cloned());
        let service = driver.node().filter(|_| service).map(|own| Node {
            id: own.shared.add(Some(own.id), Kind::Hides, None),
            shared: own.shared.clone(),
        });
        Owner {
            core: Core::new(scope, values.clone()),
            driver,
            service,
            children: Vec::new(),
            values,
            order: shuffle::generator(),
            body_node: None,
            panic: None,
            swept: false,
            doomed: false,
        }
    }

    pub(super) fn register(&self, waker: &Waker) {
        self.driver.register(waker);
    }

    /// Stands in the block's place while it polls.
    pub(super) fn enter(&self) -> (Entered, WithValues) {
        let node = self
            .driver
            .node()
            .expect("taken in `begin`, left when dropped");
        (
            enter(&node.shared, node.id),
            WithValues::new(self.values.clone()),
        )
    }

    /// Polls the body, in the body's own place. `None` if it panicked; then it is to be dropped.
    pub(super) fn poll_body<T>(
        &mut self,
        waker: &Waker,
        poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Option<Poll<T>> {
        let poll = || poll(&mut Context::from_waker(waker));
        let (polled, node) = in_child(self.body_node, || catch_unwind(AssertUnwindSafe(poll)));
        if self.body_node.is_none() {
            self.watch(node, || waker.clone());
        }
        self.body_node = node;
        polled.map_err(|payload| self.panicked(payload)).ok()
    }

    /// Decides that the body is dropped where it waits, if it is to be.
    pub(super) fn try_drop_body(&mut self) -> bool {
        self.try_drop(self.body_node)
    }

    /// Decides that the body or child with this node is dropped because the block is cancelled, if it is to be.
    fn try_drop(&mut self, node: Option<NodeId>) -> bool {
        let own = self.driver.node().filter(|_| self.driver.is_effective());
        let end = own.and_then(|own| own.shared.try_drop_child(own.id, node));
        self.doomed |= end == Some(End::Above);
        end.is_some()
    }

    /// The body has ended, or `drop_it` ends it.
    pub(super) fn end_body(&mut self, drop_it: impl FnOnce()) {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(drop_it)) {
            self.panicked(payload);
        }
        self.forget_node(self.body_node);
        self.body_node = None;
        if self.service.take().is_some() {
            // The children's place is the block's own now, and they may have to go.
            self.driver.scope.wake();
        }
    }

    /// Polls everybody who is ready, once.
    pub(super) fn poll_ready(&mut self) {
        /// Puts those who were not polled back, if a foreign waker panics.
        struct Polling<'a>(&'a mut Owner, Batch);
        impl Drop for Polling<'_> {
            fn drop(&mut self) {
                for child in &mut self.1 {
                    // Never refused: only the block closes.
                    drop(self.0.core.push(child));
                }
            }
        }
        let service = self.service.as_ref();
        let _place = service.map(|node| enter(&node.shared, node.id));
        let mut batch = self.core.take();
        if let Some(order) = &mut self.order {
            batch = batch.shuffled(order);
        }
        let mut polling = Polling(self, batch);
        for child in polling.1.by_ref() {
            polling.0.poll_child(child);
        }
    }

    fn poll_child(&mut self, child: ChildRef) {
        if !child.dequeue() {
            return;
        }
        // SAFETY: (this and all that follow in this file) this is the block of the children that it polls and keeps;
        // they were pushed to its own core. A child that is not done when it is dequeued stays so until we end it.
        let (listed, mut node) = unsafe { (child.index().is_some(), child.node()) };
        let watched = node.is_some();
        if child.cancel_requested() {
            if !listed {
                // It was not polled yet. What it opens now has to see that it is cancelled.
                node = node.or_else(|| self.add_node());
            }
            if let Some(node) = node {
                self.cancel_node(node);
            }
        }
        // However early it was cancelled, a child runs to its first await that has to wait.
        if listed && self.try_drop_child(&child) {
            return self.discard(child);
        }
        let poll = || {
            // SAFETY: see above.
            unsafe { child.poll() }
        };
        let (polled, node) = in_child(node, || catch_unwind(AssertUnwindSafe(poll)));
        // SAFETY: see above.
        unsafe { child.set_node(node) };
        if !watched {
            self.watch(node, || child.waker());
        }
        match polled {
            Ok(Poll::Ready(())) => self.unlist(&child),
            Ok(Poll::Pending) if self.try_drop_child(&child) => self.discard(child),
            Ok(Poll::Pending) if listed => {}
            Ok(Poll::Pending) => self.list(child),
            Err(payload) => {
                self.panicked(payload);
                match child.is_done() {
                    // Its future was gone before something of its task's panicked, which may own the result now.
                    true => self.unlist(&child),
                    false => self.discard(child),
                }
            }
        }
    }

    /// Drops what has to be dropped because the block is cancelled: everybody who runs and is not shielded. Once is
    /// enough: whoever is left has a node, and is woken when that is no longer held.
    pub(super) fn sweep(&mut self) {
        let cancelled = self.are_children_cancelled();
        if std::mem::replace(&mut self.swept, cancelled) || !cancelled {
            return;
        }
        // One decision for all who have no node, because nothing can hold them. Should a shield at the block's edge
        // have come before it, they stay, and are swept when it has gone. Where there are none, nothing is decided:
        // a block of which nobody was dropped may still end with its value.
        let mut plain = None;
        let mut at = self.children.len();
        while at > 0 {
            at -= 1;
            // SAFETY: see `poll_child`.
            let drop_it = match unsafe { self.children[at].node() } {
                None => *plain.get_or_insert_with(|| self.try_drop(None)),
                Some(_) => self.try_drop_child(&self.children[at].clone()),
            };
            if drop_it {
                let child = self.take_listed(at);
                self.discard_unlisted(child);
            }
        }
        self.swept &= plain != Some(false);
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.driver.is_effective()
    }

    /// Whether the block's cancellation reaches the children.
    fn are_children_cancelled(&self) -> bool {
        self.driver.is_effective() && self.service.is_none()
    }

    /// Ends the block if nobody is left and nobody was added. The body must have ended.
    pub(super) fn try_end(&mut self) -> Option<Ended> {
        if !self.children.is_empty() || !self.try_close() {
            return None;
        }
        Some(match (self.panic.take(), self.doomed) {
            (Some(payload), _) => Ended::Panicked(payload),
            (None, true) => Ended::Doomed,
            (None, false) => Ended::Normally,
        })
    }

    /// Closes, unless somebody is still to be polled. A wake-up for a child that has ended is nobody: a block that came
    /// back for it would wait one turn more, and could be dropped there for a cancellation that came too late.
    fn try_close(&self) -> bool {
        if self.core.try_close() {
            return true;
        }
        let mut done = true;
        for child in self.core.take() {
            if !child.is_done() {
                done = false;
                // Never refused: only the block closes.
                drop(self.core.push(child));
            }
        }
        done && self.core.try_close()
    }

    /// Leaves the tree: the block has ended, though its future may be kept.
    pub(super) fn leave(&mut self) {
        self.driver.end();
        // Handles and wakers may be kept; what the variables held must not be kept by them.
        self.values = None;
        let values = lock(&self.core.values).take();
        // Dropped here, where no lock is held.
        drop(values);
    }

    /// Lets the next wake-up through to whoever polls the block.
    pub(super) fn rest(&self, cx: &mut Context<'_>) {
        if !self.core.rest() {
            cx.waker().wake_by_ref();
        }
    }

    /// Decides that this child is dropped where it waits, if it is to be: the block is cancelled, or the child is.
    fn try_drop_child(&mut self, child: &ChildRef) -> bool {
        let (block, own) = (self.are_children_cancelled(), child.cancel_requested());
        // It may be cancelled again before anybody sweeps.
        self.swept &= block;
        if !block && !own {
            return false;
        }
        // SAFETY: see `poll_child`.
        let node = unsafe { child.node() };
        block && self.try_drop(node) || own && !self.is_held(node)
    }

    fn is_held(&self, node: Option<NodeId>) -> bool {
        self.driver
            .node()
            .zip(node)
            .is_some_and(|(own, node)| own.shared.is_held(node))
    }

    /// Makes a node for a child.
    fn add_node(&self) -> Option<NodeId> {
        let own = self.service.as_ref().or(self.driver.node())?;
        Some(own.shared.add(Some(own.id), Kind::Plain, None))
    }

    /// Lets a node that came into being wake the child that it is of.
    fn watch(&self, node: Option<NodeId>, waker: impl FnOnce() -> Waker) {
        if let Some((own, node)) = self.driver.node().zip(node) {
            own.shared.set_child_waker(node, waker());
        }
    }

    fn cancel_node(&self, node: NodeId) {
        if let Some(own) = self.driver.node() {
            own.shared.cancel(node).now();
        }
    }

    fn forget_node(&self, node: Option<NodeId>) {
        if let Some((own, node)) = self.driver.node().zip(node) {
            own.shared.remove(node).now();
        }
    }

    fn list(&mut self, child: ChildRef) {
        // SAFETY: see `poll_child`.
        unsafe { child.set_index(self.children.len()) };
        self.children.push(child);
    }

    /// The child has ended: takes it off the list, if it was on it, and its node out of the tree.
    fn unlist(&mut self, child: &ChildRef) {
        // SAFETY: see `poll_child`.
        let (index, node) = unsafe { (child.index(), child.node()) };
        if let Some(index) = index {
            drop(self.take_listed(index));
        }
        self.forget_node(node);
    }

    /// Takes a child off the list.
    fn take_listed(&mut self, index: usize) -> ChildRef {
        let child = self.children.swap_remove(index);
        if let Some(moved) = self.children.get(index) {
            // SAFETY: see `poll_child`.
            unsafe { moved.set_index(index) };
        }
        child
    }

    /// Drops the child's future.
    fn discard(&mut self, child: ChildRef) {
        // SAFETY: see `poll_child`.
        if let Some(index) = unsafe { child.index() } {
            drop(self.take_listed(index));
        }
        self.discard_unlisted(child);
    }

    /// Drops the future of a child that is not on the list, or not any more.
    fn discard_unlisted(&mut self, child: ChildRef) {
        // SAFETY: see `poll_child`; the child is not done, because this is called once, for children that run.
        let dropped = catch_unwind(AssertUnwindSafe(|| unsafe { child.discard() }));
        // SAFETY: see `poll_child`.
        self.forget_node(unsafe { child.node() });
        if let Err(payload) = dropped {
            self.panicked(payload);
        }
    }

    /// Keeps the first panic for the parent, cancels everybody else, and makes the scopes around wait until the parent
    /// has it.
    fn panicked(&mut self, payload: Payload) {
        if self.panic.is_some() {
            tracing::error!(
                "a second panic in a nursery, while the first one is unwinding, is dropped"
            );
            // Its drop may panic in turn; nobody is left to tell.
            std::mem::forget(payload);
            return;
        }
        self.panic = Some(payload);
        if let Some(node) = self.driver.node() {
            node.shared.set_holds(node.id, true).now();
        }
        let reason = CancelReason::new(CancelSource::Panic);
        self.driver.scope.cancel_for(reason);
    }

    /// Drops everybody at once, shields included, then the body (in a service nursery first), and closes. Returns the first panic that this caused
    /// or that nobody was told of.
    pub(super) fn end_hard(&mut self, drop_body: impl FnOnce()) -> Option<Payload> {
        for child in self.core.close().filter(ChildRef::dequeue) {
            // SAFETY: see `poll_child`.
            if unsafe { child.index() }.is_none() {
                self.list(child);
            }
        }
        // A service outlives whom it serves.
        let mut drop_body = Some(drop_body);
        if self.service.is_some() {
            drop_body
                .take()
                .into_iter()
                .for_each(|drop_it| self.end_body(drop_it));
        }
        while let Some(child) = self.children.pop() {
            self.discard_unlisted(child);
        }
        drop_body
            .into_iter()
            .for_each(|drop_it| self.end_body(drop_it));
        self.leave();
        self.panic.take()
    }
}

/// How a block ended by itself.
pub(super) enum Ended {
    Normally,
    /// With a panic of the body or a child, which is to be resumed.
    Panicked(Payload),
    /// By a cancellation that is absorbed further out: it waits for being dropped from there.
    Doomed,
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Owner")
            .field("children", &self.children.len())
            .finish_non_exhaustive()
    }
}
