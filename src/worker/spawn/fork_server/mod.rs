//! A context's fork server, seen from the parent: started by the first call that needs a worker,
//! asked for each further worker, and started again if it dies.
//!
//! A request is one message, sent by the call on its own thread: the worker's end of a new socket,
//! and of a pipe for its standard error if that is captured. The call waits for no reply; the
//! outcome appears in the pid table, which both processes have mapped.

mod watch;

use std::future::poll_fn;
use std::io;
use std::mem;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_io::{Async, Timer};
use futures_lite::FutureExt;
use futures_lite::future::poll_once;
use rustix::io::Errno;

use super::exec_spec::ExecSpec;
use super::inheritance::Inheritance;
use super::launcher::Spawning;
use super::start::{Starting, Unstarted};
use crate::process::background;
use crate::process::notify::{Listener, Notify};
use crate::sys::answer::Answer;
use crate::sys::mapping::Mapping;
use crate::sys::unwind::discard;
use crate::sys::{credentials, fork, socket};
use crate::transport::frame::{Header, Kind};
use crate::worker::config::{WorkerConfig, WorkerType};
use crate::worker::conn::connection::Connection;
use crate::worker::conn::pending_fork::{PendingFork, PidTable};
use crate::worker::conn::worker::{Launched, Worker};
use crate::worker::conn::worker_process::WorkerProcess;
use crate::worker::error::{WorkerError, WorkerErrorKind};
use crate::worker::trace;
use crate::worker::tuning::{FORK_ANSWER_TIMEOUT, FORK_ATTEMPTS, FORK_RETRY_INTERVAL};

/// The fork server of a context. Clones are handles on the same one.
///
/// No future holds the fork server while it waits, so a call that is polled no longer cannot block
/// other calls. The state stands behind a lock that is held for one request at most. A call that
/// finds the fork server starting waits for a change.
#[derive(Clone, Debug)]
pub(in crate::worker) struct ForkServer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: WorkerConfig,
    answer_timeout: Duration,
    /// No waker is called under this lock. A subscriber of `tracing` may be, by the report of a
    /// fork server that has failed; so it must make no call of this context that forks a worker.
    state: Mutex<State>,
    /// Notified when a start is over.
    changed: Notify,
    /// Notified to stop a start.
    stop: Notify,
    /// The number of fork servers that were started, which numbers them.
    started: AtomicU64,
    /// The context cannot have a fork server: its preload closures leave threads behind, or there
    /// is no shared memory.
    is_impossible: AtomicBool,
}

#[derive(Debug)]
enum State {
    None,
    /// Being started by a background task, which goes on if the call that began it is dropped.
    /// Otherwise a series of calls with short timeouts would start one fork server after the other
    /// and never have one.
    Starting(u64),
    Ready(Box<Server>),
}

/// The worker's ends of its socket and of its standard error.
struct WorkerEnds {
    socket: OwnedFd,
    stderr: Option<OwnedFd>,
}

/// A fork server that is ready. It is run as a worker that never gets a job.
#[derive(Debug)]
struct Server {
    process: Box<Worker>,
    /// The hook at which the fork server forks.
    spec: Arc<ExecSpec>,
    /// The state that the process has inherited, and passes on.
    inherited: Inheritance,
    number: u64,
    pid_table: Arc<PidTable>,
}

/// A fork that was requested before it was known whether the fork server still passes on what it
/// should. Dropping it ends the process.
#[derive(Debug)]
pub(in crate::worker) struct EarlyFork {
    launched: Launched,
    /// The state that the fork server has inherited, and so the process too.
    inherited: Inheritance,
}

impl EarlyFork {
    /// Returns the fork if its process inherits this.
    pub(super) fn with(self, inherited: &Inheritance) -> Option<Launched> {
        (self.inherited == *inherited).then_some(self.launched)
    }
}

/// The next step of a call that needs a worker.
enum Step {
    /// The fork has been requested.
    Requested(PendingFork),
    /// The server failed with this error, and has been discarded.
    Failed(io::Error),
    /// Wait for the start that is in progress.
    Wait(Listener),
    /// Try again soon: the server with this number has too many requests queued.
    Busy(u64),
    /// Start the server with this number, until the listener is notified.
    Start(u64, Listener),
}

impl ForkServer {
    pub(in crate::worker) fn new(config: WorkerConfig) -> Self {
        Self::with_answer_timeout(config, FORK_ANSWER_TIMEOUT)
    }

