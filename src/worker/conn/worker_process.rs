//! A worker's process: a child process, a fork that a fork server was asked for and that is not
//! known to have happened, or a process that a launcher has started elsewhere.
//!
//! A forked process is at first known by its slot in the pid table. Most workers answer before more
//! is needed; so the descriptor is opened only to kill the process or to wait for its end, at the
//! latest when the worker becomes idle. Until then the number is a safe name, because nothing else
//! in this library reaps the process. (Code of the program that reaps any child may; then the
//! kernel mostly reports that there is no such child. That its number is given to another child
//! while the first job runs is a risk that such a program has with all of its children.)
//!
//! Without a descriptor, because there is no room for one or the kernel refuses it for good, the
//! number remains: for a kill, and to see the end.
//!
//! Dropping a process that has not ended kills and reaps it in the background, also one that is
//! forked later.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_io::Timer;
use futures_lite::FutureExt;

use super::pending_fork::{ForkOutcome, PendingFork};
use super::remote_process::RemoteProcess;
use crate::process::background;
use crate::process::child::{ChildProcess, EndWatch};
use crate::process::notify::Listener;
use crate::sys::process::{Ended, Pidfd};
use crate::worker::error::Elsewhere;
use crate::worker::tuning::FORK_POLL_INTERVAL;

/// A worker's process, which is killed and reaped when dropped.
#[derive(Debug)]
pub(in crate::worker) struct WorkerProcess {
    fork: Option<Fork>,
    /// Stands for no process while `fork` is pending, and for one elsewhere.
    child: ChildProcess,
    /// Why the fork failed, if it did.
    failure: Option<ForkFailure>,
    kills_tree: bool,
    remote: Option<Remote>,
}

/// A process elsewhere.
#[derive(Debug)]
struct Remote {
    process: Arc<RemoteProcess>,
    end: Option<Listener>,
}

/// A fork that is not known to have happened.
#[derive(Debug)]
struct Fork {
    pending: PendingFork,
    /// To be killed as soon as it is forked.
    kill: bool,
    next_poll: Option<Timer>,
}

/// The reason why a requested fork did not happen.
#[derive(Debug)]
pub(in crate::worker) enum ForkFailure {
    /// The fork server ended with the request, so another one may be asked.
    ServerEnded,
    Refused(io::Error),
}

impl ForkFailure {
    fn refused(error: i32) -> Self {
        Self::Refused(io::Error::from_raw_os_error(error))
    }
}

impl WorkerProcess {
    /// Takes over a child that was just spawned; see [`ChildProcess::adopt`].
    #[cfg(test)]
    pub(in crate::worker) fn adopt(child: std::process::Child) -> io::Result<Self> {
        ChildProcess::adopt(child).map(Self::new)
    }

    /// Takes over a child that was just spawned, given its number; see [`ChildProcess::adopt`].
    pub(in crate::worker) fn adopt_number(pid: u32) -> io::Result<Self> {
        ChildProcess::adopt_number(pid).map(Self::new)
    }

    fn new(child: ChildProcess) -> Self {
        Self {
            fork: None,
            child,
            failure: None,
            kills_tree: false,
            remote: None,
        }
    }

    /// A process that a launcher has started.
    pub(in crate::worker) fn remote(process: Arc<RemoteProcess>) -> Self {
        let mut this = Self::new(ChildProcess::none());
        this.remote = Some(Remote { process, end: None });
        this
    }

    pub(in crate::worker) fn forked(pending: PendingFork) -> Self {
        let mut this = Self::new(ChildProcess::none());
        this.fork = Some(Fork {
            pending,
            kill: false,
            next_poll: None,
        });
        this
    }

    /// Makes the process's descendants end with it; see [`ChildProcess::set_kills_tree`].
    pub(in crate::worker) fn set_kills_tree(&mut self) {
        self.kills_tree = true;
        self.child.set_kills_tree();
    }

    /// Returns the process id, as soon as the process is known to exist or to have existed; 0 for a
    /// failed fork.
    pub(in crate::worker) fn known_pid(&self) -> Option<u32> {
        if let Some(Remote { process, .. }) = &self.remote {
            return Some(process.pid());
        }
        match &self.fork {
            Some(fork) => match fork.pending.outcome() {
                ForkOutcome::Forked(pid) => Some(pid),
                ForkOutcome::Pending | ForkOutcome::Refused(_) | ForkOutcome::ServerEnded => None,
            },
            None if self.failure.is_some() => None,
            None => Some(self.child.pid()),
        }
    }

    pub(in crate::worker) fn pid(&self) -> u32 {
        self.known_pid().unwrap_or(0)
    }

    /// Returns where the process ran and how it ended there, unless it was on this machine.
    pub(in crate::worker) fn elsewhere(&self) -> Option<Elsewhere> {
        self.remote
            .as_ref()
            .map(|remote| remote.process.elsewhere())
    }

    /// Returns the descriptor of a process of this machine that is not known to have ended.
    pub(in crate::worker) fn descriptor(&self) -> Option<Arc<Pidfd>> {
        self.child.descriptor()
    }

