//! The parent's end of a worker's socket, in poll form.
//!
//! Everything that is half-done lives in the [`Connection`], nothing in a future: how much of a frame has been sent, and
//! what has arrived of the next. So whoever polls may be dropped at any point, and another may go on.
//!
//! Small frames may go through a mailbox instead, which [`post`](super::mailbox) decides; what is said here is about the
//! socket.
//!
//! The usual call costs one `send`, one wait and one `recv`. A `recv` is tried before the first wait: where parent and
//! worker share a core, the worker has often answered by the time that `send` returns, and the wait, which costs the
//! reactor half a dozen system calls, is saved; where they do not, the try in vain costs little beside the waking of a core.
//!
//! Each poll tries the descriptor itself and believes the reactor's *no* never. The reactor wakes a task for an event, but
//! then denies it if the event came in the turn in which the task had asked; a task that asks late enough each time, because
//! its thread is busy between two polls, is woken and denied for ever.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};

use async_io::Async;
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, send, shutdown};
use rustix::pipe::fcntl_getpipe_size;

use super::mailbox::Post;
use crate::sys::socket::{send_message, try_send_with_fds};
use crate::transport::frame::{Frame, Inbox, Kind, Parcel};
use crate::transport::receive::receive;

/// How many bytes of a worker's standard error are kept.
const TAIL: usize = 4 * 1024;

/// How many bytes of it are read before others have a turn: of a worker that prints without end there may always be more.
const TURN: usize = 256 * 1024;

/// The parent's end of a worker's socket.
#[derive(Debug)]
pub(in crate::worker) struct Connection {
    socket: Async<OwnedFd>,
    outgoing: Parcel,
    /// How much of `outgoing` has been sent.
    sent: usize,
    /// To be sent before `outgoing`.
    introduction: Option<Parcel>,
    post: Post,
    inbox: Inbox,
}

/// Why no frame will come.
#[derive(Debug)]
pub(in crate::worker) enum NoFrame {
    /// The worker has closed its end, by exiting for instance.
    Closed,
    /// What came is no frame.
    Garbage,
    /// The socket does not work.
    Failed(io::Error),
}

impl Connection {
    pub(in crate::worker) fn new(socket: Async<OwnedFd>) -> Self {
        Self {
            socket,
            outgoing: Parcel::default(),
            sent: 0,
            introduction: None,
            post: Post::new(),
            inbox: Inbox::default(),
        }
    }

    pub(in crate::worker) fn socket(&self) -> &Async<OwnedFd> {
        &self.socket
    }

    /// Sets what is to be sent next; the frame before has gone.
    pub(in crate::worker) fn put(&mut self, frame: Parcel) {
        self.outgoing = frame;
        self.sent = 0;
    }

    /// The same, for a job.
    pub(in crate::worker) fn put_job(&mut self, mut job: Parcel) {
        job.hand_over();
        self.introduction = self.post.introduction();
        self.put(job);
    }

    /// Whether the worker looked for a job when it was last heard of.
    pub(in crate::worker) fn is_awake(&self) -> bool {
        self.post.is_awake()
    }

    /// Gives back the frame that was put last, sent or not.
    pub(in crate::worker) fn take_back(&mut self) -> Parcel {
        self.sent = 0;
        std::mem::take(&mut self.outgoing)
    }

    /// Tells whether a worker that has ended had got the whole of the frame that was put last.
    pub(in crate::worker) fn had_it_all(&self) -> bool {
        self.unsent() == 0 && !self.post.is_full()
    }

    fn unsent(&self) -> usize {
        self.outgoing.bytes().len() - self.sent
    }

