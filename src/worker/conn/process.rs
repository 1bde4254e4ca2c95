//! A worker's process as async code sees it: polled for its end through the reactor, and never left behind.
//!
//! A process that a fork server was asked for is known by the place in which its number will appear. Most need not be
//! known any better before they have answered; so its descriptor is opened when it is needed, to kill the process or to
//! see its end, and registered with the reactor when somebody has to wait for that; at the latest when its worker has
//! done its first job, and is kept for the next. A number is a safe name until then, as nobody else in this library
//! waits for the process. (Another part of the program may, if it waits for all children; then the kernel mostly says
//! that there is no such child. That a first job lasts until its number has been given to another child meanwhile is a
//! risk that such a program has with all its children.)
//!
//! Where there is no room for the descriptor, the end is seen by the number all the same; only to kill the process has
//! to wait for room. Where the reactor does not take the descriptor, somebody looks from time to time. Neither is the
//! worker's fault, or its job's.
//!
//! Invariant: whoever drops a [`Process`] that has not ended leaves neither a process nor a zombie. It is killed at
//! once, or as soon as it is born, and a detached task waits for the moment and reaps it. Nothing waits for that task.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_io::{Async, Timer};
use event_listener::EventListener;
use futures_lite::FutureExt;

use super::tick::next_round;
use crate::sys::process::{Ended, Number, Pidfd};
use crate::worker::background;
use crate::worker::spawn::fork_server::ForkServer;
use crate::worker::spawn::pids::{Awaited, Fate};

/// How long to wait for a birth where somebody waits for the end: until a fork is over, generously.
const SOON: Duration = Duration::from_millis(1);

/// A child process that is killed and reaped when dropped.
#[derive(Debug)]
pub(in crate::worker) struct Process {
    state: State,
    /// 0 if that is not known.
    pid: u32,
    /// To be killed as soon as it is born.
    doomed: bool,
    /// Why there is none, and was none.
    stillborn: Option<Stillborn>,
    /// It leads a process group, whose members do not outlive it.
    leads_group: bool,
    /// When to look again, if nothing else would tell.
    next_round: Option<EventListener>,
}

#[derive(Debug)]
enum State {
    Unborn(Unborn),
    /// As far as is known.
    Running(Arc<Pidfd>, Option<Async<Arc<Pidfd>>>),
    /// It has been reaped, and this is how it ended.
    Ended(Ended),
    /// Moved to the background by `drop`.
    Given,
}

/// A fork server was asked for it.
#[derive(Debug)]
struct Unborn {
    place: Awaited,
    /// Who was asked.
    fork_server: ForkServer,
    server: u64,
    soon: Option<Timer>,
}

/// Why there is no process.
#[derive(Debug)]
pub(in crate::worker) enum Stillborn {
    /// The fork server died with the request.
    Again,
    Refused(io::Error),
}

impl Stillborn {
    fn refused(error: i32) -> Self {
        Self::Refused(io::Error::from_raw_os_error(error))
    }
}

impl Process {
    pub(in crate::worker) fn new(pidfd: Pidfd) -> Self {
        let pid = pidfd.pid();
        Self::in_state(State::Running(Arc::new(pidfd), None), pid)
    }

    /// One that the fork server with this number was asked for.
    pub(in crate::worker) fn unborn(place: Awaited, fork_server: ForkServer, server: u64) -> Self {
        let unborn = Unborn {
            place,
            fork_server,
            server,
            soon: None,
        };
        Self::in_state(State::Unborn(unborn), 0)
    }

    fn in_state(state: State, pid: u32) -> Self {
        Self {
            state,
            pid,
            doomed: false,
            stillborn: None,
            leads_group: false,
            next_round: None,
        }
    }

    /// Lets the process's group end with it: killed when it is, or before it is reaped.
    pub(in crate::worker) fn kill_its_group_too(&mut self) {
        self.leads_group = true;
    }

