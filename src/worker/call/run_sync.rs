//! The public API of calls: `run_sync`, and the builder that it returns.

use std::fmt;
use std::future::IntoFuture;
use std::marker::PhantomData;
use std::time::Duration;

use super::cancel_policy::CancelPolicy;
use super::flatten::FlatRunSync;
use super::future::{RunSyncFuture, Typed};
use super::request::Request;
use crate::sync::CapacityLimiter;
use crate::transport::job::code::{Code, assert_captures_nothing};
use crate::wait::CallWaits;
use crate::worker::data::{Argument, JobResult};
use crate::worker::error::WorkerError;
use crate::worker::pool::context::WorkerContext;

/// Calls `f(arg)` in a worker process, where it may block, spin, crash or be killed without harm to
/// this one.
///
/// `f` is code and `arg` is data. `f` must capture nothing: it is a plain function, or a closure
/// without captured variables. `cargo build` checks that (`cargo check` does not). Argument and
/// result are encoded with serde; pass several arguments as a tuple. A value
/// arrives as it was sent, or the call fails. The encoding is compact and does not describe itself,
/// so types that need that are errors unless they are wrapped in
/// [`Described`](crate::worker::Described): `#[serde(untagged)]`, `#[serde(tag = ..)]`,
/// `#[serde(flatten)]`, `#[serde(skip_serializing_if = ..)]`, `serde_json::Value`. Types whose
/// `Serialize` and `Deserialize` disagree, and values that are nested too deeply for the stack of
/// the thread, are errors, too.
///
/// Argument and result own their data ([`Argument`], [`JobResult`]): send a `String` rather than a
/// `&str`, of which the compiler says that its implementation of
/// [`OwnedData`](crate::worker::OwnedData) is not general enough. A job that fails
/// returns a `Result`; [`RemoteError`](crate::worker::RemoteError) takes every error through `?`. A
/// job is a function that blocks; [`run_async`](crate::run_async()) calls an `async fn`.
///
/// Workers are cached, so a call usually finds one that is running. It is not specified which
/// worker a call uses. A value that a job leaves in a static is visible to the next job of the same
/// worker. A timer that a job leaves (of `alarm`, `setitimer` or `timer_create`) and that would end
/// the worker is disarmed before the worker waits for another job.
///
/// Nothing happens until the call is awaited. It can be awaited on any executor; the future is
/// `Send`.
///
/// A worker is this program, executed again: **everything that `main` does before the hook**
/// (`run`, `#[seedbed::main]`, `#[seedbed::test]` or `init()`) **happens again**, with the same
/// arguments and in the same directory: in each worker, or once for all that are
/// [forked](crate::worker::WorkerType). So
/// `f` must not capture zero-sized tokens that prove something about the state of this process,
/// unless the code before the hook or an [`init`](crate::WorkerConfig::init) closure establishes
/// that state in the worker too.
///
/// Workers have the CPU affinity, the scheduling policy, the niceness and the I/O priority that the
/// *main* thread of this process had when the first worker was started, whichever thread made that
/// call. ([`cpu_affinity`](crate::WorkerConfig::cpu_affinity) and
/// [`nice`](crate::WorkerConfig::nice) set others.) They block no signals.
///
/// In the worker, standard input is `/dev/null`, and standard output and error are those of this
/// process. Other descriptors without close-on-exec are inherited too, and stay open
/// ([`close_inherited_descriptors`](crate::WorkerConfig::close_inherited_descriptors)). SIGINT,
/// SIGTERM, SIGHUP and SIGQUIT do nothing, and are left to this process; see
/// [`default_signals`](crate::WorkerConfig::default_signals). The worker is killed when this
/// process ends for any reason. (A new worker that has not reached the hook notices the end when it
/// gets there. The kernel checks the rights of this process: a worker with another user lives on.
/// It also forgets to kill the worker of a job that changes its user, until that job has returned.)
///
/// # Cancellation
///
/// If cancelled before it has the limiter's token, nothing has happened: entry is always a cancel
/// point, and so are the wait for the limiter and every change to another worker. After that:
///
/// * by default the call is shielded. Not cancellable: starts a worker if none is idle, and runs
///   until the job has ended. If a cancelled scope has waited for it for two seconds of real time,
///   a `tracing` event at WARN names the job and its process, once; after Ctrl-C, so does a line on
///   standard error;
/// * with [`kill_on_cancel(true)`](RunSync::kill_on_cancel), the worker is killed, and the
///   cancellation completes when the process has been reaped. It is not known how far the job came;
/// * with [`kill_after(patience)`](RunSync::kill_after), the job is asked to end. If it does, the
///   call returns its result. Otherwise the worker is killed when the patience is over.
///
/// A [`time_limit`](RunSync::time_limit) bounds all three.
///
/// If the future is dropped from outside (by a foreign `select!`, for example), a killable worker
/// is killed, and reaped in the background. A job with `kill_after` is asked to end, and killed
/// when the patience is over, in the background. Any other worker finishes its job in the
/// background, the result is dropped, and the worker returns to the cache; the limiter's token is
/// held until then. A job that no worker has yet is not run.
///
/// # Errors
///
/// See [`WorkerErrorKind`](crate::worker::WorkerErrorKind). A job is run exactly once, or there is
/// an error; it is never run twice.
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
/// The compiler refuses a closure that captures:
///
/// ```compile_fail
/// let offset = 3;
/// let call = seedbed::run_sync(move |n: i32| n + offset, 4);
/// ```
///
/// It also refuses a variable that holds a function, because that is data:
///
/// ```compile_fail
/// let f: fn(i32) -> i32 = i32::abs;
/// let call = seedbed::run_sync(f, 4);
/// ```
#[doc(alias = "run_in_executor")]
#[doc(alias = "to_process")]
pub fn run_sync<F, A, R>(f: F, arg: A) -> RunSync<A, R>
where
    F: Fn(A) -> R + Copy + Send + Sync + 'static, // one argument: use a tuple for several
    A: Argument,                                  // owned data: a `String` rather than a `&str`
    R: JobResult,
{
    const { assert_captures_nothing::<F>() };
    RunSync::new(f, arg, None)
}

