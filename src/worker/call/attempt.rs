//! One attempt to have a job done by one worker, from drawing the worker to the answer.
//!
//! The attempt is a state machine that is polled; no future owns a part of it. That makes its three ways out simple: it
//! can be polled to its end; it can, instead, be polled to the death of its worker ([`Attempt::poll_kill`]); and it can be
//! dropped at any point. A dropped attempt whose job has been handed over moves to the background and is polled to its end
//! there, with its limiter token and its place in the count of running calls, unless it may be killed.
//!
//! When is a job known not to have run, so that another worker may have it silently? When the worker says so (*bye*,
//! after it closed its receiving end); or when a worker from the cache ended before it had the whole frame. A *new* worker
//! that ends while it takes the job in is an error even so: an argument that kills whoever receives it would otherwise
//! kill one worker after the other, for ever. (A worker that a fork server was asked for, and that never came to be,
//! has taken nothing in.)

use std::mem;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use crate::process::background;
use crate::sync::Token;
use crate::sys::copy;
use crate::transport::codec;
use crate::transport::frame::{Frame, Header, Kind};
use crate::transport::message::PanicReport;
use crate::transport::out_message::OutMessage;
use crate::transport::receive::RecvError;
use crate::worker::conn::worker::{Death, Dying, Health, Worker};
use crate::worker::conn::worker_process::ForkFailure;
use crate::worker::error::{WorkerError, WorkerPanic};
use crate::worker::pool::context::Running;
use crate::worker::pool::statistics::{Expected, Why};
use crate::worker::spawn::exec_spec::ExecSpec;
use crate::worker::spawn::forking::Forking;
use crate::worker::spawn::launcher::{Launch, Spawning};
use crate::worker::spawn::start::{Starting, Unstarted, failure_of};
use crate::worker::tuning::FORK_ATTEMPTS;

/// A job on its way through one worker.
#[derive(Debug)]
pub(in crate::worker) struct Attempt {
    state: State,
    /// The job, while no worker has it.
    job: OutMessage,
    killable: bool,
    /// When the worker that has the job was first found not to have answered it yet. A call that is answered at once
    /// does not read the clock.
    busy_since: Option<Instant>,
    /// What the call holds until the job is over, even when its caller is gone. `None` only once that has moved on.
    stake: Option<Stake>,
}

/// What a call holds: its place among the running ones, and its token.
#[derive(Debug)]
pub(in crate::worker) struct Stake {
    pub(in crate::worker) running: Running,
    /// Given back when dropped.
    pub(in crate::worker) _token: Token,
    /// How many fork servers have died with a request of this call's.
    pub(in crate::worker) failed_forks: usize,
}

#[derive(Debug)]
enum State {
    /// A new worker is coming up.
    Starting(Box<Starting>, Expected),
    /// The worker has been handed the job.
    Working {
        worker: Box<Worker>,
        new: bool,
    },
    /// The worker is ending, and then this is to be said.
    Ending(Dying, Then),
    Over,
}

#[derive(Debug)]
enum Then {
    /// The worker is ending without a word. It may have the job in hand; a new one is to blame even if it has not.
    Gone { new: bool },
    /// The worker cannot have run the job.
    Again,
    /// An error that was known before the worker ended.
    Fail(WorkerError),
}

/// What came of an attempt.
#[derive(Debug)]
pub(in crate::worker) enum Verdict {
    /// The encoded result.
    Done(Frame),
    /// The call is over.
    Failed(WorkerError),
    /// This worker did not run the job, which is given back.
    Again(OutMessage),
}

impl Attempt {
    /// Draws a worker for the job, or has one started.
    pub(in crate::worker) fn new(
        job: OutMessage,
        spec: &Arc<ExecSpec>,
        killable: bool,
        mut stake: Stake,
    ) -> Result<Self, WorkerError> {
        let state = match begin(&stake.running, spec) {
            Ok(state) => state,
            Err(error) => {
                stake.running.failed();
                return Err(error);
            }
        };
        let mut attempt = Self {
            state,
            job,
            killable,
            busy_since: None,
            stake: Some(stake),
        };
        attempt.hand_over();
        Ok(attempt)
    }

