//! `shield`, for work that must not be cancelled, and `on_cancel`, for clean-up that awaits.

use std::convert::Infallible;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use super::node::{Node, NodeState, SharedTree};
use super::outlived::poll_dead;
use super::position::{Entered, PendingNode, attach, enter, follow, poll_at};
use super::tree::Kind;
use super::wait_report::WaitReport;

/// Runs `future` to its end, even if scopes around it are cancelled.
///
/// While it runs, every scope and nursery around it waits for it; everything else in them (other
/// children, other scopes) is dropped at once. The branches of a `join!` or `select!` in the same
/// task are one task: they live as long as the shield among them. Scopes that are opened *inside*
/// the shield work as usual, so a time limit belongs there: a shield around a future that never
/// ends never ends either.
///
/// # Cancellation
///
/// Not cancellable: runs shielded until `future` is done. Only dropping the returned future from
/// outside seedbed, by a foreign `select!` for example, drops `future` at once.
///
/// If a cancelled scope has waited for the shield for two seconds of real time, a `tracing` event
/// at WARN names the place of this call, once; after Ctrl-C, so does a line on standard error.
///
/// ```
/// use std::time::Duration;
/// use seedbed::{CancelScope, run, shield, sleep};
///
/// run(async {
///     let scope = CancelScope::new();
///     scope.cancel();
///     let saved = scope.run(async {
///         shield(sleep(Duration::from_millis(1))).await;
///         "saved"
///     });
///     assert_eq!(saved.await, Some("saved"));
/// });
/// ```
#[doc(alias = "CancelScope.shield")]
#[doc(alias = "NonCancellable")]
#[track_caller]
pub fn shield<F: IntoFuture>(future: F) -> Shield<F::IntoFuture> {
    Shield {
        node: None,
        future: future.into_future(),
        place: Some(Location::caller()),
        report: WaitReport::new(),
        is_cleanup: false,
    }
}

pin_project! {
    /// Runs a future that cancellation does not reach; made by [`shield`].
    #[must_use = "futures do nothing unless awaited"]
    pub struct Shield<F> {
        // Dropped first, because the nodes below it must be removed before this one.
        #[pin]
        future: F,
        node: Option<Node>,
        // Where the shield stands in the program; `None` if it does not report a wait.
        place: Option<&'static Location<'static>>,
        report: WaitReport,
        is_cleanup: bool,
    }
}

impl<F> Shield<F> {
    /// Leaves the report of a long wait to the future in this shield.
    pub(crate) fn quiet(mut self) -> Self {
        self.place = None;
        self
    }
}

impl<F: Future> Future for Shield<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let Ok(polled) = poll_at(this.node, begin, || this.future.poll(cx));
        if polled.is_pending()
            && let (Some(node), Some(place)) = (&*this.node, *this.place)
        {
            let is_cleanup = *this.is_cleanup;
            this.report.poll(cx, &node.shared, node.id, &mut |what| {
                describe(what, is_cleanup, place);
            });
        }
        let value = ready!(polled);
        *this.node = None;
        Poll::Ready(value)
    }
}

fn begin(_: &Arc<SharedTree>) -> Result<PendingNode, Infallible> {
    Ok(PendingNode::Shield)
}

fn describe(what: &mut String, is_cleanup: bool, place: &Location<'_>) {
    let kind = if is_cleanup {
        "the clean-up of `on_cancel`"
    } else {
        "the `shield`"
    };
    what.push_str(&format!(
        "{kind} at {place} (which nothing but its own end ends: put a time limit into it)"
    ));
}

impl<F> fmt::Debug for Shield<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shield")
            .field("active", &self.node.is_some())
            .finish_non_exhaustive()
    }
}

/// Runs `future`. If it is cancelled, drops it, then runs `cleanup` shielded, then lets the
/// cancellation go on.
///
/// This is for clean-up that has to await, which `Drop` cannot. If `future` completes, `cleanup` is
/// dropped without having run.
///
/// # Cancellation
///
/// `future` is dropped at the await where it waits; the scopes around it wait until `cleanup` is
/// done. Dropping the returned future from outside seedbed drops both at once, and `cleanup` does
/// not run. Use `Drop` for actions that must happen even then.
///
/// # Panics
///
/// When polled after the scope that cancelled it has ended, which is possible only if that scope
/// had it by reference, in a `FuturesUnordered` or in a `Shared`. See
/// [the guide](crate::guide::cancellation).
///
/// ```
/// use std::cell::Cell;
/// use std::time::Duration;
/// use seedbed::time::sleep_forever;
/// use seedbed::{move_on_after, on_cancel, run, sleep};
///
/// run(async {
///     let log = Cell::new("");
///     let work = on_cancel(sleep_forever(), async {
///         sleep(Duration::from_millis(1)).await;
///         log.set("cleaned up");
///     });
///     assert_eq!(move_on_after(Duration::from_millis(1), work).await, None);
///     assert_eq!(log.get(), "cleaned up");
/// });
/// ```
#[track_caller]
#[doc(alias = "finally")]
#[doc(alias = "AsyncDrop")]
pub fn on_cancel<F: IntoFuture, C: IntoFuture<Output = ()>>(
    future: F,
    cleanup: C,
) -> OnCancel<F::IntoFuture, C::IntoFuture> {
    let (future, cleanup) = (future.into_future(), cleanup.into_future());
    OnCancel {
        place: Some(Location::caller()),
        ..on_cancel_watched(Arc::default(), future, cleanup)
    }
}

