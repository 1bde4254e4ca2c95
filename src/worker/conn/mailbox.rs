//! The parent's use of a worker's mailbox: when a frame goes there, and how long to look for the answer.
//!
//! A worker gets its mailbox with its second job, as many never have one. From then on a job goes there if the worker
//! is still awake after the job before. Then the parent looks for the answer, in three ways, one after the other:
//!
//! * at once, in the same poll, for some microseconds: a job that takes less than that is worth no wait;
//! * at the end of a turn of the run's loop, if there is one: see [`lookout`];
//! * through the reactor.
//!
//! So that a task which makes one quick call after the other lets others have a turn, each [`TURN`]th of them waits
//! once, when its worker is free again.

use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use futures_lite::future::yield_now;
use rustix::thread::sched_getcpu;

use super::spin_poller;
use super::spin_poller::Watched;
use crate::cancel::shield;
use crate::sys::mapping::Mapping;
use crate::transport::frame;
use crate::transport::frame::{Frame, Garbage, Kind, Parcel};
use crate::transport::mailbox::Mailbox;
use crate::transport::mailbox::backoff::{Patience, look_for};

/// Off for the tests of the socket alone, which has to do where there is no memory, too.
const USED: bool = cfg!(not(seedbed_socket_only));

/// How long a poll looks for an answer. A job that takes longer is worth a wait.
const AT_ONCE: Duration = Duration::from_micros(4);

/// At least one job of so many is looked for at once, however often that was in vain.
const EVERY: u32 = 16;

/// How many calls in a row may end without a wait, on one thread.
const TURN: u32 = 32;

thread_local! {
    static WITHOUT_A_WAIT: Cell<u32> = const { Cell::new(0) };
}

/// The parent's end of a mailbox, if there is one yet.
#[derive(Debug)]
pub(in crate::worker) struct Post {
    state: State,
    patience: Patience,
    /// A job was posted, and its answer is to be looked for at once.
    expecting: bool,
}

#[derive(Debug)]
enum State {
    /// No job yet.
    New,
    /// The next job brings a mailbox along.
    Used,
    There(Arc<Watched>),
    /// There will be none.
    None,
}

impl Post {
    pub(in crate::worker) fn new() -> Self {
        Post {
            state: State::New,
            patience: Patience::new(),
            expecting: false,
        }
    }

    /// What goes before the next job: the memory of a mailbox, once.
    pub(in crate::worker) fn introduction(&mut self) -> Option<Parcel> {
        match self.state {
            State::New => {
                self.state = State::Used;
                None
            }
            State::Used => {
                let (state, parcel) = match make() {
                    Ok((mailbox, memory)) => (State::There(Watched::new(mailbox)), Some(memory)),
                    // The socket will do.
                    Err(_) => (State::None, None),
                };
                self.state = state;
                parcel
            }
            State::There(_) | State::None => None,
        }
    }

    /// Does without a mailbox, because its memory could not be sent.
    pub(in crate::worker) fn give_up(&mut self) {
        self.state = State::None;
    }

    fn mailbox(&self) -> Option<&Mailbox> {
        match &self.state {
            State::There(watched) => Some(&watched.mailbox),
            State::New | State::Used | State::None => None,
        }
    }

    /// Whether the worker looked for a job when it was last heard of.
    pub(in crate::worker) fn is_awake(&self) -> bool {
        self.mailbox()
            .is_some_and(|mailbox| mailbox.job.has_receiver())
    }

    /// Puts a job into the mailbox, if its worker is awake.
    pub(in crate::worker) fn put(&mut self, job: &Parcel) -> bool {
        let Some(mailbox) = self.mailbox() else {
            return false;
        };
        if !job.fds().is_empty() || !mailbox.job.has_receiver() {
            return false;
        }
        // Before the job is there, so that its answer may come here.
        mailbox.answer.watch(sched_getcpu());
        let posted = mailbox.job.post(job.bytes());
        self.expecting = posted && self.patience.is_there();
        posted
    }

    /// Tells a worker that is awake that a frame went through the socket.
    pub(in crate::worker) fn call(&self) {
        if let Some(mailbox) = self.mailbox() {
            mailbox.job.call();
        }
    }

    /// Whether the job that was put lies in the mailbox still, untouched.
    pub(in crate::worker) fn is_full(&self) -> bool {
        self.mailbox().is_some_and(|mailbox| mailbox.job.is_full())
    }

    /// Takes the answer that is in the mailbox.
    pub(in crate::worker) fn take(&self) -> Result<Option<Frame>, Garbage> {
        let Some(mailbox) = self.mailbox() else {
            return Ok(None);
        };
        mailbox.answer.take()?.map(Frame::of_whole).transpose()
    }

    /// Looks for the answer at once, if that has been of use before.
    pub(in crate::worker) fn look_at_once(&mut self) {
        if !std::mem::take(&mut self.expecting) {
            return;
        }
        let Some(mailbox) = self.mailbox() else {
            return;
        };
        let together = mailbox.job.is_watched_from(sched_getcpu());
        match look_for(AT_ONCE, together, || !mailbox.answer.is_quiet()) {
            true => {
                self.patience.was_rewarded();
                let _ = WITHOUT_A_WAIT.try_with(|calls| calls.set(calls.get() + 1));
            }
            false => self.patience.was_in_vain(EVERY),
        }
    }

    /// Has the answer come here, if a loop will look.
    pub(in crate::worker) fn watch(&self) {
        if let Some(mailbox) = self.mailbox()
            && spin_poller::is_open()
        {
            mailbox.answer.watch(sched_getcpu());
        }
    }

    /// Has the run's loop look, or takes leave. False if an answer has come before.
    pub(in crate::worker) fn wait(&self, caller: &Waker) -> bool {
        let State::There(watched) = &self.state else {
            return true;
        };
        let answer = &watched.mailbox.answer;
        (answer.is_quiet() && spin_poller::add(watched, caller)) || answer.leave()
    }
}

/// Lets nobody look any longer for a worker that is gone.
impl Drop for Post {
    fn drop(&mut self) {
        if let Some(mailbox) = self.mailbox() {
            mailbox.answer.leave();
        }
    }
}

fn make() -> io::Result<(Mapping<Mailbox>, Parcel)> {
    if !USED {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let (mailbox, memory): (_, OwnedFd) = Mapping::make("seedbed-mailbox")?;
    let frame = frame::of_bytes(Kind::Mailbox, 0, b"");
    Ok((mailbox, Parcel::new(frame, vec![Arc::new(memory)])))
}

/// Lets others have a turn if this thread has made many calls without a wait. The worker is free by now for theirs.
pub(in crate::worker) async fn end_of_turn() {
    let is_over = |calls: &Cell<u32>| {
        let over = calls.get() >= TURN;
        if over {
            calls.set(0);
        }
        over
    };
    if WITHOUT_A_WAIT.try_with(is_over).unwrap_or(false) {
        // The job is done, and nobody may take its result away.
        shield(yield_now()).await;
    }
}