/// A call into a worker process, made by [`run_sync`] or [`WorkerContext::run_sync`], to be
/// awaited.
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
    request: Request,
    arg: A,
    steps: Typed<A, R>,
}

/// The waits of a call of a job of type `F`.
struct Waits<F>(PhantomData<F>);

impl<F> Waits<F> {
    const WAITS: &'static CallWaits = &CallWaits::new::<F>("job");
}

/// Returns the name of a job of type `F`, and the waits of its calls.
pub(crate) fn waits_of<F>() -> &'static CallWaits {
    Waits::<F>::WAITS
}

impl<A, R> RunSync<A, R> {
    fn new<F>(f: F, arg: A, context: Option<WorkerContext>) -> Self
    where
        F: Fn(A) -> R + Copy + Send + Sync + 'static,
        A: Argument,
        R: JobResult,
    {
        Self::with_waits(f, Waits::<F>::WAITS, arg, context)
    }

    /// Makes a call of a job that calls a function of type `N` and runs its future. A request
    /// cancels the root scope of the job, within the context's grace period.
    pub(crate) fn of_root<N, F>(f: F, arg: A, context: Option<WorkerContext>) -> Self
    where
        N: 'static,
        F: Fn(A) -> R + Copy + Send + Sync + 'static,
        A: Argument,
        R: JobResult,
    {
        Self::with_waits(f, Waits::<N>::WAITS, arg, context).kill_after_grace()
    }

    fn with_waits<F>(
        f: F,
        waits: &'static CallWaits,
        arg: A,
        context: Option<WorkerContext>,
    ) -> Self
    where
        F: Fn(A) -> R + Copy + Send + Sync + 'static,
        A: Argument,
        R: JobResult,
    {
        Self {
            request: Request {
                code: Code::of_job(f),
                job: waits,
                context,
                limiter: None,
                cancel_policy: CancelPolicy::default(),
                time_limit: None,
            },
            arg,
            steps: Typed::STEPS,
        }
    }

    pub(crate) fn argument_mut(&mut self) -> &mut A {
        &mut self.arg
    }

