//! A child process: polled for its end through the reactor, killed through its pidfd, and always
//! reaped.
//!
//! Workers, fork servers and the processes of `run_process` are all [`ChildProcess`]es. Dropping
//! one that has not ended kills it at once and reaps it in the background, so neither a process nor
//! a zombie is left behind.
//!
//! Where the kernel gives no pidfd, at the moment or for good, the process is known by its number:
//! it is killed by that, and its end is seen at the next tick.

use std::future::poll_fn;
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use async_io::{Async, Timer};

use super::background;
use super::tick::{next_slow_tick, next_tick};
use super::tuning::{ORPHAN_TIMEOUT, TICK_INTERVAL, TREE_KILL_LIMIT};
use crate::process::notify::Listener;
use crate::sys::orphans::{Orphans, adopts_orphans};
use crate::sys::primitives::lock;
use crate::sys::process::{ChildStatus, Ended, Number, Pidfd, has_trapped_thread};
use crate::sys::process_tree::DescendantKiller;
use crate::sys::tuning::SCAN_INTERVAL;
use crate::sys::usage::{self, CpuTimes};

/// A child process that is killed and reaped when dropped.
#[derive(Debug)]
pub(crate) struct ChildProcess {
    state: State,
    pid: u32,
    /// The process's descendants and the members of the group that it leads end with it.
    kills_tree: bool,
    /// A kill has begun, which takes several steps if there are descendants.
    is_killed: bool,
    /// The process was stopped because it had asked to be traced, and was killed for that.
    was_trapped: bool,
    /// The next look at a process that the reactor does not watch.
    next_tick: Option<Listener>,
    /// The next look at a process that may have been stopped.
    next_slow_tick: Option<Listener>,
    /// Watches hold it weakly, to see when this is gone.
    watched: Option<Arc<()>>,
    /// Where the processor time is stored that the process has used.
    cpu_times: Option<Arc<OnceLock<CpuTimes>>>,
}

/// A descriptor that is registered with the reactor. Several tasks may wait for it.
type Registered = Arc<Async<Arc<Pidfd>>>;

#[derive(Debug)]
enum State {
    /// Not known to have ended. Registered once a task waits for the end.
    Running(Arc<Pidfd>, Option<Registered>),
    /// Not known to have ended, and known by its number alone.
    Numbered(Number),
    /// Reaped.
    Ended(Ended),
    /// Moved to the background by `drop`.
    Taken,
}

impl ChildProcess {
    pub(crate) fn new(pidfd: Pidfd) -> Self {
        let pid = pidfd.pid();
        Self::in_state(State::Running(Arc::new(pidfd), None), pid, false)
    }

    /// Takes over a child that was just spawned. If its descriptor cannot be opened, the child is
    /// killed, and reaped in the background.
    pub(crate) fn adopt(child: std::process::Child) -> io::Result<Self> {
        Self::adopt_number(child.id())
    }

    /// Takes over a child that was just spawned, given its number; see [`adopt`](Self::adopt).
    pub(crate) fn adopt_number(pid: u32) -> io::Result<Self> {
        let number = Number::new(pid).ok_or(io::ErrorKind::InvalidInput)?;
        number.open().map(Self::new).inspect_err(|_| {
            drop(Self::in_state(State::Numbered(number), pid, false));
        })
    }

    /// Takes over a child that is known by its number alone.
    pub(crate) fn from_pid(pid: u32, kills_tree: bool) -> Self {
        let state = match Number::new(pid) {
            None => State::Ended(Ended::Unknown), // the kernel gives this number to no process
            Some(number) => match number.open() {
                Ok(pidfd) => State::Running(Arc::new(pidfd), None),
                Err(_) => State::Numbered(number),
            },
        };
        let mut this = Self::in_state(state, pid, kills_tree);
        // If this is no child of ours, then other code has reaped the one that had this number.
        this.try_reap();
        this
    }

    /// Stands for a process that was never started. It has ended in an unknown way.
    pub(crate) fn none() -> Self {
        Self::in_state(State::Ended(Ended::Unknown), 0, false)
    }

