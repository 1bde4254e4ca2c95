//! Asserting that a future waits, or that it does not.
//!
//! Choice: Trio counts, for each task, how often it went through the scheduler and how often it
//! looked whether it is cancelled. Here both are one thing that can be seen from outside: a poll
//! that is pending. So the assertions wrap the future instead of a block of statements, and need no
//! counters that everybody pays for.
//!
//! A pending poll lets others run. It is a cancel point, too, unless something inside makes
//! cancellation wait; the scope tree knows that of the place at which the future stands, so the
//! future gets a place of its own.

use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use crate::cancel::position::{attach, enter};
use crate::cancel::{Kind, Node};

/// Runs a future to its end, and panics if it got there without a checkpoint.
///
/// A *checkpoint* is a point at which the future waits (a poll of it is pending) so that others
/// have a turn, **and** where it could be cancelled: there is no active [`shield`](crate::shield())
/// in it, nor anything else for which a cancellation would wait, as [`on_cancel`](crate::on_cancel)
/// or a job that is not killed. Waiting behind a shield is only half of it and does not count.
///
/// In Rust an await that need not wait is no checkpoint, so what this asserts of a function holds
/// for the arguments and the state that the test gives it.
///
/// # Cancellation
///
/// That of the future. One that is cancelled or dropped before its end is not judged.
///
/// # Panics
///
/// If the future ended without a checkpoint; with its own panic if it has one.
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
        place: None,
        seen: Seen::Nothing,
        asserted_at: Location::caller(),
    }
}

pin_project! {
    /// Runs a future that must have a checkpoint; made by [`assert_checkpoints`].
    #[must_use = "futures do nothing unless awaited"]
    pub struct AssertCheckpoints<F> {
        // Dropped first, so that the nodes below are gone before this one.
        #[pin]
        future: Option<F>,
        place: Option<Node>,
        seen: Seen,
        asserted_at: &'static Location<'static>,
    }
}

/// The most that was seen of a future.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Seen {
    /// It has not waited.
    Nothing,
    /// It waited, but where it could not be cancelled.
    Wait,
    /// It waited where it could be cancelled.
    Checkpoint,
}

impl<F: Future> Future for AssertCheckpoints<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        let place = this.place.get_or_insert_with(|| attach(Kind::Plain, None));
        let polled = {
            let _entered = enter(&place.shared, place.id);
            let future = this.future.as_mut().as_pin_mut();
            future
                .expect("an assert_checkpoints was polled after it had ended")
                .poll(cx)
        };
        if polled.is_pending() {
            let held = place.shared.is_deferred(place.id);
            let seen = if held { Seen::Wait } else { Seen::Checkpoint };
            *this.seen = seen.max(*this.seen);
        }
        let value = ready!(polled);
        this.future.set(None);
        *this.place = None;
        let at = this.asserted_at;
        match this.seen {
            Seen::Checkpoint => Poll::Ready(value),
            Seen::Nothing => panic!(
                "assert_checkpoints at {at}: the future ended without having waited, so nobody else had a turn, and it \
                 could not be cancelled"
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

/// Runs a future that must end without waiting, and panics as soon as it waits, shielded or not.
///
/// So whatever stands in it is atomic: no other task of the run has had a turn meanwhile, and it
/// could not be cancelled.
///
/// # Cancellation
///
/// There is nowhere where it could be cancelled.
///
/// # Panics
///
/// When the future waits; with its own panic if it has one.
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
