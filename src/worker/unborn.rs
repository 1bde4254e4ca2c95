//! A worker that a fork server was asked for, until it is known what became of it.
//!
//! The worker introduces itself: the first thing that it sends is its process descriptor, before it reads anything. So its
//! set-up is sent right behind the request, and, where nothing has to happen before it, the job: they lie in its socket when
//! it comes to life. A socket that ends before the introduction says that nobody has read them, and the job may be done by
//! another worker.
//!
//! Between the request and the introduction there may be a process that nobody knows yet. So an [`Unborn`] worker is never
//! forgotten: dropped, it is waited for in the background, and then killed and reaped. The wait ends: a fork server that does
//! not answer for [`PATIENCE`] is killed, and with it its end of the socket is closed. One that is killed in the microseconds
//! between fork and introduction harms nobody: its worker is there, and speaks for itself. Only a *worker* that is killed in
//! them, by somebody who cannot know its number either, stays a zombie until this process ends.

use std::future::{Future, poll_fn};
use std::io::{self, PipeReader};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_io::Async;
use event_listener::EventListener;
use rustix::io::retry_on_intr;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::connection::{Connection, NoFrame};
use super::fork_server::ForkServer;
use super::launch::Launched;
use super::lookout::{LOOK, next_look};
use super::process::Process;
use crate::error::WorkerError;
use crate::sys::process::Pidfd;
use crate::sys::socket;
use crate::wire::frame::{Frame, Kind, Parcel};

/// How long a fork server may take to answer: so many looks at it. Forking takes microseconds; a stopped process takes for
/// ever.
pub(super) const PATIENCE: Duration = LOOK.saturating_mul(LOOKS);
const LOOKS: u32 = 50;

/// How often more one looks for an answer after the fork server has gone. It may have been told to go, which it does when
/// it has dealt with the requests before.
const MISSES: u32 = 5;

/// What the worker gets.
pub(super) struct Theirs {
    pub(super) socket: OwnedFd,
    pub(super) stderr: Option<OwnedFd>,
}

/// A worker that has been asked for, and of which nothing is known yet.
#[derive(Debug)]
pub(super) struct Unborn {
    /// `None` once it is known what became of the worker.
    connection: Option<Connection>,
    /// The worker's job is on its way to it.
    has_job: bool,
    stderr: Option<OwnedFd>,
    fork_server: ForkServer,
    /// The number of the one that was asked.
    server: Option<u64>,
    /// When to look after that one again, and how often it was done.
    next_look: Option<EventListener>,
    looks: u32,
    /// How often it was not there any more.
    misses: u32,
}

/// Why there is no worker.
pub(super) enum Stillborn {
    /// The fork server died with the request.
    Again,
    Failed(WorkerError),
}

impl Unborn {
    pub(super) fn new(fork_server: &ForkServer) -> io::Result<(Self, Theirs)> {
        let (ours, theirs) = socket::pair()?;
        let (reader, writer) = match fork_server.config().captures_stderr() {
            true => io::pipe().map(|(reader, writer)| (Some(reader), Some(writer)))?,
            false => (None, None),
        };
        let unborn = Unborn {
            connection: Some(Connection::new(Async::new(ours)?)),
            has_job: false,
            stderr: reader.map(PipeReader::into),
            fork_server: fork_server.clone(),
            server: None,
            next_look: None,
            looks: 0,
            misses: 0,
        };
        let theirs = Theirs {
            socket: theirs,
            stderr: writer.map(OwnedFd::from),
        };
        Ok((unborn, theirs))
    }

    pub(super) fn asked(&mut self, server: u64) {
        self.server = Some(server);
    }

    /// Sends the worker its set-up.
    pub(super) fn tell(&mut self, set_up: Parcel) {
        if let Some(connection) = &mut self.connection {
            connection.put(set_up);
            // What cannot be sent now, for whatever reason, is sent by the polls of whoever waits for the worker's answer.
            let _ = connection.send_now();
        }
    }

    /// Sends the worker its job behind the set-up, if that has gone. Not one that brings descriptors: they come safely only
    /// with a frame that nothing is ahead of.
    pub(super) fn hand_over(&mut self, job: &mut Option<Parcel>) {
        let plain = |job: &mut Parcel| job.fds().is_empty();
        if let Some(connection) = &mut self.connection
            && connection.unsent() == 0
            && let Some(job) = job.take_if(plain)
        {
            connection.put(job);
            self.has_job = true;
            let _ = connection.send_now(); // the same
        }
    }