    /// Gives the job to the worker, if there is one already.
    fn hand_over(&mut self) {
        if let State::Working { worker, .. } = &mut self.state {
            let job = mem::take(&mut self.job);
            if let Some(stake) = &mut self.stake {
                let memory = job.fds().last().map(AsFd::as_fd);
                stake
                    .running
                    .sends(codec::encoded_len(job.payload(), memory));
            }
            worker.put_job(job);
        }
    }

    /// Gives back what the call holds, for the next attempt.
    pub(in crate::worker) fn into_stake(mut self) -> Stake {
        self.stake
            .take()
            .expect("a stake moves on once, and with it the attempt ends")
    }

    pub(in crate::worker) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Verdict> {
        let Poll::Ready(verdict) = self.advance(cx) else {
            if matches!(self.state, State::Working { .. }) {
                self.busy_since.get_or_insert_with(Instant::now);
            }
            return Poll::Pending;
        };
        if let Some(stake) = &mut self.stake {
            match &verdict {
                Verdict::Done(frame) => {
                    let memory = frame.fds.last().map(AsFd::as_fd);
                    stake
                        .running
                        .done(codec::encoded_len(frame.payload(), memory));
                }
                Verdict::Failed(_) => stake.running.failed(),
                Verdict::Again(_) => {}
            }
        }
        Poll::Ready(verdict)
    }

    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<Verdict> {
        loop {
            match &mut self.state {
                State::Starting(starting, _) => {
                    let started = ready!(starting.poll(cx));
                    let State::Starting(_, expected) = mem::replace(&mut self.state, State::Over)
                    else {
                        unreachable!("it was starting a moment ago")
                    };
                    match started {
                        Ok(mut worker) => {
                            worker.came_up(expected);
                            self.state = State::Working { worker, new: true };
                            self.hand_over();
                        }
                        Err(Unstarted::Failed(error)) => {
                            expected.failed(&error);
                            return Poll::Ready(Verdict::Failed(error));
                        }
                        Err(Unstarted::NotForked(why)) => {
                            drop(expected);
                            let job = mem::take(&mut self.job);
                            return self.try_anew(why, job);
                        }
                    }
                }
                State::Working { worker, .. } => match ready!(worker.poll_answer(cx)) {
                    Ok(frame) if !worker.may_answer(&frame) => {
                        self.kill_for(WorkerError::protocol("an answer that is not this call's"))
                    }
                    Ok(frame) => match Reply::of(&frame) {
                        Reply::Done => return self.done(frame),
                        Reply::Failed(error) => return self.failed(frame, error),
                        Reply::Bye => return self.bye(),
                        Reply::ByeBecause(error) => {
                            drop(self.leave());
                            return self.end(Verdict::Failed(error));
                        }
                        Reply::Unfit(error) => self.kill_for(error),
                        Reply::Nonsense(what) => self.kill_for(WorkerError::protocol(what)),
                    },
                    Err(RecvError::Closed | RecvError::Reset) => match worker.take_fork_failure() {
                        Some(why) => {
                            let job = worker.take_back();
                            return self.try_anew(why, job);
                        }
                        None => self.expire_with_job(),
                    },
                    Err(RecvError::Malformed) => {
                        self.kill_for(WorkerError::protocol("bytes that are no frame"))
                    }
                    Err(RecvError::Failed(error)) => self.kill_for(WorkerError::lost_sight(error)),
                },
                State::Ending(dying, _) => {
                    let death = ready!(dying.poll(cx));
                    return self.bury(death);
                }
                State::Over => unreachable!("polled after the attempt was over"),
            }
        }
    }

