//! `open_loops`: several workers that run the same `async fn`, each until it ends or the block
//! does.

use std::any::type_name;
use std::fmt;
use std::future::{Future, IntoFuture, pending};
use std::pin::Pin;
use std::time::Duration;

use super::run_async::RunAsync;
use super::shared_argument::SharedArgument;
use crate::service::{Supervise, SuperviseError, supervise};
use crate::sync::CapacityLimiter;
use crate::sys::role::refuse_unless_hooked;
use crate::task::{Nursery, Task, try_open_nursery};
use crate::transport::job::code::assert_captures_nothing;
use crate::worker::{Argument, JobResult, WorkerContext, WorkerError, WorkerErrorKind};

/// The loops were started again too often, or one cannot be started.
type LoopsError = SuperviseError<WorkerError>;

/// Runs the `async fn` `f` in `count` worker processes at once, each with `arg`, and starts those
/// again that crash. `arg` is encoded for each start, so it need not be cloned.
///
/// Each loop is a call of [`run_async`](crate::run_async()), so there is an event loop in each of
/// `count` processes. Returns a builder. [`open`](OpenLoops::open) runs a future, and the loops
/// while it runs. Awaiting the builder itself waits until all loops have returned, and returns
/// their values.
///
/// A loop that crashes, panics or is killed is [supervised](crate::service::supervise()): it is
/// started again after a pause, which grows with each failure in a row. After
/// [`limit`](OpenLoops::limit) failures in a row, the other loops are cancelled, and the block ends
/// with the error. So does a failure that a restart cannot mend, such as an argument that cannot be
/// encoded. A loop that returns is not started again.
///
/// The loops do not count for the limiter of other calls.
///
/// # Cancellation
///
/// At the end of the block, however it comes, the root scope of each loop is cancelled. The block
/// waits for their clean-up, and kills a worker that needs more than the [grace
/// period](crate::WorkerConfig::grace_period) of its context, or than
/// [`kill_after`](OpenLoops::kill_after). Dropping the block from outside leaves this to the
/// background.
///
/// # Errors
///
/// [`SuperviseError`], with the error of the loop that failed last.
///
/// # Examples
///
/// ```
/// use seedbed::time::sleep_forever;
/// use seedbed::worker::default_context_statistics;
/// use seedbed::remote::open_loops;
/// use seedbed::run_sync;
///
/// async fn serve(_address: String) {
///     sleep_forever().await // a server would accept connections here
/// }
///
/// fn main() {
///     seedbed::run(async {
///         let loops = open_loops(2, serve, "localhost:80".to_owned());
///         let value = loops.open(async {
///             run_sync(i32::abs, -3).await // other calls work as usual
///         });
///         assert_eq!(value.await.unwrap().unwrap(), 3);
///         assert_eq!(default_context_statistics().running_workers, 0); // the loops have ended
///     });
/// }
/// ```
#[doc(alias = "prefork")]
#[doc(alias = "SO_REUSEPORT")]
pub fn open_loops<F, Fut, A, R>(count: usize, f: F, arg: A) -> OpenLoops<F, A>
where
    F: Fn(A) -> Fut + Copy + Send + Sync + 'static, // one argument: use a tuple for several
    Fut: Future<Output = R>,
    A: Argument + Sync,
    R: JobResult,
{
    const { assert_captures_nothing::<F>() };
    OpenLoops::new(count, f, arg, None)
}

/// Several event loops in worker processes, made by [`open_loops`] or
/// [`WorkerContext::open_loops`].
///
/// # Examples
///
/// ```
/// use seedbed::remote::open_loops;
///
/// async fn double(n: u32) -> u32 {
///     2 * n
/// }
///
/// fn main() {
///     seedbed::run(async {
///         assert_eq!(open_loops(3, double, 4).await.unwrap(), [8, 8, 8]);
///     });
/// }
/// ```
#[must_use = "no loop is started before this is awaited or opened"]
pub struct OpenLoops<F, A> {
    count: usize,
    f: F,
    arg: SharedArgument<A>,
    context: Option<WorkerContext>,
    patience: Option<Duration>,
    /// The shortest and the longest pause before a restart; `None` for those of `supervise`.
    pauses: Option<(Duration, Duration)>,
    limit: Option<u32>,
}

