//! A worker coming up: launched, told its set-up, compared, initialised.
//!
//! The two answers that are waited for are *hello*, when the new process has reached the hook, and *ready*, when its init
//! closures have run. Only the first has a time limit: a program that waits for something before its hook would never
//! get there, while an init closure may take as long as it likes. Whatever goes wrong, the process has been reaped when
//! the error is given.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_io::Timer;
use futures_lite::FutureExt;

use super::config::{NewProcess, WorkerConfig};
use super::launch::Launch;
use super::life::{Dying, Silence, Worker};
use super::statistics::Why;
use crate::error::WorkerError;
use crate::job::image::fingerprint;
use crate::wire::codec;
use crate::wire::frame::{Frame, Kind};
use crate::wire::message::{Fingerprint, InitFailed, Refusal};

/// How long a new process may take to reach the hook. Generous, as `main` may do much before; but not for ever.
const REACH_THE_HOOK: Duration = Duration::from_secs(60);

/// A worker that cannot be given a job yet. Dropping it leaves nothing behind.
#[derive(Debug)]
pub(super) struct Starting {
    state: State,
    config: WorkerConfig,
    /// It will be a fork server, and no worker.
    fork_server: bool,
}

#[derive(Debug)]
enum State {
    Launching(Launch),
    /// The set-up is being sent; hello is awaited.
    Summoned(Box<Worker>, Timer),
    /// Hello has come; ready is awaited.
    Initialising(Box<Worker>),
    Failing(Dying, Failure),
    Over,
}

/// What to report once the process has ended.
#[derive(Debug)]
enum Failure {
    /// The process's own end, before its hello.
    Ended,
    /// The same, after it.
    EndedWithinInit,
    Known(WorkerError),
}

impl Starting {
    pub(super) fn of_worker(launch: Launch, config: WorkerConfig) -> Self {
        Self {
            state: State::Launching(launch),
            config,
            fork_server: false,
        }
    }

    pub(super) fn of_fork_server(launch: Launch, config: WorkerConfig) -> Self {
        Self {
            fork_server: true,
            ..Self::of_worker(launch, config)
        }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Box<Worker>, WorkerError>> {
        loop {
            match &mut self.state {
                State::Launching(launch) => match ready!(launch.poll(cx)) {
                    Ok(launched) => {
                        let role = match (self.fork_server, launched.forked) {
                            (true, _) => NewProcess::ForkServer,
                            (false, true) => NewProcess::Forked,
                            (false, false) => NewProcess::Spawned,
                        };
                        let mut worker = Worker::new(launched)
                            .map_err(|error| WorkerError::start("its socket", error))?;
                        if self.config.kills_tree() && !self.fork_server {
                            worker.kill_its_tree_too();
                        }
                        worker.put(self.config.set_up(role)?.into());
                        self.state = State::Summoned(worker, Timer::after(REACH_THE_HOOK));
                    }
                    Err(error) => return Poll::Ready(Err(error)),
                },
                State::Summoned(worker, limit) => match worker.poll_answer(cx) {
                    Poll::Ready(answer) => self.greet(answer),
                    Poll::Pending => {
                        ready!(limit.poll(cx));
                        self.fail_with(WorkerError::start_too_slow(REACH_THE_HOOK));
                    }
                },
                State::Initialising(worker) => match ready!(worker.poll_answer(cx)) {
                    Ok(frame) if frame.header.kind == Kind::Ready => {
                        return Poll::Ready(Ok(self.worker()));
                    }
                    answer => self.fail(answer),
                },
                State::Failing(dying, _) => {
                    let death = ready!(dying.poll(cx));
                    let State::Failing(_, failure) =
                        std::mem::replace(&mut self.state, State::Over)
                    else {
                        unreachable!("it was failing a moment ago")
                    };
                    return Poll::Ready(Err(match failure {
                        Failure::Ended => WorkerError::start_ended(death.exit),
                        Failure::EndedWithinInit => {
                            WorkerError::start_ended_within_init(death.exit)
                        }
                        Failure::Known(error) => error.ended(death.exit),
                    }));
                }
                State::Over => unreachable!("polled after the start was over"),
            }
        }
    }

    /// Kills what has been started, and waits until it is reaped.
    pub(super) fn poll_kill(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match &mut self.state {
                State::Launching(launch) if launch.is_nothing_yet() => self.state = State::Over,
                State::Launching(launch) => match ready!(launch.poll(cx)).map(Worker::new) {
                    Ok(Ok(worker)) => {
                        self.state =
                            State::Failing(Dying::killed(worker, Why::Cancelled), Failure::Ended)
                    }
                    // Nothing was started, or it is being reaped already.
                    Ok(Err(_)) | Err(_) => self.state = State::Over,
                },
                State::Summoned(..) | State::Initialising(_) => {
                    let worker = self.worker();
                    self.state =
                        State::Failing(Dying::killed(worker, Why::Cancelled), Failure::Ended);
                }
                State::Failing(dying, _) => {
                    dying.kill(Why::Cancelled);
                    ready!(dying.poll(cx));
                    self.state = State::Over;
                }
                State::Over => return Poll::Ready(()),
            }
        }
    }

