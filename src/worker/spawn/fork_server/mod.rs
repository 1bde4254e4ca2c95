//! A context's fork server, seen from its parent: started by the first call that needs a worker, asked for workers from
//! then on, and started again if it dies.
//!
//! A request is one message, sent by whoever wants the worker, on its own thread: the worker's end of a new socket, and
//! of a pipe for its standard error if that is captured. Nothing is waited for: what becomes of it is seen at a place
//! in a table that both processes share (`births`), by whoever wants to know.

use std::future::{Future, poll_fn};
use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_io::{Async, Timer};
use event_listener::{Event, EventListener};
use futures_lite::FutureExt;
use futures_lite::future::poll_once;
use rustix::io::Errno;

use super::hook::Recipe;
use super::launcher::{Launch, Launched};
use super::pids::{Awaited, Births};
use super::start::{Starting, TableMemory, Unstarted};
use crate::sys::mapping::Mapping;
use crate::sys::socket;
use crate::transport::frame::{Header, Kind};
use crate::transport::pid_table::Table;
use crate::worker::background;
use crate::worker::config::{WorkerConfig, WorkerType};
use crate::worker::conn::connection::Connection;
use crate::worker::conn::process::Process;
use crate::worker::conn::worker::Worker;
use crate::worker::error::{WorkerError, WorkerErrorKind};
use crate::worker::trace;

/// How often a request is made anew because the fork server died with it.
pub(in crate::worker) const ATTEMPTS: usize = 3;

/// How long a fork server may do nothing though it was asked. Forking takes microseconds; a stopped process takes for
/// ever.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long to wait where the fork server's socket is full; it needs some tens of microseconds for each request.
const SOON: Duration = Duration::from_millis(1);

/// The place of a context's fork server. Clones are handles on the same one.
///
/// No future holds it while it waits: a call that nobody polls any more must not keep others from their workers.
/// Whoever comes looks at what is there, under a lock that is held for one request at most, and if that is nothing to
/// ask, waits for a change.
#[derive(Clone, Debug)]
pub(in crate::worker) struct ForkServer {
    place: Arc<Place>,
}

#[derive(Debug)]
struct Place {
    config: WorkerConfig,
    patience: Duration,
    state: Mutex<State>,
    /// Notified when a start is over.
    changed: Event,
    /// Notified to have a start broken off.
    stop: Event,
    /// How many have been started.
    started: AtomicU64,
    /// One that has called this context's preload closures has threads, and can fork nothing.
    threaded: AtomicBool,
}

#[derive(Debug)]
enum State {
    None,
    /// By a task of its own, which goes on if the call that wanted it is gone: or else callers with little patience
    /// would start one after the other and never have any.
    Starting(u64),
    Ready(Box<Server>),
}

/// What the worker gets.
struct Theirs {
    socket: OwnedFd,
    stderr: Option<OwnedFd>,
}

/// A fork server that is ready. The worker that it is made of never gets a job.
#[derive(Debug)]
struct Server {
    process: Box<Worker>,
    /// The way that it came.
    recipe: Arc<Recipe>,
    number: u64,
    births: Arc<Births>,
}

/// What somebody finds who wants to end the fork server.
enum Look {
    Starting,
    Taken(Option<Box<Worker>>),
}

/// What there is to do for somebody who wants a worker.
enum Next {
    /// It was asked for, of the server with this number.
    Asked(Awaited, u64),
    /// The server was of no use, for this reason, and is gone.
    Useless(io::Error),
    /// Wait for the start that is in progress.
    Wait(EventListener),
    /// Try again soon: the server with this number has many requests before it.
    Crowded(u64),
    /// Start the server with this number, until told to stop.
    Start(u64, EventListener),
}

impl ForkServer {
    pub(in crate::worker) fn new(config: WorkerConfig) -> Self {
        Self::with_patience(config, PATIENCE)
    }

