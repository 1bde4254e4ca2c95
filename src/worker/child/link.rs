//! The worker's end of the conversation: frames in and out, by the socket or by a mailbox, and the end.
//!
//! A worker has one thread, which blocks on the socket. (While it has memory of its parent's mapped, it wakes up once
//! to let go of that.) With a mailbox it looks there first for some microseconds after each job, as the next one often
//! comes soon; how often that was in vain decides how often it does so.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, fcntl_getfd};
use rustix::net::{RecvFlags, Shutdown, shutdown};
use rustix::thread::sched_getcpu;

use super::FAILED;
use super::limits::Group;
use crate::sys::arena::{LINGER, Views};
use crate::sys::mapping::Mapping;
use crate::sys::original::Original;
use crate::sys::socket;
use crate::transport::frame;
use crate::transport::frame::{Frame, Inbox, Kind, Parcel};
use crate::transport::mailbox::Mailbox;
use crate::transport::mailbox::backoff::{Patience, look_for};
use crate::transport::receive::receive;

/// How long to look for the next job before going to sleep. Waking up takes about as long.
const LOOK: Duration = Duration::from_micros(50);

/// How long a parent that is awake may take to see its answer, where the worker has other things to do after a job.
pub(super) const GLANCE: Duration = Duration::from_micros(5);

/// At least one look of so many is taken, however often they were in vain.
const EVERY: u32 = 64;

/// Somebody who sends a job after so short a sleep might as well have been waited for: most of that was waking up.
const SOON: Duration = Duration::from_micros(120);

/// The worker's end of the conversation.
pub(super) struct Link {
    socket: OwnedFd,
    inbox: Inbox,
    mailbox: Option<Mapping<Mailbox>>,
    patience: Patience,
    /// Told from what a job forks. Where there was no memory for that, by its number.
    original: Result<Original, u32>,
    /// The number of the job that was answered last.
    answered: u16,
    /// The next job lies in the socket already.
    followed: bool,
    /// The memory of large arguments.
    pub(super) views: Views,
    /// How long the kernel waits for what comes through the socket; `None` for ever.
    pub(super) idle_timeout: Option<Duration>,
    /// What the worker leads, to be ended with it.
    group: Option<Group>,
}

impl Link {
    pub(super) fn new(socket: OwnedFd, views: Views) -> Self {
        Link {
            socket,
            inbox: Inbox::default(),
            mailbox: None,
            patience: Patience::new(),
            original: Original::new().map_err(|_| std::process::id()),
            answered: 0,
            followed: false,
            views,
            idle_timeout: None,
            group: None,
        }
    }

    /// Takes what is to be ended with the worker.
    pub(super) fn lead(&mut self, group: Option<Group>) {
        self.group = group;
    }

    pub(super) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// Makes this, in a copy of the process that it was made in, the copy's own: over a socket that `arrange` puts in
    /// place of the other one, and with a buffer.
    pub(super) fn pass_on<E>(
        mut self,
        arrange: impl FnOnce(&mut OwnedFd) -> Result<(), E>,
        buffer: Vec<u8>,
    ) -> (Self, Result<(), E>) {
        let arranged = arrange(&mut self.socket);
        let mut link = Self {
            socket: self.socket,
            inbox: Inbox::default(),
            mailbox: None,
            patience: Patience::new(),
            original: self
                .original
                .inspect(Original::pass_on)
                .map_err(|_| std::process::id()),
            answered: 0,
            followed: false,
            views: self.views,
            idle_timeout: None,
            group: None,
        };
        link.recycle(buffer);
        (link, arranged)
    }

    /// Whether this process is the worker, and no copy that a job has made.
    pub(super) fn is_the_original(&self) -> bool {
        match &self.original {
            Ok(original) => original.is_here(),
            Err(number) => *number == std::process::id(),
        }
    }

    /// Whether nothing has arrived of the next frame.
    pub(super) fn is_between(&self) -> bool {
        self.inbox.is_empty()
    }

    pub(super) fn recycle(&mut self, buffer: Vec<u8>) {
        self.inbox.recycle(buffer);
    }

    /// Takes the mailbox that the parent offers. Without it, the socket will do.
    pub(super) fn share(&mut self, mut frame: Frame) {
        self.mailbox = frame
            .fds
            .pop()
            .and_then(|memory| Mapping::find(memory).ok());
        self.followed = true;
    }

