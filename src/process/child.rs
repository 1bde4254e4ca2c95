//! A child process: polled for its end through the reactor, killed through its pidfd, and always
//! reaped.
//!
//! Workers, fork servers and the processes of `run_process` are all [`ChildProcess`]es. Dropping
//! one that has not ended kills it at once and reaps it in the background, so neither a process nor
//! a zombie is left behind.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use async_io::{Async, Timer};
use event_listener::EventListener;

use super::background;
use super::tick::next_tick;
use super::tuning::TREE_KILL_LIMIT;
use crate::sys::primitives::lock;
use crate::sys::process::{Ended, Number, Pidfd};
use crate::sys::process_tree::DescendantKiller;
use crate::sys::tuning::SCAN_INTERVAL;

/// A child process that is killed and reaped when dropped.
#[derive(Debug)]
pub(crate) struct ChildProcess {
    state: State,
    pid: u32,
    /// The process's descendants and the members of the group that it leads end with it.
    kills_tree: bool,
    /// A kill has begun, which takes several steps if there are descendants.
    is_being_killed: bool,
    /// The next look at a process that the reactor does not watch.
    next_tick: Option<EventListener>,
}

/// A descriptor that is registered with the reactor. Several tasks may wait for it.
type Registered = Arc<Async<Arc<Pidfd>>>;

#[derive(Debug)]
enum State {
    /// Not known to have ended. Registered once a task waits for the end.
    Running(Arc<Pidfd>, Option<Registered>),
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

    /// Takes over a child that is known by its number alone. Returns `None` if it runs, and its
    /// descriptor cannot be opened at present.
    pub(crate) fn from_pid(pid: u32, kills_tree: bool) -> Option<Self> {
        let state = match Number::new(pid) {
            None => State::Ended(Ended::Unknown), // the kernel gives this number to no process
            Some(number) => match number.open() {
                // If this is no child of ours, then other code has reaped the one that had this
                // number.
                Ok(pidfd) => match known(pidfd.try_reap(kills_tree)) {
                    None => State::Running(Arc::new(pidfd), None),
                    Some(ended) => State::Ended(ended),
                },
                Err(_) => State::Ended(known(number.try_reap(kills_tree))?),
            },
        };
        Some(Self::in_state(state, pid, kills_tree))
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
            is_being_killed: false,
            next_tick: None,
        }
    }

    /// Makes other processes end with this one, which must be a child subreaper and lead a process
    /// group. A kill ends its descendants too. Before it is reaped, the members of its group are
    /// killed in any case.
    pub(crate) fn set_kills_tree(&mut self) {
        self.kills_tree = true;
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns the descriptor of a process that is not known to have ended.
    pub(crate) fn descriptor(&self) -> Option<Arc<Pidfd>> {
        match &self.state {
            State::Running(pidfd, _) => Some(pidfd.clone()),
            State::Ended(_) | State::Taken => None,
        }
    }

    /// Sends SIGKILL if the process is not known to have ended. If its tree is to end with it, the
    /// process is stopped now, and killed in the background once no descendant is left.
    pub(crate) fn kill(&mut self) {
        let State::Running(pidfd, _) = &self.state else {
            return;
        };
        if !self.kills_tree {
            kill(pidfd);
        } else if !std::mem::replace(&mut self.is_being_killed, true) {
            kill_tree(pidfd.clone());
        }
    }

    /// Reaps the process if it has ended, and returns how it ended.
    pub(crate) fn try_reap(&mut self) -> Option<Ended> {
        match &self.state {
            State::Running(pidfd, _) => {
                let ended = known(pidfd.try_reap(self.kills_tree))?;
                self.state = State::Ended(ended);
                Some(ended)
            }
            State::Ended(ended) => Some(*ended),
            State::Taken => None,
        }
    }

    /// Waits until the process has ended, and reaps it. Asks the kernel at each poll, because the
    /// reactor may deny an event for which it woke the task; see `connection`.
    pub(crate) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        loop {
            let readable = match self.register() {
                Ok(Some(registered)) => registered.poll_readable(cx), // before asking, so that no end is missed
                Ok(None) => Poll::Pending,
                Err(error) => Poll::Ready(Err(error)),
            };
            if let Some(ended) = self.try_reap() {
                return Poll::Ready(ended);
            }
            // The reactor may be out of memory, or at its limit. Asking the kernel remains, and a
            // new registration: one that has failed once does not report that again.
            if ready!(readable).is_err() {
                self.deregister();
                ready!(self.poll_next_tick(cx));
            }
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

/// Waits until `child` has ended, in any number of tasks at once. Returns `None` if the child is
/// taken out first.
pub(crate) async fn wait(child: &Mutex<Option<ChildProcess>>) -> Option<Ended> {
    enum Look {
        Over(Option<Ended>),
        Registered(Registered),
        Unwatched(EventListener),
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
                // Looks at every poll, for the reason given at `poll_end`.
                let readable = poll_fn(|cx| {
                    let readable = readable.as_mut().poll(cx);
                    match look() {
                        Look::Registered(_) => readable,
                        Look::Over(_) | Look::Unwatched(_) => Poll::Ready(Ok(())),
                    }
                });
                if readable.await.is_err() {
                    if let Some(child) = &mut *lock(child) {
                        child.deregister();
                    }
                    next_tick().await; // so that a reactor that keeps failing is not asked at once
                }
            }
        }
    }
}

fn kill(pidfd: &Pidfd) {
    if let Err(error) = pidfd.kill() {
        // The caller is cleaning up, often in a `drop`, where a panic would only lose more.
        tracing::warn!(pid = pidfd.pid(), %error, "a process cannot be killed");
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
        return kill(&root);
    }
    let rest = async move {
        while !killer.step() {
            Timer::after(SCAN_INTERVAL).await;
        }
        // The owner kills the group when it reaps the root. Here, on another thread, the root may
        // be reaped already, and the group's number may belong to another group.
        kill(&root);
    };
    background::spawn(rest).detach();
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        if self.try_reap().is_some() {
            return;
        }
        self.kill();
        let state = std::mem::replace(&mut self.state, State::Taken);
        if let State::Running(..) = state {
            let mut rest = Self::in_state(state, self.pid, self.kills_tree);
            rest.is_being_killed = true;
            background::spawn(async move { poll_fn(|cx| rest.poll_end(cx)).await }).detach();
        }
    }
}

/// Interprets the kernel's answer. Reaping our own child once fails only if other code in this
/// program waits for all children (`waitpid(-1)`, or SIGCHLD is ignored) and has reaped it first.
fn known(reaped: io::Result<Option<Ended>>) -> Option<Ended> {
    reaped.unwrap_or(Some(Ended::Unknown))
}
