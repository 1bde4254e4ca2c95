//! Runs a future in a [`CancelScope`].

use std::cell::Cell;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use pin_project_lite::pin_project;

use super::cancel_scope::CancelScope;
use super::node::{Node, SharedTree};
use super::outlived::poll_dead;
use super::position::{PendingNode, attach_with, follow, poll_at};
use super::scope_state::{RunTwiceError, ScopeState};
use super::tree::End;
use crate::time::{Sleep, sleep_until};

impl CancelScope {
    /// Runs `future` in this scope. The scope joins the tree of scopes when the returned future is
    /// first polled.
    ///
    /// Returns `None` if the future was dropped because *this* scope was cancelled. If an outer
    /// scope was cancelled too, the returned future stays pending, and the outer scope drops it. A
    /// future that completes keeps its value, even if the scope was cancelled in the meantime.
    /// However early the scope was cancelled, the future runs up to its first await that has to
    /// wait.
    ///
    /// # Cancellation
    ///
    /// Cancelling drops `future` at the await where it waits. If a [`shield`](crate::shield()) is
    /// active in it, cancelling drops it as soon as the shield has ended. Dropping the returned
    /// future drops `future` at once, shields included.
    ///
    /// # Panics
    ///
    /// When it is polled, if the scope runs or ran another future. Also if a scope around it has
    /// dropped `future`, and has ended: see [the guide](crate::guide::cancellation) on futures that
    /// are polled by reference.
    ///
    /// ```
    /// use seedbed::{CancelScope, run};
    ///
    /// run(async {
    ///     let scope = CancelScope::new();
    ///     scope.cancel();
    ///     // A body that need not wait is not cancelled.
    ///     assert_eq!(scope.run(async { 5 }).await, Some(5));
    /// });
    /// ```
    pub fn run<F: IntoFuture>(&self, future: F) -> ScopeRun<F::IntoFuture> {
        ScopeRun {
            driver: ScopeDriver::new(self.clone()),
            body: Body::Running {
                future: future.into_future(),
            },
        }
    }
}

pin_project! {
    /// Runs a future in a [`CancelScope`]; made by [`CancelScope::run`].
    #[must_use = "futures do nothing unless awaited"]
    pub struct ScopeRun<F> {
        // Dropped first, because the nodes below it must be removed before this one.
        #[pin]
        body: Body<F>,
        driver: ScopeDriver,
    }
}

pin_project! {
    #[project = BodyProjection]
    enum Body<F> {
        Running { #[pin] future: F },
        /// The body was dropped because of a cancellation that a scope further out absorbs. That
        /// scope drops this one, unless it has it by reference.
        Dead,
        Ended,
    }
}

/// The part of a [`ScopeRun`] that does not depend on its body; also drives the scope of a nursery.
pub(crate) struct ScopeDriver {
    pub(crate) scope: CancelScope,
    /// This driver began the scope, so it must end it.
    begun: bool,
    node: Option<Node>,
    deadline_sleep: Option<DeadlineSleep>,
}

/// The timeout with which a scope has begun.
#[derive(Clone, Copy, Default)]
struct Timing {
    /// It has a timeout or a deadline.
    is_timed: bool,
    timeout: Option<Duration>,
}

/// Makes the closure that begins a scope, and sets `begun` and `timing`. As it is made here, its
/// type does not depend on the body of the scope, so one instance of [`poll_at`]'s beginning serves
/// all.
fn begin_in<'a>(
    state: &'a Arc<ScopeState>,
    timing: &'a Cell<Timing>,
    begun: &'a mut bool,
) -> impl FnOnce(&Arc<SharedTree>) -> Result<PendingNode, RunTwiceError> + 'a {
    |tree| {
        let timeout = state.begin(tree)?;
        timing.set(Timing {
            is_timed: timeout.is_some() || state.is_timed(),
            timeout,
        });
        *begun = true;
        Ok(PendingNode::Scope(state.clone()))
    }
}

/// Sleeps until the deadline that the scope had when this was made.
struct DeadlineSleep {
    deadline: Instant,
    sleep: Sleep,
}

impl ScopeDriver {
    pub(crate) fn new(scope: CancelScope) -> Self {
        ScopeDriver {
            scope,
            begun: false,
            node: None,
            deadline_sleep: None,
        }
    }

    /// Begins the scope and adds its node below this thread's position.
    pub(crate) fn begin(&mut self) {
        let ScopeDriver { scope, begun, .. } = self;
        self.node = Some(attach_with(|tree, parent| {
            let timeout = scope.state.begin(tree);
            debug_assert!(
                matches!(timeout, Ok(None)),
                "a nursery makes its own scope, without a timeout"
            );
            *begun = true;
            scope.state.add_to(tree, parent)
        }));
    }

    /// Calls `poll` at the scope's position. The first call begins the scope. It adds the scope's
    /// node if code below needs the node, or if the poll does not finish.
    fn poll_inside<T>(&mut self, poll: impl FnOnce() -> Poll<T>) -> Poll<T> {
        let ScopeDriver { scope, begun, .. } = self;
        let timing = Cell::new(Timing::default());
        let begin = begin_in(&scope.state, &timing, begun);
        let polled = poll_at(&mut self.node, begin, || {
            let timing = timing.get();
            if timing.is_timed {
                scope.state.begin_deadline(timing.timeout);
            }
            poll()
        });
        polled.unwrap_or_else(|RunTwiceError| {
            panic!("a CancelScope was run a second time; make a new scope for each future")
        })
    }

