//! `run_async`: a call of an `async fn` in another process.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::deadline::SharedDeadline;
use super::root::run_root;
use crate::cancel::{checkpoint_if_cancelled, current_effective_deadline};
use crate::sync::CapacityLimiter;
use crate::sys::role::refuse_unless_hooked;
use crate::transport::job::code::assert_captures_nothing;
use crate::worker::{Argument, JobResult, RunSync, WorkerContext, WorkerError};

/// Calls the `async fn` `f` with `arg` in a worker process, which runs it in a run of its own: with
/// nurseries, cancel scopes, timers and I/O.
///
/// `f` is code and `arg` is data, as in [`run_sync`](crate::run_sync()): `f` captures nothing, and
/// argument and result are encoded with serde. The worker's run is like that of
/// [`run`](crate::run()), and ends with the job, with all its tasks. A worker runs one job at a
/// time, and serves jobs of both kinds. An async job may have workers of its own; they end with its
/// run, and with its process.
///
/// [`current_effective_deadline`] inside the job is the
/// deadline that the call had when it was first polled. It is shown there, and cancels nothing: the
/// caller does that. In a caller with a virtual clock, the time that is left counts, as real time.
///
/// # Cancellation
///
/// Until a worker has the job, the call is cancelled like one of [`run_sync`](crate::run_sync()).
/// After that, cancellation cancels the root scope of the job, which drops its tasks where they
/// wait, runs their clean-up and waits for their shields. The call waits for that. If it takes
/// longer than the [grace period](crate::WorkerConfig::grace_period) of the worker's context, the
/// worker is killed. If the job completes after all, the call returns its value.
///
/// [`kill_after`](RunAsync::kill_after) sets another time, and
/// [`kill_on_cancel(true)`](RunAsync::kill_on_cancel) kills at once. If the future is dropped from
/// outside, all this happens in the background, and the limiter's token is held until then.
///
/// # Errors
///
/// See [`WorkerErrorKind`](crate::worker::WorkerErrorKind).
/// [`Closed`](crate::worker::WorkerErrorKind::Closed) also means that
/// [`shutdown_within`](crate::WorkerContext::shutdown_within) has cancelled the job.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use seedbed::{open_nursery, run_async, sleep};
///
/// async fn slowest(pauses: Vec<u64>) -> u64 {
///     open_nursery(|n| async move {
///         for pause in &pauses {
///             n.spawn(sleep(Duration::from_millis(*pause)));
///         }
///         pauses.iter().copied().max().unwrap_or(0)
///     })
///     .await
/// }
///
/// fn main() {
///     seedbed::run(async {
///         assert_eq!(run_async(slowest, vec![3, 9, 2]).await.unwrap(), 9);
///     });
/// }
/// ```
pub fn run_async<F, Fut, A, R>(f: F, arg: A) -> RunAsync<A, R>
where
    F: Fn(A) -> Fut + Copy + Send + Sync + 'static, // one argument: use a tuple for several
    Fut: Future<Output = R>,
    A: Argument,
    R: JobResult,
{
    const { assert_captures_nothing::<F>() };
    RunAsync::new(f, arg, None)
}

/// A call of an `async fn` in a worker process, made by [`run_async`] or
/// [`WorkerContext::run_async`], to be awaited.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use seedbed::{CapacityLimiter, run_async};
///
/// async fn double(n: u32) -> u32 {
///     2 * n
/// }
///
/// fn main() {
///     seedbed::run(async {
///         let one_at_a_time = CapacityLimiter::new(1);
///         let call = run_async(double, 4).limiter(&one_at_a_time).time_limit(Duration::from_secs(60));
///         assert_eq!(call.await.unwrap(), 8);
///     });
/// }
/// ```
#[must_use = "a call does nothing unless it is awaited"]
pub struct RunAsync<A, R> {
    call: RunSync<RootArgument<A>, Option<R>>,
}

/// The argument of a job, with what its run has to know.
#[derive(Serialize, Deserialize)]
struct RootArgument<A> {
    deadline: Option<SharedDeadline>,
    argument: A,
}

impl<A, R> RunAsync<A, R> {
    fn new<F, Fut>(f: F, arg: A, context: Option<WorkerContext>) -> Self
    where
        F: Fn(A) -> Fut + Copy + Send + Sync + 'static,
        Fut: Future<Output = R>,
        A: Argument,
        R: JobResult,
    {
        Self::of::<F, F, Fut>(f, arg, context)
    }

    /// Makes a call of `f` with the name of the function type `N`.
    pub(super) fn of<N, F, Fut>(f: F, arg: A, context: Option<WorkerContext>) -> Self
    where
        N: 'static,
        F: Fn(A) -> Fut + Copy + Send + Sync + 'static,
        Fut: Future<Output = R>,
        A: Argument,
        R: JobResult,
    {
        // It captures a function that has no size, so it has none either.
        let job = move |arg: RootArgument<A>| run_root(arg.deadline, || f(arg.argument));
        let arg = RootArgument {
            deadline: None,
            argument: arg,
        };
        Self {
            call: RunSync::of_root::<N, _>(job, arg, context),
        }
    }

    /// Takes a token of `limiter` before the call uses a worker, and holds it until the job has
    /// ended. The default limiter is the one of [`run_sync`](crate::run_sync()).
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::{CapacityLimiter, run_async};
    ///
    /// async fn double(n: u32) -> u32 {
    ///     2 * n
    /// }
    ///
    /// fn main() {
    ///     seedbed::run(async {
    ///         let limiter = CapacityLimiter::new(1);
    ///         assert_eq!(run_async(double, 4).limiter(&limiter).await.unwrap(), 8);
    ///         assert_eq!(limiter.borrowed(), 0);
    ///     });
    /// }
    /// ```
    pub fn limiter(mut self, limiter: &CapacityLimiter) -> Self {
        self.call = self.call.limiter(limiter);
        self
    }

