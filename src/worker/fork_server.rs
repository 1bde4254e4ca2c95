//! A context's fork server, seen from its parent: started by the first call that needs a worker, asked for workers from then
//! on, and started again if it dies.
//!
//! A request is one message, sent by whoever wants the worker, on its own thread: the worker's end of a new socket, and of a
//! pipe for its standard error if that is captured. What becomes of it comes over the new socket: the worker's process
//! descriptor and number, from the fork server, or words that say why there is none. If instead the socket ends, the fork
//! server has died with the request in hand, and another one is asked.
//!
//! Between the request and the answer there may be a process that nobody knows yet. So an [`Unborn`] worker is never
//! forgotten: dropped, it is waited for in the background, and then killed and reaped. The wait ends: a fork server that does
//! not answer for [`PATIENCE`] is killed, and with it its end of the socket is closed. (If it dies, from a signal of somebody
//! else's, in the few microseconds between the fork and the answer, and its copy before it can be told anything, that copy
//! stays a zombie until this process ends: the price for asking no worker to introduce itself.)

use std::future::{Future, poll_fn};
use std::io::{self, PipeReader};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_io::{Async, Timer};
use event_listener::Event;
use futures_lite::FutureExt;
use rustix::net::RecvFlags;

use super::config::WorkerConfig;
use super::hook::Recipe;
use super::launch::{Launch, Launched};
use super::life::Worker;
use super::process::Process;
use super::start::Starting;
use crate::error::{WorkerError, WorkerErrorKind};
use crate::sync::{Lock, LockGuard};
use crate::sys::process::Pidfd;
use crate::sys::socket;
use crate::wire::frame::{self, HEADER, Header, Kind};

/// How long a fork server may take to answer. Forking takes microseconds; a stopped process takes for ever.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often a request is made anew because the fork server died with it.
const ATTEMPTS: usize = 3;

/// The place of a context's fork server. Clones are handles on the same one.
#[derive(Clone, Debug)]
pub(super) struct ForkServer {
    config: Arc<WorkerConfig>,
    /// Held by whoever makes a request, and by the task that starts the server: one at a time.
    server: Lock<Option<Server>>,
    /// Notified to have a start broken off.
    stop: Arc<Event>,
}

/// A fork server that is ready. The worker that it is made of never gets a job.
#[derive(Debug)]
struct Server {
    process: Worker,
    /// The way that it came.
    recipe: Arc<Recipe>,
}

impl ForkServer {
    pub(super) fn new(config: WorkerConfig) -> Self {
        ForkServer {
            config: Arc::new(config),
            server: Lock::new(None),
            stop: Arc::default(),
        }
    }

    /// Takes the process out, to be ended with the context's workers. One that is being started is killed.
    pub(super) async fn take(&self) -> Option<Worker> {
        self.stop.notify(usize::MAX);
        let mut server = self.server.acquire().await;
        server.take().map(|server| server.process)
    }

    /// Whether there may be a process to take.
    pub(super) fn may_exist(&self) -> bool {
        self.server
            .try_acquire()
            .is_none_or(|server| server.is_some())
    }

