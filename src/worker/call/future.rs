//! The order of steps in a call: checks, limiter, worker, attempts, decoding, and what cancellation
//! may interrupt.
//!
//! The first poll takes all these steps at once. That is enough for a quick job on an awake worker,
//! which therefore needs no allocation, no scope node and no waker. A call that has to wait goes on
//! as a boxed future from that step.

use std::cell::Cell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::mem;
use std::pin::{Pin, pin};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_lite::future::yield_now;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::Instrument;

use super::attempt::{Attempt, AttemptOutcome};
use super::cancel_policy::CancelPolicy;
use super::encode_argument::EncodeArgument;
use super::limiter::default_limiter;
use super::request::Request;
use crate::cancel::position::is_thread_ending;
use crate::cancel::{WaitReport, Watch, checkpoint_if_cancelled, on_cancel, shield};
use crate::sync::{CapacityLimiter, Token};
use crate::sys::fork_detector::is_forked_copy;
use crate::sys::role::{has_reached_hook, refuse_unless_hooked};
use crate::transport::codec;
use crate::transport::codec_error::CodecError;
#[cfg(all(test, not(loom)))]
use crate::transport::frame;
use crate::transport::frame::{Frame, Kind};
use crate::transport::job::code::{Code, JobFn};
use crate::transport::out_message::OutMessage;
use crate::wait::CallWaits;
use crate::worker::conn::ending::EndingWorker;
use crate::worker::conn::worker::Worker;
use crate::worker::error::WorkerError;
use crate::worker::pool::call_guard::CallGuard;
use crate::worker::pool::context::WorkerContext;
use crate::worker::pool::current::current;
use crate::worker::pool::worker_pool::{Taken, WorkerPool};
use crate::worker::trace;
use crate::worker::trace::CallSpan;
use crate::worker::tuning::CALLS_BETWEEN_YIELDS;

/// Waits for a call into a worker process; made by awaiting [`RunSync`](crate::worker::RunSync).
///
/// [`run_sync`](crate::run_sync()) documents what dropping it does, under "Cancellation".
#[must_use = "futures do nothing unless awaited"]
pub struct RunSyncFuture<A, R> {
    state: State<A, R>,
}

/// The result of a call.
pub(super) type CallResult<R> = Result<R, WorkerError>;

/// A call that has to wait.
type Waiting = Pin<Box<dyn Future<Output = CallResult<Answer>> + Send>>;

/// The steps of a call that know the types of its argument and its result.
///
/// The future has them from `run_sync`. So it needs no bounds, and a type that has no encoding is
/// one error there. All other steps are the same code for calls of all types.
pub(super) struct Typed<A, R> {
    start: fn(Request, A, &mut Context<'_>) -> Result<CallResult<Answer>, Waiting>,
    finish: Finish<R>,
}

/// Makes the result of a call of its answer.
type Finish<R> = fn(Answer) -> CallResult<R>;

impl<A, R> Typed<A, R>
where
    A: Serialize + Send + 'static,
    R: Serialize + DeserializeOwned,
{
    pub(super) const STEPS: Self = Self {
        start: |request, arg, cx| start(request, &mut Some(arg), cx),
        finish: Answer::decode,
    };
}

impl Typed<Box<dyn EncodeArgument>, Answer> {
    /// The steps of a call whose caller knows the types.
    pub(super) const UNTYPED: Self = Self {
        start: |request, arg, cx| start(request, &mut Untyped(Some(arg)), cx),
        finish: Ok,
    };
}

/// The argument of a call, until it is encoded.
trait Unencoded: Send {
    /// Encodes the argument as a job, and drops it.
    fn encode(&mut self, code: Code<JobFn>, pool: &WorkerPool) -> Result<OutMessage, CodecError>;

    /// Moves the argument into a box, for a call that has to wait before it encodes it.
    fn move_to_heap(&mut self) -> Box<dyn Unencoded>;
}

/// The argument; `None` once one of the methods was called, which is once.
impl<A: Serialize + Send + 'static> Unencoded for Option<A> {
    fn encode(&mut self, code: Code<JobFn>, pool: &WorkerPool) -> Result<OutMessage, CodecError> {
        let arg = self.take().expect("an argument is encoded once");
        let job = OutMessage::build(Kind::Job, code.offset(), |out| {
            codec::encode_for_worker(&arg, out, pool.arenas_of_arguments())
        });
        codec::drop_encoded(arg, &job);
        job
    }

    fn move_to_heap(&mut self) -> Box<dyn Unencoded> {
        Box::new(self.take())
    }
}