impl<F, A> OpenLoops<F, A> {
    fn new(count: usize, f: F, arg: A, context: Option<WorkerContext>) -> Self {
        Self {
            count,
            f,
            arg: SharedArgument::new(arg),
            context,
            patience: None,
            pauses: None,
            limit: None,
        }
    }

    /// Sets the pause after the first failure of a loop, which doubles with each further one, and
    /// the longest pause. The defaults are those of [`Supervise::backoff`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::remote::open_loops;
    ///
    /// async fn fail(_: ()) {
    ///     panic!("on purpose");
    /// }
    ///
    /// fn main() {
    ///     seedbed::run(async {
    ///         let loops = open_loops(1, fail, ()).backoff(Duration::ZERO, Duration::ZERO);
    ///         assert_eq!(loops.limit(3).await.unwrap_err().failures(), 3);
    ///     });
    /// }
    /// ```
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.pauses = Some((first, longest));
        self
    }

    /// Sets the number of failures in a row of one loop after which the block ends. The default is
    /// that of [`Supervise::limit`].
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::remote::open_loops;
    /// use seedbed::worker::WorkerErrorKind;
    ///
    /// async fn crash(_: ()) {
    ///     std::process::abort();
    /// }
    ///
    /// fn main() {
    ///     seedbed::run(async {
    ///         let error = open_loops(2, crash, ()).limit(1).await.unwrap_err();
    ///         assert_eq!(error.last().kind(), WorkerErrorKind::Broken);
    ///     });
    /// }
    /// ```
    pub fn limit(mut self, failures: u32) -> Self {
        self.limit = Some(failures);
        self
    }

    /// Sets how long the clean-up of a cancelled loop may take before its worker is killed. The
    /// default is the [grace period](crate::WorkerConfig::grace_period) of the worker's context.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::time::sleep_forever;
    /// use seedbed::remote::open_loops;
    /// use seedbed::{shield, sleep};
    ///
    /// async fn stay(_: ()) {
    ///     shield(sleep_forever()).await;
    /// }
    ///
    /// fn main() {
    ///     seedbed::run(async {
    ///         let loops = open_loops(2, stay, ()).kill_after(Duration::from_millis(10));
    ///         let waited = loops.open(sleep(Duration::from_millis(50)));
    ///         assert!(waited.await.is_ok()); // and both workers have been killed
    ///     });
    /// }
    /// ```
    pub fn kill_after(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }

    /// Runs `body` while the loops run, then cancels them and waits for them. Returns the value of
    /// `body`.
    ///
    /// The loops are being started when `body` begins. Loops that have returned are no reason to
    /// end.
    ///
    /// # Cancellation
    ///
    /// If cancelled, `body` is dropped first, so that its clean-up still has the loops. Then the
    /// loops are cancelled.
    ///
    /// # Errors
    ///
    /// [`SuperviseError`] if a loop has failed too often; `body` is dropped then.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::time::sleep_forever;
    /// use seedbed::checkpoint;
    /// use seedbed::remote::open_loops;
    ///
    /// async fn serve(_: ()) {
    ///     sleep_forever().await
    /// }
    ///
    /// fn main() {
    ///     let value = seedbed::run(open_loops(2, serve, ()).open(async {
    ///         checkpoint().await;
    ///         5
    ///     }));
    ///     assert_eq!(value.unwrap(), 5);
    /// }
    /// ```
    pub async fn open<B, Fut, R>(self, body: B) -> Result<B::Output, SuperviseError<WorkerError>>
    where
        B: IntoFuture,
        B::Output: Send,
        F: Fn(A) -> Fut + Copy + Send + Sync + 'static,
        Fut: Future<Output = R>,
        A: Argument + Sync,
        R: JobResult,
    {
        refuse_unless_hooked("seedbed::remote::open_loops");
        let block = try_open_nursery(|n| async move {
            drop(self.spawn(&n));
            Ok(body.await)
        });
        block.daemon().service().await
    }

    /// Starts all loops.
    fn spawn<'env, T, Fut, R>(
        self,
        n: &Nursery<'env, Result<T, LoopsError>>,
    ) -> Vec<Task<Option<R>>>
    where
        T: Send + 'env,
        F: Fn(A) -> Fut + Copy + Send + Sync + 'static,
        Fut: Future<Output = R>,
        A: Argument + Sync,
        R: JobResult,
    {
        // The loops would use up the tokens of other calls.
        let limiter = CapacityLimiter::new(self.count);
        let mut tasks = Vec::new();
        for number in 0..self.count {
            let (f, arg, context) = (self.f, self.arg.clone(), self.context.clone());
            let (limiter, patience) = (limiter.clone(), self.patience);
            let make = move || {
                let job = move |arg: SharedArgument<A>| f(arg.into_inner());
                let call = RunAsync::of::<F, _, _>(job, arg.clone(), context.clone());
                let call = call.limiter(&limiter);
                match patience {
                    Some(patience) => call.kill_after(patience),
                    None => call,
                }
            };
            let name = format!("loop {number} of `{}`", type_name::<F>());
            let child = self.supervised(make).name(name);
            tasks.push(n.try_spawn(child.into_future()));
        }
        tasks
    }

    /// Applies the settings to a supervisor.
    fn supervised<M, R>(&self, make: M) -> Supervise<M, WorkerError>
    where
        M: FnMut() -> RunAsync<SharedArgument<A>, R>,
        A: Send + Sync + 'static,
        R: Send + 'static,
    {
        let mut child = supervise(make).retry_if(may_be_temporary);
        if let Some((first, longest)) = self.pauses {
            child = child.backoff(first, longest);
        }
        if let Some(limit) = self.limit {
            child = child.limit(limit);
        }
        child
    }
}