    /// Asks for a worker.
    async fn request(self, recipe: Arc<Recipe>) -> Result<Unborn, WorkerError> {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let mut server = self.started(&recipe).await?;
            let Some(ready) = &mut *server else {
                continue; // somebody ended it at once
            };
            let (unborn, theirs) =
                Unborn::new(&self).map_err(|error| WorkerError::start("its socket", error))?;
            match ready.ask(&theirs).await {
                Ok(()) => return Ok(unborn),
                Err(error) => {
                    // It has died, or is of no use. Its drop kills it.
                    *server = None;
                    last = Some(error);
                }
            }
        }
        Err(WorkerError::start(
            "asking the fork server",
            last.unwrap_or_else(|| io::ErrorKind::BrokenPipe.into()),
        ))
    }

    /// The server, which is started if there is none that is fit. That is done by a task of its own, and goes on if the caller
    /// is gone: or else callers with little patience would start one after the other and never have any.
    async fn started(
        &self,
        recipe: &Arc<Recipe>,
    ) -> Result<LockGuard<Option<Server>>, WorkerError> {
        let stopped = self.stop.listen();
        let mut server = self.server.acquire().await;
        server.take_if(|server| !server.process.is_fit() || !Arc::ptr_eq(&server.recipe, recipe));
        if server.is_some() {
            return Ok(server);
        }
        let launch = Launch::spawn(recipe.clone(), false)?;
        let mut starting = Starting::of_fork_server(launch, (*self.config).clone());
        let recipe = recipe.clone();
        let start = async move {
            let stopped = async {
                stopped.await;
                None
            };
            match stopped
                .or(async { Some(poll_fn(|cx| starting.poll(cx)).await) })
                .await
            {
                Some(process) => {
                    *server = Some(Server {
                        process: process?,
                        recipe,
                    })
                }
                None => poll_fn(|cx| starting.poll_kill(cx)).await,
            }
            Ok(server)
        };
        Going(Some(smol::spawn(start))).await
    }

    /// Ends a fork server that does not answer.
    fn give_up(&self) {
        // If somebody else uses it at this moment, they will find out, too.
        if let Some(mut server) = self.server.try_acquire() {
            *server = None;
        }
    }
}

/// Waits for a task, which goes on if this is dropped.
struct Going<T>(Option<smol::Task<T>>);

impl<T> Future for Going<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let task = self.0.as_mut().expect("not polled after it was ready");
        let value = ready!(Pin::new(task).poll(cx));
        self.0 = None;
        Poll::Ready(value)
    }
}

impl<T> Drop for Going<T> {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.detach();
        }
    }
}

impl Server {
    /// Sends a request. If it cannot be sent now, that is waited for: the server empties its socket.
    async fn ask(&self, theirs: &Theirs) -> io::Result<()> {
        let number = u64::from(theirs.stderr.is_some());
        let request = frame::of_bytes(Kind::Fork, number, b"");
        let fds: Vec<BorrowedFd<'_>> = [
            Some(theirs.socket.as_fd()),
            theirs.stderr.as_ref().map(AsFd::as_fd),
        ]
        .into_iter()
        .flatten()
        .collect();
        let socket = self.process.socket();
        loop {
            match socket::try_send_with_fds(socket, &request, &fds) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    socket
                        .writable()
                        .or(async {
                            Timer::after(PATIENCE).await;
                            Err(io::ErrorKind::TimedOut.into())
                        })
                        .await?;
                }
                sent => return sent,
            }
        }
    }
}

/// What the worker gets.
struct Theirs {
    socket: OwnedFd,
    stderr: Option<OwnedFd>,
}

/// A worker that has been asked for, and of which nothing is known yet.
#[derive(Debug)]
struct Unborn {
    /// `None` once the answer has come, or was given up.
    socket: Option<Async<OwnedFd>>,
    stderr: Option<OwnedFd>,
    answer: Vec<u8>,
    /// What came beside the answer: the process's descriptor.
    fds: Vec<OwnedFd>,
    patience: Timer,
    fork_server: ForkServer,
}

/// Why there is no worker.
enum Stillborn {
    /// The fork server died with the request.
    Again,
    Failed(WorkerError),
}