    /// Kills the worker, and waits until its process has been reaped.
    pub(in crate::worker) fn poll_kill(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match &mut self.state {
                State::Starting(starting, _) => {
                    ready!(starting.poll_kill(cx));
                    self.state = State::Over;
                }
                State::Working { .. } => {
                    let worker = self.take_worker();
                    self.state = State::Ending(Dying::killed(worker, Why::Cancelled), Then::Again);
                }
                State::Ending(dying, _) => {
                    dying.kill(Why::Cancelled);
                    ready!(dying.poll(cx));
                    self.state = State::Over;
                }
                State::Over => return Poll::Ready(()),
            }
        }
    }

    /// The worker has answered and is ready for the next job.
    fn done(&mut self, frame: Frame) -> Poll<Verdict> {
        let worker = self.take_worker();
        self.put(worker, &frame.header);
        self.end(Verdict::Done(frame))
    }

    /// The same, but the answer is an error, whose words have been read.
    fn failed(&mut self, frame: Frame, error: WorkerError) -> Poll<Verdict> {
        let mut worker = self.take_worker();
        let answer = frame.header;
        worker.recycle(frame);
        self.put(worker, &answer);
        self.end(Verdict::Failed(error))
    }

    fn put(&mut self, mut worker: Box<Worker>, answer: &Header) {
        // An idle worker must not hold on to an argument, which may be large.
        if let Some(arena) = worker.take_back().into_arena(answer) {
            self.stake().running.put_arena(arena);
        }
        match worker.count_job() {
            true => self.stake().running.put(worker),
            false => self.stake().running.leave(worker),
        }
    }

    /// The worker has said good-bye, and has not run the job. Its end can be waited for when there is nothing else to do.
    fn bye(&mut self) -> Poll<Verdict> {
        let job = self.leave();
        self.end(Verdict::Again(job))
    }

    /// Lets the worker go, without the job.
    fn leave(&mut self) -> OutMessage {
        let mut worker = self.take_worker();
        let job = worker.take_back();
        self.stake().running.leave(worker);
        job
    }

    /// There is no worker. If that is so because the fork server died, another one may make it.
    fn try_anew(&mut self, why: ForkFailure, job: OutMessage) -> Poll<Verdict> {
        let stake = self.stake();
        stake.failed_forks += 1;
        let verdict = match why {
            ForkFailure::Refused(error) => Verdict::Failed(WorkerError::fork_refused(error)),
            ForkFailure::ServerEnded if stake.failed_forks < FORK_ATTEMPTS => Verdict::Again(job),
            ForkFailure::ServerEnded => Verdict::Failed(WorkerError::fork_failed(
                "the fork server died each time that it was asked",
            )),
        };
        self.end(verdict)
    }

    fn stake(&mut self) -> &mut Stake {
        self.stake
            .as_mut()
            .expect("an attempt that is polled has its stake")
    }

    /// The worker has gone without a word.
    fn expire_with_job(&mut self) {
        let State::Working { new, .. } = &self.state else {
            unreachable!("only a working worker goes")
        };
        let then = Then::Gone { new: *new };
        // For one that was gone before anybody found out that it was busy.
        self.busy_since.get_or_insert_with(Instant::now);
        self.state = State::Ending(Dying::naturally(self.take_worker()), then);
    }

    fn kill_for(&mut self, error: WorkerError) {
        let error = error.having_run(self.ran_for());
        self.state = State::Ending(
            Dying::killed(self.take_worker(), Why::Useless),
            Then::Fail(error),
        );
    }

    fn bury(&mut self, Death { exit, outlived }: Death) -> Poll<Verdict> {
        let State::Ending(mut dying, then) = mem::replace(&mut self.state, State::Over) else {
            unreachable!("it was ending a moment ago")
        };
        let ran_for = self.ran_for();
        Poll::Ready(match then {
            Then::Again => Verdict::Again(dying.take_back()),
            Then::Fail(error) => Verdict::Failed(error.ended(exit)),
            // Only now it is sure that it will not take it.
            Then::Gone { new: false } if !dying.had_it_all() => Verdict::Again(dying.take_back()),
            Then::Gone { .. } if outlived => {
                Verdict::Failed(WorkerError::broken_and_deaf(exit, ran_for))
            }
            Then::Gone { .. } => Verdict::Failed(WorkerError::broken(exit, ran_for)),
        })
    }

    fn ran_for(&self) -> Duration {
        self.busy_since
            .map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn end(&mut self, verdict: Verdict) -> Poll<Verdict> {
        self.state = State::Over;
        Poll::Ready(verdict)
    }

    fn take_worker(&mut self) -> Box<Worker> {
        match mem::replace(&mut self.state, State::Over) {
            State::Working { worker, .. } => worker,
            State::Starting(..) | State::Ending(..) | State::Over => {
                unreachable!("this state has no working worker")
            }
        }
    }
}