    /// Deals with what came where hello should have come.
    fn greet(&mut self, answer: Result<Frame, Silence>) {
        match answer {
            Ok(frame) if frame.header.kind == Kind::Hello => {
                match codec::decode::<Fingerprint>(frame.payload()) {
                    Ok(image) if fingerprint().is_ok_and(|ours| image == *ours) => {
                        self.state = State::Initialising(self.worker())
                    }
                    // A fingerprint that cannot be decoded was written by another version of this crate.
                    Ok(_) | Err(_) => self.fail_with(WorkerError::image_mismatch()),
                }
            }
            other => self.fail(other),
        }
    }

    /// Deals with anything that is not the answer that was awaited.
    fn fail(&mut self, answer: Result<Frame, Silence>) {
        match answer {
            Ok(frame) => match failure_of(&frame) {
                Some(error) => self.fail_with(error),
                None => self.fail_with(WorkerError::protocol(
                    "a frame that has no place during the start",
                )),
            },
            Err(Silence::Gone) => {
                let failure = match self.state {
                    State::Initialising(_) => Failure::EndedWithinInit,
                    _ => Failure::Ended,
                };
                self.state = State::Failing(Dying::naturally(self.worker()), failure)
            }
            Err(Silence::Garbage) => {
                self.fail_with(WorkerError::protocol("bytes that are no frame"))
            }
            Err(Silence::Failed(error)) => self.fail_with(WorkerError::start("its socket", error)),
        }
    }

    fn fail_with(&mut self, error: WorkerError) {
        self.state = State::Failing(
            Dying::killed(self.worker(), Why::Useless),
            Failure::Known(error),
        );
    }

    /// Takes the worker out of a state that has one.
    fn worker(&mut self) -> Box<Worker> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Summoned(worker, _) | State::Initialising(worker) => worker,
            State::Launching(_) | State::Failing(..) | State::Over => {
                unreachable!("this state has no worker")
            }
        }
    }
}

/// Reads the frames by which a worker says that it cannot serve.
fn failure_of(frame: &Frame) -> Option<WorkerError> {
    match frame.header.kind {
        Kind::Lost => Some(WorkerError::start_lost(&frame.text())),
        Kind::NotAlone => Some(WorkerError::start_not_alone(frame.header.number)),
        Kind::InitFailed => Some(match codec::decode(frame.payload()) {
            Ok(InitFailed::Panicked(report)) => WorkerError::init(report.into()),
            Ok(InitFailed::BadData(message)) => WorkerError::init_undecodable(&message),
            Ok(InitFailed::NotOurCode) => WorkerError::image_mismatch(),
            Ok(InitFailed::Refused(refusal)) => {
                let Refusal {
                    setting,
                    os_error,
                    words,
                } = refusal;
                WorkerError::start_refused(&setting, os_error, &words)
            }
            Err(_) => WorkerError::protocol("a report that cannot be decoded"),
        }),
        _ => None,
    }
}