    /// Cancels the scope if its deadline has passed. Otherwise returns the deadline, if there is
    /// one.
    fn check_deadline(&self) -> Option<Instant> {
        if !self.scope.state.is_timed() || self.scope.state.was_cancelled() {
            return None;
        }
        let deadline = self.scope.deadline()?;
        let now = self.node.as_ref()?.shared.now();
        if deadline > now {
            return Some(deadline);
        }
        self.scope.state.expire();
        None
    }

    /// Cancels the scope if its deadline has passed. Otherwise has the task woken at the deadline.
    fn watch_deadline(&mut self, cx: &mut Context<'_>) {
        let Some(deadline) = self.check_deadline() else {
            self.deadline_sleep = None;
            return;
        };
        let current = self.deadline_sleep.as_ref().map(|current| current.deadline);
        if current != Some(deadline) {
            self.deadline_sleep = Some(DeadlineSleep {
                deadline,
                sleep: sleep_until(deadline),
            });
        }
        if let Some(current) = &mut self.deadline_sleep
            && Pin::new(&mut current.sleep).poll(cx).is_ready()
        {
            self.scope.state.expire();
        }
    }

    /// Decides whether the body is dropped now.
    fn try_drop(&self) -> bool {
        self.is_effective() && self.node.as_ref().is_some_and(Node::try_drop)
    }

    /// Returns whether the scope is cancelled, by itself or by an ancestor.
    pub(crate) fn is_effective(&self) -> bool {
        self.scope.state.node.is_effective()
    }

    /// Moves the scope's node below this thread's position, if the scope has begun.
    #[inline]
    pub(crate) fn follow(&mut self) {
        if let Some(node) = &mut self.node {
            follow(node);
        }
    }

    /// Decides once more where the cancellation ends, after the drop of the body, which may have
    /// cancelled a scope further out. As in Trio, that scope absorbs then.
    pub(crate) fn end_after_drop(&self) -> End {
        let node = self.node.as_ref();
        node.map_or(End::Here, |node| node.shared.end_after_drop(node.id))
    }

    /// Ends the scope, but keeps its node, which sees when no scope around is cancelled any more.
    pub(crate) fn die(&mut self) {
        if std::mem::take(&mut self.begun) {
            self.scope.state.end();
        }
        self.deadline_sleep = None;
        if let Some(node) = &self.node {
            node.shared.set_plain(node.id).now();
        }
    }

    /// Waits to be dropped, after [`die`](ScopeDriver::die).
    pub(crate) fn poll_dead<T>(&mut self, what: &str, cx: &mut Context<'_>) -> Poll<T> {
        self.follow();
        poll_dead(&self.scope.state.node, what, cx)
    }

    /// Registers the waker of the task that polls the scope.
    pub(crate) fn register(&self, waker: &Waker) {
        self.scope.state.node.waker.register(waker);
    }

    pub(crate) fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    /// Ends the scope, if it has begun, and removes its node.
    pub(crate) fn end(&mut self) {
        if std::mem::take(&mut self.begun) {
            self.scope.state.end();
        }
        if let Some(node) = self.node.take() {
            drop(node);
            self.deadline_sleep = None;
            // Handles may be kept for long, and should not keep the task alive.
            drop(self.scope.state.node.waker.take());
        }
    }
}

impl Drop for ScopeDriver {
    fn drop(&mut self) {
        self.end();
    }
}

/// The name of a scope's future in messages.
const WHAT: &str = "a cancel scope or time limit";

impl<F: Future> ScopeRun<F> {
    /// Drops the body, and returns the result of the poll.
    fn cancelled(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
        let mut this = self.project();
        this.body.set(Body::Dead);
        match this.driver.end_after_drop() {
            End::Here => {
                this.driver.end();
                this.body.set(Body::Ended);
                Poll::Ready(None)
            }
            End::Above => {
                this.driver.die();
                this.driver.poll_dead(WHAT, cx)
            }
        }
    }
}

impl<F: Future> Future for ScopeRun<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
        let mut this = self.as_mut().project();
        let future = match this.body.as_mut().project() {
            BodyProjection::Running { future } => future,
            BodyProjection::Dead => return this.driver.poll_dead(WHAT, cx),
            BodyProjection::Ended => {
                panic!("a cancel scope's future was polled after it had ended")
            }
        };
        if this.driver.node.is_some() {
            this.driver.follow();
            this.driver.check_deadline();
            if this.driver.try_drop() {
                return self.cancelled(cx);
            }
        }
        if let Poll::Ready(value) = this.driver.poll_inside(|| future.poll(cx)) {
            this.body.set(Body::Ended);
            this.driver.end();
            return Poll::Ready(Some(value));
        }
        // A cancellation or deadline change before `register` is found by the checks below. A later
        // one wakes the task.
        this.driver.register(cx.waker());
        this.driver.watch_deadline(cx);
        if this.driver.try_drop() {
            return self.cancelled(cx);
        }
        Poll::Pending
    }
}

impl<F> fmt::Debug for ScopeRun<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopeRun")
            .field("scope", &self.driver.scope)
            .finish_non_exhaustive()
    }
}
