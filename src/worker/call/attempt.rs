//! One attempt to run a job in one worker, from handing it over to the answer.
//!
//! An attempt is a state machine in poll form. It can be polled to its outcome; or, instead, to the
//! end of its worker ([`Attempt::poll_kill`]); or dropped at any point. A dropped attempt whose
//! worker has the job moves to the background and is polled to its outcome there, together with its
//! [`CallGuard`], unless the worker may be killed.
//!
//! Another worker may run the job only if this one certainly has not: it announced its exit (after
//! it closed its receiving end), or it came from the pool and ended before it received the whole
//! frame. A *new* worker that ends while it receives the job is an error even so, because an
//! argument that crashes every receiver would otherwise crash one new worker after the other.

use std::future::Future;
use std::mem;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use super::cancel_policy::CancelPolicy;
use super::hand_over::{argument_len, begin_start, hand_to_idle, put_back};
use super::reply::Reply;
use super::time_limit::TimeLimit;
use crate::process::background;
use crate::process::notify::Listener;
use crate::process::tick::next_slow_tick;
use crate::sys::fork_detector;
use crate::transport::codec;
use crate::transport::frame::Frame;
use crate::transport::out_message::OutMessage;
use crate::transport::receive::RecvError;
use crate::worker::conn::ending::{EndedWorker, EndingWorker};
use crate::worker::conn::worker::Worker;
use crate::worker::conn::worker_process::ForkFailure;
use crate::worker::end::KillReason;
use crate::worker::error::{Survivor, WorkerError, WorkerExit};
use crate::worker::pool::call_guard::CallGuard;
use crate::worker::record::ExpectedWorker;
use crate::worker::spawn::start::{Starting, Unstarted};
use crate::worker::tuning::FORK_ATTEMPTS;

/// A job on its way through one worker.
#[derive(Debug)]
pub(in crate::worker) struct Attempt {
    state: State,
    /// The job, until a worker has it.
    job: OutMessage,
    cancel_policy: CancelPolicy,
    /// The first poll that found the job unanswered. A call that is answered in its first poll
    /// never reads the clock.
    busy_since: Option<Instant>,
    /// Boxed, because few calls have one.
    time_limit: Option<Box<TimeLimit>>,
    /// The time that the job may still take, once the call was cancelled and its policy is to ask.
    patience: Option<Box<TimeLimit>>,
    /// `None` once the attempt has its outcome.
    guard: Option<CallGuard>,
    /// The next tick, while a worker is starting.
    tick: Option<Listener>,
}

#[derive(Debug)]
enum State {
    /// A new worker is starting.
    Starting(Box<Starting>, ExpectedWorker),
    /// A new worker is killed, because its context kills all workers.
    Stopping(Box<Starting>, ExpectedWorker),
    /// The worker has the job.
    Working {
        worker: Box<Worker>,
        new: bool,
    },
    /// The worker is ending, which leads to this conclusion.
    Ending(EndingWorker, Conclusion),
    Over,
}

/// The meaning of a worker's end for its job.
#[derive(Debug)]
enum Conclusion {
    /// The worker ended without a message. It may have begun the job. If it is new, that is an
    /// error in any case.
    Broken { new: bool },
    /// The call was cancelled, so its result is not needed.
    Cancelled,
    /// The call was cancelled, and the job had not ended when the patience was over.
    PatienceOver,
    /// The job had not ended at its time limit.
    TimedOut(Duration),
    /// An error that was known before the worker ended.
    Failed(WorkerError),
}

/// The outcome of an attempt.
#[derive(Debug)]
pub(in crate::worker) enum AttemptOutcome {
    /// The encoded result. The call has ended for its pool.
    Done(Frame),
    /// An error. The call has ended for its pool.
    Failed(WorkerError),
    /// The worker did not run the job, so another one may.
    Retry(OutMessage, CallGuard),
    /// The worker was killed, because the call was cancelled and its job did not end when it was
    /// asked.
    Cancelled(WorkerError),
}