    /// Sets whether cancellation kills the worker at once, instead of cancelling the job's root
    /// scope.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::time::sleep_forever;
    /// use seedbed::{move_on_after, run_async};
    ///
    /// async fn wait(_: ()) {
    ///     sleep_forever().await;
    /// }
    ///
    /// fn main() {
    ///     seedbed::run(async {
    ///         let call = run_async(wait, ()).kill_on_cancel(true);
    ///         assert!(move_on_after(Duration::from_millis(50), call).await.is_none());
    ///     });
    /// }
    /// ```
    pub fn kill_on_cancel(mut self, kill: bool) -> Self {
        self.call = if kill {
            self.call.kill_on_cancel(true)
        } else {
            self.call.kill_after_grace()
        };
        self
    }

    /// Sets how long the clean-up of a cancelled job may take before its worker is killed. The
    /// default is the [grace period](crate::WorkerConfig::grace_period) of the worker's context.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::time::sleep_forever;
    /// use seedbed::{move_on_after, run_async, shield};
    ///
    /// async fn stay(_: ()) {
    ///     shield(sleep_forever()).await;
    /// }
    ///
    /// fn main() {
    ///     seedbed::run(async {
    ///         let call = run_async(stay, ()).kill_after(Duration::from_millis(20));
    ///         assert!(move_on_after(Duration::from_millis(50), call).await.is_none());
    ///     });
    /// }
    /// ```
    pub fn kill_after(mut self, patience: Duration) -> Self {
        self.call = self.call.kill_after(patience);
        self
    }

    /// Limits the time that the job may take. When the time is up, the worker is killed and reaped,
    /// and the call ends with
    /// [`WorkerErrorKind::TimedOut`](crate::worker::WorkerErrorKind::TimedOut).
    ///
    /// The time counts as that of [`RunSync::time_limit`](crate::worker::RunSync::time_limit). A
    /// limit that lets the job clean up is [`fail_after`](crate::fail_after()) around the call.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::time::sleep_forever;
    /// use seedbed::run_async;
    /// use seedbed::worker::WorkerErrorKind;
    ///
    /// async fn wait(_: ()) {
    ///     sleep_forever().await;
    /// }
    ///
    /// fn main() {
    ///     seedbed::run(async {
    ///         let call = run_async(wait, ()).time_limit(Duration::from_millis(50));
    ///         assert_eq!(call.await.unwrap_err().kind(), WorkerErrorKind::TimedOut);
    ///     });
    /// }
    /// ```
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.call = self.call.time_limit(limit);
        self
    }
}

impl WorkerContext {
    /// Calls the `async fn` `f` with `arg` in a worker process of this context; otherwise like the
    /// free function [`run_async`](crate::run_async()).
    ///
    /// # Cancellation
    ///
    /// Cancels the root scope of the job and waits for its clean-up, within the grace period. The
    /// free function documents the details.
    ///
    /// # Errors
    ///
    /// All errors of the free function;
    /// [`WorkerErrorKind::Closed`](crate::worker::WorkerErrorKind::Closed) if the context was shut
    /// down.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::{WorkerConfig, checkpoint, open_worker_context};
    ///
    /// async fn double(n: u32) -> u32 {
    ///     checkpoint().await;
    ///     2 * n
    /// }
    ///
    /// fn main() {
    ///     seedbed::run(open_worker_context(WorkerConfig::new(), |workers| async move {
    ///         assert_eq!(workers.run_async(double, 4).await.unwrap(), 8);
    ///     }));
    /// }
    /// ```
    pub fn run_async<F, Fut, A, R>(&self, f: F, arg: A) -> RunAsync<A, R>
    where
        F: Fn(A) -> Fut + Copy + Send + Sync + 'static, // one argument: use a tuple for several
        Fut: Future<Output = R>,
        A: Argument,
        R: JobResult,
    {
        const { assert_captures_nothing::<F>() };
        RunAsync::new(f, arg, Some(self.clone()))
    }
}

impl<A: Send + 'static, R: Send + 'static> IntoFuture for RunAsync<A, R> {
    type Output = Result<R, WorkerError>;
    type IntoFuture = RunAsyncFuture<R>;

    fn into_future(self) -> RunAsyncFuture<R> {
        RunAsyncFuture {
            call: Box::pin(call(self.call)),
        }
    }
}

async fn call<A, R>(mut call: RunSync<RootArgument<A>, Option<R>>) -> Result<R, WorkerError> {
    refuse_unless_hooked("seedbed::run_async");
    call.argument_mut().deadline = current_effective_deadline().map(SharedDeadline::of);
    match call.await? {
        Some(value) => Ok(value),
        None => {
            checkpoint_if_cancelled().await;
            // The caller is not cancelled, so the context has cancelled the job.
            Err(WorkerError::cancelled_in_shutdown())
        }
    }
}

impl<A, R> fmt::Debug for RunAsync<A, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RunAsync").field(&self.call).finish()
    }
}

/// Waits for a call of an `async fn` in a worker process; made by awaiting [`RunAsync`].
///
/// [`run_async`] documents what dropping it does, under "Cancellation".
#[must_use = "futures do nothing unless awaited"]
pub struct RunAsyncFuture<R> {
    call: Pin<Box<dyn Future<Output = Result<R, WorkerError>> + Send>>,
}

impl<R> Future for RunAsyncFuture<R> {
    type Output = Result<R, WorkerError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.call.as_mut().poll(cx)
    }
}

impl<R> fmt::Debug for RunAsyncFuture<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunAsyncFuture").finish_non_exhaustive()
    }
}