    /// Sends the rest of what was put.
    pub(in crate::worker) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unsent() == 0 {
            return Poll::Ready(Ok(()));
        }
        if self.sent == 0 && self.post.put(&self.outgoing) {
            self.sent = self.outgoing.bytes().len();
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_introduce(cx))?;
        while self.unsent() > 0 {
            match self.send_some() {
                Ok(sent) => {
                    self.sent += sent;
                    self.post.call();
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => ready!(self.socket.poll_writable(cx))?,
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Sends what goes before the frame.
    fn poll_introduce(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(parcel) = &self.introduction {
            let fds: Vec<BorrowedFd<'_>> = parcel.fds().iter().map(AsFd::as_fd).collect();
            match try_send_with_fds(&self.socket, parcel.bytes(), &fds) {
                Ok(()) => self.introduction = None,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    ready!(self.socket.poll_writable(cx))?;
                }
                // What is wrong with the socket, the frame will meet as well.
                Err(_) => {
                    self.post.give_up();
                    self.introduction = None;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn send_some(&self) -> rustix::io::Result<usize> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        match self.outgoing.fds() {
            fds if self.sent == 0 && !fds.is_empty() => {
                let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
                send_message(&self.socket, self.outgoing.bytes(), &fds, flags)
            }
            _ => send(&self.socket, &self.outgoing.bytes()[self.sent..], flags),
        }
    }

    /// Receives the next frame.
    pub(in crate::worker) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Frame, NoFrame>> {
        self.post.look_at_once();
        self.post.watch();
        loop {
            if let Some(received) = self.receive_now().transpose() {
                return Poll::Ready(received);
            }
            if !self.post.wait(cx.waker()) {
                continue;
            }
            ready!(self.socket.poll_readable(cx)).map_err(NoFrame::Failed)?;
        }
    }

    /// Receives what has arrived; `None` if that is not a whole frame yet.
    pub(in crate::worker) fn receive_now(&mut self) -> Result<Option<Frame>, NoFrame> {
        loop {
            // Before what came through the socket, as it was there before that.
            if let Some(frame) = self.post.take().map_err(|_| NoFrame::Garbage)? {
                return Ok(Some(frame));
            }
            match self.inbox.take().map_err(|_| NoFrame::Garbage)? {
                Some(frame) if frame.header.kind == Kind::Look => continue,
                Some(frame) => return Ok(Some(frame)),
                None => {}
            }
            match receive(&self.socket, &mut self.inbox, RecvFlags::DONTWAIT) {
                Ok(0) => return self.last_word(),
                Ok(_) => {}
                Err(error) => match error.kind() {
                    // A peer that ended with unread bytes resets the connection; its own last frames have come before.
                    ErrorKind::ConnectionReset => return self.last_word(),
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock => return Ok(None),
                    _ => return Err(NoFrame::Failed(error)),
                },
            }
        }
    }

    /// What lies in the mailbox of a worker that has closed its socket, perhaps since the mailbox was looked at.
    fn last_word(&self) -> Result<Option<Frame>, NoFrame> {
        match self.post.take() {
            Ok(Some(frame)) => Ok(Some(frame)),
            Ok(None) => Err(NoFrame::Closed),
            Err(_) => Err(NoFrame::Garbage),
        }
    }

    /// Ends the conversation in both directions.
    pub(in crate::worker) fn hang_up(&self) {
        // An error means that there is no other end any more.
        let _ = shutdown(&self.socket, Shutdown::Both);
    }

    /// Lets the next frame arrive in a buffer that served before.
    pub(in crate::worker) fn recycle(&mut self, frame: Frame) {
        self.inbox.recycle(frame.into_buffer());
    }

    /// Tells the worker that there will be no more jobs.
    pub(in crate::worker) fn close(&self) {
        // An error means that the worker's end is closed already, so it has ended or is about to.
        let _ = shutdown(&self.socket, Shutdown::Write);
        self.post.call();
    }
}

/// The end of what a worker writes to its standard error.
#[derive(Debug)]
pub(in crate::worker) struct StderrTail {
    /// `None` once all writers have closed it.
    pipe: Option<Async<OwnedFd>>,
    tail: Vec<u8>,
}

impl StderrTail {
    pub(in crate::worker) fn new(pipe: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            pipe: Some(Async::new(pipe)?),
            tail: Vec::new(),
        })
    }

    /// Reads on, and registers for more. There is nothing to wait for, hence no result.
    pub(in crate::worker) fn drain(&mut self, cx: &mut Context<'_>) {
        loop {
            if !self.read(TURN) {
                cx.waker().wake_by_ref();
                return;
            }
            let Some(pipe) = &self.pipe else { return };
            match pipe.poll_readable(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => self.pipe = None, // a pipe that cannot be polled is as good as closed
                Poll::Pending => return,
            }
        }
    }

    /// Reads what is there, which is all of what a worker wrote that has ended. What its job has started may write on.
    pub(in crate::worker) fn drain_now(&mut self) {
        let capacity = |pipe: &Async<OwnedFd>| fcntl_getpipe_size(pipe).unwrap_or(TURN);
        let most = self.pipe.as_ref().map_or(0, capacity);
        self.read(most);
    }

    /// Reads what is there, `most` bytes or a little more. False if there may be more.
    fn read(&mut self, most: usize) -> bool {
        let mut bytes = 0;
        while let Some(pipe) = &self.pipe {
            self.tail.reserve(TAIL);
            match rustix::io::read(pipe, spare_capacity(&mut self.tail)) {
                Ok(0) => self.pipe = None,
                Ok(read) => bytes += read,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return true,
                Err(_) => self.pipe = None, // as above
            }
            let superfluous = self.tail.len().saturating_sub(TAIL);
            self.tail.drain(..superfluous);
            if bytes >= most {
                return false;
            }
        }
        true
    }

    pub(in crate::worker) fn text(&self) -> String {
        String::from_utf8_lossy(&self.tail).into_owned()
    }
}