/// An argument whose type only the caller knows; `None` once one of the methods was called.
struct Untyped(Option<Box<dyn EncodeArgument>>);

impl Untyped {
    fn take(&mut self) -> Box<dyn EncodeArgument> {
        self.0.take().expect("an argument is encoded once")
    }
}

impl Unencoded for Untyped {
    fn encode(&mut self, code: Code<JobFn>, pool: &WorkerPool) -> Result<OutMessage, CodecError> {
        let arg = self.take();
        OutMessage::build(Kind::Job, code.offset(), |out| {
            arg.encode(out, pool.arenas_of_arguments())
        })
    }

    fn move_to_heap(&mut self) -> Box<dyn Unencoded> {
        Box::new(Self(Some(self.take())))
    }
}

/// The encoded result of a call.
pub(crate) struct Answer {
    job_name: &'static str,
    /// `None` if no context of this process has made the answer.
    context: Option<WorkerContext>,
    frame: Frame,
    /// The span of a traced call, which ends when the answer is decoded.
    span: Option<Box<CallSpan>>,
}

impl Answer {
    fn new(call: Call, frame: Frame) -> Self {
        Self {
            job_name: call.job_name,
            context: Some(call.context),
            frame,
            span: None,
        }
    }

    /// Makes the answer of a job of its result's encoding.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn of_bytes(job_name: &'static str, result: &[u8]) -> Self {
        let frame = frame::build(Kind::Done, 0, |out| {
            out.extend_from_slice(result);
            Ok::<_, CodecError>(())
        });
        let frame = frame.map(Frame::from_bytes);
        let Ok(Ok(frame)) = frame else {
            panic!("the frame of an answer was just built")
        };
        Self {
            job_name,
            context: None,
            frame,
            span: None,
        }
    }

    /// Decodes the result of the job.
    ///
    /// # Errors
    ///
    /// If it is not the encoding of an `R`.
    pub(crate) fn decode<R: Serialize + DeserializeOwned>(self) -> CallResult<R> {
        let Self {
            job_name,
            context,
            mut frame,
            span,
        } = self;
        let mut decode = || {
            let fds = mem::take(&mut frame.fds);
            codec::decode_received(frame.payload(), fds).map_err(|error| {
                let context = context.as_ref().and_then(|of| of.config().context_name());
                let error = WorkerError::decode_result(error).of_job(job_name);
                error.of_context(context)
            })
        };
        let Some(mut span) = span else {
            return decode();
        };
        let result = span.span().clone().in_scope(decode);
        span.set_outcome(result.as_ref().err());
        result
    }
}

enum State<A, R> {
    New(Request, A, Typed<A, R>),
    Waiting(Waiting, &'static CallWaits, Finish<R>),
    Over,
}

impl<A, R> RunSyncFuture<A, R> {
    pub(super) fn new(request: Request, arg: A, steps: Typed<A, R>) -> Self {
        Self {
            state: State::New(request, arg, steps),
        }
    }
}

// Nothing in here is pinned in place: the argument is moved out, and the rest is in a box.
impl<A, R> Unpin for RunSyncFuture<A, R> {}

impl<A, R> Future for RunSyncFuture<A, R> {
    type Output = CallResult<R>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CallResult<R>> {
        if is_forked_copy() {
            return Poll::Ready(Err(WorkerError::forked_program()));
        }
        let (begun, job, finish) = match mem::replace(&mut self.state, State::Over) {
            State::Waiting(waiting, job, finish) => (poll_rest(waiting, job, cx), job, finish),
            State::New(request, arg, Typed { start, finish }) => {
                let job = request.job;
                let begun = start(request, arg, cx);
                (end_first_poll(begun, job, cx), job, finish)
            }
            State::Over => panic!("a call was polled after it had ended"),
        };
        match begun {
            Ok(answer) => Poll::Ready(answer.and_then(finish)),
            Err(waiting) => {
                self.state = State::Waiting(waiting, job, finish);
                Poll::Pending
            }
        }
    }
}

impl<A, R> fmt::Debug for RunSyncFuture<A, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunSyncFuture").finish_non_exhaustive()
    }
}

/// Polls a call that has to wait. Gives it back if it has to wait longer.
fn poll_rest(
    mut waiting: Waiting,
    job: &'static CallWaits,
    cx: &mut Context<'_>,
) -> Result<CallResult<Answer>, Waiting> {
    match job.during(|| waiting.as_mut().poll(cx)) {
        Poll::Ready(answer) => Ok(answer),
        Poll::Pending => Err(waiting),
    }
}