/// Makes a future like [`on_cancel`] does, which leaves the report of a long wait to the clean-up.
/// From its first poll, `state` shows whether it is cancelled.
pub(crate) fn on_cancel_watched<F: Future, C: Future<Output = ()>>(
    state: Arc<NodeState>,
    future: F,
    cleanup: C,
) -> OnCancel<F, C> {
    OnCancel {
        node: CleanupNode { node: None, state },
        place: None,
        stage: Stage::Running {
            future,
            cleanup: Some(cleanup),
        },
    }
}

pin_project! {
    /// Runs a future, and a clean-up if the future is cancelled; made by [`on_cancel`].
    #[must_use = "futures do nothing unless awaited"]
    pub struct OnCancel<F, C> {
        // Dropped first, because the nodes below it must be removed before this one.
        #[pin]
        stage: Stage<F, C>,
        node: CleanupNode,
        // Where the clean-up stands in the program; `None` if it does not report a wait.
        place: Option<&'static Location<'static>>,
    }
}

impl<F, C> OnCancel<F, C> {
    /// Leaves the report of a long wait to the clean-up itself.
    pub(crate) fn quiet(mut self) -> Self {
        self.place = None;
        self
    }
}

/// The node of an [`OnCancel`], and its state, which is cheaper to read.
struct CleanupNode {
    /// `None` before the first poll, and when the future has completed.
    node: Option<Node>,
    state: Arc<NodeState>,
}

impl CleanupNode {
    /// Moves the node, which is added the first time, below this thread's position.
    fn follow(&mut self) {
        match &mut self.node {
            Some(node) => follow(node),
            None => self.node = Some(attach(Kind::Defer, Some(self.state.clone() as _))),
        }
    }

    fn enter(&self) -> Option<Entered> {
        let node = self.node.as_ref()?;
        Some(enter(&node.shared, node.id))
    }

    /// Decides whether the future is dropped now. The cancellation never ends here.
    fn try_drop(&self) -> bool {
        self.state.is_effective() && self.node.as_ref().is_some_and(Node::try_drop)
    }

    /// Lets the scopes around no longer wait for this one.
    fn set_plain(&self) {
        if let Some(node) = &self.node {
            node.shared.set_plain(node.id).now();
        }
    }
}

pin_project! {
    #[project = StageProjection]
    enum Stage<F, C> {
        Running { #[pin] future: F, cleanup: Option<C> },
        Cleaning { #[pin] cleanup: Shield<C> },
        /// The clean-up is done. The scope that absorbs the cancellation drops this future, unless
        /// it has it by reference.
        Dead,
        Ended,
    }
}

impl<F: Future, C: Future<Output = ()>> Future for OnCancel<F, C> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        let first = this.node.node.is_none();
        if !matches!(*this.stage, Stage::Ended) {
            this.node.follow();
        }
        loop {
            match this.stage.as_mut().project() {
                StageProjection::Running { future, cleanup } => {
                    this.node.state.waker.register(cx.waker());
                    if first || !this.node.try_drop() {
                        let entered = this.node.enter();
                        let polled = future.poll(cx);
                        drop(entered);
                        if polled.is_ready() {
                            this.stage.set(Stage::Ended);
                            this.node.node = None;
                            return polled;
                        }
                        if !this.node.try_drop() {
                            return Poll::Pending;
                        }
                    }
                    let cleanup = cleanup.take().expect("taken once, before the next stage");
                    this.stage.set(Stage::Cleaning {
                        cleanup: Shield {
                            place: *this.place,
                            is_cleanup: true,
                            ..shield(cleanup)
                        },
                    });
                }
                StageProjection::Cleaning { cleanup } => {
                    let entered = this.node.enter();
                    ready!(cleanup.poll(cx));
                    drop(entered);
                    this.stage.set(Stage::Dead);
                    this.node.set_plain();
                }
                StageProjection::Dead => {
                    return poll_dead(&this.node.state, "an on_cancel future", cx);
                }
                StageProjection::Ended => {
                    panic!("an on_cancel future was polled after it had ended")
                }
            }
        }
    }
}

impl<F, C> fmt::Debug for OnCancel<F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnCancel")
            .field("active", &self.node.node.is_some())
            .finish_non_exhaustive()
    }
}