    fn with_answer_timeout(config: WorkerConfig, answer_timeout: Duration) -> Self {
        ForkServer {
            shared: Arc::new(Shared {
                config,
                answer_timeout,
                state: Mutex::new(State::None),
                changed: Notify::new(),
                stop: Notify::new(),
                started: AtomicU64::new(0),
                is_impossible: AtomicBool::new(false),
            }),
        }
    }

    pub(in crate::worker) fn config(&self) -> &WorkerConfig {
        &self.shared.config
    }

    /// Whether workers are to be forked, as far as is known.
    pub(in crate::worker) fn may_fork(&self, spec: &ExecSpec) -> bool {
        match self.config().kind_of_workers() {
            WorkerType::Spawn => false,
            WorkerType::ForkServer => true,
            WorkerType::Auto => {
                !spec.is_multithreaded()
                    && fork::is_safe()
                    && !self.shared.is_impossible.load(Ordering::Relaxed)
            }
        }
    }

    /// Records that a fork server had several threads. They may come from this context's preload
    /// closures or, without any, from the program.
    fn mark_multithreaded(&self, spec: &ExecSpec) {
        if self.config().preloads() {
            self.shared.is_impossible.store(true, Ordering::Relaxed);
        } else {
            spec.mark_multithreaded();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }

    /// Takes the process out, to be ended with the context's workers. Stops a start that is in
    /// progress, but not one that begins later, as it may in a context that is not closed.
    pub(in crate::worker) async fn take(&self) -> Option<Box<Worker>> {
        let mut first = None;
        loop {
            let changed = self.shared.changed.listen(); // before the look, so that no change is missed
            match self.try_take(&mut first) {
                ControlFlow::Break(process) => return process,
                ControlFlow::Continue(()) => {
                    self.shared.stop.notify_all();
                    changed.await;
                }
            }
        }
    }

    /// Takes the process out, unless it is being started. `first` is the number of the server found
    /// by the first call.
    fn try_take(&self, first: &mut Option<u64>) -> ControlFlow<Option<Box<Worker>>> {
        let mut state = self.state();
        let number = match &*state {
            State::None => return ControlFlow::Break(None),
            State::Starting(number) => *number,
            State::Ready(server) => server.number,
        };
        if *first.get_or_insert(number) != number {
            return ControlFlow::Break(None);
        }
        match mem::replace(&mut *state, State::None) {
            State::Ready(server) => ControlFlow::Break(Some(server.process)),
            starting => {
                *state = starting;
                ControlFlow::Continue(())
            }
        }
    }

    /// Whether there may be a process to take.
    pub(in crate::worker) fn may_exist(&self) -> bool {
        !matches!(*self.state(), State::None)
    }

    /// Requests a worker from a fork server that is ready, whatever that passes on. The caller
    /// looks at that while the process is forked. Returns `None` if there is no such fork server,
    /// or if it takes no request now; also if the process would run code of the program before it
    /// has a job, which must not happen in a process that inherits something else than it should.
    pub(in crate::worker) fn request_early(&self, spec: &Arc<ExecSpec>) -> Option<EarlyFork> {
        if !self.config().starts_with_its_job() || !matches!(*self.state(), State::Ready(_)) {
            return None;
        }
        let (connection, stderr, ends) = self.worker_ends().ok()?;
        let mut state = self.state();
        let State::Ready(server) = &mut *state else {
            return None;
        };
        if !server.can_serve(spec) {
            return None;
        }
        let fork = server.request(&ends).ok()?;
        Some(EarlyFork {
            launched: Launched {
                process: WorkerProcess::forked(fork),
                connection,
                stderr,
                forked: true,
                image: None,
            },
            inherited: server.inherited,
        })
    }

    /// Requests a worker that inherits this or, after a wait, what this process then has. Otherwise
    /// two calls that began before and after a change would replace each other's fork server
    /// forever. Returns `None` if the program cannot fork, so that the worker has to be executed.
    pub(super) async fn request(
        self,
        spec: Arc<ExecSpec>,
        mut inherited: Inheritance,
    ) -> Result<Option<Launched>, WorkerError> {
        if !fork::is_safe() {
            return Err(WorkerError::start_without_thread_record());
        }
        let (connection, stderr, ends) = self
            .worker_ends()
            .map_err(|error| WorkerError::start("its socket", error))?;
        let timeout = || Timer::after(self.shared.answer_timeout);
        let (mut failures, mut busy_timeout) = (0, timeout());
        while self.may_fork(&spec) {
            let error = match self.next_step(&spec, &inherited, &ends) {
                Step::Requested(fork) => {
                    return Ok(Some(Launched {
                        process: WorkerProcess::forked(fork),
                        connection,
                        stderr,
                        forked: true,
                        image: None,
                    }));
                }
                Step::Wait(changed) => {
                    changed.await;
                    inherited = self.present_inheritance();
                    busy_timeout = timeout();
                    continue;
                }
                Step::Start(number, stop) => {
                    let started = self.start_in_background(number, &spec, inherited, stop);
                    match started.await {
                        // The next turn of the loop sees that the program cannot fork.
                        Err(error) if self.may_fork(&spec) => return Err(error),
                        Err(_) | Ok(()) => busy_timeout = timeout(),
                    }
                    inherited = self.present_inheritance();
                    continue;
                }
                Step::Busy(server) => {
                    let is_over = poll_once(&mut busy_timeout).await.is_some();
                    if is_over {
                        busy_timeout = timeout();
                    }
                    if !(is_over && self.give_up_if_silent(server)) {
                        Timer::after(FORK_RETRY_INTERVAL).await;
                        continue;
                    }
                    io::ErrorKind::TimedOut.into()
                }
                Step::Failed(error) => error,
            };
            failures += 1;
            if failures == FORK_ATTEMPTS {
                return Err(WorkerError::start("asking the fork server", error));
            }
        }
        Ok(None)
    }

    fn present_inheritance(&self) -> Inheritance {
        Inheritance::present(credentials::generation(), &self.config().environment())
    }

    /// Makes the socket and the pipe between a worker and its parent.
    fn worker_ends(&self) -> io::Result<(Connection, Option<OwnedFd>, WorkerEnds)> {
        let (ours, theirs) = socket::pair()?;
        let (reader, writer) = if self.config().captures_stderr() {
            let (reader, writer) = io::pipe()?;
            (Some(reader), Some(writer))
        } else {
            (None, None)
        };
        let ends = WorkerEnds {
            socket: theirs,
            stderr: writer.map(OwnedFd::from),
        };
        let connection = Connection::new(Async::new(ours)?);
        Ok((connection, reader.map(OwnedFd::from), ends))
    }

    async fn start_in_background(
        &self,
        number: u64,
        spec: &Arc<ExecSpec>,
        inherited: Inheritance,
        stop: Listener,
    ) -> Result<(), WorkerError> {
        let start = self.clone().start(number, spec.clone(), inherited, stop);
        let answer = Arc::new(Answer::new());
        let reply = answer.clone();
        // Goes on if the caller is dropped.
        background::spawn(async move {
            let started = AssertUnwindSafe(start).catch_unwind().await;
            reply.give(started.unwrap_or_else(|payload| {
                discard(payload);
                let error = io::Error::other("panicked; its message went to the panic hook");
                Err(WorkerError::start("the fork server", error))
            }));
        })
        .detach();
        poll_fn(|cx| answer.poll(cx)).await
    }

    /// Sends the request to the fork server that is ready, or tells what else to do.
    fn next_step(&self, spec: &Arc<ExecSpec>, inherited: &Inheritance, ends: &WorkerEnds) -> Step {
        // Listens before another task can see that there is a start to be stopped.
        let start = || {
            let number = self.shared.started.fetch_add(1, Ordering::Relaxed);
            Step::Start(number, self.shared.stop.listen())
        };
        let mut state = self.state();
        let step = match &mut *state {
            State::Starting(_) => return Step::Wait(self.shared.changed.listen()),
            State::Ready(server) => match server
                .is_fit_for(spec, inherited)
                .then(|| server.request(ends))
            {
                Some(Ok(fork)) => return Step::Requested(fork),
                Some(Err(error)) if is_temporary(&error) => return Step::Busy(server.number),
                Some(Err(error)) => Step::Failed(error),
                None => start(),
            },
            State::None => start(),
        };
        let after = match step {
            Step::Start(number, _) => State::Starting(number),
            _ => State::None,
        };
        let unfit = mem::replace(&mut *state, after);
        drop(state);
        if let State::Ready(server) = unfit {
            self.discard(*server);
        }
        step
    }

    /// Starts a fork server. If it is stopped, there is none afterwards, which is no error.
    async fn start(
        self,
        number: u64,
        spec: Arc<ExecSpec>,
        inherited: Inheritance,
        stop: Listener,
    ) -> Result<(), WorkerError> {
        let guard = StartGuard(self.shared.clone());
        let (table, memory) = match Mapping::make("seedbed-pids") {
            Ok(made) => made,
            Err(error) => {
                if !is_passing(&error) && self.config().kind_of_workers() == WorkerType::Auto {
                    self.shared.is_impossible.store(true, Ordering::Relaxed);
                }
                return Err(WorkerError::start_without_memory(error));
            }
        };
        let environment = self.config().environment();
        let launch = Box::new(Spawning::new(spec.clone(), environment, false)?);
        let mut starting =
            Starting::of_fork_server(launch, spec.clone(), self.config().clone(), memory);
        let stopped = async {
            stop.await;
            None
        };
        let begun = Instant::now();
        let started = stopped
            .or(async { Some(poll_fn(|cx| starting.poll(cx)).await) })
            .await;
        match started {
            Some(Ok(mut process)) => {
                trace::fork_server_came_up(self.context_name(), process.pid(), begun.elapsed());
                if let Some(descriptor) = process.descriptor() {
                    let timeout = self.shared.answer_timeout;
                    let end = process.first_watch();
                    guard.set_ready(Server {
                        process,
                        spec,
                        inherited,
                        number,
                        pid_table: PidTable::new(table, descriptor, timeout),
                    });
                    if let Some(end) = end {
                        self.watch(number, end);
                    }
                }
            }
            Some(Err(Unstarted::NotForked(_))) => {
                unreachable!("a fork server is executed, not forked")
            }
            Some(Err(Unstarted::Failed(error))) => {
                if error.kind() == WorkerErrorKind::UnsafeFork {
                    self.mark_multithreaded(&spec);
                }
                return Err(error);
            }
            None => poll_fn(|cx| starting.poll_kill(cx)).await,
        }
        Ok(())
    }

    /// Drops a fork server that is of no more use, which kills it if it has not ended.
    fn discard(&self, mut server: Server) {
        let (name, pid) = (self.context_name(), server.process.pid());
        if server.pid_table.is_given_up() {
            trace::fork_server_does_not_answer(name, pid);
        } else if server.process.try_reap().is_none() {
            trace::fork_server_is_replaced(name, pid);
        } else {
            trace::fork_server_died(name, pid);
        }
    }

    fn context_name(&self) -> Option<&str> {
        self.config().context_name().map(|name| &**name)
    }

    /// Kills and discards the fork server with this number if it has not answered for too long.
    /// Returns whether it did.
    fn give_up_if_silent(&self, number: u64) -> bool {
        let mut state = self.state();
        let is_silent = matches!(&*state, State::Ready(server)
            if server.number == number && server.pid_table.is_silent());
        if !is_silent {
            return false;
        }
        let silent = mem::replace(&mut *state, State::None);
        drop(state);
        if let State::Ready(server) = silent {
            server.pid_table.give_up();
            self.discard(*server);
        }
        true
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // No code of the program's runs under this lock, and each change is one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the state `Starting` when dropped, and wakes the calls that wait for that.
struct StartGuard(Arc<Shared>);

impl StartGuard {
    fn set_ready(&self, server: Server) {
        *self.0.state() = State::Ready(Box::new(server));
    }
}

impl Drop for StartGuard {
    fn drop(&mut self) {
        let mut state = self.0.state();
        if matches!(*state, State::Starting(_)) {
            *state = State::None;
        }
        drop(state);
        self.0.changed.notify_all();
    }
}

impl Server {
    fn is_fit_for(&mut self, spec: &Arc<ExecSpec>, inherited: &Inheritance) -> bool {
        self.inherited == *inherited && self.can_serve(spec)
    }

    /// Whether the fork server lives and forks at this hook.
    fn can_serve(&mut self, spec: &Arc<ExecSpec>) -> bool {
        self.process.try_reap().is_none()
            && !self.pid_table.is_given_up()
            && Arc::ptr_eq(&self.spec, spec)
    }

    /// Sends a request without waiting.
    fn request(&self, ends: &WorkerEnds) -> io::Result<PendingFork> {
        let Some(fork) = self.pid_table.reserve() else {
            return Err(Errno::AGAIN.into());
        };
        let fds = [
            Some(ends.socket.as_fd()),
            ends.stderr.as_ref().map(AsFd::as_fd),
        ];
        let fds: Vec<BorrowedFd<'_>> = fds.into_iter().flatten().collect();
        let request = Header {
            kind: Kind::Fork,
            fds: u8::try_from(fds.len()).expect("one or two"),
            call: 0,
            number: u64::from(fork.slot()),
            length: 0,
        };
        socket::try_send_with_fds(self.process.socket(), &request.to_bytes(), &fds)?;
        Ok(fork)
    }
}

/// Whether shared memory that could not be made may be made later.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM)
    )
}

/// Whether a request that could not be sent may be sent later: the socket is full, too many
/// descriptors are in flight, or the kernel is out of memory.
fn is_temporary(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAGAIN | libc::ETOOMANYREFS | libc::ENOBUFS | libc::ENOMEM)
    )
}

#[cfg(all(test, not(loom)))]
mod tests;