/// Polls a call that has to wait, so that its waker is registered. Lets other tasks run if this and
/// many calls before have ended in their first poll.
fn end_first_poll(
    begun: Result<CallResult<Answer>, Waiting>,
    job: &'static CallWaits,
    cx: &mut Context<'_>,
) -> Result<CallResult<Answer>, Waiting> {
    match begun.or_else(|waiting| poll_rest(waiting, job, cx)) {
        Ok(Ok(answer)) if count_quick_call() => poll_rest(Box::pin(after_yield(answer)), job, cx),
        begun => begun,
    }
}

/// Counts a call that ended in its first poll. Returns whether this thread has made enough of them
/// to yield to other tasks, and starts to count anew if so.
fn count_quick_call() -> bool {
    thread_local! {
        static CALLS: Cell<u32> = const { Cell::new(0) };
    }
    let is_due = |calls: &Cell<u32>| {
        let due = calls.get() + 1 >= CALLS_BETWEEN_YIELDS;
        calls.set(if due { 0 } else { calls.get() + 1 });
        due
    };
    // A thread that is ending does not count.
    CALLS.try_with(is_due).unwrap_or(false)
}

/// A call that has passed the checks.
struct Call {
    job_name: &'static str,
    code: Code<JobFn>,
    cancel_policy: CancelPolicy,
    time_limit: Option<Duration>,
    context: WorkerContext,
}

/// Starts a call. Returns its answer, or the rest of the call if it has to wait.
fn start(
    request: Request,
    arg: &mut dyn Unencoded,
    cx: &mut Context<'_>,
) -> Result<CallResult<Answer>, Waiting> {
    if trace::is_enabled() {
        return Err(Box::pin(run_traced(request, arg.move_to_heap())));
    }
    run_at_once(request, arg, cx)
}

/// Takes all steps that need no wait. Gives the rest of the call if one does.
fn run_at_once(
    request: Request,
    arg: &mut dyn Unencoded,
    cx: &mut Context<'_>,
) -> Result<CallResult<Answer>, Waiting> {
    refuse_unless_hooked("seedbed::run_sync");
    if pin!(checkpoint_if_cancelled()).poll(cx).is_pending() {
        return Err(Box::pin(run(request, arg.move_to_heap())));
    }
    let (call, limiter) = match check(request) {
        Ok(checked) => checked,
        Err(error) => return Ok(Err(error)),
    };
    let Some(token) = limiter.as_ref().unwrap_or(default_limiter()).try_acquire() else {
        return Err(Box::pin(call.run_limited(arg.move_to_heap(), limiter)));
    };
    let (job, guard, taken) = match call.begin(arg, token, None) {
        Ok(begun) => begun,
        Err(error) => return Ok(Err(error)),
    };
    let worker = match taken {
        Taken::Idle(worker) => Some(worker),
        Taken::None => None,
        Taken::Busy(_) => return Err(Box::pin(call.run_job(job, guard, taken))),
    };
    let mut attempt = match call.attempt(job, worker, guard) {
        Ok(attempt) => attempt,
        Err(error) => return Ok(Err(error)),
    };
    // Needs no shield before its first poll has ended, because only then could cancellation drop
    // it.
    match attempt.poll(cx) {
        Poll::Ready(AttemptOutcome::Done(frame)) => Ok(Ok(Answer::new(call, frame))),
        Poll::Ready(AttemptOutcome::Failed(error)) => Ok(Err(call.named(error))),
        Poll::Ready(AttemptOutcome::Retry(job, guard)) => Err(Box::pin(call.retry(job, guard))),
        Poll::Ready(AttemptOutcome::Cancelled(error)) => Ok(Err(call.named(error))),
        Poll::Pending => Err(Box::pin(call.run_attempt(attempt))),
    }
}

/// Runs a call from its beginning, in a span of its own.
async fn run_traced(request: Request, arg: Box<dyn Unencoded>) -> CallResult<Answer> {
    // Declared before the call runs, so that it is dropped after the call.
    let mut span = CallSpan::begin(request.job.function());
    let call = run(request, arg).instrument(span.span().clone());
    let answer = call
        .await
        .inspect_err(|error| span.set_outcome(Some(error)))?;
    Ok(Answer {
        span: Some(Box::new(span)),
        ..answer
    })
}

/// Runs a call from its beginning.
async fn run(request: Request, arg: Box<dyn Unencoded>) -> CallResult<Answer> {
    refuse_unless_hooked("seedbed::run_sync");
    checkpoint_if_cancelled().await;
    let (call, limiter) = check(request)?;
    call.run_limited(arg, limiter).await
}

