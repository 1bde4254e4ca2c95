//! The public API of calls: `run_sync`, and the builder that it returns.

use std::fmt;
use std::future::IntoFuture;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::future::RunSyncFuture;
use super::request::Request;
use crate::sync::CapacityLimiter;
use crate::transport::job::code::Code;
use crate::worker::error::WorkerError;
use crate::worker::pool::context::WorkerContext;

/// Calls `f(arg)` in a worker process, where it may block, spin, crash or be killed without harm to this one.
///
/// `f` is code and `arg` is data. `f` must capture nothing, which is checked when the program is compiled (by `cargo build`;
/// `cargo check` does not get that far): a plain function or a closure without captured variables. Argument and result are
/// encoded with serde; several arguments are a tuple. The encoding is compact and does not describe itself, so it does not
/// do for types that depend on that: `#[serde(untagged)]`, `#[serde(tag = ..)]`, `#[serde(flatten)]`, `serde_json::Value`,
/// and a named field that is left out now and then (`#[serde(skip_serializing_if = ..)]`) are errors that say so. (To leave
/// out a field of a tuple structure, or one on one side only, is a fault that nobody can see.)
///
/// Workers are cached, so that a call usually finds one that is up and warm; which one is not specified, and what a job leaves
/// in its worker's statics is there for the next job of that worker.
///
/// Nothing happens until the call is awaited. It can be awaited on any executor; the future is `Send`.
///
/// A worker is this program, executed again: **all that `main` does before the hook** (`run`, `main!`, `test!` or
/// `init()`) **happens again**, with the same arguments and environment: in each worker, or once for all that are
/// [forked](crate::worker::WorkerType). So `f` must not capture zero-sized tokens either that prove something about the state of a
/// process, unless the code before the hook, or an [`init`](crate::WorkerConfig::init) closure, brings about that state in
/// the worker too.
///
/// In the worker, standard input is `/dev/null`, and standard output and error are those of this process. SIGINT is
/// ignored. The worker dies when this process does, however that comes about.
///
/// # Cancellation
///
/// If cancelled before it has the limiter's token, nothing has happened: entry is always a cancel point, and so are
/// waiting for the limiter and every change to another worker. From then on:
///
/// * by default the call is shielded. Not cancellable: starts a worker if there is none, and runs until the job has ended;
/// * with [`kill_on_cancel(true)`](RunSync::kill_on_cancel), the worker is killed, and the cancelled caller is let go
///   when the process has been reaped. How far the job came is not known.
///
/// Dropped from outside (by a foreign `select!`, for example), a killable worker is killed, and reaped in the background;
/// the other kind finishes the job that it has been handed in the background, drops the result and goes back to the cache;
/// the limiter's token is held until then. A job that no worker has yet is not run.
///
/// # Errors
///
/// See [`WorkerErrorKind`](crate::worker::WorkerErrorKind). A job is run exactly once, or there is an error; it is never run
/// twice.
///
/// # Examples
///
/// ```
/// use seedbed::run_sync;
///
/// fn count_primes((from, to): (u64, u64)) -> usize {
///     (from..to).filter(|n| (2..*n).all(|d| n % d != 0)).count()
/// }
///
/// fn main() {
///     seedbed::init(); // in a worker process, serves jobs and does not return
///     let primes = smol::block_on(async { run_sync(count_primes, (1000, 1100)).await });
///     assert_eq!(primes.unwrap(), 16);
/// }
/// ```
///
/// What captures is refused by the compiler:
///
/// ```compile_fail
/// let offset = 3;
/// let call = seedbed::run_sync(move |n: i32| n + offset, 4);
/// ```
///
/// and so is a variable that holds some function, as it is data, too:
///
/// ```compile_fail
/// let f: fn(i32) -> i32 = i32::abs;
/// let call = seedbed::run_sync(f, 4);
/// ```
pub fn run_sync<F, A, R>(f: F, arg: A) -> RunSync<A, R>
where
    F: Fn(A) -> R + Copy + Send + Sync + 'static,
    A: Serialize + DeserializeOwned + Send + 'static,
    R: Serialize + DeserializeOwned + Send + 'static,
{
    RunSync::new(f, arg, None)
}