    /// Waits for the worker to introduce itself. A job that the worker had on its way, and cannot have run, is put back.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        job: &mut Option<Parcel>,
    ) -> Poll<Result<Launched, Stillborn>> {
        loop {
            let Some(connection) = &mut self.connection else {
                unreachable!("polled after the answer had come")
            };
            match connection.poll_receive(cx) {
                Poll::Ready(Ok(frame)) => return Poll::Ready(self.answered(frame)),
                Poll::Ready(Err(NoFrame::Closed)) => return Poll::Ready(self.ended(job)),
                Poll::Ready(Err(NoFrame::Garbage)) => {
                    let error = WorkerError::protocol("bytes that are no frame");
                    return Poll::Ready(self.failed(error));
                }
                Poll::Ready(Err(NoFrame::Failed(error))) => {
                    let error = WorkerError::start("its socket", error);
                    return Poll::Ready(self.failed(error));
                }
                Poll::Pending => {
                    ready!(self.poll_look(cx));
                    if self.is_over() {
                        return Poll::Ready(self.given_up(job));
                    }
                }
            }
        }
    }

    /// Waits until it is time to look after the fork server.
    fn poll_look(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(Pin::new(self.next_look.get_or_insert_with(next_look)).poll(cx));
        self.next_look = None;
        Poll::Ready(())
    }

    /// Looks after the fork server that was asked. If it died as soon as it had forked, and its worker was stopped before it
    /// could say a word, nobody will.
    fn is_over(&mut self) -> bool {
        self.looks += 1;
        let patient = self.looks < LOOKS;
        if !self
            .server
            .is_some_and(|server| self.fork_server.still_serves(server, patient))
        {
            self.misses += 1;
        }
        self.misses > MISSES
    }

    fn answered(&mut self, frame: Frame) -> Result<Launched, Stillborn> {
        let connection = self.connection.take().expect("looked at a moment ago");
        let number = frame.header.number;
        match (frame.header.kind, frame.text(), frame.fds.into_iter().next()) {
            (Kind::Forked, _, Some(process)) => {
                let pid = u32::try_from(number).unwrap_or_default();
                let process = Process::new(Pidfd::new(process, pid)).map_err(|error| {
                    Stillborn::Failed(WorkerError::start("its process descriptor", error))
                })?;
                Ok(Launched {
                    process,
                    connection,
                    stderr: self.stderr.take(),
                    forked: true,
                })
            }
            (Kind::Forked, _, None) => {
                connection.hang_up();
                drop(connection); // upon which the worker leaves
                reap_in_background(number);
                Err(Stillborn::Failed(WorkerError::start(
                    "its process descriptor",
                    io::Error::from_raw_os_error(libc::EMFILE),
                )))
            }
            (Kind::ForkFailed, words, _) => {
                Err(Stillborn::Failed(WorkerError::fork_failed(&words)))
            }
            _ => Err(Stillborn::Failed(WorkerError::protocol(
                "no answer of a fork server's",
            ))),
        }
    }

    /// Nobody has the other end of the socket, and nobody has spoken: whoever was forked, if anybody, has read nothing.
    fn ended(&mut self, job: &mut Option<Parcel>) -> Result<Launched, Stillborn> {
        let connection = self.connection.take();
        if let (true, Some(mut connection)) = (self.has_job, connection) {
            *job = Some(connection.take_back());
        }
        Err(Stillborn::Again)
    }

    /// Does not wait any longer. The job may have arrived with a worker that has not said a word so far, and may be run by
    /// another one only if this one never will: it introduces itself before it reads anything, and leaves if it cannot.
    fn given_up(&mut self, job: &mut Option<Parcel>) -> Result<Launched, Stillborn> {
        let connection = self.connection.as_mut().expect("looked at a moment ago");
        connection.deafen();
        match connection.receive_now() {
            Ok(Some(frame)) => {
                // Too late: nobody would hear its answer. Dropped, it is killed.
                drop(self.answered(frame)?);
                let error = io::ErrorKind::TimedOut.into();
                Err(Stillborn::Failed(WorkerError::start(
                    "asking the fork server",
                    error,
                )))
            }
            Ok(None) | Err(_) => self.ended(job),
        }
    }

    fn failed(&mut self, error: WorkerError) -> Result<Launched, Stillborn> {
        self.connection = None;
        Err(Stillborn::Failed(error))
    }
}

/// Waits for a worker that is about to leave, and of which only the number is known. As long as nobody has waited for it, it
/// is nobody else's; if somebody else in this program has, or the kernel is told to, then this waits for nothing.
fn reap_in_background(number: u64) {
    if let Some(pid) = i32::try_from(number).ok().and_then(Pid::from_raw) {
        smol::unblock(move || {
            let _ = retry_on_intr(|| waitid(WaitId::Pid(pid), WaitIdOptions::EXITED));
        })
        .detach();
    }
}

impl Drop for Unborn {
    fn drop(&mut self) {
        if self.connection.is_none() || self.server.is_none() {
            return; // nobody was asked for it, or it is known by now
        }
        let mut rest = Unborn {
            connection: self.connection.take(),
            has_job: self.has_job,
            stderr: self.stderr.take(),
            fork_server: self.fork_server.clone(),
            server: self.server,
            next_look: None,
            looks: self.looks,
            misses: self.misses,
        };
        // Whoever was born is dropped, which kills and reaps it.
        smol::spawn(async move { drop(poll_fn(|cx| rest.poll(cx, &mut None)).await) }).detach();
    }
}
