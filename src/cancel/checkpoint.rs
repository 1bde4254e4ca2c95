//! Explicit cancel points.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::outlived::WhileCancelled;

/// Lets the other tasks run once, and is a cancel point.
///
/// Any await that has to wait is a cancel point; this one always has to. Put it into loops that
/// otherwise never wait.
///
/// # Cancellation
///
/// Atomic: if cancelled, nothing has happened.
///
/// ```
/// use std::time::Duration;
/// use seedbed::{checkpoint, move_on_after, run};
///
/// run(async {
///     let endless = async { loop { checkpoint().await } };
///     let ended: Option<()> = move_on_after(Duration::from_millis(1), endless).await;
///     assert_eq!(ended, None);
/// });
/// ```
#[doc(alias = "yield_now")]
#[doc(alias = "lowlevel.checkpoint")]
pub fn checkpoint() -> Checkpoint {
    Checkpoint { yielded: false }
}

/// Lets the other tasks run once; made by [`checkpoint`].
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct Checkpoint {
    yielded: bool,
}

impl Future for Checkpoint {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Completes at once, unless the caller is cancelled: then it never completes.
///
/// An operation that cannot be undone awaits this first, so that it does not begin for a caller
/// that is cancelled.
///
/// # Cancellation
///
/// Atomic: if cancelled, nothing has happened. Once it has found the caller cancelled, the caller
/// is dropped, whatever shields are put up later.
///
/// ```
/// use seedbed::cancel::checkpoint_if_cancelled;
/// use seedbed::{CancelScope, run};
///
/// run(async {
///     checkpoint_if_cancelled().await;
///     let scope = CancelScope::new();
///     scope.cancel();
///     let ran = scope.run(async { checkpoint_if_cancelled().await; "not cancelled" }).await;
///     assert_eq!(ran, None);
/// });
/// ```
pub fn checkpoint_if_cancelled() -> CheckpointIfCancelled {
    CheckpointIfCancelled {
        cancelled: WhileCancelled::new(),
    }
}

/// A cancel point that waits only if the caller is cancelled; made by [`checkpoint_if_cancelled`].
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct CheckpointIfCancelled {
    cancelled: WhileCancelled,
}

impl Future for CheckpointIfCancelled {
    type Output = ();

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.cancelled.poll(cx)
    }
}