    /// Lets cancellation ask the job to end, and kill its worker after the context's grace period.
    pub(crate) fn kill_after_grace(mut self) -> Self {
        self.request.cancel_policy = CancelPolicy::AskWithinGrace;
        self
    }

    /// Takes a token of `limiter` before the call uses a worker, and holds it until the job has
    /// ended. The default limiter is
    /// [`current_default_worker_limiter`](crate::worker::current_default_worker_limiter).
    ///
    /// With a limiter of zero, the call waits until its total is raised.
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

    /// Sets whether cancellation kills the worker and waits until it is reaped, at most for the
    /// [`kill_timeout`](crate::WorkerConfig::kill_timeout). By default the call is shielded.
    ///
    /// The worker gets SIGKILL and no warning, so a killed job removes no temporary files and
    /// finishes no writes. So make a temporary directory in this process, pass its path to the job,
    /// and remove it here.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::{move_on_after, run_sync};
    ///
    /// fn spin_forever(_: ()) {
    ///     loop {
    ///         std::hint::spin_loop();
    ///     }
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let call = run_sync(spin_forever, ()).kill_on_cancel(true);
    ///     let outcome = smol::block_on(move_on_after(Duration::from_millis(50), call));
    ///     assert!(outcome.is_none()); // and no process is left
    /// }
    /// ```
    pub fn kill_on_cancel(mut self, kill: bool) -> Self {
        self.request.cancel_policy = if kill {
            CancelPolicy::Kill
        } else {
            CancelPolicy::Wait
        };
        self
    }

    /// Sets that cancellation asks the job to end, and kills its worker if that takes longer than
    /// `patience`.
    ///
    /// The job finds out by [`worker::check_cancelled`](crate::worker::check_cancelled) or
    /// [`worker::cancelled`](crate::worker::cancelled). If it ends in time, everything that it owns
    /// is dropped (a temporary directory is removed, for example), the call returns its result, and
    /// the worker serves other calls. Otherwise the worker is killed, and the cancellation
    /// completes when the process has been reaped. A worker that is still starting is killed at
    /// once.
    ///
    /// This replaces [`kill_on_cancel`](Self::kill_on_cancel), and that replaces this. The patience
    /// is real time, also in a run with a virtual clock. A [`time_limit`](Self::time_limit) that
    /// ends earlier kills the worker earlier. If the future is dropped from outside, the job is
    /// asked and, if need be, killed in the background.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::worker::{CancelledError, check_cancelled};
    /// use seedbed::{move_on_after, run_sync};
    ///
    /// fn polite(_: ()) -> Result<(), CancelledError> {
    ///     loop {
    ///         check_cancelled()?;
    ///     }
    /// }
    ///
    /// fn deaf(_: ()) {
    ///     loop {
    ///         std::hint::spin_loop();
    ///     }
    /// }
    ///
    /// fn main() {
    ///     seedbed::run(async {
    ///         run_sync(i32::abs, -1).await.unwrap(); // a worker is up now
    ///         let call = run_sync(polite, ()).kill_after(Duration::from_secs(60));
    ///         let ended = move_on_after(Duration::from_millis(20), call).await;
    ///         assert_eq!(ended.unwrap().unwrap(), Err(CancelledError)); // the job's own result
    ///
    ///         let call = run_sync(deaf, ()).kill_after(Duration::from_millis(20));
    ///         let ended = move_on_after(Duration::from_millis(20), call).await;
    ///         assert!(ended.is_none()); // and no process is left
    ///     });
    /// }
    /// ```
    pub fn kill_after(mut self, patience: Duration) -> Self {
        self.request.cancel_policy = CancelPolicy::Ask(patience);
        self
    }