    pub(in crate::worker) fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it is known that there is or was a process.
    pub(in crate::worker) fn is_born(&self) -> bool {
        match &self.state {
            State::Unborn(unborn) => matches!(unborn.place.fate(), Fate::Born(_)),
            State::Running(..) | State::Ended(_) | State::Given => self.stillborn.is_none(),
        }
    }

    /// The process id as far as it is known, be there a descriptor or not.
    pub(in crate::worker) fn number(&mut self) -> u32 {
        if let State::Unborn(unborn) = &self.state
            && let Fate::Born(number) = unborn.place.fate()
        {
            self.pid = number;
        }
        self.pid
    }

    /// Opens the descriptor of a process that has been born. If there is no room for one, a later look does it.
    pub(in crate::worker) fn settle(&mut self) {
        self.look();
    }

    /// The descriptor of a process that is not known to have ended.
    pub(in crate::worker) fn descriptor(&self) -> Option<Arc<Pidfd>> {
        match &self.state {
            State::Running(pidfd, _) => Some(pidfd.clone()),
            State::Unborn(_) | State::Ended(_) | State::Given => None,
        }
    }

    /// Tells why there is no process, where the other end of its socket is closed: it was not born, or is not any more.
    pub(in crate::worker) fn stillborn(&mut self) -> Option<Stillborn> {
        if let State::Unborn(unborn) = &self.state {
            let why = match unborn.place.fate() {
                Fate::Born(_) => return None,
                Fate::Refused(error) => Stillborn::refused(error),
                // The fork server has closed the socket and has not forked, so it is ending.
                Fate::Open | Fate::Never => Stillborn::Again,
            };
            self.state = State::Ended(Ended::Unknown);
            return Some(why);
        }
        self.stillborn.take()
    }

    /// Sends SIGKILL if the process is not known to have ended.
    pub(in crate::worker) fn kill(&mut self) {
        self.doomed = !self.look();
        let State::Running(pidfd, _) = &self.state else {
            return;
        };
        if self.leads_group {
            pidfd.kill_group();
        }
        if let Err(error) = pidfd.kill() {
            // Whoever kills is cleaning up, often in a `drop`, where a panic would only lose more.
            tracing::warn!(pid = self.pid, %error, "a worker cannot be killed");
        }
    }

    /// Looks whether the process has been born by now, and tells whether that is known.
    fn look(&mut self) -> bool {
        let State::Unborn(unborn) = &self.state else {
            return true;
        };
        self.state = match unborn.place.fate() {
            Fate::Open => return false,
            Fate::Refused(error) => {
                self.stillborn = Some(Stillborn::refused(error));
                State::Ended(Ended::Unknown)
            }
            Fate::Never => {
                self.stillborn = Some(Stillborn::Again);
                State::Ended(Ended::Unknown)
            }
            Fate::Born(number) => {
                self.pid = number;
                match of_number(number, self.leads_group) {
                    Some(state) => state,
                    None => return false, // at this moment
                }
            }
        };
        true
    }

    /// Looks whether the process has ended, and reaps it then.
    pub(in crate::worker) fn has_ended(&mut self) -> Option<Ended> {
        self.look();
        match &self.state {
            State::Running(pidfd, _) => {
                let ended = known(pidfd.try_reap(self.leads_group))?;
                self.state = State::Ended(ended);
                Some(ended)
            }
            State::Ended(ended) => Some(*ended),
            State::Unborn(_) | State::Given => None,
        }
    }