    fn in_state(state: State, pid: u32, kills_tree: bool) -> Self {
        Self {
            state,
            pid,
            kills_tree,
            is_killed: false,
            was_trapped: false,
            next_tick: None,
            next_slow_tick: None,
            watched: None,
            cpu_times: None,
        }
    }

    /// Makes other processes end with this one, which must be a child subreaper and lead a process
    /// group. A kill ends its descendants too. Before it is reaped, the members of its group are
    /// killed in any case.
    pub(crate) fn set_kills_tree(&mut self) {
        self.kills_tree = true;
    }

    /// Stores the processor time that the process has used when it is reaped.
    pub(super) fn measure(&mut self, cpu_times: Arc<OnceLock<CpuTimes>>) {
        self.cpu_times = Some(cpu_times);
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns the descriptor of a process that is not known to have ended.
    pub(crate) fn descriptor(&self) -> Option<Arc<Pidfd>> {
        match &self.state {
            State::Running(pidfd, _) => Some(pidfd.clone()),
            State::Numbered(_) | State::Ended(_) | State::Taken => None,
        }
    }

    /// Whether the process has been sent SIGKILL, or will be after its descendants.
    pub(crate) fn is_killed(&self) -> bool {
        self.is_killed
    }

    /// Whether the process was killed because it had asked to be traced.
    pub(crate) fn was_trapped(&self) -> bool {
        self.was_trapped
    }

    /// Sends SIGKILL if the process is not known to have ended. If its tree is to end with it, the
    /// process is stopped now, and killed in the background once no descendant is left.
    pub(crate) fn kill(&mut self) {
        let was_killed = std::mem::replace(&mut self.is_killed, true);
        match &self.state {
            State::Running(pidfd, _) if !self.kills_tree => kill(pidfd),
            State::Running(pidfd, _) if !was_killed => kill_tree(pidfd.clone()),
            State::Numbered(number) => {
                if self.kills_tree {
                    number.kill_group(); // its other descendants cannot be had without descriptors
                }
                warn_unless_killed(self.pid, number.kill());
            }
            State::Running(..) | State::Ended(_) | State::Taken => {}
        }
    }

    /// Reaps the process if it has ended, and returns how it ended. Kills it if it is stopped
    /// because it has asked to be traced.
    pub(crate) fn try_reap(&mut self) -> Option<Ended> {
        if let (Some(cpu_times), State::Running(pidfd, _)) = (&self.cpu_times, &self.state) {
            match usage::cpu_times_of_ended(pidfd.as_fd()) {
                // It may end at any moment, and must not be reaped before it is measured.
                Ok(None) => return None,
                Ok(Some(used)) => _ = cpu_times.set(used), // set already if it could not be reaped
                Err(_) => {} // below, the kernel tells what has become of it
            }
        }
        let status = match &self.state {
            State::Running(pidfd, _) => pidfd.try_reap(self.kills_tree),
            State::Numbered(number) => number.try_reap(self.kills_tree),
            State::Ended(ended) => return Some(*ended),
            State::Taken => return None,
        };
        let ended = match status {
            Ok(ChildStatus::Running) => return None,
            Ok(ChildStatus::Trapped) => {
                self.kill_trapped();
                return None;
            }
            Ok(ChildStatus::Ended(ended)) => ended,
            // Reaping our own child once fails only if other code in this program waits for all
            // children (`waitpid(-1)`, or SIGCHLD is ignored) and has reaped it first.
            Err(_) => Ended::Unknown,
        };
        self.state = State::Ended(ended);
        if self.kills_tree && adopts_orphans() {
            reap_orphans(Orphans::of_group(self.pid), None);
        }
        Some(ended)
    }

    /// Kills a process that is stopped because it has asked to be traced: this program is no
    /// debugger, which would let it go on.
    fn kill_trapped(&mut self) {
        if !std::mem::replace(&mut self.was_trapped, true) {
            let pid = self.pid;
            tracing::warn!(
                pid,
                "a process has asked to be traced and is stopped; it is killed"
            );
        }
        self.kill();
    }

    /// Waits until the process has ended, and reaps it. Asks the kernel at each poll, because the
    /// reactor may deny an event for which it woke the task; see `connection`.
    ///
    /// Nothing announces that the process is stopped because it has asked to be traced, so this
    /// looks at each slow tick. The wait for the tick is kept from one call to the next, so that
    /// quick calls need no new one.
    pub(crate) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        while let Poll::Ready(()) =
            Pin::new(self.next_slow_tick.get_or_insert_with(next_slow_tick)).poll(cx)
        {
            self.next_slow_tick = None;
            if self.try_reap().is_none() && has_trapped_thread(self.pid) {
                self.kill_trapped();
            }
        }
        loop {
            let readable = match self.register() {
                Ok(Some(registered)) => registered.poll_readable(cx), // before asking, so that no end is missed
                Ok(None) => Poll::Pending,
                Err(error) => Poll::Ready(Err(error)),
            };
            if let Some(ended) = self.try_reap() {
                return Poll::Ready(ended);
            }
            // The reactor may be out of memory, or at its limit: then asking the kernel remains,
            // and a new registration, as one that has failed once does not report that again. Or
            // the process has ended, and a debugger that traces it has not reaped it.
            if ready!(readable).is_err() {
                self.deregister();
            }
            ready!(self.poll_next_tick(cx));
        }
    }

