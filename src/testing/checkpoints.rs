//! Assertions that a future waits, or that it does not.
//!
//! Decision: Trio counts, for each task, its passes through the scheduler and its checks for
//! cancellation. Here, both are a pending poll, which is visible from outside. So the assertions
//! wrap a future instead of a block of statements, and need no counters that every task pays for.
//!
//! A pending poll lets other tasks run. It is also a cancel point, unless something inside defers
//! cancellation. The scope tree knows that for a node, so the future gets a node of its own.

use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use crate::cancel::position::{attach, enter, follow};
use crate::cancel::{Kind, Node};

/// Runs a future to its end, and panics if it completes without a checkpoint.
///
/// A *checkpoint* is a point at which the future waits (a poll returns pending), so that other
/// tasks run, **and** at which it could be cancelled: it contains no active
/// [`shield`](crate::shield()) and nothing else that defers cancellation, like
/// [`on_cancel`](crate::on_cancel) or a job that is not killed. A wait behind a shield does not
/// count.
///
/// In Rust, an await that need not wait is no checkpoint. So the assertion holds for the arguments
/// and the state of this test only.
///
/// # Cancellation
///
/// Cancelled like the future. The assertion does not apply to a future that is cancelled or dropped
/// before its end.
///
/// # Panics
///
/// If the future completes without a checkpoint; with the panic of the future.
///
/// ```
/// use seedbed::{checkpoint, run, testing::assert_checkpoints};
///
/// run(async {
///     assert_eq!(assert_checkpoints(async { checkpoint().await; 5 }).await, 5);
/// });
/// ```
#[track_caller]
pub fn assert_checkpoints<F: IntoFuture>(future: F) -> AssertCheckpoints<F::IntoFuture> {
    AssertCheckpoints {
        future: Some(future.into_future()),
        node: None,
        seen: Seen::Nothing,
        asserted_at: Location::caller(),
    }
}

pin_project! {
    /// Runs a future that must contain a checkpoint; made by [`assert_checkpoints`].
    #[must_use = "futures do nothing unless awaited"]
    pub struct AssertCheckpoints<F> {
        // Dropped first, so that the nodes below `node` are removed before it.
        #[pin]
        future: Option<F>,
        node: Option<Node>,
        seen: Seen,
        asserted_at: &'static Location<'static>,
    }
}

/// The observation of a future's polls; later variants outrank earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Seen {
    /// The future has not waited.
    Nothing,
    /// The future waited, but could not be cancelled.
    Wait,
    /// The future waited and could be cancelled.
    Checkpoint,
}

impl<F: Future> Future for AssertCheckpoints<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        let node = this.node.get_or_insert_with(|| attach(Kind::Plain, None));
        let polled = {
            follow(node);
            let _entered = enter(&node.shared, node.id);
            let future = this.future.as_mut().as_pin_mut();
            future
                .expect("an assert_checkpoints was polled after it had ended")
                .poll(cx)
        };
        if polled.is_pending() {
            let held = node.shared.is_deferred(node.id);
            let seen = if held { Seen::Wait } else { Seen::Checkpoint };
            *this.seen = seen.max(*this.seen);
        }
        let value = ready!(polled);
        this.future.set(None);
        *this.node = None;
        let at = this.asserted_at;
        match this.seen {
            Seen::Checkpoint => Poll::Ready(value),
            Seen::Nothing => panic!(
                "assert_checkpoints at {at}: the future ended without waiting, so no other task ran, and it could not be \
                 cancelled"
            ),
            Seen::Wait => panic!(
                "assert_checkpoints at {at}: the future waited, but only where it could not be cancelled: behind a \
                 shield, or something else that is waited for"
            ),
        }
    }
}

impl<F> fmt::Debug for AssertCheckpoints<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AssertCheckpoints")
            .field("seen", &self.seen)
            .finish_non_exhaustive()
    }
}

/// Runs a future that must complete without waiting, and panics as soon as it waits, shielded or
/// not.
///
/// So the future is atomic: no other task of the run runs in between, and it cannot be cancelled.
///
/// # Cancellation
///
/// Never cancelled, because it never waits.
///
/// # Panics
///
/// When the future waits; with the panic of the future.
///
/// ```
/// use seedbed::{run, sync::Event, testing::assert_no_checkpoints};
///
/// run(async {
///     let event = Event::new();
///     event.set();
///     assert_no_checkpoints(event.wait()).await; // it need not wait, so it does not
/// });
/// ```
#[track_caller]
pub fn assert_no_checkpoints<F: IntoFuture>(future: F) -> AssertNoCheckpoints<F::IntoFuture> {
    AssertNoCheckpoints {
        future: future.into_future(),
        asserted_at: Location::caller(),
    }
}

pin_project! {
    /// Runs a future that must not wait; made by [`assert_no_checkpoints`].
    #[must_use = "futures do nothing unless awaited"]
    pub struct AssertNoCheckpoints<F> {
        #[pin]
        future: F,
        asserted_at: &'static Location<'static>,
    }
}

impl<F: Future> Future for AssertNoCheckpoints<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let polled = this.future.poll(cx);
        let at = this.asserted_at;
        assert!(
            polled.is_ready(),
            "assert_no_checkpoints at {at}: the future waits, so others have a turn"
        );
        polled
    }
}

impl<F> fmt::Debug for AssertNoCheckpoints<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AssertNoCheckpoints")
            .finish_non_exhaustive()
    }
}
