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
//! not answer for [`PATIENCE`] is killed, and with it its end of the socket is closed. If it dies, from a signal of somebody
//! else's, in the few microseconds between the fork and the answer, its copy has that end, too; then this end is closed a
//! moment later, upon which the copy leaves. That one stays a zombie until this process ends, as its number is not known:
//! the price for asking no worker to introduce itself.

use std::future::{Future, poll_fn};
use std::io::{self, PipeReader};
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_io::{Async, Timer};
use event_listener::{Event, EventListener};
use futures_lite::FutureExt;
use rustix::io::retry_on_intr;
use rustix::net::RecvFlags;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::config::WorkerConfig;
use super::hook::Recipe;
use super::launch::{Launch, Launched};
use super::life::Worker;
use super::process::Process;
use super::start::Starting;
use crate::error::{WorkerError, WorkerErrorKind};
use crate::sys::process::Pidfd;
use crate::sys::socket::{self, Arrived};
use crate::wire::frame::{self, HEADER, Header, Kind};

/// How long a fork server may take to answer: so many looks at it. Forking takes microseconds; a stopped process takes for
/// ever.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOKS: u32 = 50;
const LOOK: Duration = Duration::from_millis(100);

/// How often more one looks for an answer after the fork server has gone. It may have been told to go, which it does when
/// it has dealt with the requests before.
const MISSES: u32 = 5;

/// How often a request is made anew because the fork server died with it.
const ATTEMPTS: usize = 3;

/// How long to wait where the fork server's socket is full; it needs some tens of microseconds for each request.
const SOON: Duration = Duration::from_millis(1);

/// The place of a context's fork server. Clones are handles on the same one.
///
/// No future holds it while it waits: a call that nobody polls any more must not keep others from their workers. Whoever
/// comes looks at what is there, under a lock that is held for one request at most, and if that is nothing to ask, waits
/// for a change.
#[derive(Clone, Debug)]
pub(super) struct ForkServer {
    place: Arc<Place>,
}

#[derive(Debug)]
struct Place {
    config: WorkerConfig,
    state: Mutex<State>,
    /// Notified when a start is over.
    changed: Event,
    /// Notified to have a start broken off.
    stop: Event,
    /// How many have been started.
    started: AtomicU64,
}

#[derive(Debug)]
enum State {
    None,
    /// By a task of its own, which goes on if the call that wanted it is gone: or else callers with little patience would
    /// start one after the other and never have any.
    Starting(u64),
    Ready(Box<Server>),
}

/// A fork server that is ready. The worker that it is made of never gets a job.
#[derive(Debug)]
struct Server {
    process: Worker,
    /// The way that it came.
    recipe: Arc<Recipe>,
    number: u64,
}

/// What somebody finds who wants to end the fork server.
enum Look {
    Starting,
    Taken(Option<Worker>),
}

/// What there is to do for somebody who wants a worker.
enum Next {
    /// It was asked for, of the server with this number.
    Asked(u64),
    /// The server was of no use, for this reason, and is gone.
    Useless(io::Error),
    /// Wait for the start that is in progress.
    Wait(EventListener),
    /// Try again soon: the server has many requests before it.
    Crowded,
    /// Start the server with this number, until told to stop.
    Start(u64, EventListener),
}

