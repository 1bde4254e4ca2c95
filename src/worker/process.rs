//! A worker's process as async code sees it: polled for its end through the reactor, and never left behind.
//!
//! Invariant: whoever drops a [`Process`] that has not ended leaves neither a process nor a zombie. It is killed at once,
//! and a detached task of smol's global executor waits for the moment and reaps it. Nothing waits for that task.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_io::Async;

use crate::sys::process::{Ended, Pidfd};

/// A child process that is killed and reaped when dropped.
#[derive(Debug)]
pub(super) struct Process {
    state: State,
    pid: u32,
    /// It leads a process group, whose members do not outlive it.
    leads_group: bool,
}

#[derive(Debug)]
enum State {
    /// As far as is known.
    Running(Async<Arc<Pidfd>>),
    /// It has been reaped, and this is how it ended.
    Ended(Ended),
    /// Moved to the background by `drop`.
    Given,
}

impl Process {
    pub(super) fn new(pidfd: Pidfd) -> io::Result<Self> {
        let pid = pidfd.pid();
        let state = State::Running(register(pidfd)?);
        Ok(Self {
            state,
            pid,
            leads_group: false,
        })
    }

    /// Lets the process's group end with it: killed when it is, or before it is reaped.
    pub(super) fn kill_its_group_too(&mut self) {
        self.leads_group = true;
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends SIGKILL if the process is not known to have ended.
    pub(super) fn kill(&self) {
        let State::Running(pidfd) = &self.state else {
            return;
        };
        if self.leads_group {
            pidfd.get_ref().kill_group();
        }
        if let Err(error) = pidfd.get_ref().kill() {
            // Whoever kills is cleaning up, often in a `drop`, where a panic would only lose more.
            tracing::warn!(pid = self.pid, %error, "a worker cannot be killed");
        }
    }

    /// Looks whether the process has ended, and reaps it then.
    pub(super) fn has_ended(&mut self) -> Option<Ended> {
        match &self.state {
            State::Running(pidfd) => {
                let ended = reap(pidfd.get_ref(), self.leads_group)?;
                self.state = State::Ended(ended);
                Some(ended)
            }
            State::Ended(ended) => Some(*ended),
            State::Given => None,
        }
    }

    /// Waits until the process has ended, and reaps it. Asks the kernel at each poll, because the reactor's *no* cannot be
    /// believed; see `connection`.
    pub(super) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        loop {
            let State::Running(pidfd) = &self.state else {
                return self.has_ended().map_or(Poll::Pending, Poll::Ready);
            };
            let readable = pidfd.poll_readable(cx); // before looking, so that no end goes unseen
            if let Some(ended) = self.has_ended() {
                return Poll::Ready(ended);
            }
            // An error of the reactor's cannot be waited for any longer; asking the kernel remains.
            if let Err(error) = ready!(readable) {
                tracing::warn!(%error, "a worker's process descriptor cannot be polled; killing the worker");
                self.kill();
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.has_ended().is_some() {
            return;
        }
        self.kill();
        if let State::Running(pidfd) = std::mem::replace(&mut self.state, State::Given) {
            let mut rest = Process {
                state: State::Running(pidfd),
                pid: self.pid,
                leads_group: self.leads_group,
            };
            smol::spawn(async move { futures_lite::future::poll_fn(|cx| rest.poll_end(cx)).await })
                .detach();
        }
    }
}

/// Registers a pidfd with the reactor. If that fails the process is killed and reaped here, which blocks shortly.
fn register(pidfd: Pidfd) -> io::Result<Async<Arc<Pidfd>>> {
    // Shared, because a handle that cannot be registered would be dropped with the process still running.
    let pidfd = Arc::new(pidfd);
    Async::new_nonblocking(pidfd.clone()).inspect_err(|_| pidfd.kill_and_reap())
}

fn reap(pidfd: &Pidfd, leads_group: bool) -> Option<Ended> {
    if leads_group && pidfd.has_ended() {
        // While it is not reaped, its number is that of no other group.
        pidfd.kill_group();
    }
    // Our own child, asked once after its end, gives no error unless something else in this program waits for all
    // children (`waitpid(-1)`, or SIGCHLD ignored) and has got there first.
    pidfd.try_reap().unwrap_or(Some(Ended::Unknown))
}