    /// Returns a wait for the end of the process that does not borrow it.
    pub(crate) fn watch(&mut self) -> EndWatch {
        let registered = self.register().ok().flatten().cloned();
        self.watch_by(registered.map(EndSignal::Readable))
    }

    /// Like [`watch`](Self::watch), for a process whose end notifies `listener`.
    pub(crate) fn watch_for(&mut self, listener: Listener) -> EndWatch {
        self.watch_by(Some(EndSignal::Notified(listener)))
    }

    fn watch_by(&mut self, signal: Option<EndSignal>) -> EndWatch {
        EndWatch {
            signal,
            watched: Arc::downgrade(self.watched.get_or_insert_default()),
        }
    }

    /// Waits for the next tick of the timer that all such waits share.
    pub(crate) fn poll_next_tick(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(Pin::new(self.next_tick.get_or_insert_with(next_tick)).poll(cx));
        self.next_tick = None;
        Poll::Ready(())
    }

    /// Registers the descriptor with the reactor, once. `None` if the process has ended.
    fn register(&mut self) -> io::Result<Option<&Registered>> {
        if let State::Numbered(number) = &self.state {
            self.state = State::Running(Arc::new(number.open()?), None);
        }
        let State::Running(pidfd, registered) = &mut self.state else {
            return Ok(None);
        };
        match registered {
            Some(registered) => Ok(Some(registered)),
            None => {
                let new = Async::new_nonblocking(pidfd.clone())?;
                Ok(Some(registered.insert(Arc::new(new))))
            }
        }
    }

    fn deregister(&mut self) {
        if let State::Running(_, registered) = &mut self.state {
            *registered = None;
        }
    }
}

/// A wait for the end of a process that another task owns.
#[derive(Debug)]
pub(crate) struct EndWatch {
    /// `None` if nothing signals the end, or no longer.
    signal: Option<EndSignal>,
    watched: Weak<()>,
}

/// A signal that a process has ended.
#[derive(Debug)]
enum EndSignal {
    Readable(Registered),
    Notified(Listener),
}

impl EndWatch {
    /// Waits until the process has ended, or may have ended. Returns `false` if it has no owner any
    /// more. Asked again, this returns with the next tick.
    pub(crate) async fn wait(&mut self) -> bool {
        match self.signal.take() {
            // An error means that the reactor does not watch it.
            Some(EndSignal::Readable(registered)) => _ = registered.readable().await,
            Some(EndSignal::Notified(listener)) => listener.await,
            None => next_tick().await,
        }
        self.watched.strong_count() > 0
    }
}