    /// Waits until the process has ended, and reaps it. Asks the kernel at each poll, because the reactor's *no* cannot
    /// be believed; see `connection`.
    pub(in crate::worker) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        ready!(self.poll_birth(cx));
        loop {
            let State::Running(pidfd, registered) = &mut self.state else {
                return self.has_ended().map_or(Poll::Pending, Poll::Ready);
            };
            let readable = match register(pidfd, registered) {
                Ok(registered) => registered.poll_readable(cx), // before looking, so that no end goes unseen
                Err(error) => Poll::Ready(Err(error)),
            };
            if let Some(ended) = self.has_ended() {
                return Poll::Ready(ended);
            }
            // The reactor may have no memory for one more, or may watch no more. Asking the kernel remains, and a new
            // registration: one that has failed once does not say so again.
            if ready!(readable).is_err() {
                if let State::Running(_, registered) = &mut self.state {
                    *registered = None;
                }
                ready!(self.poll_next_round(cx));
            }
        }
    }

    fn poll_next_round(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(Pin::new(self.next_round.get_or_insert_with(next_round)).poll(cx));
        self.next_round = None;
        Poll::Ready(())
    }

    /// The same for somebody who waits for something else, and would see most ends by that: the end of a process that
    /// was just asked for is waited for only from the next round on.
    pub(in crate::worker) fn poll_end_in_passing(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        while let State::Unborn(_) = &self.state {
            ready!(self.poll_next_round(cx));
            if !self.look() {
                self.lose_patience();
            }
        }
        self.poll_end(cx)
    }

    /// Waits until the process is born, or will not be.
    fn poll_birth(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.look() {
            self.lose_patience();
            if let State::Unborn(unborn) = &mut self.state {
                let soon = unborn.soon.get_or_insert_with(|| Timer::after(SOON));
                ready!(soon.poll(cx));
                unborn.soon = None;
            }
        }
        if std::mem::take(&mut self.doomed) {
            self.kill();
        }
        Poll::Ready(())
    }

    /// Kills a fork server that was asked long ago and does nothing, be it still its context's or on its way out.
    fn lose_patience(&self) {
        if let State::Unborn(unborn) = &self.state
            && unborn.place.overdue_for() > unborn.fork_server.patience()
        {
            unborn.place.kill_server();
            unborn.fork_server.give_up(unborn.server);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.has_ended().is_some() {
            return;
        }
        self.kill();
        match std::mem::replace(&mut self.state, State::Given) {
            state @ (State::Running(..) | State::Unborn(_)) => {
                let mut rest = Process::in_state(state, self.pid);
                rest.doomed = true;
                rest.leads_group = self.leads_group;
                background::spawn(async move {
                    futures_lite::future::poll_fn(|cx| rest.poll_end(cx)).await
                })
                .detach();
            }
            State::Ended(_) | State::Given => {}
        }
    }
}

/// What is known of the child with this number. `None` if it has not ended, and its descriptor cannot be had at this
/// moment.
fn of_number(number: u32, leads_group: bool) -> Option<State> {
    let Some(number) = Number::new(number) else {
        return Some(State::Ended(Ended::Unknown)); // which the kernel gives to no process
    };
    match number.open() {
        // If it is no child of ours, then somebody else has reaped the one that had this number.
        Ok(pidfd) => Some(match known(pidfd.try_reap(leads_group)) {
            None => State::Running(Arc::new(pidfd), None),
            Some(ended) => State::Ended(ended),
        }),
        Err(_) => known(number.try_reap(leads_group)).map(State::Ended),
    }
}

/// Registers a process's descriptor with the reactor, once.
fn register<'a>(
    pidfd: &Arc<Pidfd>,
    registered: &'a mut Option<Async<Arc<Pidfd>>>,
) -> io::Result<&'a Async<Arc<Pidfd>>> {
    match registered {
        Some(registered) => Ok(registered),
        None => Ok(registered.insert(Async::new_nonblocking(pidfd.clone())?)),
    }
}

/// How a child has ended that was looked for. Our own, asked for once after its end, gives no error unless something
/// else in this program waits for all children (`waitpid(-1)`, or SIGCHLD ignored) and has got there first.
fn known(reaped: io::Result<Option<Ended>>) -> Option<Ended> {
    reaped.unwrap_or(Some(Ended::Unknown))
}