impl Attempt {
    /// Hands the job to `worker`, or to the next idle worker if that one has ended, or starts a new
    /// one.
    pub(in crate::worker) fn new(
        mut job: OutMessage,
        worker: Option<Box<Worker>>,
        cancel_policy: CancelPolicy,
        mut guard: CallGuard,
    ) -> Result<Self, WorkerError> {
        let state = match hand_to_idle(&mut job, worker, cancel_policy, &mut guard) {
            Ok(Some(worker)) => Ok(State::Working { worker, new: false }),
            Ok(None) => begin_start(guard.pool())
                .map(|(starting, expected)| State::Starting(starting, expected)),
            Err(error) => Err(error),
        };
        let state = state.inspect_err(|_| guard.set_failed())?;
        Ok(Self {
            state,
            job,
            cancel_policy,
            busy_since: None,
            time_limit: None,
            patience: None,
            guard: Some(guard),
            tick: None,
        })
    }

    /// Kills the worker if it has had the job for this long.
    pub(in crate::worker) fn set_time_limit(&mut self, limit: Duration) {
        self.time_limit = Some(Box::new(TimeLimit::new(limit)));
    }

    /// Asks the job to end, or kills a worker that is starting, and has none. A worker whose job
    /// does not end in time is killed. Has an effect if the policy is to ask, once; the next polls
    /// carry it out.
    pub(in crate::worker) fn cancel(&mut self) {
        if let (None, Some(patience)) = (&self.patience, self.cancel_policy.patience()) {
            self.patience = Some(Box::new(TimeLimit::new(patience)));
        }
    }

    pub(in crate::worker) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<AttemptOutcome> {
        if self.patience.is_some() {
            self.stop_start();
        }
        let mut outcome = self.advance(cx);
        if outcome.is_pending() && self.ask_job() {
            outcome = self.advance(cx); // sends the request
        }
        if outcome.is_ready() {
            return outcome;
        }
        if matches!(self.state, State::Starting(..)) {
            self.poll_tick(cx);
        }
        // After the wait for the next tick has begun, so that no `kill_all` is missed.
        if self.guard.as_ref().is_some_and(CallGuard::is_cut_off) && self.cut_off() {
            return self.advance(cx);
        }
        let State::Working { worker, .. } = &self.state else {
            return outcome;
        };
        self.busy_since.get_or_insert_with(Instant::now);
        // Only now: an answer that has arrived counts, however late this poll is.
        if let Some(limit) = &mut self.time_limit
            && worker.is_up()
            && limit.poll(cx).is_ready()
        {
            let conclusion = Conclusion::TimedOut(limit.limit());
            self.kill_worker(KillReason::TimedOut, conclusion);
            return self.advance(cx);
        }
        if let Some(patience) = &mut self.patience
            && patience.poll(cx).is_ready()
        {
            self.kill_worker(KillReason::Cancelled, Conclusion::PatienceOver);
            return self.advance(cx);
        }
        outcome
    }

    /// Kills the worker because an item of its job has run for this long, which is beyond its
    /// limit.
    pub(in crate::worker) fn kill_at_time_limit(&mut self, limit: Duration, ran_for: Duration) {
        if matches!(self.state, State::Working { .. }) {
            self.busy_since = Instant::now().checked_sub(ran_for);
            self.kill_worker(KillReason::TimedOut, Conclusion::TimedOut(limit));
        }
    }

    /// Kills the worker because it has violated the protocol of its job.
    pub(in crate::worker) fn kill_for_protocol(&mut self, what: &'static str) {
        if matches!(self.state, State::Working { .. }) {
            self.kill_for(WorkerError::protocol(what));
        }
    }

    /// Asks the job to end, if the call was cancelled and that is its policy, or if its context
    /// asks all jobs. Returns whether the worker is to be sent a request.
    fn ask_job(&mut self) -> bool {
        let by_context = || self.guard.as_ref().is_some_and(CallGuard::is_asked);
        let is_asked = self.patience.is_some() || by_context();
        match &mut self.state {
            State::Working { worker, .. } => is_asked && worker.cancel_job(),
            _ => false,
        }
    }

    /// Begins to kill a worker that is starting for a job that is no longer needed.
    fn stop_start(&mut self) {
        match mem::replace(&mut self.state, State::Over) {
            State::Starting(starting, expected) => {
                self.state = State::Stopping(starting, expected);
            }
            state => self.state = state,
        }
    }