/// Checks all that can be wrong with a call before it takes its limiter token.
fn check(request: Request) -> CallResult<(Call, Option<CapacityLimiter>)> {
    let job_name = request.job.function();
    let code = request
        .code
        .ok_or_else(|| WorkerError::foreign_function(job_name))?;
    if !has_reached_hook() {
        return Err(WorkerError::not_initialized().of_job(job_name));
    }
    let context = request.context.unwrap_or_else(current);
    let grace = context.config().grace();
    let call = Call {
        job_name,
        code,
        cancel_policy: request.cancel_policy.with_grace(grace),
        time_limit: request.time_limit,
        context,
    };
    let of_context = || call.context.config().limiter_of_calls().cloned();
    let limiter = request.limiter.or_else(of_context);
    Ok((call, limiter))
}

/// A call that has its token after a wait and may be cancelled before it begins. Counts the call
/// when dropped.
struct UncountedCall<'a> {
    pool: &'a WorkerPool,
    waited: Duration,
}

impl Drop for UncountedCall<'_> {
    fn drop(&mut self) {
        self.pool.count_cancelled_call(self.waited);
    }
}

impl Call {
    /// Names the job and its context in an error.
    fn named(&self, error: WorkerError) -> WorkerError {
        error
            .of_job(self.job_name)
            .of_context(self.context.config().context_name())
    }

    /// Waits for a limiter token, and runs the rest of the call.
    async fn run_limited(
        self,
        mut arg: Box<dyn Unencoded>,
        limiter: Option<CapacityLimiter>,
    ) -> CallResult<Answer> {
        let limiter = limiter.as_ref().unwrap_or(default_limiter());
        let (token, waited) = acquire(limiter).await;
        if let Some(waited) = waited {
            let uncounted = UncountedCall {
                pool: self.context.pool(),
                waited,
            };
            checkpoint_if_cancelled().await;
            mem::forget(uncounted); // from here on the call's guard counts it
        }
        let (job, guard, taken) = self.begin(&mut *arg, token, waited)?;
        drop(arg);
        // In memory of its own, because thousands of calls may wait for their turn, and the rest of
        // a call needs many times the memory of that wait.
        Box::pin(self.run_job(job, guard, taken)).await
    }

    /// Encodes the argument, counts the call, and takes a worker.
    fn begin(
        &self,
        arg: &mut dyn Unencoded,
        token: Token,
        waited: Option<Duration>,
    ) -> CallResult<(OutMessage, CallGuard, Taken)> {
        let pool = self.context.pool();
        let encoded = arg.encode(self.code, pool);
        let begun = match encoded.and_then(|job| pool.config.admit(job)) {
            Ok(job) => CallGuard::begin(pool.clone(), self.job_name, token, waited)
                .map(|(guard, taken)| (job, guard, taken)),
            Err(error) => Err(pool.count_unsent_call(waited, WorkerError::encode_argument(error))),
        };
        begun.map_err(|error| self.named(error))
    }

    fn attempt(
        &self,
        job: OutMessage,
        worker: Option<Box<Worker>>,
        guard: CallGuard,
    ) -> CallResult<Attempt> {
        let mut attempt = Attempt::new(job, worker, self.cancel_policy, guard)
            .map_err(|error| self.named(error))?;
        if let Some(limit) = self.time_limit {
            attempt.set_time_limit(limit);
        }
        Ok(attempt)
    }

    /// Runs the rest of a call whose job has to be handed to a worker.
    async fn run_job(self, job: OutMessage, guard: CallGuard, taken: Taken) -> CallResult<Answer> {
        let attempt = self.attempt_with(job, guard, taken).await?;
        self.run_attempt(attempt).await
    }

    /// Runs the rest of a call whose last attempt did not run the job.
    async fn retry(self, job: OutMessage, guard: CallGuard) -> CallResult<Answer> {
        let attempt = self.next_attempt(job, guard).await?;
        self.run_attempt(attempt).await
    }

    /// Runs the rest of a call that has begun an attempt.
    async fn run_attempt(self, mut attempt: Attempt) -> CallResult<Answer> {
        loop {
            match self.carry_out(attempt).await {
                AttemptOutcome::Done(frame) => return Ok(Answer::new(self, frame)),
                AttemptOutcome::Failed(error) => return Err(self.named(error)),
                AttemptOutcome::Retry(job, guard) => {
                    attempt = self.next_attempt(job, guard).await?;
                }
                AttemptOutcome::Cancelled(error) => {
                    checkpoint_if_cancelled().await;
                    // Other code has taken the call out of the scope that was cancelled.
                    return Err(self.named(error));
                }
            }
        }
    }

