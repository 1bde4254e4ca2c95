//! `run_sync`: a function call that happens in another process.
//!
//! What is decided here is the order of things and what cancellation may interrupt: entry, then the limiter, then one
//! attempt after the other, each shielded, or, if the caller allows it, ended by killing the worker.

pub(crate) mod attempt;
use std::fmt;
use std::future::{Future, IntoFuture, poll_fn};
use std::marker::PhantomData;
use std::num::NonZero;
use std::pin::Pin;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::call::attempt::{Attempt, Stake, Verdict};
use super::conn::mailbox::yield_after_quick_calls;
use super::error::WorkerError;
use super::pool::context::{Running, WorkerContext};
use super::pool::current::current;
use super::spawn::hook;
use super::trace;
use crate::cancel::{checkpoint_if_cancelled, on_cancel, shield};
use crate::sync::{CapacityLimiter, Token};
use crate::sys::copy::is_copy;
use crate::sys::role::refuse_unless_hooked;
use crate::transport::codec;
use crate::transport::frame::{Frame, Kind};
use crate::transport::job::code::{Code, JobFn};
use crate::transport::out_message::OutMessage;

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
    RunSync::new(f, arg)
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
    /// `None` if it lies outside the main executable.
    code: Option<Code<JobFn>>,
    name: &'static str,
    arg: A,
    context: Option<WorkerContext>,
    limiter: Option<CapacityLimiter>,
    kill_on_cancel: bool,
    result: PhantomData<fn() -> R>,
}

impl<A, R> RunSync<A, R> {
    pub(in crate::worker) fn new<F>(f: F, arg: A) -> Self
    where
        F: Fn(A) -> R + Copy + Send + Sync + 'static,
        A: DeserializeOwned,
        R: Serialize,
    {
        Self {
            code: Code::of_job(f),
            name: std::any::type_name::<F>(),
            arg,
            context: None,
            limiter: None,
            kill_on_cancel: false,
            result: PhantomData,
        }
    }

    pub(in crate::worker) fn inside(mut self, context: WorkerContext) -> Self {
        self.context = Some(context);
        self
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
        self.limiter = Some(limiter.clone());
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
        self.kill_on_cancel = kill;
        self
    }
}

impl<A, R> fmt::Debug for RunSync<A, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunSync")
            .field("job", &self.name)
            .field("kill_on_cancel", &self.kill_on_cancel)
            .finish_non_exhaustive()
    }
}

impl<A, R> IntoFuture for RunSync<A, R>
where
    A: Serialize + Send + 'static,
    R: DeserializeOwned + Send + 'static,
{
    type Output = Result<R, WorkerError>;
    type IntoFuture = RunSyncFuture<R>;

    fn into_future(self) -> RunSyncFuture<R> {
        let job = self.name;
        RunSyncFuture {
            call: match trace::listens() {
                false => Box::pin(self.call()),
                true => Box::pin(trace::spanned(job, self.call())),
            },
        }
    }
}

/// Waits for a call into a worker process; made by awaiting [`RunSync`].
///
/// What dropping it does is told at [`run_sync`], under "Cancellation".
#[must_use = "futures do nothing unless awaited"]
pub struct RunSyncFuture<R> {
    call: Pin<Box<dyn Future<Output = Result<R, WorkerError>> + Send>>,
}

impl<R> Future for RunSyncFuture<R> {
    type Output = Result<R, WorkerError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if is_copy() {
            return Poll::Ready(Err(WorkerError::forked_program()));
        }
        self.call.as_mut().poll(cx)
    }
}

impl<R> fmt::Debug for RunSyncFuture<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunSyncFuture").finish_non_exhaustive()
    }
}