    /// Returns the process that has the job, once it is known.
    pub(in crate::worker) fn pid(&self) -> Option<u32> {
        match &self.state {
            State::Working { worker, .. } if worker.is_up() => Some(worker.pid()),
            _ => None,
        }
    }

    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<AttemptOutcome> {
        loop {
            match &mut self.state {
                State::Starting(starting, _) => {
                    let started = ready!(starting.poll(cx));
                    let State::Starting(starting, expected) =
                        mem::replace(&mut self.state, State::Over)
                    else {
                        unreachable!("the state is the one that was just polled")
                    };
                    match started {
                        Ok(mut worker) => {
                            worker.set_ready(expected);
                            if self.cancel_policy.patience().is_some() {
                                worker.hasten_mailbox();
                            }
                            let job = mem::take(&mut self.job);
                            if let Some(guard) = &mut self.guard {
                                guard.set_sent(argument_len(&job));
                            }
                            worker.put_job(job);
                            self.state = State::Working { worker, new: true };
                        }
                        Err(Unstarted::Failed(error)) => {
                            expected.failed(&error);
                            if starting.is_useless() {
                                let job = mem::take(&mut self.job);
                                return self.retry(job);
                            }
                            return self.fail(error);
                        }
                        Err(Unstarted::NotForked(why)) => {
                            drop(expected);
                            let job = mem::take(&mut self.job);
                            return self.retry_fork(why, job);
                        }
                    }
                }
                State::Working { worker, .. } => match ready!(worker.poll_answer(cx)) {
                    Ok(frame) if !worker.may_answer(&frame) => {
                        self.kill_for(WorkerError::protocol("an answer that is not this call's"))
                    }
                    Ok(frame) => match Reply::of(&frame) {
                        Reply::Done => return self.done(frame),
                        Reply::Failed(error) => return self.job_failed(frame, error),
                        Reply::Exits => {
                            let job = self.drain_worker();
                            return self.retry(job);
                        }
                        Reply::ExitsBecause(error) => {
                            drop(self.drain_worker());
                            return self.fail(error);
                        }
                        Reply::CannotServe(error) => self.kill_for(error),
                        Reply::Unexpected(what) => self.kill_for(WorkerError::protocol(what)),
                    },
                    Err(RecvError::Closed | RecvError::Reset) => match worker.take_fork_failure() {
                        Some(why) => {
                            let job = worker.take_back();
                            return self.retry_fork(why, job);
                        }
                        None => self.await_end(),
                    },
                    Err(RecvError::Malformed) => {
                        self.kill_for(WorkerError::protocol("bytes that are no frame"))
                    }
                    Err(RecvError::Failed(error)) => self.kill_for(WorkerError::lost_sight(error)),
                },
                State::Stopping(starting, _) => {
                    ready!(starting.poll_kill(cx));
                    let error = if self.patience.is_some() {
                        WorkerError::start_cancelled()
                    } else {
                        WorkerError::start_killed_with_all()
                    };
                    if let State::Stopping(_, expected) = mem::replace(&mut self.state, State::Over)
                    {
                        expected.failed(&error);
                    }
                    return if self.patience.is_some() {
                        self.end_cancelled(error)
                    } else {
                        self.fail(error)
                    };
                }
                State::Ending(dying, _) => {
                    let death = ready!(dying.poll(cx));
                    return self.conclude(death);
                }
                State::Over => unreachable!("polled after the attempt was over"),
            }
        }
    }

