//! The block's side of a nursery: polls its children, and drops them when they are cancelled.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::child_ref::{ChildRef, NurseryState};
use super::current;
use super::info::TaskInfo;
use super::observe::{TaskExit, current_run, notify};
use super::polling::{OwnChild, PollGuard};
use super::registry::Registered;
use super::shuffle;
use super::waker::waker;
use crate::ambient;
use crate::ambient::{TreeValues, WithValues};
use crate::cancel::position::{enter, in_child};
use crate::cancel::{
    CancelReason, CancelScope, CancelSource, End, Entered, Kind, Node, NodeId, ScopeDriver,
};
use crate::sys::primitives::lock;

/// The value of a panic.
pub(super) type Payload = Box<dyn Any + Send>;

/// Drives one block. If the block is dropped before it has ended, it must call
/// [`abort`](BlockDriver::abort) first.
pub(super) struct BlockDriver {
    pub(super) nursery: Arc<NurseryState>,
    scope: ScopeDriver,
    /// `None` when the block has ended.
    registered: Option<Registered>,
    /// In a service nursery, the node above the children. It is a shield while the body lives.
    service: Option<Node>,
    /// The children are shielded from the block's cancellation, because the body lives.
    is_serving: bool,
    /// The tree variables where the block was opened.
    values: Option<TreeValues>,
    /// Shuffles the ready children, if a test has asked for that.
    order: Option<fastrand::Rng>,
    /// The body's node in the scope tree, once it has one.
    body_node: Option<NodeId>,
    /// The first panic of the body or a child, until the block resumes it.
    panic: Option<Payload>,
    /// The block is cancelled, and every child without a deferring shield has been dropped.
    cancelled_are_dropped: bool,
    /// The body or a child was dropped because the block was cancelled, by itself or by an outer
    /// scope.
    has_dropped: bool,
    /// The body or a child was dropped because an outer scope was cancelled. The block then returns
    /// no value, only an error or a panic if there is one: it stays pending until that scope drops
    /// it.
    committed: bool,
}

/// How a block ended by itself.
pub(super) enum Ended {
    Normally,
    /// With a panic of the body or of a child, which the block resumes.
    Panicked(Payload),
    /// By a cancellation that an outer scope absorbs, which will drop the block.
    Cancelled,
}

impl BlockDriver {
    /// Adds the block to the scope tree, below the position of this thread.
    pub(super) fn begin(service: bool) -> Self {
        let scope = CancelScope::new();
        let mut driver = ScopeDriver::new(scope.clone());
        driver.begin();
        let values = ambient::tree_values();
        let own = driver.node().filter(|_| service);
        let service = own.map(|own| Node::below(&own.shared, own.id, Kind::Shield));
        let nursery = NurseryState::new(scope, current::current(), current_run(), values.clone());
        BlockDriver {
            registered: Some(Registered::new(nursery.clone())),
            nursery,
            scope: driver,
            is_serving: service.is_some(),
            service,
            values,
            order: shuffle::generator(),
            body_node: None,
            panic: None,
            cancelled_are_dropped: false,
            has_dropped: false,
            committed: false,
        }
    }

    /// Moves the block's node below this thread's position.
    pub(super) fn follow(&mut self) {
        self.scope.follow();
    }

    /// Leaves the registry when the block has ended by a cancellation that an outer scope absorbs.
    /// Keeps the block's node, which sees when no scope around is cancelled any more.
    pub(super) fn die(&mut self) {
        self.service = None;
        self.scope.die();
        self.clear();
    }

    /// Waits to be dropped, after [`die`](BlockDriver::die).
    pub(super) fn poll_dead<T>(&mut self, cx: &mut Context<'_>) -> Poll<T> {
        self.scope.poll_dead("a nursery block", cx)
    }

    pub(super) fn register(&self, waker: &Waker) {
        self.scope.register(waker);
    }

    /// Makes the block's node and tree variables those of this thread, until the result is dropped.
    pub(super) fn enter(&self) -> (Entered, WithValues) {
        let node = self
            .scope
            .node()
            .expect("`begin` adds the node, and `leave` removes it when the block has ended");
        (
            enter(&node.shared, node.id),
            WithValues::new(self.values.clone()),
        )
    }

