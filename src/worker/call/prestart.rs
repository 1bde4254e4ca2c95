//! Workers that are started ahead of the calls that need them.

use std::future::poll_fn;
use std::mem;
use std::sync::Mutex;
use std::task::{Context, Poll, ready};

use super::hand_over::begin_start;
use crate::cancel::{checkpoint_if_cancelled, on_cancel};
use crate::sys::fork_detector::is_forked_copy;
use crate::sys::primitives::lock;
use crate::sys::role::refuse_unless_hooked;
use crate::worker::conn::ending::EndingWorker;
use crate::worker::conn::worker::Worker;
use crate::worker::conn::worker_process::ForkFailure;
use crate::worker::end::KillReason;
use crate::worker::error::WorkerError;
use crate::worker::pool::context::WorkerContext;
use crate::worker::pool::start_guard::StartGuard;
use crate::worker::record::ExpectedWorker;
use crate::worker::spawn::start::{Starting, Unstarted};

impl WorkerContext {
    /// Starts workers ahead, until at least `count` are idle, and waits until they are ready for
    /// jobs: they have reached the hook and called the `init` closures. So the first calls need not
    /// wait for that.
    ///
    /// Starting workers needs no limiter token. A worker that has had no job stays however long it
    /// waits for the first one, because the [idle timeout](crate::WorkerConfig::idle_timeout)
    /// starts after that. The statistics count the workers in `started` and `idle_workers`.
    ///
    /// # Cancellation
    ///
    /// Cancellable. Workers that are not ready yet are killed and reaped; those that are ready
    /// stay. Dropped from outside, this kills the workers that are not ready and leaves their end
    /// to the background.
    ///
    /// # Errors
    ///
    /// The first error of a worker that did not come up, as a call would get it:
    /// [`WorkerErrorKind::Start`](crate::worker::WorkerErrorKind::Start),
    /// [`Init`](crate::worker::WorkerErrorKind::Init) and others. The workers that came up stay.
    /// [`Closed`](crate::worker::WorkerErrorKind::Closed) if the context was shut down.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     smol::block_on(open_worker_context(WorkerConfig::new(), |workers| async move {
    ///         workers.prestart(2).await.unwrap();
    ///         assert_eq!(workers.statistics().idle_workers, 2);
    ///         workers.run_sync(i32::abs, -3).await.unwrap();
    ///         assert_eq!(workers.statistics().started, 2); // the call needed no new worker
    ///     }));
    /// }
    /// ```
    pub async fn prestart(&self, count: usize) -> Result<(), WorkerError> {
        refuse_unless_hooked("seedbed::WorkerContext::prestart");
        if is_forked_copy() {
            return Err(WorkerError::forked_program());
        }
        checkpoint_if_cancelled().await;
        let guard = StartGuard::begin(self.pool().clone())?;
        let missing = count.saturating_sub(guard.idle_workers());
        let starts = (0..missing).map(|_| Prestart::begin(&guard));
        // `on_cancel` polls the body and the clean-up one after the other.
        let starts = Mutex::new(Prestarts {
            starts: starts.collect(),
            error: None,
        });
        let body = poll_fn(|cx| lock(&starts).poll(cx, &guard));
        let kill = poll_fn(|cx| lock(&starts).poll_kill(cx));
        let ended = on_cancel(body, kill).await;
        ended.map_err(|error| error.of_context(self.config().context_name()))
    }
}

struct Prestarts {
    starts: Vec<Prestart>,
    /// The first error.
    error: Option<WorkerError>,
}

/// The start of one worker.
enum Prestart {
    Starting(Box<Starting>, ExpectedWorker),
    /// The fork has been requested and has not happened yet.
    Forking(Box<Worker>, ExpectedWorker),
    /// The start is broken off.
    Ending(EndingWorker),
    Failed(WorkerError),
    Over,
}

impl Prestarts {
    /// Waits until all workers have come up or failed.
    fn poll(&mut self, cx: &mut Context<'_>, guard: &StartGuard) -> Poll<Result<(), WorkerError>> {
        let error = &mut self.error;
        self.starts.retain_mut(|start| match start.poll(cx) {
            Poll::Pending => true,
            Poll::Ready(Ok(worker)) => {
                guard.put(worker);
                false
            }
            Poll::Ready(Err(failed)) => {
                error.get_or_insert(failed);
                false
            }
        });
        if self.starts.is_empty() {
            Poll::Ready(self.error.take().map_or(Ok(()), Err))
        } else {
            Poll::Pending
        }
    }

    fn poll_kill(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.starts
            .retain_mut(|start| start.poll_kill(cx).is_pending());
        if self.starts.is_empty() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

impl Prestart {
    fn begin(guard: &StartGuard) -> Self {
        match begin_start(guard.pool()) {
            Ok((starting, expected)) => Self::Starting(starting, expected),
            Err(error) => Self::Failed(error),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Box<Worker>, WorkerError>> {
        if let Self::Starting(starting, _) = self {
            let started = ready!(starting.poll(cx));
            let Self::Starting(_, expected) = mem::replace(self, Self::Over) else {
                unreachable!("the state was matched above")
            };
            match started {
                Ok(worker) => *self = Self::Forking(worker, expected),
                Err(Unstarted::Failed(error)) => {
                    expected.failed(&error);
                    return Poll::Ready(Err(error));
                }
                Err(Unstarted::NotForked(why)) => {
                    return Poll::Ready(Err(failed_fork(why, expected)));
                }
            }
        }
        if let Self::Forking(worker, _) = self {
            ready!(worker.poll_fork(cx));
        }
        match mem::replace(self, Self::Over) {
            Self::Forking(mut worker, expected) => Poll::Ready(match worker.take_fork_failure() {
                Some(why) => Err(failed_fork(why, expected)),
                None => {
                    worker.set_ready(expected);
                    Ok(worker)
                }
            }),
            Self::Failed(error) => Poll::Ready(Err(error)),
            Self::Starting(..) | Self::Ending(_) | Self::Over => {
                unreachable!("polled after it was over")
            }
        }
    }

    fn poll_kill(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Self::Forking(..) = self
            && let Self::Forking(worker, _) = mem::replace(self, Self::Over)
        {
            *self = Self::Ending(EndingWorker::killed(worker, KillReason::Cancelled));
        }
        match self {
            Self::Starting(starting, _) => ready!(starting.poll_kill(cx)),
            Self::Ending(ending) => _ = ready!(ending.poll(cx)),
            Self::Forking(..) | Self::Failed(_) | Self::Over => {}
        }
        *self = Self::Over;
        Poll::Ready(())
    }
}

fn failed_fork(why: ForkFailure, expected: ExpectedWorker) -> WorkerError {
    let error = match why {
        ForkFailure::Refused(error) => WorkerError::fork_refused(error),
        ForkFailure::ServerEnded => WorkerError::fork_failed("the fork server died"),
    };
    expected.failed(&error);
    error
}