impl ForkServer {
    pub(super) fn new(config: WorkerConfig) -> Self {
        ForkServer {
            place: Arc::new(Place {
                config,
                state: Mutex::new(State::None),
                changed: Event::new(),
                stop: Event::new(),
                started: AtomicU64::new(0),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code of a user's runs under this lock, and each change is one step.
        self.place
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the process out, to be ended with the context's workers. One that is being started is killed. (A context that
    /// serves on may have another one started meanwhile, which is not waited for.)
    pub(super) async fn take(&self) -> Option<Worker> {
        let mut awaited = None;
        loop {
            let changed = self.place.changed.listen(); // before looking, so that no change goes unseen
            match self.look(&mut awaited) {
                Look::Starting => {
                    self.place.stop.notify(usize::MAX);
                    changed.await;
                }
                Look::Taken(process) => return process,
            }
        }
    }

    /// Takes the fork server, or names the start that is to be waited for.
    fn look(&self, awaited: &mut Option<u64>) -> Look {
        let mut state = self.state();
        let number = match &*state {
            State::None => return Look::Taken(None),
            State::Starting(number) => *number,
            State::Ready(server) => server.number,
        };
        if *awaited.get_or_insert(number) != number {
            return Look::Taken(None);
        }
        match mem::replace(&mut *state, State::None) {
            State::Ready(server) => Look::Taken(Some(server.process)),
            starting => {
                *state = starting;
                Look::Starting
            }
        }
    }

    /// Whether there may be a process to take.
    pub(super) fn may_exist(&self) -> bool {
        !matches!(*self.state(), State::None)
    }

    /// Asks for a worker. `None` means that it has to be spawned.
    async fn request(self, recipe: Arc<Recipe>) -> Result<Option<Unborn>, WorkerError> {
        let (mut unborn, theirs) =
            Unborn::new(&self).map_err(|error| WorkerError::start("its socket", error))?;
        let (mut useless, mut patience) = (0, Timer::after(PATIENCE));
        loop {
            if self.place.config.may_spawn() && !recipe.may_fork() {
                return Ok(None);
            }
            match self.next(&recipe, &theirs) {
                Next::Asked(server) => {
                    unborn.asked(server);
                    return Ok(Some(unborn));
                }
                Next::Wait(changed) => changed.await,
                Next::Start(number, stop) => match self.start_apart(number, &recipe, stop).await {
                    Ok(()) => patience = Timer::after(PATIENCE),
                    // The next turn sees that.
                    Err(_) if self.place.config.may_spawn() && !recipe.may_fork() => {}
                    Err(error) => return Err(error),
                },
                Next::Crowded => {
                    if futures_lite::future::poll_once(&mut patience)
                        .await
                        .is_some()
                    {
                        return Err(WorkerError::start(
                            "asking the fork server",
                            io::ErrorKind::TimedOut.into(),
                        ));
                    }
                    Timer::after(SOON).await;
                }
                Next::Useless(_) if useless + 1 < ATTEMPTS => useless += 1,
                Next::Useless(error) => {
                    return Err(WorkerError::start("asking the fork server", error));
                }
            }
        }
    }

    async fn start_apart(
        &self,
        number: u64,
        recipe: &Arc<Recipe>,
        stop: EventListener,
    ) -> Result<(), WorkerError> {
        let start = self.clone().start(number, recipe.clone(), stop);
        Going(Some(smol::spawn(start))).await
    }

    /// Asks the fork server that is ready, or says what else to do.
    fn next(&self, recipe: &Arc<Recipe>, theirs: &Theirs) -> Next {
        // Listens before anybody else can see that there is a start to be stopped.
        let start = || {
            let number = self.place.started.fetch_add(1, Ordering::Relaxed);
            Next::Start(number, self.place.stop.listen())
        };
        let mut state = self.state();
        let next = match &mut *state {
            State::Starting(_) => return Next::Wait(self.place.changed.listen()),
            State::Ready(server) => match server.is_fit_for(recipe).then(|| server.ask(theirs)) {
                Some(Ok(())) => return Next::Asked(server.number),
                Some(Err(error)) if is_passing(&error) => return Next::Crowded,
                Some(Err(error)) => Next::Useless(error),
                None => start(),
            },
            State::None => start(),
        };
        let after = match next {
            Next::Start(number, _) => State::Starting(number),
            _ => State::None,
        };
        let unfit = mem::replace(&mut *state, after);
        drop(state);
        drop(unfit); // which kills it
        next
    }

    /// Brings a fork server up. Stopped, it leaves none, which is no error: whoever wants one looks again.
    async fn start(
        self,
        number: u64,
        recipe: Arc<Recipe>,
        stop: EventListener,
    ) -> Result<(), WorkerError> {
        let place = Started(self.place.clone());
        let launch = Launch::spawn(recipe.clone(), false)?;
        let mut starting = Starting::of_fork_server(launch, self.place.config.clone());
        let stopped = async {
            stop.await;
            None
        };
        let started = stopped
            .or(async { Some(poll_fn(|cx| starting.poll(cx)).await) })
            .await;
        match started {
            Some(Ok(process)) => place.with(Server {
                process,
                recipe,
                number,
            }),
            Some(Err(error)) => {
                if error.kind() == WorkerErrorKind::UnsafeFork && self.place.config.may_spawn() {
                    recipe.is_crowded();
                }
                return Err(error);
            }
            None => poll_fn(|cx| starting.poll_kill(cx)).await,
        }
        Ok(())
    }

    /// Whether the fork server with this number is there. If nobody has any patience with it, it is killed.
    fn still_serves(&self, number: u64, patient: bool) -> bool {
        let mut state = self.state();
        let State::Ready(server) = &mut *state else {
            return false;
        };
        if server.number != number {
            return false;
        }
        if patient && server.process.is_fit() {
            return true;
        }
        let server = mem::replace(&mut *state, State::None);
        drop(state);
        drop(server); // which kills it
        false
    }
}

/// The end of a start, however it comes about: then nobody waits for it any longer.
struct Started(Arc<Place>);

impl Started {
    fn with(&self, server: Server) {
        *self.0.state.lock().unwrap_or_else(PoisonError::into_inner) =
            State::Ready(Box::new(server));
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Starting(_)) {
            *state = State::None;
        }
        drop(state);
        self.0.changed.notify(usize::MAX);
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
    fn is_fit_for(&mut self, recipe: &Arc<Recipe>) -> bool {
        self.process.is_fit() && Arc::ptr_eq(&self.recipe, recipe)
    }

    /// Sends a request, if that can be done at once.
    fn ask(&self, theirs: &Theirs) -> io::Result<()> {
        let number = u64::from(theirs.stderr.is_some());
        let request = frame::of_bytes(Kind::Fork, number, b"");
        let fds: Vec<BorrowedFd<'_>> = [
            Some(theirs.socket.as_fd()),
            theirs.stderr.as_ref().map(AsFd::as_fd),
        ]
        .into_iter()
        .flatten()
        .collect();
        socket::try_send_with_fds(self.process.socket(), &request, &fds)
    }
}

/// Whether a request may be sent later that could not be sent now: the socket is full, or the kernel has too many
/// descriptors on their way, or too little memory.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAGAIN | libc::ETOOMANYREFS | libc::ENOBUFS | libc::ENOMEM)
    )
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
enum Stillborn {
    /// The fork server died with the request.
    Again,
    Failed(WorkerError),
}

impl Unborn {
    fn new(fork_server: &ForkServer) -> io::Result<(Self, Theirs)> {
        let (ours, theirs) = socket::pair()?;
        let (reader, writer) = match fork_server.place.config.captures_stderr() {
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

    fn asked(&mut self, server: u64) {
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

/// A worker in the making by a fork server, or, where that may be, by executing the program.
pub(super) struct Forking {
    fork_server: ForkServer,
    recipe: Arc<Recipe>,
    attempts: usize,
    stage: Stage,
}

enum Stage {
    /// The fork server is asked, and perhaps started first.
    Asking(Pin<Box<dyn Future<Output = Result<Option<Unborn>, WorkerError>> + Send>>),
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
                    Ok(Some(unborn)) => self.stage = Stage::Unborn(unborn),
                    // Forking is not safe here.
                    Ok(None) => {
                        let captures = self.fork_server.place.config.captures_stderr();
                        match Launch::spawn(self.recipe.clone(), captures) {
                            Ok(launch) => self.stage = Stage::Spawning(launch),
                            Err(error) => return Poll::Ready(Err(error)),
                        }
                    }
                    Err(error) => return Poll::Ready(Err(error)),
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
