//! The start of a worker: it is launched, receives its set-up, compares its image with ours, and
//! calls its init closures.
//!
//! The parent waits for two answers: *hello*, when the new process has reached the hook, and
//! *ready*, when its init closures have run. Only the first has a time limit: a program that waits
//! before its hook for something that this one holds would never get there, while an init closure
//! may take as long as it likes. A forked worker is past the hook, so it sends no hello, and ready
//! only if it has init closures or limits; without them it can be given its job as soon as it has
//! been requested. When an error is returned, the process has been reaped.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_io::Timer;
use futures_lite::FutureExt;

use super::exec_spec::ExecSpec;
use super::launcher::Launch;
use crate::sys::role::EXIT_CANNOT_SERVE;
use crate::transport::codec;
use crate::transport::frame::{Frame, Kind};
use crate::transport::job::image::Fingerprint;
use crate::transport::job::image::fingerprint;
use crate::transport::out_message::OutMessage;
use crate::transport::receive::RecvError;
use crate::transport::relay::lease::LeaseGranter;
use crate::worker::config::WorkerConfig;
use crate::worker::conn::ending::EndingWorker;
use crate::worker::conn::worker::{Launched, Worker};
use crate::worker::conn::worker_process::ForkFailure;
use crate::worker::end::KillReason;
use crate::worker::error::WorkerError;
use crate::worker::name::NewProcess;
use crate::worker::tuning::LAUNCHER_END_LIMIT;

/// A worker that cannot be given a job yet. Dropping it kills and reaps the process.
#[derive(Debug)]
pub(in crate::worker) struct Starting {
    state: State,
    spec: Arc<ExecSpec>,
    config: WorkerConfig,
    /// The generation of this process's credentials before the start.
    credentials: u64,
    /// The process will be a fork server instead of a worker.
    fork_server: bool,
    /// The memory of the pid table, sent to a fork server with its set-up.
    memory: Option<Arc<OwnedFd>>,
    /// The image that the worker must have; see [`Launched::image`].
    image: Option<Box<Fingerprint>>,
    /// The time until which a start that is killed waits for the launcher.
    kill_deadline: Option<Timer>,
}

#[derive(Debug)]
enum State {
    Launching(Box<dyn Launch>),
    /// The set-up is being sent; the next answer is hello.
    SettingUp(Box<Worker>, Timer),
    /// Hello has come; the next answer is ready.
    Initializing(Box<Worker>),
    Failing(EndingWorker, Failure),
    /// The worker can be given its job.
    Ready(Box<Worker>),
    Over,
}

/// Why a worker could not be started.
#[derive(Debug)]
pub(in crate::worker) enum Unstarted {
    /// A fork was requested and did not happen.
    NotForked(ForkFailure),
    Failed(WorkerError),
}

impl From<WorkerError> for Unstarted {
    fn from(error: WorkerError) -> Self {
        Self::Failed(error)
    }
}

/// The error to report once the process has ended.
#[derive(Debug)]
enum Failure {
    /// The process ended before it sent hello.
    Ended,
    /// The process ended in an init closure.
    EndedWithinInit,
    Known(WorkerError),
}

impl Starting {
    pub(in crate::worker) fn of_worker(
        launch: Box<dyn Launch>,
        spec: Arc<ExecSpec>,
        credentials: u64,
        config: WorkerConfig,
    ) -> Self {
        Self {
            state: State::Launching(launch),
            spec,
            credentials,
            config,
            fork_server: false,
            memory: None,
            image: None,
            kill_deadline: None,
        }
    }

    /// Starts a fork server, which writes the numbers of its workers to `memory`.
    pub(in crate::worker) fn of_fork_server(
        launch: Box<dyn Launch>,
        spec: Arc<ExecSpec>,
        config: WorkerConfig,
        memory: OwnedFd,
    ) -> Self {
        Self {
            fork_server: true,
            memory: Some(Arc::new(memory)),
            ..Self::of_worker(launch, spec, 0, config)
        }
    }

    /// Returns whether the process can never reach the hook by this way, so that another way may be
    /// tried.
    pub(in crate::worker) fn is_useless(&self) -> bool {
        self.spec.is_useless()
    }