    /// Polls the body at its own position in the scope tree. `None` if it panicked; the caller then
    /// drops it.
    pub(super) fn poll_body<T>(
        &mut self,
        waker: &Waker,
        poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Option<Poll<T>> {
        let poll = || poll(&mut Context::from_waker(waker));
        let (polled, node) = in_child(self.body_node, || catch_unwind(AssertUnwindSafe(poll)));
        if self.body_node.is_none() {
            self.set_waker(node, || waker.clone());
        }
        self.body_node = node;
        polled.map_err(|payload| self.panicked(payload)).ok()
    }

    /// Decides whether the body is dropped where it waits, because the block is cancelled.
    pub(super) fn try_drop_body(&mut self) -> bool {
        self.try_drop(self.body_node)
    }

    /// Decides whether the body or child with this node is dropped, because the block is cancelled.
    fn try_drop(&mut self, node: Option<NodeId>) -> bool {
        let own = self.scope.node().filter(|_| self.scope.is_effective());
        let end = own.and_then(|own| own.shared.try_drop_child(own.id, node));
        self.committed |= end == Some(End::Above);
        self.has_dropped |= end.is_some();
        end.is_some()
    }

    /// Ends the body: `drop_body` drops its future, if it still has one.
    pub(super) fn end_body(&mut self, drop_body: impl FnOnce()) {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(drop_body)) {
            self.panicked(payload);
        }
        self.nursery.body_wait.clear();
        let node = self.body_node.take();
        self.remove_node(node);
        if std::mem::take(&mut self.is_serving)
            && let Some(node) = &self.service
        {
            // From now on the block's cancellation reaches the children.
            node.shared.set_plain(node.id).now();
            self.scope.scope.wake();
        }
    }

    /// Polls each ready child one time. A child that becomes ready during this round waits for the
    /// next round, so it cannot starve other children or other tasks.
    pub(super) fn poll_ready(&mut self, guard: &PollGuard<'_>) {
        let service = self.service.as_ref();
        let _position = service.map(|node| enter(&node.shared, node.id));
        guard.take_ready();
        if let Some(order) = &mut self.order {
            guard.shuffle_ready(order);
        }
        if self.nursery.is_observed() {
            self.notify_scheduled(guard);
        }
        while let Some(child) = guard.next_ready() {
            self.poll_child(guard, child);
        }
    }

    #[cold]
    #[inline(never)]
    fn notify_scheduled(&self, guard: &PollGuard<'_>) {
        for child in guard.ready().iter().filter(|child| !child.is_done()) {
            self.notify_late_spawn(guard, child);
            notify(|observer| observer.task_scheduled(&TaskInfo::of(child)));
        }
    }