/// A call into a worker process, made by [`run_sync`] or [`WorkerContext::run_sync`], to be awaited.
///
/// # Examples
///
/// ```
/// use seedbed::{CapacityLimiter, run_sync};
///
/// fn main() {
///     seedbed::init();
///     let one_at_a_time = CapacityLimiter::new(1);
///     let call = run_sync(i32::abs, -3).limiter(&one_at_a_time).kill_on_cancel(true);
///     assert_eq!(smol::block_on(call.into_future()).unwrap(), 3);
/// }
/// # use std::future::IntoFuture;
/// ```
#[must_use = "a call does nothing unless it is awaited"]
pub struct RunSync<A, R> {
    request: Request<A>,
    result: PhantomData<fn() -> R>,
}

impl<A, R> RunSync<A, R> {
    fn new<F>(f: F, arg: A, context: Option<WorkerContext>) -> Self
    where
        F: Fn(A) -> R + Copy + Send + Sync + 'static,
        A: DeserializeOwned,
        R: Serialize,
    {
        Self {
            request: Request {
                code: Code::of_job(f),
                job_name: std::any::type_name::<F>(),
                arg,
                context,
                limiter: None,
                kill_on_cancel: false,
            },
            result: PhantomData,
        }
    }

    /// Takes a token of `limiter` before a worker is touched, and holds it until the job is over. Without this, the limiter
    /// is [`current_default_worker_limiter`].
    ///
    /// A limiter of zero makes the call wait until there is more.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::{CapacityLimiter, run_sync};
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let one_at_a_time = CapacityLimiter::new(1);
    ///     smol::block_on(async {
    ///         let call = run_sync(i32::abs, -3).limiter(&one_at_a_time);
    ///         assert_eq!(call.await.unwrap(), 3);
    ///     });
    ///     assert_eq!(one_at_a_time.borrowed(), 0);
    /// }
    /// ```
    pub fn limiter(mut self, limiter: &CapacityLimiter) -> Self {
        self.request.limiter = Some(limiter.clone());
        self
    }

    /// Lets cancellation kill the worker, and wait until it is reaped; otherwise the call is shielded.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::{move_on_after, run_sync};
    ///
    /// fn for_ever(_: ()) {
    ///     loop {
    ///         std::hint::spin_loop();
    ///     }
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let call = run_sync(for_ever, ()).kill_on_cancel(true);
    ///     let outcome = smol::block_on(move_on_after(Duration::from_millis(50), call));
    ///     assert!(outcome.is_none()); // and no process is left
    /// }
    /// ```
    pub fn kill_on_cancel(mut self, kill: bool) -> Self {
        self.request.kill_on_cancel = kill;
        self
    }
}

impl WorkerContext {
    /// Calls `f(arg)` in a worker process of this context; otherwise like the free function
    /// [`run_sync`](crate::run_sync()).
    ///
    /// # Cancellation
    ///
    /// As [`run_sync`](crate::run_sync()): shielded once the job was handed over, unless it may be killed.
    ///
    /// # Errors
    ///
    /// As [`run_sync`](crate::run_sync()); [`WorkerErrorKind::Closed`](crate::worker::WorkerErrorKind::Closed) if the context was
    /// shut down.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let config = WorkerConfig::new();
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         assert_eq!(workers.run_sync(i32::abs, -3).await.unwrap(), 3);
    ///     }));
    /// }
    /// ```
    pub fn run_sync<F, A, R>(&self, f: F, arg: A) -> RunSync<A, R>
    where
        F: Fn(A) -> R + Copy + Send + Sync + 'static,
        A: Serialize + DeserializeOwned + Send + 'static,
        R: Serialize + DeserializeOwned + Send + 'static,
    {
        RunSync::new(f, arg, Some(self.clone()))
    }
}

impl<A, R> fmt::Debug for RunSync<A, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunSync")
            .field("job", &self.request.job_name)
            .field("kill_on_cancel", &self.request.kill_on_cancel)
            .finish_non_exhaustive()
    }
}

impl<A, R> IntoFuture for RunSync<A, R>
where
    A: Serialize + Send + 'static,
    R: DeserializeOwned + Send + 'static,
{
    type Output = Result<R, WorkerError>;
    type IntoFuture = RunSyncFuture<A, R>;

    fn into_future(self) -> RunSyncFuture<A, R> {
        RunSyncFuture::new(self.request)
    }
}