    /// Receives a frame. Gives up with `WouldBlock` when idle for too long, only if nothing has arrived of it.
    pub(super) fn receive(&mut self) -> io::Result<Frame> {
        let followed = std::mem::take(&mut self.followed);
        if !followed
            && self.is_between()
            && let Some(frame) = self.look()
        {
            return Ok(frame);
        }
        let asleep = self.mailbox.as_ref().map(|_| Instant::now());
        self.see_to_the_views()?;
        loop {
            if let Some(frame) = self.inbox.take().map_err(io::Error::other)? {
                if asleep.is_some_and(|since| since.elapsed() < SOON) {
                    self.patience.might_have_been();
                }
                return Ok(frame);
            }
            let between_frames = self.inbox.is_empty();
            match receive(&self.socket, &mut self.inbox, RecvFlags::empty()) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock if !between_frames => {}
                    _ => return Err(error),
                },
            }
        }
    }

    /// Lets go of memory that was not used for a while. Waits for that long if there is some, and nobody else does:
    /// without any, a worker sleeps until it is spoken to.
    fn see_to_the_views(&mut self) -> io::Result<()> {
        self.views.let_old_ones_go();
        let is_longer = |timeout| timeout > LINGER;
        if self.views.is_empty() || !self.is_between() || !self.idle_timeout.is_none_or(is_longer) {
            return Ok(());
        }
        if self.is_readable_within(Some(LINGER)) {
            return Ok(());
        }
        self.views.let_go();
        // The rest of the time that it may be idle.
        let rest = self.idle_timeout.map(|timeout| timeout - LINGER);
        match self.is_readable_within(rest) {
            true => Ok(()),
            false => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Waits until something can be received, or until that is certain to be an error.
    fn is_readable_within(&self, limit: Option<Duration>) -> bool {
        let since = Instant::now();
        loop {
            let left = limit.map(|limit| limit.saturating_sub(since.elapsed()));
            // What is too long for the kernel (ages) may as well be for ever.
            let left = left.and_then(|left| left.try_into().ok());
            let mut socket = [PollFd::new(&self.socket, PollFlags::IN)];
            match poll(&mut socket, left.as_ref()) {
                Ok(0) => return false,
                Ok(_) => return true,
                Err(Errno::INTR) => {}
                Err(_) => return true,
            }
        }
    }

    /// Looks for a job in the mailbox for a while. `None` means that the next one comes through the socket.
    fn look(&mut self) -> Option<Frame> {
        let mailbox = self.mailbox.as_ref()?;
        if self.patience.is_there() {
            let here = sched_getcpu();
            mailbox.job.watch(here);
            if fcntl_getfd(&self.socket).is_err() {
                // A job has closed it. One that comes now must not pay for that.
                self.leave(FAILED);
            }
            let together = mailbox.answer.is_watched_from(here);
            match look_for(LOOK, together, || !mailbox.job.is_quiet()) {
                true => self.patience.was_rewarded(),
                false => self.patience.was_in_vain(EVERY),
            }
            if !mailbox.job.leave() {
                let job = mailbox.job.take().map(|job| job.map(Frame::of_whole));
                match job {
                    Ok(Some(Ok(frame))) => return Some(frame),
                    // What was written there is nobody's frame, or was one until a thread that a job left behind wrote
                    // there.
                    _ => self.leave(FAILED),
                }
            }
        }
        self.see_to_the_answer(Duration::ZERO);
        None
    }

    /// Waits for so long, and if the answer was not taken from the mailbox by then, says through the socket that it is
    /// there: whoever waits for it does not look.
    pub(super) fn see_to_the_answer(&self, limit: Duration) {
        if let Some(Mailbox { answer, .. }) = self.mailbox.as_deref()
            && answer.is_full()
        {
            let together = answer.is_watched_from(sched_getcpu());
            if !look_for(limit, together, || !answer.is_full()) {
                self.send(&frame::of_bytes(Kind::Look, 0, b""));
            }
        }
    }

    pub(super) fn receive_at_leisure(&mut self) -> Frame {
        self.receive().unwrap_or_else(|_| self.leave(FAILED))
    }

    /// Sends a frame. If the parent cannot be reached, this process has no more purpose.
    pub(super) fn send(&self, frame: &[u8]) {
        if socket::send_all(&self.socket, frame).is_err() {
            self.leave(FAILED);
        }
    }

    /// Sends the answer to the job with this number: to the mailbox, if the parent looks there and nothing goes beside
    /// it.
    pub(super) fn send_answer(&mut self, mut answer: Parcel, job: u16) {
        answer.mark(job);
        self.answered = job;
        let Some(mailbox) = &self.mailbox else {
            return self.send_parcel(&answer);
        };
        if !answer.fds().is_empty() || !mailbox.answer.post(answer.bytes()) {
            self.send_parcel(&answer);
            mailbox.answer.call();
        }
    }

    /// Sends a frame and what goes beside it.
    fn send_parcel(&self, parcel: &Parcel) {
        if parcel.fds().is_empty() {
            return self.send(parcel.bytes());
        }
        let fds: Vec<BorrowedFd<'_>> = parcel.fds().iter().map(AsFd::as_fd).collect();
        match socket::send_first(&self.socket, parcel.bytes(), &fds) {
            Ok(sent) => self.send(&parcel.bytes()[sent..]),
            // Nothing has been sent, so there can be another answer. The job may have closed descriptors that were not
            // its own; or too many are on their way.
            Err(error) => {
                let words = format!("its shared memory cannot be sent: {error}");
                let mut answer =
                    frame::of_bytes(Kind::BadResult, parcel.number(), words.as_bytes());
                frame::mark(&mut answer, self.answered);
                self.send(&answer);
            }
        }
    }

    /// Closes the receiving end, so that no further job can come, and only then says so.
    pub(super) fn say_bye(&self, mut bye: Vec<u8>, code: i32) -> ! {
        if shutdown(&self.socket, Shutdown::Read).is_err() {
            self.leave(FAILED); // nothing is known about jobs then, so nothing may be said
        }
        frame::mark(&mut bye, self.answered);
        self.send(&bye);
        self.leave(code)
    }

    pub(super) fn leave_with_words(&self, words: &str) -> ! {
        self.send(&frame::of_bytes(Kind::CannotServe, 0, words.as_bytes()));
        self.leave(FAILED)
    }

    pub(super) fn leave(&self, code: i32) -> ! {
        self.group.as_ref().inspect(|group| group.end());
        std::process::exit(code)
    }
}
