//! Time limits: functions that run a future in a scope with a deadline.

use std::error::Error;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use pin_project_lite::pin_project;

use super::cancel_scope::CancelScope;
use super::scope::ScopeRun;

/// Runs `future` for at most `timeout`, counted from the first poll. Returns `None` if the time was
/// up first.
///
/// # Cancellation
///
/// When the time is up, `future` is dropped at the await where it waits, unless it is shielded.
/// Dropping the returned future drops `future` at once.
///
/// ```
/// use std::time::Duration;
/// use seedbed::time::sleep_forever;
/// use seedbed::{move_on_after, run};
///
/// run(async {
///     assert_eq!(move_on_after(Duration::from_secs(1), async { 3 }).await, Some(3));
///     assert_eq!(move_on_after(Duration::ZERO, sleep_forever()).await, None);
/// });
/// ```
#[doc(alias = "timeout")]
pub fn move_on_after<F: IntoFuture>(timeout: Duration, future: F) -> MoveOn<F::IntoFuture> {
    let scope = CancelScope::new();
    scope.set_timeout(timeout);
    MoveOn {
        run: scope.run(future),
    }
}

/// Runs `future` until `deadline` at most. Returns `None` if the deadline came first.
///
/// # Cancellation
///
/// When the time is up, `future` is dropped at the await where it waits, unless it is shielded.
/// Dropping the returned future drops `future` at once.
///
/// ```
/// use seedbed::cancel::move_on_at;
/// use seedbed::time::{current_time, sleep_forever};
/// use seedbed::run;
///
/// run(async {
///     assert_eq!(move_on_at(current_time(), sleep_forever()).await, None);
/// });
/// ```
pub fn move_on_at<F: IntoFuture>(deadline: Instant, future: F) -> MoveOn<F::IntoFuture> {
    let scope = CancelScope::new();
    scope.set_deadline(Some(deadline));
    MoveOn {
        run: scope.run(future),
    }
}

/// Runs `future` for at most `timeout`, counted from the first poll.
///
/// The time is that of the run's clock; by default, the system's monotonic clock. It goes on while
/// the program is stopped (by Ctrl-Z, for example) and stands still while the machine is suspended.
/// A limit that passes while the program is stopped cancels `future` when the program goes on.
///
/// # Cancellation
///
/// When the time is up, `future` is dropped at the await where it waits, unless it is shielded.
/// Dropping the returned future drops `future` at once.
///
/// # Errors
///
/// [`TooSlowError`] if `future` was dropped because the time was up. If `future` completes without
/// waiting again after the deadline, its value is returned. If a scope further out is cancelled
/// too, that one drops the caller.
///
/// ```
/// use std::time::Duration;
/// use seedbed::time::sleep_forever;
/// use seedbed::cancel::TooSlowError;
/// use seedbed::{fail_after, run};
///
/// run(async {
///     assert_eq!(fail_after(Duration::from_secs(1), async { 3 }).await, Ok(3));
///     assert!(fail_after(Duration::ZERO, sleep_forever()).await.is_err());
/// });
/// ```
#[doc(alias = "timeout")]
#[doc(alias = "wait_for")]
pub fn fail_after<F: IntoFuture>(timeout: Duration, future: F) -> Fail<F::IntoFuture> {
    Fail {
        run: move_on_after(timeout, future),
    }
}

/// Runs `future` until `deadline` at most.
///
/// # Cancellation
///
/// When the time is up, `future` is dropped at the await where it waits, unless it is shielded.
/// Dropping the returned future drops `future` at once.
///
/// # Errors
///
/// [`TooSlowError`], under the same conditions as for [`fail_after`].
///
/// ```
/// use seedbed::cancel::fail_at;
/// use seedbed::time::{current_time, sleep_forever};
/// use seedbed::run;
///
/// run(async {
///     let error = fail_at(current_time(), sleep_forever()).await.unwrap_err();
///     assert_eq!(error.to_string(), "the time limit was reached before the work was done");
/// });
/// ```
#[doc(alias = "timeout_at")]
pub fn fail_at<F: IntoFuture>(deadline: Instant, future: F) -> Fail<F::IntoFuture> {
    Fail {
        run: move_on_at(deadline, future),
    }
}

/// The error of [`fail_after`] and [`fail_at`]: the time limit was reached first.
///
/// ```
/// use std::time::Duration;
/// use seedbed::time::sleep_forever;
/// use seedbed::cancel::TooSlowError;
/// use seedbed::{fail_after, run};
///
/// let late = fail_after(Duration::from_millis(1), sleep_forever());
/// let error: TooSlowError = run(late).unwrap_err();
/// assert_eq!(error.to_string(), "the time limit was reached before the work was done");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TooSlowError;

impl fmt::Display for TooSlowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the time limit was reached before the work was done")
    }
}

impl Error for TooSlowError {}

pin_project! {
    /// Runs a future up to a deadline; made by [`move_on_after`] and [`move_on_at`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless awaited"]
    pub struct MoveOn<F> {
        #[pin]
        run: ScopeRun<F>,
    }
}

impl<F: Future> Future for MoveOn<F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().run.poll(cx)
    }
}

pin_project! {
    /// Runs a future up to a deadline; made by [`fail_after`] and [`fail_at`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless awaited"]
    pub struct Fail<F> {
        #[pin]
        run: MoveOn<F>,
    }
}

impl<F: Future> Future for Fail<F> {
    type Output = Result<F::Output, TooSlowError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(ready!(self.project().run.poll(cx)).ok_or(TooSlowError))
    }
}