/// Waits until `child` has ended, in any number of tasks at once. Returns `None` if the child is
/// taken out first.
pub(crate) async fn wait(child: &Mutex<Option<ChildProcess>>) -> Option<Ended> {
    enum Look {
        Over(Option<Ended>),
        Registered(Registered),
        Unwatched(Listener),
    }
    let look = || {
        let mut child = lock(child);
        let Some(child) = &mut *child else {
            return Look::Over(None);
        };
        let registered = child.register().map(Option::<&_>::cloned);
        match (child.try_reap(), registered) {
            (Some(ended), _) => Look::Over(Some(ended)),
            (None, Ok(Some(registered))) => Look::Registered(registered),
            (None, _) => Look::Unwatched(next_tick()),
        }
    };
    loop {
        match look() {
            Look::Over(ended) => return ended,
            Look::Unwatched(tick) => tick.await,
            Look::Registered(registered) => {
                let mut readable = std::pin::pin!(registered.readable());
                let mut slow_tick = next_slow_tick();
                // Looks at every poll, for the reason given at `poll_end`.
                let readable = poll_fn(|cx| {
                    if Pin::new(&mut slow_tick).poll(cx).is_ready() {
                        return Poll::Ready(None);
                    }
                    let readable = readable.as_mut().poll(cx);
                    match look() {
                        Look::Registered(_) => readable.map(Some),
                        Look::Over(_) | Look::Unwatched(_) => Poll::Ready(Some(Ok(()))),
                    }
                });
                let readable = readable.await;
                if let Look::Over(ended) = look() {
                    return ended;
                }
                let Some(readable) = readable else {
                    if let Some(child) = &mut *lock(child)
                        && has_trapped_thread(child.pid)
                    {
                        child.kill_trapped();
                    }
                    continue;
                };
                if readable.is_err()
                    && let Some(child) = &mut *lock(child)
                {
                    child.deregister();
                }
                next_tick().await; // so that neither the reactor nor the kernel is asked at once
            }
        }
    }
}

fn kill(pidfd: &Pidfd) {
    warn_unless_killed(pidfd.pid(), pidfd.kill());
}

fn warn_unless_killed(pid: u32, killed: io::Result<()>) {
    if let Err(error) = killed {
        // The caller is cleaning up, often in a `drop`, where a panic would only lose more.
        tracing::warn!(pid, %error, "a process cannot be killed");
    }
}

/// Kills a process after its descendants, which become the process's children when their own
/// parents end. So none of them can leave the tree while the process lives.
fn kill_tree(root: Arc<Pidfd>) {
    let killer = DescendantKiller::of_child(&root);
    // Most trees end here. If this program exits next, no descendant is left that is only stopped.
    let Ok(Some(mut killer)) = killer else {
        root.kill_group();
        return kill(&root);
    };
    if killer.step_until_killed(TREE_KILL_LIMIT) {
        root.kill_group();
        kill(&root);
        if adopts_orphans() {
            reap_orphans(Orphans::killed_by(killer), Some(root));
        }
        return;
    }
    let rest = async move {
        while !killer.step() {
            Timer::after(SCAN_INTERVAL).await;
        }
        // The owner kills the group when it reaps the root. Here, on another thread, the root may
        // be reaped already, and the group's number may belong to another group.
        kill(&root);
        if adopts_orphans() {
            reap_orphans(Orphans::killed_by(killer), Some(root));
        }
    };
    background::spawn(rest).detach();
}

/// Reaps orphans in the background, once `root` has ended and left them to this process, until
/// there are none. Orphans that do not end in time are left to the program.
fn reap_orphans(orphans: Orphans, root: Option<Arc<Pidfd>>) {
    let rounds = async move {
        let (since, mut pause) = (Instant::now(), SCAN_INTERVAL);
        while since.elapsed() < ORPHAN_TIMEOUT {
            let has_ended = root.as_ref().is_none_or(|root| root.has_ended());
            if has_ended && !orphans.reap() {
                return;
            }
            Timer::after(pause).await;
            pause = TICK_INTERVAL.min(2 * pause);
        }
    };
    background::spawn(rounds).detach();
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        if self.try_reap().is_some() {
            return;
        }
        self.kill();
        let state = std::mem::replace(&mut self.state, State::Taken);
        if let State::Running(..) | State::Numbered(_) = state {
            let mut rest = Self::in_state(state, self.pid, self.kills_tree);
            rest.is_killed = true;
            background::spawn(async move { poll_fn(|cx| rest.poll_end(cx)).await }).detach();
        }
    }
}