impl<A: Serialize, R: DeserializeOwned> RunSync<A, R> {
    async fn call(self) -> Result<R, WorkerError> {
        refuse_unless_hooked("seedbed::run_sync");
        checkpoint_if_cancelled().await;
        let name = self.name;
        let code = self
            .code
            .ok_or_else(|| WorkerError::foreign_function(name))?;
        let spec = hook::exec_spec().ok_or_else(|| WorkerError::not_initialized().of_job(name))?;
        let context = self.context.unwrap_or_else(current);
        let named = |error: WorkerError| {
            error
                .of_job(name)
                .of_context(context.config().context_name())
        };
        let limiter = self.limiter.unwrap_or_else(current_default_worker_limiter);
        let (token, waited) = token_of(&limiter).await;
        let mut running = context.begin(waited).map_err(named)?;
        let mut job = encode_job(code, &self.arg, &running)
            .inspect_err(|_| running.failed())
            .map_err(named)?;
        drop(self.arg);
        let mut stake = Stake {
            running,
            _token: token,
            failed_forks: 0,
        };
        loop {
            checkpoint_if_cancelled().await;
            stake.running.make_way().await;
            let attempt = Attempt::new(job, &spec, self.kill_on_cancel, stake).map_err(named)?;
            let (verdict, held) = carry_out(attempt, self.kill_on_cancel).await;
            match verdict {
                Verdict::Done(frame) => {
                    drop(held); // the job is over; decoding needs no worker
                    yield_after_quick_calls().await;
                    return decode_result(frame).map_err(named);
                }
                Verdict::Failed(error) => return Err(named(error)),
                Verdict::Again(unrun) => (job, stake) = (unrun, held),
            }
        }
    }
}

/// Takes a token, and tells for how long that had to be waited for. Where there was no wait, no clock is read.
async fn token_of(limiter: &CapacityLimiter) -> (Token, Option<Duration>) {
    let (mut acquire, mut since) = (limiter.acquire(), None);
    let token = poll_fn(|cx| {
        let token = Pin::new(&mut acquire).poll(cx);
        if token.is_pending() {
            since.get_or_insert_with(Instant::now);
        }
        token
    });
    let token = token.await;
    (token, since.map(|since| since.elapsed()))
}

/// Polls an attempt to its end, or, if it is cancelled and may be, to its worker's.
async fn carry_out(attempt: Attempt, kill_on_cancel: bool) -> (Verdict, Stake) {
    // Uncontended: the body and the clean-up of `on_cancel` are polled one after the other. It makes their sharing `Send`.
    let attempt = Mutex::new(attempt);
    let body = poll_fn(|cx| {
        attempt
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .poll(cx)
    });
    let verdict = match kill_on_cancel {
        false => shield(body).await,
        true => {
            let kill = poll_fn(|cx| {
                attempt
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .poll_kill(cx)
            });
            on_cancel(body, kill).await
        }
    };
    let attempt = attempt.into_inner().unwrap_or_else(PoisonError::into_inner);
    (verdict, attempt.into_stake())
}

fn encode_job<A: Serialize>(
    code: Code<JobFn>,
    arg: &A,
    running: &Running,
) -> Result<OutMessage, WorkerError> {
    OutMessage::build(Kind::Job, code.offset(), |out| {
        match running.config().limits_open_files() {
            true => codec::encode_in_frame(arg, out),
            false => codec::encode_for_worker(arg, out, running.arenas()),
        }
    })
    .map_err(WorkerError::encode_argument)
}

fn decode_result<R: DeserializeOwned>(mut frame: Frame) -> Result<R, WorkerError> {
    let fds = std::mem::take(&mut frame.fds);
    codec::decode_enclosed(frame.payload(), fds).map_err(WorkerError::decode_result)
}

/// Returns the limiter of calls that name none: one token for each processor, shared by the whole process.
///
/// # Examples
///
/// ```
/// let limiter = seedbed::worker::current_default_worker_limiter();
/// assert!(limiter.total().unwrap() >= 1);
/// ```
pub fn current_default_worker_limiter() -> CapacityLimiter {
    static LIMITER: OnceLock<CapacityLimiter> = OnceLock::new();
    let processors = || std::thread::available_parallelism().map_or(1, NonZero::get);
    LIMITER
        .get_or_init(|| CapacityLimiter::new(processors()))
        .clone()
}