impl Unborn {
    fn new(fork_server: &ForkServer) -> io::Result<(Self, Theirs)> {
        let (ours, theirs) = socket::pair()?;
        let (reader, writer) = match fork_server.config.captures_stderr() {
            true => io::pipe().map(|(reader, writer)| (Some(reader), Some(writer)))?,
            false => (None, None),
        };
        let unborn = Unborn {
            socket: Some(Async::new(ours)?),
            stderr: reader.map(PipeReader::into),
            answer: Vec::with_capacity(HEADER),
            fds: Vec::new(),
            patience: Timer::after(PATIENCE),
            fork_server: fork_server.clone(),
        };
        let theirs = Theirs {
            socket: theirs,
            stderr: writer.map(OwnedFd::from),
        };
        Ok((unborn, theirs))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Launched, Stillborn>> {
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
                Ok(0) => return Poll::Ready(self.ended()),
                Ok(more) => self.answer.extend_from_slice(&bytes[..more]),
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock => match socket.poll_readable(cx) {
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(error)) => return Poll::Ready(self.failed(error)),
                        Poll::Pending => {
                            ready!(self.patience.poll(cx));
                            // With it goes its end of the socket, so there will be an answer now.
                            self.fork_server.give_up();
                            self.patience = Timer::after(PATIENCE);
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

impl Drop for Unborn {
    fn drop(&mut self) {
        if self.socket.is_none() {
            return;
        }
        let mut rest = Unborn {
            socket: self.socket.take(),
            stderr: self.stderr.take(),
            answer: std::mem::take(&mut self.answer),
            fds: std::mem::take(&mut self.fds),
            patience: Timer::after(PATIENCE),
            fork_server: self.fork_server.clone(),
        };
        // Whoever was born is dropped, which kills and reaps it.
        smol::spawn(async move { drop(poll_fn(|cx| rest.poll(cx)).await) }).detach();
    }
}

/// A worker in the making by a fork server, or, where that may be, by executing the program.
pub(super) struct Forking {
    fork_server: ForkServer,
    recipe: Arc<Recipe>,
    attempts: usize,
    stage: Stage,
}

enum Stage {
    /// The fork server is asked, and perhaps started first.
    Asking(Pin<Box<dyn Future<Output = Result<Unborn, WorkerError>> + Send>>),
    Unborn(Unborn),
    Spawning(Launch),
}

impl Forking {
    pub(super) fn new(fork_server: ForkServer, recipe: Arc<Recipe>) -> Self {
        let stage = Stage::Asking(Box::pin(fork_server.clone().request(recipe.clone())));
        Forking {
            fork_server,
            recipe,
            attempts: 1,
            stage,
        }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Launched, WorkerError>> {
        loop {
            match &mut self.stage {
                Stage::Asking(request) => match ready!(request.as_mut().poll(cx)) {
                    Ok(unborn) => self.stage = Stage::Unborn(unborn),
                    Err(error) => match self.instead(error) {
                        Ok(launch) => self.stage = Stage::Spawning(launch),
                        Err(error) => return Poll::Ready(Err(error)),
                    },
                },
                Stage::Unborn(unborn) => match ready!(unborn.poll(cx)) {
                    Ok(launched) => return Poll::Ready(Ok(launched)),
                    Err(Stillborn::Failed(error)) => return Poll::Ready(Err(error)),
                    Err(Stillborn::Again) if self.attempts >= ATTEMPTS => {
                        return Poll::Ready(Err(WorkerError::fork_failed(
                            "the fork server died each time that it was asked",
                        )));
                    }
                    Err(Stillborn::Again) => {
                        self.attempts += 1;
                        let request = self.fork_server.clone().request(self.recipe.clone());
                        self.stage = Stage::Asking(Box::pin(request));
                    }
                },
                Stage::Spawning(launch) => return launch.poll(cx),
            }
        }
    }

    /// A worker that is spawned, where none can be forked because the fork server is not alone in its process.
    fn instead(&self, error: WorkerError) -> Result<Launch, WorkerError> {
        let config = &self.fork_server.config;
        if error.kind() != WorkerErrorKind::UnsafeFork || !config.may_spawn() {
            return Err(error);
        }
        self.recipe.is_crowded();
        Launch::spawn(self.recipe.clone(), config.captures_stderr())
    }

    /// Whether no worker has been asked for. (A fork server that is being started is not this call's.)
    pub(super) fn is_nothing_yet(&self) -> bool {
        matches!(self.stage, Stage::Asking(_))
    }
}

impl std::fmt::Debug for Forking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forking")
            .field("attempts", &self.attempts)
            .finish_non_exhaustive()
    }
}