    /// Polls an attempt to its outcome. If the call is cancelled, does what its policy says: polls
    /// to the end of its worker instead, or asks the job to end.
    async fn carry_out(&self, mut attempt: Attempt) -> AttemptOutcome {
        let mut watch = match self.cancel_policy {
            CancelPolicy::Kill if !is_thread_ending() => {
                return self.carry_out_or_kill(attempt).await;
            }
            CancelPolicy::Ask(_) if !is_thread_ending() => Some(Watch::new(true)),
            _ => None,
        };
        let mut report = WaitReport::new();
        let wait = poll_fn(|cx| {
            let outcome = match &mut watch {
                Some(watch) => {
                    let view = watch.view();
                    watch.poll_inside(cx, |cx| {
                        if view.is_cancelled() {
                            attempt.cancel();
                        }
                        attempt.poll(cx)
                    })
                }
                None => attempt.poll(cx),
            };
            if outcome.is_pending() {
                report.poll_here(cx, &mut |what| self.describe(what, attempt.pid()));
            }
            outcome
        });
        match self.cancel_policy {
            CancelPolicy::Ask(_) => wait.await, // the watch lets cancelled scopes wait
            _ => shielded(wait).await,
        }
    }

    /// Polls an attempt to its outcome, or to the end of its worker if the call is cancelled.
    async fn carry_out_or_kill(&self, attempt: Attempt) -> AttemptOutcome {
        // `on_cancel` polls the body and the clean-up one after the other, so the mutex is never
        // contended. It makes the attempt that they share `Send`.
        let attempt = Mutex::new(attempt);
        let lock = || attempt.lock().unwrap_or_else(PoisonError::into_inner);
        let body = poll_fn(|cx| lock().poll(cx));
        let kill = poll_fn(|cx| lock().poll_kill(cx));
        on_cancel(body, kill).quiet().await
    }

    /// Describes the call for a report that a cancelled scope waits for it.
    fn describe(&self, what: &mut String, pid: Option<u32>) {
        what.push_str(&format!("job `{}`", self.job_name));
        if let Some(context) = self.context.config().context_name() {
            what.push_str(&format!(" in `{context}`"));
        }
        match pid {
            Some(pid) => what.push_str(&format!(" in process {pid}")),
            None => what.push_str(", whose worker is starting"),
        }
        match (self.time_limit, self.cancel_policy) {
            (_, CancelPolicy::Ask(Duration::MAX)) => {
                what.push_str(" (which was asked to end; `kill_after` would limit its time)");
            }
            (_, CancelPolicy::Ask(patience)) => what.push_str(&format!(
                " (which was asked to end, and is killed {patience:?} after that)"
            )),
            (Some(limit), _) => what.push_str(&format!(" (its time limit of {limit:?} ends it)")),
            (None, _) => what.push_str(" (`kill_on_cancel(true)` would kill it)"),
        }
    }

    async fn next_attempt(&self, job: OutMessage, guard: CallGuard) -> CallResult<Attempt> {
        checkpoint_if_cancelled().await;
        let taken = guard.take();
        self.attempt_with(job, guard, taken).await
    }

    /// Begins an attempt, after waiting for a draining worker if there are too many.
    async fn attempt_with(
        &self,
        job: OutMessage,
        guard: CallGuard,
        taken: Taken,
    ) -> CallResult<Attempt> {
        let worker = match taken {
            Taken::Idle(worker) => Some(worker),
            Taken::None => None,
            Taken::Busy(oldest) => {
                let mut dying = EndingWorker::exiting(oldest);
                shielded(poll_fn(|cx| dying.poll(cx))).await;
                guard.take_worker()
            }
        };
        self.attempt(job, worker, guard)
    }
}

/// Lets other tasks run before the answer is decoded.
async fn after_yield(answer: Answer) -> CallResult<Answer> {
    shielded(yield_now()).await; // cancellation must not take away a result that has arrived
    Ok(answer)
}

/// Takes a token, and measures how long that took. Reads no clock if a token is free.
async fn acquire(limiter: &CapacityLimiter) -> (Token, Option<Duration>) {
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

/// Shields a future from cancellation. A call in the destructor of a thread-local, on a thread
/// whose position is gone, cannot be cancelled.
async fn shielded<F: Future>(future: F) -> F::Output {
    if is_thread_ending() {
        future.await
    } else {
        shield(future).quiet().await
    }
}