/// Before its job was handed over, a dropped attempt has done nothing, and a worker that was starting is killed; a
/// worker that is ending is killed, too. Otherwise, see the head of this file.
impl Drop for Attempt {
    fn drop(&mut self) {
        if copy::is_copy() {
            // What is done to a worker here is done to the original's.
            mem::forget(mem::replace(&mut self.state, State::Over));
            return;
        }
        if !matches!(self.state, State::Working { .. }) || self.killable {
            return;
        }
        let mut rest = Self {
            state: mem::replace(&mut self.state, State::Over),
            job: OutMessage::default(),
            killable: self.killable,
            busy_since: self.busy_since,
            stake: self.stake.take(),
        };
        background::spawn(
            async move { drop(futures_lite::future::poll_fn(|cx| rest.poll(cx)).await) },
        )
        .detach();
    }
}

fn begin(running: &Running, spec: &Arc<ExecSpec>) -> Result<State, WorkerError> {
    match draw(running)? {
        Some(worker) => Ok(State::Working { worker, new: false }),
        None => start(running, spec),
    }
}

/// Draws workers from the cache until one lives. One that ended because a retire closure panicked is an error.
fn draw(running: &Running) -> Result<Option<Box<Worker>>, WorkerError> {
    while let Some(mut worker) = running.draw() {
        match worker.health() {
            Health::Fit => return Ok(Some(worker)),
            Health::Gone => running.leave(worker),
            Health::Left(frame) => {
                let reply = Reply::of(frame);
                running.leave(worker);
                if let Reply::ByeBecause(error) = reply {
                    return Err(error);
                }
            }
        }
    }
    Ok(None)
}

fn start(running: &Running, spec: &Arc<ExecSpec>) -> Result<State, WorkerError> {
    let config = running.config();
    config.check()?;
    copy::from_now_on();
    background::prepare().map_err(|error| WorkerError::start("its background thread", error))?;
    let expected = running.expect_worker();
    let fork_server = running.fork_server();
    let launch: Result<Box<dyn Launch>, _> = if fork_server.may_fork(spec) {
        Ok(Box::new(Forking::new(fork_server, spec.clone())))
    } else {
        let captures = config.captures_stderr();
        Spawning::new(spec.clone(), config.environment(), captures)
            .map(|launch| Box::new(launch) as _)
    };
    match launch {
        Ok(launch) => {
            let starting = Starting::of_worker(launch, config.clone());
            Ok(State::Starting(Box::new(starting), expected))
        }
        Err(error) => {
            expected.failed(&error);
            Err(error)
        }
    }
}

/// What a frame means to somebody who waits for a job's answer.
#[derive(Debug)]
pub(in crate::worker) enum Reply {
    Done,
    Failed(WorkerError),
    /// The worker cannot serve, and has not begun to.
    Unfit(WorkerError),
    Bye,
    ByeBecause(WorkerError),
    Nonsense(&'static str),
}

impl Reply {
    pub(in crate::worker) fn of(frame: &Frame) -> Self {
        if let Some(error) = failure_of(frame) {
            return Self::Unfit(error);
        }
        match frame.header.kind {
            Kind::Done => Self::Done,
            Kind::BadArgument => Self::Failed(WorkerError::decode_argument(&frame.text())),
            Kind::BadResult => Self::Failed(WorkerError::encode_result(&frame.text())),
            Kind::NotOurCode => Self::Failed(WorkerError::image_mismatch()),
            Kind::Bye => Self::Bye,
            Kind::Panicked => {
                Self::of_report(frame, |panic| Self::Failed(WorkerError::panicked(panic)))
            }
            Kind::RetirePanicked => {
                Self::of_report(frame, |panic| Self::ByeBecause(WorkerError::retire(panic)))
            }
            Kind::Prelude
            | Kind::SetUp
            | Kind::Job
            | Kind::Hello
            | Kind::Ready
            | Kind::CannotServe
            | Kind::InitFailed
            | Kind::Fork
            | Kind::NotAlone
            | Kind::Mailbox
            | Kind::AnswerInMailbox => Self::Nonsense("a frame that is no answer"),
        }
    }

    fn of_report(frame: &Frame, reply: impl FnOnce(WorkerPanic) -> Self) -> Self {
        match codec::decode::<PanicReport>(frame.payload()) {
            Ok(report) => reply(report.into()),
            Err(_) => Self::Nonsense("a report that cannot be decoded"),
        }
    }
}
