//! The run of an async job, in its worker.

use std::future::{Future, poll_fn};
use std::os::fd::BorrowedFd;
use std::pin::pin;
use std::task::{Context, Poll};

use async_io::Async;

use super::deadline::SharedDeadline;
use crate::cancel::{CancelScope, Watch};
use crate::run::{CtrlC, RunBuilder};
use crate::worker::job_requests;
use crate::worker::job_requests::Taken;

/// Runs the future that `make` returns in a run of its own. Returns `None` if the parent has asked
/// the job to end, and the future was dropped for that.
pub(super) fn run_root<F: Future>(
    deadline: Option<SharedDeadline>,
    make: impl FnOnce() -> F,
) -> Option<F::Output> {
    // Termination signals are the parent's affair.
    RunBuilder::new().ctrl_c(CtrlC::Leave).run(async {
        let scope = CancelScope::new();
        let mut requests = Requests::new();
        let mut body = pin!(scope.run(async { with_deadline(deadline, make()).await }));
        poll_fn(|cx| {
            if requests.poll(cx).is_ready() {
                scope.cancel_because("the caller of this job has asked it to end");
            }
            body.as_mut().poll(cx)
        })
        .await
    })
}

/// Polls a future that sees a deadline, which does not cancel it: the caller does, when it is its
/// time.
async fn with_deadline<F: Future>(deadline: Option<SharedDeadline>, future: F) -> F::Output {
    let Some(deadline) = deadline.and_then(|deadline| deadline.to_instant()) else {
        return future.await;
    };
    let mut watch = Watch::new(false);
    watch.show_deadline(deadline);
    let mut future = pin!(future); // dropped before the watch, below which its nodes are
    poll_fn(|cx| watch.poll_inside(cx, |cx| future.as_mut().poll(cx))).await
}

/// Waits for a request to end.
enum Requests {
    /// Requests come to this socket.
    Awaited(Async<BorrowedFd<'static>>),
    /// The job has been asked, or cannot be.
    Over,
}

impl Requests {
    fn new() -> Self {
        // Without a socket, no caller can ask. If the reactor has no room for the socket, a
        // cancelled caller kills the worker after the grace period.
        let socket = job_requests::socket();
        match socket.map(Async::new_nonblocking) {
            Some(Ok(socket)) => Self::Awaited(socket),
            Some(Err(_)) | None => Self::Over,
        }
    }

    /// Is ready once.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self::Awaited(socket) = self else {
            return Poll::Pending;
        };
        loop {
            // Also when the reactor has not said so: it may have woken this task and then deny
            // that.
            if job_requests::is_asked() {
                break;
            }
            if socket.poll_readable(cx).is_pending() {
                return Poll::Pending;
            }
            // Requests to earlier jobs are removed from the socket, so that they wake no more.
            if job_requests::take() == Taken::End {
                break;
            }
        }
        *self = Self::Over;
        Poll::Ready(())
    }
}