    /// Limits the time that the job may take. When the time is up, the worker is killed and reaped,
    /// and the call ends with
    /// [`WorkerErrorKind::TimedOut`](crate::worker::WorkerErrorKind::TimedOut).
    ///
    /// The time counts from the hand-over of the job to a worker that is up, until the answer has
    /// arrived. So the wait for the limiter, the start of a worker with its `init` closures, and
    /// the encoding and decoding in this process do not count; the transfer of the argument to the
    /// worker does. (A time limit *around* the call, as by [`fail_after`](crate::fail_after()),
    /// counts all of that; see [Time limits and queues](crate::guide::time_limits).) An answer that
    /// has arrived counts, even if this process reads it after the limit.
    ///
    /// The limit is real time, also in a run with a virtual clock. It does not make the call
    /// [cancellable](RunSync::kill_on_cancel), but a cancelled caller waits no longer than the
    /// limit. It also applies if the future is dropped and the job ends in the background.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::worker::WorkerErrorKind;
    /// use seedbed::run_sync;
    ///
    /// fn spin_forever(_: ()) {
    ///     loop {
    ///         std::hint::spin_loop();
    ///     }
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let call = run_sync(spin_forever, ()).time_limit(Duration::from_millis(50));
    ///     let error = smol::block_on(async { call.await }).unwrap_err();
    ///     assert_eq!(error.kind(), WorkerErrorKind::TimedOut); // and no process is left
    /// }
    /// ```
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.request.time_limit = Some(limit);
        self
    }
}

/// A call whose job returns a `Result`.
impl<A, T, E> RunSync<A, Result<T, E>> {
    /// Makes one `Result` of the two that the call of a fallible job returns: an error of the call
    /// becomes an error of the job. Comes last, after the settings.
    ///
    /// The job's error type needs a conversion from [`WorkerError`], as a `String` has. An
    /// enumeration of the program's has a variant for it, which the job never sends:
    ///
    /// ```
    /// use seedbed::{WorkerError, run_sync};
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Debug, Serialize, Deserialize)]
    /// enum Failure {
    ///     NotANumber(String),
    ///     #[serde(skip)]
    ///     Worker(WorkerError),
    /// }
    ///
    /// impl From<WorkerError> for Failure {
    ///     fn from(error: WorkerError) -> Self {
    ///         Self::Worker(error)
    ///     }
    /// }
    ///
    /// fn parse(text: String) -> Result<u32, Failure> {
    ///     text.parse().map_err(|_| Failure::NotANumber(text))
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let parsed = smol::block_on(run_sync(parse, "seven".to_owned()).flatten());
    ///     assert!(matches!(parsed, Err(Failure::NotANumber(text)) if text == "seven"));
    /// }
    /// ```
    ///
    /// Where the caller's error type has conversions from both, `run_sync(..).await??` does without
    /// this method.
    ///
    /// # Cancellation
    ///
    /// The call is cancelled as [`run_sync`](crate::run_sync()) says.
    ///
    /// # Errors
    ///
    /// The error of the job, or that of the call.
    pub fn flatten(self) -> FlatRunSync<A, T, E>
    where
        E: From<WorkerError>,
    {
        FlatRunSync::new(RunSyncFuture::new(self.request, self.arg, self.steps))
    }
}

impl WorkerContext {
    /// Calls `f(arg)` in a worker process of this context; otherwise like the free function
    /// [`run_sync`](crate::run_sync()).
    ///
    /// # Cancellation
    ///
    /// The call is shielded once its job was handed over, unless its worker may be killed. The free
    /// function [`run_sync`](crate::run_sync()) documents the details.
    ///
    /// # Errors
    ///
    /// All errors of the free function [`run_sync`](crate::run_sync());
    /// [`WorkerErrorKind::Closed`](crate::worker::WorkerErrorKind::Closed) if the context was shut
    /// down.
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
        F: Fn(A) -> R + Copy + Send + Sync + 'static, // one argument: use a tuple for several
        A: Argument,                                  // owned data: a `String` rather than a `&str`
        R: JobResult,
    {
        const { assert_captures_nothing::<F>() };
        RunSync::new(f, arg, Some(self.clone()))
    }
}

impl<A, R> fmt::Debug for RunSync<A, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunSync")
            .field("job", &self.request.job.function())
            .field("on_cancel", &self.request.cancel_policy)
            .field("time_limit", &self.request.time_limit)
            .finish_non_exhaustive()
    }
}

impl<A, R> IntoFuture for RunSync<A, R> {
    type Output = Result<R, WorkerError>;
    type IntoFuture = RunSyncFuture<A, R>;

    fn into_future(self) -> RunSyncFuture<A, R> {
        RunSyncFuture::new(self.request, self.arg, self.steps)
    }
}