    /// Tells instruments of a child that was spawned where they could not be told, such as on
    /// another thread.
    fn notify_late_spawn<'b>(&self, guard: &PollGuard<'b>, child: &OwnChild<'b>) {
        if !guard.is_listed(child) && !child.is_announced() && self.nursery.is_observed() {
            notify(|observer| observer.task_spawned(&TaskInfo::of(child)));
        }
    }

    fn notify_exit(&self, child: &ChildRef, how: TaskExit) {
        if self.nursery.is_observed() {
            notify(|observer| observer.task_exited(&TaskInfo::of(child), how));
        }
    }

    fn poll_child<'b>(&mut self, guard: &PollGuard<'b>, child: OwnChild<'b>) {
        if !child.dequeue() {
            return;
        }
        let (listed, mut node) = (guard.is_listed(&child), child.node());
        let has_waker = node.is_some();
        if child.is_cancel_requested() {
            if !listed {
                // The child has not been polled yet. It needs a node before its first poll, so that
                // scopes it opens there are cancelled too.
                node = node.or_else(|| self.add_node());
            }
            if let Some(node) = node {
                self.cancel_node(node);
            }
        }
        // A child runs to its first await that has to wait, however early it was cancelled.
        if listed && self.try_drop_child(&child) {
            guard.unlist(&child);
            return self.drop_child(guard, child, TaskExit::Cancelled);
        }
        let observed = self.nursery.is_observed();
        let (polled, node) = guard.with_current(&child, || {
            if observed {
                notify(|observer| observer.before_task_step(&TaskInfo::of(&child)));
            }
            let polled = in_child(node, || catch_unwind(AssertUnwindSafe(|| child.poll())));
            if observed {
                notify(|observer| observer.after_task_step(&TaskInfo::of(&child)));
            }
            polled
        });
        child.set_node(node);
        if !has_waker {
            self.set_waker(node, || waker(&child));
        }
        match polled {
            Ok(Poll::Ready(())) => self.end_child(guard, &child, TaskExit::Finished),
            Ok(Poll::Pending) if self.try_drop_child(&child) => {
                guard.unlist(&child);
                self.drop_child(guard, child, TaskExit::Cancelled)
            }
            Ok(Poll::Pending) if listed => {}
            Ok(Poll::Pending) => guard.list(child),
            Err(payload) => {
                self.panicked(payload);
                // The panic may come from the waker of the task that awaits the result. In that
                // case the child's future is already gone, and that task may already own the
                // result.
                if child.is_done() {
                    self.end_child(guard, &child, TaskExit::Panicked)
                } else {
                    guard.unlist(&child);
                    self.drop_child(guard, child, TaskExit::Panicked)
                }
            }
        }
    }

    /// Forgets a child whose future is gone.
    #[inline(always)]
    fn end_child<'b>(&self, guard: &PollGuard<'b>, child: &OwnChild<'b>, how: TaskExit) {
        guard.unlist(child);
        self.remove_node(child.node());
        self.notify_exit(child, how);
    }

    /// Drops the future of a child that is not in the list.
    fn drop_child<'b>(&mut self, guard: &PollGuard<'b>, child: OwnChild<'b>, mut how: TaskExit) {
        let dropped = guard.with_current(&child, || {
            catch_unwind(AssertUnwindSafe(|| child.drop_future()))
        });
        self.remove_node(child.node());
        if let Err(payload) = dropped {
            how = TaskExit::Panicked;
            self.panicked(payload);
        }
        self.notify_exit(&child, how);
    }

    /// Drops every child that the block's cancellation reaches and no shield defers.
    ///
    /// One pass is enough for a child with a node: it is woken when no shield defers it any more.
    /// If children without a node stay, the next poll repeats the pass.
    pub(super) fn drop_cancelled(&mut self, guard: &PollGuard<'_>) {
        let cancelled = self.are_children_cancelled();
        if std::mem::replace(&mut self.cancelled_are_dropped, cancelled) || !cancelled {
            return;
        }
        // A shield inside a child can defer only a child that has a node. So one decision covers
        // all children without a node. It is made only if such a child exists, because the decision
        // may commit the block to being cancelled. If the block is inside a shield by now, the
        // decision is no: these children stay until that shield ends.
        let mut plain = None;
        let mut index = guard.len();
        while index > 0 {
            index -= 1;
            let child = guard.take(index);
            let drop_it = match child.node() {
                None => *plain.get_or_insert_with(|| self.try_drop(None)),
                Some(_) => self.try_drop_child(&child),
            };
            if drop_it {
                self.drop_child(guard, child, TaskExit::Cancelled)
            } else {
                guard.list(child)
            }
        }
        self.cancelled_are_dropped &= plain != Some(false);
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.scope.is_effective()
    }

    /// Tells whether the block's cancellation reaches the children.
    fn are_children_cancelled(&self) -> bool {
        self.scope.is_effective() && !self.is_serving
    }

    /// Ends the block if no child is left. The body must have ended.
    pub(super) fn try_end(&mut self, guard: &PollGuard<'_>) -> Option<Ended> {
        if guard.len() > 0 || !Self::try_close(guard) {
            return None;
        }
        // An outer scope may have been cancelled since, by one of these drops for example. As in
        // Trio, that scope absorbs then.
        let committed =
            self.committed || self.has_dropped && self.scope.end_after_drop() == End::Above;
        Some(match (self.panic.take(), committed) {
            (Some(payload), _) => Ended::Panicked(payload),
            (None, true) => Ended::Cancelled,
            (None, false) => Ended::Normally,
        })
    }

    /// Closes the nursery if no child is ready. Wake-ups of ended children are ignored. Otherwise
    /// the block would wait for one more poll, and a cancellation that arrives before that poll
    /// would drop a block that has already finished.
    fn try_close(guard: &PollGuard<'_>) -> bool {
        if guard.try_close() {
            return true;
        }
        guard.take_ready();
        let mut done = true;
        while let Some(child) = guard.next_ready() {
            if !child.is_done() {
                done = false;
                guard.push_back(child);
            }
        }
        done && guard.try_close()
    }

    /// Leaves the scope tree and the registry, when the block has ended. The block's future may be
    /// kept after that.
    pub(super) fn leave(&mut self) {
        self.service = None;
        self.scope.end();
        self.clear();
    }

    fn clear(&mut self) {
        self.registered = None;
        // Handles and wakers may be kept too, but must not keep the values of tree variables.
        self.values = None;
        let values = lock(&self.nursery.values).take();
        // Drops of values run when no lock is held.
        drop(values);
    }

    /// Makes the next wake-up wake the task that polls the block. Wakes that task at once if a
    /// child is ready.
    pub(super) fn wait(&self, cx: &mut Context<'_>) {
        if !self.nursery.children.mark_idle() {
            cx.waker().wake_by_ref();
        }
    }

    /// Decides whether this child is dropped where it waits, because the block or the child is
    /// cancelled.
    fn try_drop_child(&mut self, child: &OwnChild<'_>) -> bool {
        let (block, own) = (self.are_children_cancelled(), child.is_cancel_requested());
        // A block's cancellation can stop being effective (a shield) and become effective again
        // later, so the flag is cleared.
        self.cancelled_are_dropped &= block;
        if !block && !own {
            return false;
        }
        let node = child.node();
        block && self.try_drop(node) || own && !self.is_deferred(node)
    }

    fn is_deferred(&self, node: Option<NodeId>) -> bool {
        self.scope
            .node()
            .zip(node)
            .is_some_and(|(own, node)| own.shared.is_deferred(node))
    }

    /// Adds a node for a child.
    fn add_node(&self) -> Option<NodeId> {
        let own = self.service.as_ref().or(self.scope.node())?;
        Some(own.shared.add(Some(own.id), Kind::Plain, None))
    }

    /// Makes a new node wake its child when it changes.
    fn set_waker(&self, node: Option<NodeId>, waker: impl FnOnce() -> Waker) {
        if let Some((own, node)) = self.scope.node().zip(node) {
            own.shared.set_child_waker(node, waker());
        }
    }

    fn cancel_node(&self, node: NodeId) {
        if let Some(own) = self.scope.node() {
            own.shared.cancel(node).now();
        }
    }

    fn remove_node(&self, node: Option<NodeId>) {
        if let Some((own, node)) = self.scope.node().zip(node) {
            own.shared.remove(node).now();
        }
    }

    /// Keeps the first panic for the parent, cancels the block, and makes the scopes around it wait
    /// until the parent has the panic.
    fn panicked(&mut self, payload: Payload) {
        if self.panic.is_some() {
            tracing::error!(
                target: "seedbed::nursery",
                "a second panic in a nursery, while the first one is unwinding, is dropped"
            );
            // The drop of the payload may panic too, so it is leaked.
            std::mem::forget(payload);
            return;
        }
        self.panic = Some(payload);
        if let Some(node) = self.scope.node() {
            node.shared.set_defers(node.id, true).now();
        }
        let reason = CancelReason::new(CancelSource::Panic);
        self.scope.scope.cancel_for(reason);
    }

    /// Closes the nursery and drops everything without waiting, shields included: first the
    /// children, then the body; in a service nursery, first the body. Returns the first panic, if
    /// the block has not resumed it.
    pub(super) fn abort(
        &mut self,
        guard: &PollGuard<'_>,
        drop_body: impl FnOnce(),
    ) -> Option<Payload> {
        guard.close();
        while let Some(child) = guard.next_ready() {
            if child.dequeue() {
                self.notify_late_spawn(guard, &child);
                if !guard.is_listed(&child) {
                    guard.list(child);
                }
            }
        }
        let mut drop_body = Some(drop_body);
        if self.is_serving
            && let Some(drop_body) = drop_body.take()
        {
            self.end_body(drop_body);
        }
        while let Some(child) = guard.pop() {
            self.drop_child(guard, child, TaskExit::Cancelled);
        }
        if let Some(drop_body) = drop_body {
            self.end_body(drop_body);
        }
        self.leave();
        self.panic.take()
    }
}

impl fmt::Debug for BlockDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockDriver")
            .field("nursery", &self.nursery)
            .finish_non_exhaustive()
    }
}