    /// Waits until the worker can be given a job.
    pub(in crate::worker) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Box<Worker>, Unstarted>> {
        loop {
            match &mut self.state {
                State::Launching(launch) => {
                    let launched = ready!(launch.poll(cx))?;
                    match self.begin(launched)? {
                        State::Ready(worker) => {
                            self.state = State::Over;
                            return Poll::Ready(Ok(worker));
                        }
                        state => self.state = state,
                    }
                }
                State::SettingUp(worker, limit) => match worker.poll_answer(cx) {
                    Poll::Ready(answer) => self.check_hello(answer)?,
                    Poll::Pending => {
                        ready!(limit.poll(cx));
                        self.fail_with(WorkerError::start_too_slow(self.config.time_to_start()));
                    }
                },
                State::Initializing(worker) => match ready!(worker.poll_answer(cx)) {
                    Ok(frame) if frame.header.kind == Kind::Ready => {
                        if !self.fork_server || frame.header.number == u64::from(worker.pid()) {
                            let mut worker = self.take_worker();
                            drop(worker.take_back()); // the set-up, which may hold memory
                            return Poll::Ready(Ok(worker));
                        }
                        self.fail_with(WorkerError::start_in_another_namespace());
                    }
                    answer => self.fail(answer)?,
                },
                State::Failing(dying, _) => {
                    let death = ready!(dying.poll(cx));
                    let State::Failing(_, failure) =
                        std::mem::replace(&mut self.state, State::Over)
                    else {
                        unreachable!("the state was matched above")
                    };
                    return Poll::Ready(Err(Unstarted::Failed(match (failure, death.exit) {
                        (Failure::Ended, Ok(exit)) if exit.code() == Some(EXIT_CANNOT_SERVE) => {
                            WorkerError::start_without_socket(exit)
                        }
                        (Failure::Ended, Ok(exit)) => {
                            self.spec.ended_early(exit.code());
                            WorkerError::start_ended(exit)
                        }
                        (Failure::EndedWithinInit, Ok(exit)) => {
                            WorkerError::start_ended_within_init(exit)
                        }
                        (Failure::Known(error), Ok(exit)) => error.ended(exit),
                        (Failure::Known(error), Err(_)) => error,
                        (Failure::Ended | Failure::EndedWithinInit, Err(survivor)) => {
                            WorkerError::start_not_ended(survivor)
                        }
                    })));
                }
                State::Ready(_) | State::Over => unreachable!("polled after the start was over"),
            }
        }
    }