    /// Kills the worker, and waits until its process has been reaped.
    pub(in crate::worker) fn poll_kill(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match &mut self.state {
                State::Starting(starting, _) | State::Stopping(starting, _) => {
                    ready!(starting.poll_kill(cx));
                    self.state = State::Over;
                }
                State::Working { .. } => {
                    self.kill_worker(KillReason::Cancelled, Conclusion::Cancelled);
                }
                State::Ending(dying, _) => {
                    dying.kill(KillReason::Cancelled);
                    ready!(dying.poll(cx));
                    self.state = State::Over;
                }
                State::Over => return Poll::Ready(()),
            }
        }
    }

    /// The job returned, and the worker is ready for the next one.
    fn done(&mut self, frame: Frame) -> Poll<AttemptOutcome> {
        let memory = frame.fds.last().map(AsFd::as_fd);
        let bytes = codec::encoded_len(frame.payload(), memory);
        let mut guard = self.take_guard();
        guard.set_done(bytes);
        let worker = self.take_worker();
        put_back(worker, &frame.header, guard);
        Poll::Ready(AttemptOutcome::Done(frame))
    }

    /// The job came to an error, which has been read, and the worker is ready for the next one.
    fn job_failed(&mut self, frame: Frame, error: WorkerError) -> Poll<AttemptOutcome> {
        let mut guard = self.take_guard();
        guard.set_failed();
        let mut worker = self.take_worker();
        let header = frame.header;
        worker.recycle(frame);
        put_back(worker, &header, guard);
        Poll::Ready(AttemptOutcome::Failed(error))
    }

    /// Lets the worker exit, and returns the job, which it has not run.
    fn drain_worker(&mut self) -> OutMessage {
        let mut worker = self.take_worker();
        let job = worker.take_back();
        if let Some(guard) = &self.guard {
            guard.drain_worker(worker);
        }
        job
    }

    /// Retries a job whose worker was never forked, unless several fork servers have died with its
    /// requests.
    fn retry_fork(&mut self, why: ForkFailure, job: OutMessage) -> Poll<AttemptOutcome> {
        let failed_forks = self
            .guard
            .as_mut()
            .map_or(FORK_ATTEMPTS, CallGuard::count_failed_fork);
        match why {
            ForkFailure::Refused(error) => self.fail(WorkerError::fork_refused(error)),
            ForkFailure::ServerEnded if failed_forks < FORK_ATTEMPTS => self.retry(job),
            ForkFailure::ServerEnded => self.fail(WorkerError::fork_failed(
                "the fork server died each time that it was asked",
            )),
        }
    }

    /// Waits for the end of a worker that closed its socket without a message.
    fn await_end(&mut self) {
        let State::Working { new, .. } = &self.state else {
            unreachable!("only a worker with a job is awaited")
        };
        let conclusion = Conclusion::Broken { new: *new };
        self.busy_since.get_or_insert_with(Instant::now); // it may have ended before the first pending poll
        let dying = EndingWorker::exiting(self.take_worker()).of_job(self.job_name());
        self.state = State::Ending(dying, conclusion);
    }

    fn kill_for(&mut self, error: WorkerError) {
        let error = error.having_run(self.ran_for());
        self.kill_worker(KillReason::Unusable, Conclusion::Failed(error));
    }

    fn kill_worker(&mut self, why: KillReason, conclusion: Conclusion) {
        let ending = EndingWorker::killed(self.take_worker(), why).of_job(self.job_name());
        self.state = State::Ending(ending, conclusion);
    }

    /// Lets `kill_all` wake the task of a worker that is starting. A worker with a job waits for
    /// ticks itself.
    fn poll_tick(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(()) = Pin::new(self.tick.get_or_insert_with(next_slow_tick)).poll(cx)
        {
            self.tick = None;
        }
    }

    /// Begins to end an attempt whose context kills all workers. Returns whether the state changed.
    fn cut_off(&mut self) -> bool {
        match mem::replace(&mut self.state, State::Over) {
            State::Starting(starting, expected) => {
                self.state = State::Stopping(starting, expected);
            }
            state @ State::Working { .. } => {
                self.state = state;
                let error = match &self.guard {
                    Some(guard) if guard.is_asked() => WorkerError::killed_in_shutdown(),
                    _ => WorkerError::killed_with_all(),
                };
                let error = error.having_run(self.ran_for());
                if let Some(guard) = &self.guard {
                    guard.pool().count_killed_job();
                }
                self.kill_worker(KillReason::KilledAll, Conclusion::Failed(error));
            }
            state => {
                self.state = state;
                return false;
            }
        }
        true
    }

    fn job_name(&self) -> Option<&'static str> {
        self.guard.as_ref().map(CallGuard::job_name)
    }

    /// The worker has been reaped, or does not end.
    fn conclude(&mut self, ended: EndedWorker) -> Poll<AttemptOutcome> {
        let State::Ending(mut dying, conclusion) = mem::replace(&mut self.state, State::Over)
        else {
            unreachable!("the state is the one that was just polled")
        };
        let ran_for = self.ran_for();
        let exit = match ended.exit {
            Ok(exit) => match &self.guard {
                Some(guard) => exit.within(guard.pool().config.exit_limits()),
                None => exit,
            },
            // The worker may yet run the job, so no other one may.
            Err(survivor) => {
                return match conclusion {
                    Conclusion::Failed(error) => self.fail(error),
                    Conclusion::TimedOut(limit) => self.time_out(Err(survivor), limit),
                    Conclusion::PatienceOver => {
                        self.end_cancelled(WorkerError::not_ended(survivor, ran_for))
                    }
                    Conclusion::Cancelled | Conclusion::Broken { .. } => {
                        self.fail(WorkerError::not_ended(survivor, ran_for))
                    }
                };
            }
        };
        match conclusion {
            Conclusion::Cancelled => self.retry(dying.take_back()),
            Conclusion::Failed(error) => self.fail(error.ended(exit)),
            Conclusion::TimedOut(limit) => self.time_out(Ok(exit), limit),
            Conclusion::PatienceOver => {
                drop(dying); // counts its end before that of the call
                self.end_cancelled(WorkerError::cancelled(exit, ran_for))
            }
            // Only the end of the process makes it certain that the worker will not receive the
            // rest.
            Conclusion::Broken { new: false } if !dying.has_received_all() => {
                self.retry(dying.take_back())
            }
            Conclusion::Broken { .. } if ended.was_trapped => {
                self.fail(WorkerError::traced(exit, ran_for))
            }
            Conclusion::Broken { .. } if ended.exceeded_grace => {
                self.fail(WorkerError::broken_and_deaf(exit, ran_for))
            }
            Conclusion::Broken { .. } => self.fail(WorkerError::broken(exit, ran_for)),
        }
    }

    fn time_out(
        &mut self,
        exit: Result<WorkerExit, Survivor>,
        limit: Duration,
    ) -> Poll<AttemptOutcome> {
        if let Some(guard) = &mut self.guard {
            guard.set_timed_out();
        }
        self.fail(WorkerError::timed_out(exit, limit, self.ran_for()))
    }

    fn ran_for(&self) -> Duration {
        self.busy_since
            .map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn fail(&mut self, error: WorkerError) -> Poll<AttemptOutcome> {
        self.state = State::Over;
        self.take_guard().set_failed();
        Poll::Ready(AttemptOutcome::Failed(error))
    }

    /// Ends a call that was cancelled. It counts as cancelled, not as failed.
    fn end_cancelled(&mut self, error: WorkerError) -> Poll<AttemptOutcome> {
        self.state = State::Over;
        drop(self.take_guard());
        Poll::Ready(AttemptOutcome::Cancelled(error))
    }

    fn retry(&mut self, job: OutMessage) -> Poll<AttemptOutcome> {
        self.state = State::Over;
        Poll::Ready(AttemptOutcome::Retry(job, self.take_guard()))
    }

    fn take_guard(&mut self) -> CallGuard {
        self.guard
            .take()
            .expect("the guard is taken with the outcome, which is the last")
    }

    fn take_worker(&mut self) -> Box<Worker> {
        match mem::replace(&mut self.state, State::Over) {
            State::Working { worker, .. } => worker,
            State::Starting(..) | State::Stopping(..) | State::Ending(..) | State::Over => {
                unreachable!("this state has no worker with a job")
            }
        }
    }
}

/// Finishes the job of a dropped call in the background, if a worker has it and may not be killed
/// at once; a job that is to be asked is asked. A worker that is starting or ending is killed by
/// its own drop.
impl Drop for Attempt {
    fn drop(&mut self) {
        if fork_detector::is_forked_copy() {
            // The worker belongs to the original process.
            mem::forget(mem::replace(&mut self.state, State::Over));
            return;
        }
        if !matches!(self.state, State::Working { .. }) || self.cancel_policy == CancelPolicy::Kill
        {
            return;
        }
        self.cancel();
        let mut rest = Self {
            state: mem::replace(&mut self.state, State::Over),
            job: OutMessage::default(),
            cancel_policy: self.cancel_policy,
            busy_since: self.busy_since,
            time_limit: self.time_limit.take(),
            patience: self.patience.take(),
            guard: self.guard.take(),
            tick: None,
        };
        background::spawn(
            async move { drop(futures_lite::future::poll_fn(|cx| rest.poll(cx)).await) },
        )
        .detach();
    }
}