    pub(in crate::worker) fn with_patience(config: WorkerConfig, patience: Duration) -> Self {
        ForkServer {
            place: Arc::new(Place {
                config,
                patience,
                state: Mutex::new(State::None),
                changed: Event::new(),
                stop: Event::new(),
                started: AtomicU64::new(0),
                threaded: AtomicBool::new(false),
            }),
        }
    }

    pub(in crate::worker) fn config(&self) -> &WorkerConfig {
        &self.place.config
    }

    pub(in crate::worker) fn patience(&self) -> Duration {
        self.place.patience
    }

    /// Whether workers are to be forked, as far as is known.
    pub(in crate::worker) fn may_fork(&self, recipe: &Recipe) -> bool {
        match self.config().kind_of_workers() {
            WorkerType::Spawn => false,
            WorkerType::ForkServer => true,
            WorkerType::Auto => recipe.may_fork() && !self.place.threaded.load(Ordering::Relaxed),
        }
    }

    /// A fork server that came this way has threads, be they of the program's or of this context's preload closures.
    fn has_threads(&self, recipe: &Recipe) {
        match self.config().preloads() {
            true => self.place.threaded.store(true, Ordering::Relaxed),
            false => recipe.is_crowded(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code of a user's runs under this lock, and each change is one step.
        self.place
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the process out, to be ended with the context's workers. One that is being started is killed. (A context
    /// that serves on may have another one started meanwhile, which is not waited for.)
    pub(in crate::worker) async fn take(&self) -> Option<Box<Worker>> {
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
    pub(in crate::worker) fn may_exist(&self) -> bool {
        !matches!(*self.state(), State::None)
    }

    /// Asks for a worker. `None` means that it has to be spawned.
    pub(in crate::worker) async fn request(
        self,
        recipe: Arc<Recipe>,
    ) -> Result<Option<Launched>, WorkerError> {
        let (connection, stderr, theirs) = self
            .line()
            .map_err(|error| WorkerError::start("its socket", error))?;
        let (mut useless, mut patience) = (0, Timer::after(self.patience()));
        loop {
            if !self.may_fork(&recipe) {
                return Ok(None);
            }
            match self.next(&recipe, &theirs) {
                Next::Asked(place, server) => {
                    return Ok(Some(Launched {
                        process: Process::unborn(place, self, server),
                        connection,
                        stderr,
                        forked: true,
                    }));
                }
                Next::Wait(changed) => {
                    changed.await;
                    patience = Timer::after(self.patience());
                }
                Next::Start(number, stop) => match self.start_apart(number, &recipe, stop).await {
                    Ok(()) => patience = Timer::after(self.patience()),
                    // The next turn sees that.
                    Err(_) if !self.may_fork(&recipe) => {}
                    Err(error) => return Err(error),
                },
                Next::Crowded(server) => {
                    let is_over = poll_once(&mut patience).await.is_some();
                    if is_over && self.is_stuck(server) {
                        self.give_up(server);
                        useless += 1;
                        if useless == ATTEMPTS {
                            let error = io::ErrorKind::TimedOut.into();
                            return Err(WorkerError::start("asking the fork server", error));
                        }
                    }
                    if is_over {
                        patience = Timer::after(self.patience());
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

    /// Makes the ways between a worker and its parent.
    fn line(&self) -> io::Result<(Connection, Option<OwnedFd>, Theirs)> {
        let (ours, theirs) = socket::pair()?;
        let (reader, writer) = match self.config().captures_stderr() {
            true => io::pipe().map(|(reader, writer)| (Some(reader), Some(writer)))?,
            false => (None, None),
        };
        let theirs = Theirs {
            socket: theirs,
            stderr: writer.map(OwnedFd::from),
        };
        let connection = Connection::new(Async::new(ours)?);
        Ok((connection, reader.map(OwnedFd::from), theirs))
    }

    async fn start_apart(
        &self,
        number: u64,
        recipe: &Arc<Recipe>,
        stop: EventListener,
    ) -> Result<(), WorkerError> {
        let start = self.clone().start(number, recipe.clone(), stop);
        Going(Some(background::spawn(start))).await
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
                Some(Ok(place)) => return Next::Asked(place, server.number),
                Some(Err(error)) if is_passing(&error) => return Next::Crowded(server.number),
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
        if let State::Ready(server) = unfit {
            self.discard(*server, true);
        }
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
        let (table, memory) =
            shared_table().map_err(|error| WorkerError::start("the fork server's table", error))?;
        let environment = self.place.config.environment();
        let launch = Launch::spawn(recipe.clone(), environment, false)?;
        let mut starting = Starting::of_fork_server(launch, self.place.config.clone(), memory);
        let stopped = async {
            stop.await;
            None
        };
        let begun = Instant::now();
        let started = stopped
            .or(async { Some(poll_fn(|cx| starting.poll(cx)).await) })
            .await;
        match started {
            Some(Ok(process)) => {
                let name = self.context_name();
                trace::fork_server_came_up(name, process.pid(), begun.elapsed());
                if let Some(descriptor) = process.descriptor() {
                    place.with(Server {
                        process,
                        recipe,
                        number,
                        births: Births::new(table, descriptor),
                    });
                }
            }
            Some(Err(Unstarted::Stillborn(_))) => {
                unreachable!("a fork server is executed, and not asked for")
            }
            Some(Err(Unstarted::Failed(error))) => {
                if error.kind() == WorkerErrorKind::UnsafeFork {
                    self.has_threads(&recipe);
                }
                return Err(error);
            }
            None => poll_fn(|cx| starting.poll_kill(cx)).await,
        }
        Ok(())
    }

    /// Drops a server of no more use, which kills it if it has not ended. A patient parent only prefers another one.
    fn discard(&self, mut server: Server, patient: bool) {
        let (name, pid) = (self.context_name(), server.process.pid());
        match (server.process.is_fit(), patient) {
            (false, _) => trace::fork_server_died(name, pid),
            (true, false) => trace::fork_server_does_not_answer(name, pid),
            (true, true) => trace::fork_server_is_replaced(name, pid),
        }
    }

    fn context_name(&self) -> Option<&str> {
        self.place.config.context_name().map(|name| &**name)
    }

    /// Whether the fork server with this number is there and has done nothing for long.
    fn is_stuck(&self, number: u64) -> bool {
        matches!(&*self.state(), State::Ready(server)
            if server.number == number && server.births.quiet_for() > self.patience())
    }

    /// Kills the fork server with this number, if it is there.
    pub(in crate::worker) fn give_up(&self, number: u64) {
        let mut state = self.state();
        if matches!(&*state, State::Ready(server) if server.number == number) {
            let server = mem::replace(&mut *state, State::None);
            drop(state);
            if let State::Ready(server) = server {
                self.discard(*server, false);
            }
        }
    }
}

/// Makes the table of a fork server.
fn shared_table() -> io::Result<(Mapping<Table>, TableMemory)> {
    match Mapping::make("seedbed-births") {
        Ok((table, memory)) => Ok((table, TableMemory::File(Arc::new(memory)))),
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            let (table, segment) = Mapping::make_segment()?;
            Ok((table, TableMemory::Segment(segment)))
        }
        Err(error) => Err(error),
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
    fn ask(&self, theirs: &Theirs) -> io::Result<Awaited> {
        let Some(place) = self.births.expect() else {
            return Err(Errno::AGAIN.into());
        };
        let fds: Vec<BorrowedFd<'_>> = [
            Some(theirs.socket.as_fd()),
            theirs.stderr.as_ref().map(AsFd::as_fd),
        ]
        .into_iter()
        .flatten()
        .collect();
        let request = Header {
            kind: Kind::Fork,
            fds: u8::try_from(fds.len()).expect("one or two"),
            call: 0,
            number: u64::from(place.place()),
            length: 0,
        };
        socket::try_send_with_fds(self.process.socket(), &request.to_bytes(), &fds)?;
        Ok(place)
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

#[cfg(all(test, not(loom)))]
mod tests;