/// Whether another attempt may succeed.
fn may_be_temporary(error: &WorkerError) -> bool {
    use WorkerErrorKind::{Broken, Init, Panicked, Protocol, Retire, Start, TimedOut};
    matches!(
        error.kind(),
        Broken | Init | Panicked | Protocol | Retire | Start | TimedOut
    )
}

impl<F, Fut, A, R> IntoFuture for OpenLoops<F, A>
where
    F: Fn(A) -> Fut + Copy + Send + Sync + 'static,
    Fut: Future<Output = R> + 'static,
    A: Argument + Sync,
    R: JobResult,
{
    type Output = Result<Vec<R>, SuperviseError<WorkerError>>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(all_values(self))
    }
}

async fn all_values<F, Fut, A, R>(loops: OpenLoops<F, A>) -> Result<Vec<R>, LoopsError>
where
    F: Fn(A) -> Fut + Copy + Send + Sync + 'static,
    Fut: Future<Output = R>,
    A: Argument + Sync,
    R: JobResult,
{
    refuse_unless_hooked("seedbed::remote::open_loops");
    let block = try_open_nursery(|n| async move {
        let tasks = loops.spawn(&n);
        let mut values = Vec::new();
        for task in tasks {
            match task.await {
                Some(value) => values.push(value),
                None => pending().await, // the error of this loop ends the block
            }
        }
        Ok(values)
    });
    block.await
}

impl WorkerContext {
    /// Runs the `async fn` `f` in `count` worker processes of this context; otherwise like the free
    /// function [`open_loops`](crate::remote::open_loops()).
    ///
    /// # Cancellation
    ///
    /// Cancels the loops, and waits for their clean-up. The free function documents the details.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// async fn double(n: u32) -> u32 {
    ///     2 * n
    /// }
    ///
    /// fn main() {
    ///     seedbed::run(open_worker_context(WorkerConfig::new(), |workers| async move {
    ///         assert_eq!(workers.open_loops(2, double, 4).await.unwrap(), [8, 8]);
    ///     }));
    /// }
    /// ```
    pub fn open_loops<F, Fut, A, R>(&self, count: usize, f: F, arg: A) -> OpenLoops<F, A>
    where
        F: Fn(A) -> Fut + Copy + Send + Sync + 'static, // one argument: use a tuple for several
        Fut: Future<Output = R>,
        A: Argument + Sync,
        R: JobResult,
    {
        const { assert_captures_nothing::<F>() };
        OpenLoops::new(count, f, arg, Some(self.clone()))
    }
}

impl<F, A> fmt::Debug for OpenLoops<F, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenLoops")
            .field("count", &self.count)
            .field("job", &type_name::<F>())
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}
