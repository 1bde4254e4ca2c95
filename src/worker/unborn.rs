//! A worker that a fork server was asked for, until it is known what became of it.
//!
//! Between the request and the answer there may be a process that nobody knows yet. So an [`Unborn`] worker is never
//! forgotten: dropped, it is waited for in the background, and then killed and reaped. The wait ends: a fork server that does
//! not answer for [`PATIENCE`] is killed, and with it its end of the socket is closed. If it dies, from a signal of somebody
//! else's, in the few microseconds between the fork and the answer, its copy has that end, too; then this end is closed a
//! moment later, upon which the copy leaves. That one stays a zombie until this process ends, as its number is not known:
//! the price for asking no worker to introduce itself.

use std::future::poll_fn;
use std::io::{self, PipeReader};
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_io::{Async, Timer};
use futures_lite::FutureExt;
use rustix::io::retry_on_intr;
use rustix::net::RecvFlags;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::fork_server::ForkServer;
use super::launch::Launched;
use super::process::Process;
use crate::error::WorkerError;
use crate::sys::process::Pidfd;
use crate::sys::socket::{self, Arrived};
use crate::wire::frame::{self, HEADER, Header, Kind};

/// How long a fork server may take to answer: so many looks at it. Forking takes microseconds; a stopped process takes for
/// ever.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
const LOOKS: u32 = 50;
const LOOK: Duration = Duration::from_millis(100);

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
    /// `None` once the answer has come, or was given up.
    socket: Option<Async<OwnedFd>>,
    stderr: Option<OwnedFd>,
    answer: Vec<u8>,
    /// What came beside the answer: the process's descriptor.
    fds: Vec<OwnedFd>,
    fork_server: ForkServer,
    /// The number of the one that was asked.
    server: Option<u64>,
    /// When to look after it again, and how often that was done.
    next_look: Timer,
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
            socket: Some(Async::new(ours)?),
            stderr: reader.map(PipeReader::into),
            answer: Vec::with_capacity(HEADER),
            fds: Vec::new(),
            fork_server: fork_server.clone(),
            server: None,
            next_look: Timer::after(LOOK),
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
        self.next_look = Timer::after(LOOK);
    }

    /// Looks after the fork server that was asked. If it died before it could tell of its fork, nobody will: then the
    /// worker has the other end of the socket, and leaves once this one is closed.
    fn is_over(&mut self) -> bool {
        self.next_look = Timer::after(LOOK);
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

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Launched, Stillborn>> {
        loop {
            let Some(socket) = &self.socket else {
                unreachable!("polled after the answer had come")
            };
            let missing = self.wanted() - self.answer.len();
            if missing == 0 {
                return Poll::Ready(self.answered());
            }
            let mut bytes = [0; 256];
            let most = missing.min(bytes.len());
            let arrived = socket::receive_message(
                socket,
                &mut bytes[..most],
                &mut self.fds,
                RecvFlags::DONTWAIT,
            );
            match arrived {
                Ok(Arrived { bytes: 0, .. }) => return Poll::Ready(self.ended()),
                Ok(Arrived { bytes: more, .. }) => self.answer.extend_from_slice(&bytes[..more]),
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock => match socket.poll_readable(cx) {
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(error)) => return Poll::Ready(self.failed(error)),
                        Poll::Pending => {
                            ready!(self.next_look.poll(cx));
                            if self.is_over() {
                                return Poll::Ready(self.ended());
                            }
                        }
                    },
                    io::ErrorKind::ConnectionReset => return Poll::Ready(self.ended()),
                    _ => return Poll::Ready(self.failed(error)),
                },
            }
        }
    }

    /// How long the answer is, as far as is known.
    fn wanted(&self) -> usize {
        match self.header() {
            Some(Ok(header)) if header.kind == Kind::ForkFailed => {
                HEADER.saturating_add(usize::try_from(header.length).unwrap_or(usize::MAX))
            }
            _ => HEADER,
        }
    }

    fn header(&self) -> Option<Result<Header, frame::Garbage>> {
        self.answer.first_chunk().map(Header::from_bytes)
    }

    fn answered(&mut self) -> Result<Launched, Stillborn> {
        let socket = self.socket.take().expect("looked at a moment ago");
        let header = self.header().and_then(Result::ok);
        match (header, self.fds.pop()) {
            (
                Some(Header {
                    kind: Kind::Forked,
                    number,
                    ..
                }),
                Some(process),
            ) => {
                let pid = u32::try_from(number).unwrap_or_default();
                let process = Process::new(Pidfd::new(process, pid)).map_err(|error| {
                    Stillborn::Failed(WorkerError::start("its process descriptor", error))
                })?;
                Ok(Launched {
                    process,
                    socket,
                    stderr: self.stderr.take(),
                    forked: true,
                })
            }
            (
                Some(Header {
                    kind: Kind::Forked,
                    number,
                    ..
                }),
                None,
            ) => {
                drop(socket); // upon which the worker leaves
                reap_in_background(number);
                Err(Stillborn::Failed(WorkerError::start(
                    "its process descriptor",
                    io::Error::from_raw_os_error(libc::EMFILE),
                )))
            }
            (
                Some(Header {
                    kind: Kind::ForkFailed,
                    ..
                }),
                _,
            ) => {
                let words = String::from_utf8_lossy(&self.answer[HEADER..]);
                Err(Stillborn::Failed(WorkerError::fork_failed(&words)))
            }
            _ => Err(Stillborn::Failed(WorkerError::protocol(
                "no answer of a fork server's",
            ))),
        }
    }

    fn ended(&mut self) -> Result<Launched, Stillborn> {
        self.socket = None;
        Err(Stillborn::Again)
    }

    fn failed(&mut self, error: io::Error) -> Result<Launched, Stillborn> {
        self.socket = None;
        Err(Stillborn::Failed(WorkerError::start("its socket", error)))
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
        if self.socket.is_none() || self.server.is_none() {
            return; // nobody was asked for it, or it is known by now
        }
        let mut rest = Unborn {
            socket: self.socket.take(),
            stderr: self.stderr.take(),
            answer: std::mem::take(&mut self.answer),
            fds: std::mem::take(&mut self.fds),
            fork_server: self.fork_server.clone(),
            server: self.server,
            next_look: Timer::after(LOOK),
            looks: self.looks,
            misses: self.misses,
        };
        // Whoever was born is dropped, which kills and reaps it.
        smol::spawn(async move { drop(poll_fn(|cx| rest.poll(cx)).await) }).detach();
    }
}