    /// Tells why there is no process, for one whose socket is closed at the other end. `None` if
    /// there is or was one.
    pub(in crate::worker) fn take_fork_failure(&mut self) -> Option<ForkFailure> {
        let Some(fork) = &self.fork else {
            return self.failure.take();
        };
        let failure = match fork.pending.outcome() {
            ForkOutcome::Forked(_) => return None,
            ForkOutcome::Refused(error) => ForkFailure::refused(error),
            // The fork server has closed the socket and has not forked, so it is ending.
            ForkOutcome::Pending | ForkOutcome::ServerEnded => ForkFailure::ServerEnded,
        };
        self.fork = None;
        Some(failure)
    }

    /// Sends SIGKILL if the process is not known to have ended; to one that is not forked yet, when
    /// it is.
    pub(in crate::worker) fn kill(&mut self) {
        if let Some(Remote { process, .. }) = &self.remote {
            return process.kill();
        }
        self.resolve_fork();
        match &mut self.fork {
            Some(fork) => fork.kill = true,
            None => self.child.kill(),
        }
    }

    /// Whether the process has been or is to be killed.
    pub(in crate::worker) fn is_killed(&self) -> bool {
        match &self.remote {
            Some(Remote { process, .. }) => process.is_killed(),
            None => self.child.is_killed() || self.fork.as_ref().is_some_and(|fork| fork.kill),
        }
    }

    /// Whether the process was killed because it had asked to be traced.
    pub(in crate::worker) fn was_trapped(&self) -> bool {
        self.child.was_trapped()
    }

    /// Returns a wait for the end of the process that does not borrow it. The fork must be known.
    pub(in crate::worker) fn watch(&mut self) -> EndWatch {
        match &self.remote {
            Some(Remote { process, .. }) => {
                let listener = process.listen(); // before the look, so that no end is missed
                match process.ended() {
                    Some(_) => self.child.watch(), // of no process, so it returns at the next tick
                    None => self.child.watch_for(listener),
                }
            }
            None => self.child.watch(),
        }
    }

    /// Opens the descriptor of a process that has been forked, if it can be had, and kills the
    /// process if that was asked for. Must be called before a worker is kept for later: until
    /// then other code of the program might reap the process, and its number might come to name
    /// another one.
    pub(in crate::worker) fn resolve_fork(&mut self) {
        let Some(fork) = &self.fork else {
            return;
        };
        let child = match fork.pending.outcome() {
            ForkOutcome::Pending => return,
            ForkOutcome::Refused(error) => {
                self.failure = Some(ForkFailure::refused(error));
                ChildProcess::none()
            }
            ForkOutcome::ServerEnded => {
                self.failure = Some(ForkFailure::ServerEnded);
                ChildProcess::none()
            }
            ForkOutcome::Forked(pid) => ChildProcess::from_pid(pid, self.kills_tree),
        };
        let kill = fork.kill;
        self.fork = None;
        self.child = child;
        if kill {
            self.child.kill();
        }
    }

    /// Reaps the process if it has ended, and returns how it ended.
    pub(in crate::worker) fn try_reap(&mut self) -> Option<Ended> {
        if let Some(Remote { process, .. }) = &self.remote {
            return process.ended();
        }
        self.resolve_fork();
        match self.fork {
            Some(_) => None,
            None => self.child.try_reap(),
        }
    }

    /// Waits until the process has ended, and reaps it.
    pub(in crate::worker) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        if let Some(Remote { process, end }) = &mut self.remote {
            return process.poll_end(cx, end);
        }
        ready!(self.poll_fork(cx));
        self.child.poll_end(cx)
    }

    /// Like [`poll_end`](Self::poll_end), for a caller whose main wake-up is the socket: a pending
    /// fork is checked only once per tick of the shared timer.
    pub(in crate::worker) fn poll_end_slowly(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        while self.fork.is_some() {
            ready!(self.child.poll_next_tick(cx));
            self.resolve_fork();
            self.give_up_if_overdue();
        }
        self.poll_end(cx)
    }

    /// Waits until the fork has happened or failed.
    pub(in crate::worker) fn poll_fork(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.resolve_fork();
            self.give_up_if_overdue();
            let Some(fork) = &mut self.fork else {
                return Poll::Ready(());
            };
            let timer = || Timer::after(FORK_POLL_INTERVAL);
            ready!(fork.next_poll.get_or_insert_with(timer).poll(cx));
            fork.next_poll = None;
        }
    }

    fn give_up_if_overdue(&self) {
        if let Some(fork) = &self.fork {
            fork.pending.give_up_if_overdue();
        }
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        if let Some(Remote { process, .. }) = &self.remote {
            return process.kill(); // its relay does the rest
        }
        self.resolve_fork();
        if let Some(mut fork) = self.fork.take() {
            fork.kill = true;
            let mut rest = Self::new(ChildProcess::none());
            rest.fork = Some(fork);
            rest.kills_tree = self.kills_tree;
            background::spawn(async move { poll_fn(|cx| rest.poll_end(cx)).await }).detach();
        }
        // A process that is known is killed and reaped by the drop of `child`.
    }
}