    /// Kills what has been started, and waits until it is reaped.
    pub(in crate::worker) fn poll_kill(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match &mut self.state {
                State::Launching(launch) if launch.is_unrequested() => self.state = State::Over,
                State::Launching(launch) => {
                    launch.cancel();
                    let polled = launch.poll(cx).map(|made| made.map(Worker::new));
                    match polled {
                        // The kernel may take long to execute the program. A process that it makes
                        // then is dropped by the launcher.
                        Poll::Pending => {
                            let limit = self.kill_limit();
                            let timeout = || Timer::after(limit);
                            ready!(self.kill_deadline.get_or_insert_with(timeout).poll(cx));
                            self.state = State::Over;
                        }
                        Poll::Ready(Ok(Ok(mut worker))) => {
                            worker.set_kill_timeout(self.kill_limit());
                            self.state = State::Failing(
                                EndingWorker::killed(worker, KillReason::Cancelled),
                                Failure::Ended,
                            )
                        }
                        // No process was started, or it is being reaped already.
                        Poll::Ready(Ok(Err(_)) | Err(_)) => self.state = State::Over,
                    }
                }
                State::SettingUp(..) | State::Initializing(_) => {
                    let worker = self.take_worker();
                    self.state = State::Failing(
                        EndingWorker::killed(worker, KillReason::Cancelled),
                        Failure::Ended,
                    );
                }
                State::Failing(dying, _) => {
                    dying.kill(KillReason::Cancelled);
                    ready!(dying.poll(cx));
                    self.state = State::Over;
                }
                State::Ready(_) | State::Over => return Poll::Ready(()),
            }
        }
    }

    fn begin(&mut self, mut launched: Launched) -> Result<State, WorkerError> {
        let forked = launched.forked;
        self.image = launched.image.take();
        let mut worker =
            Worker::new(launched).map_err(|error| WorkerError::start("its socket", error))?;
        worker.set_credentials(self.credentials);
        worker.set_retirement(self.config.most_jobs(), self.config.retires());
        worker.set_kill_timeout(self.kill_limit());
        if self.config.launcher_of_workers().is_some() {
            worker.do_without_mailbox();
        }
        if self.config.kills_tree() && !self.fork_server {
            worker.set_kills_tree();
        }
        if self.config.forwards_tracing() && !self.fork_server {
            worker.set_forwards_tracing();
        }
        if forked {
            // The worker is past the hook, and its fork server has the set-up and has compared its
            // image.
            return Ok(if self.config.starts_with_its_job() {
                State::Ready(worker)
            } else {
                State::Initializing(worker)
            });
        }
        let role = if self.fork_server {
            NewProcess::ForkServer
        } else {
            NewProcess::Spawned
        };
        let image = self.expected_image();
        let set_up = self
            .config
            .set_up(role, image.map_err(WorkerError::start_without_proc)?)?;
        worker.put(OutMessage::new(set_up, Vec::from_iter(self.memory.clone())));
        let limit = Timer::after(self.config.time_to_start());
        Ok(State::SettingUp(worker, limit))
    }

    /// Returns how long the process is waited for after it was killed. The relay of a launched
    /// worker knows of its end when its lease is over.
    fn kill_limit(&self) -> Duration {
        let limit = self.config.kill_limit();
        match self.config.launcher_of_workers() {
            Some(launcher) => {
                let lease = LeaseGranter::longest(launcher.term()) + LAUNCHER_END_LIMIT;
                limit.saturating_add(lease)
            }
            None => limit,
        }
    }

    /// Returns the image that the worker must have.
    fn expected_image(&self) -> io::Result<&Fingerprint> {
        match &self.image {
            Some(image) => Ok(image),
            None => fingerprint(),
        }
    }

    /// Checks the answer to the set-up, which should be hello.
    fn check_hello(&mut self, answer: Result<Frame, RecvError>) -> Result<(), Unstarted> {
        match answer {
            Ok(frame) if frame.header.kind == Kind::Hello => {
                match codec::decode::<Fingerprint>(frame.payload()) {
                    Ok(image)
                        if self
                            .expected_image()
                            .is_ok_and(|expected| image == *expected) =>
                    {
                        self.spec.mark_worked();
                        self.state = State::Initializing(self.take_worker())
                    }
                    // A fingerprint that cannot be decoded comes from another version of this
                    // crate.
                    Ok(_) | Err(_) => self.fail_with(WorkerError::image_mismatch()),
                }
            }
            other => self.fail(other)?,
        }
        Ok(())
    }

    /// Begins the end of a worker that has sent another answer than the expected one.
    fn fail(&mut self, answer: Result<Frame, RecvError>) -> Result<(), Unstarted> {
        match answer {
            Ok(frame) => match WorkerError::of_refusal(&frame) {
                Some(error) => self.fail_with(error),
                None => self.fail_with(WorkerError::protocol(
                    "a frame that has no place during the start",
                )),
            },
            Err(RecvError::Closed | RecvError::Reset) => {
                let failure = match self.state {
                    State::Initializing(_) => Failure::EndedWithinInit,
                    _ => Failure::Ended,
                };
                let mut worker = self.take_worker();
                if let Some(why) = worker.take_fork_failure() {
                    return Err(Unstarted::NotForked(why));
                }
                self.state = State::Failing(EndingWorker::exiting(worker), failure)
            }
            Err(RecvError::Malformed) => {
                self.fail_with(WorkerError::protocol("bytes that are no frame"))
            }
            Err(RecvError::Failed(error)) => {
                self.fail_with(WorkerError::start("its socket", error))
            }
        }
        Ok(())
    }

    fn fail_with(&mut self, error: WorkerError) {
        self.state = State::Failing(
            EndingWorker::killed(self.take_worker(), KillReason::Unusable),
            Failure::Known(error),
        );
    }

    /// Takes the worker out of a state that has one.
    fn take_worker(&mut self) -> Box<Worker> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::SettingUp(worker, _) | State::Initializing(worker) => worker,
            State::Launching(_) | State::Failing(..) | State::Ready(_) | State::Over => {
                unreachable!("this state has no worker")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::path::Path;
    use std::process::Command;
    use std::time::Duration;

    use super::*;
    use crate::worker::child::Stdout;
    use crate::worker::error::WorkerErrorKind;

    /// A process that stops itself and never gets to the hook, with its number.
    fn stopped() -> (Box<Worker>, u32) {
        let mut command = Command::new("sh");
        let launched = Launched::instead(command.args(["-c", "kill -STOP $$"]));
        let pid = launched.process.pid();
        (Worker::new(launched).unwrap(), pid)
    }

    #[test]
    fn a_process_that_does_not_get_to_the_hook_in_time_is_an_error_and_has_been_reaped() {
        let (worker, pid) = stopped();
        let mut starting = Starting {
            state: State::SettingUp(worker, Timer::after(Duration::ZERO)),
            spec: Arc::new(ExecSpec::new(Vec::new(), Stdout::Inherited, None, 0)),
            credentials: 0,
            config: WorkerConfig::new(),
            fork_server: false,
            memory: None,
            image: None,
            kill_deadline: None,
        };
        let error = smol::block_on(poll_fn(|cx| starting.poll(cx))).unwrap_err();
        let Unstarted::Failed(error) = error else {
            panic!("it was executed, not forked: {error:?}")
        };
        assert_eq!(error.kind(), WorkerErrorKind::Start);
        assert!(error.to_string().contains("hook"), "{error}");
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
}
