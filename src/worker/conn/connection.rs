//! The parent's end of a worker's connection, in poll form.
//!
//! Everything half-done lives in the [`Connection`] and nothing in a future: how much of a message
//! has been sent, and which bytes of the next frame have arrived. So a future that polls it may be
//! dropped at any point, and another may continue.
//!
//! A usual call through the socket costs one `send`, one wait and one `recv`. A `recv` is tried
//! before the first wait: where parent and worker share a core, the worker has often answered by
//! the time `send` returns, and the wait, which costs the reactor half a dozen system calls, is
//! saved.
//!
//! Each poll tries the descriptor itself and never relies on the reactor's *not ready*. The reactor
//! wakes a task for an event, but then denies the event if it came in the turn in which the task
//! had asked. A task that asks late enough each time, because its thread is busy between two polls,
//! would be woken and denied forever.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use async_io::Async;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, shutdown};
use rustix::thread::sched_getcpu;

use super::mailbox::{MailboxOffer, ParentSide};
use super::spin_poller;
use super::spin_poller::WatchedMailbox;
use crate::sys::fault::Fault;
use crate::sys::socket::try_send_with_fds;
use crate::transport::endpoint::Endpoint;
use crate::transport::frame;
use crate::transport::frame::{Frame, Kind};
use crate::transport::out_message::OutMessage;
use crate::transport::receive::RecvError;
use crate::worker::tuning::{POLL_SPIN_INTERVAL, SPIN_IN_POLL};

/// The parent's end of a worker's connection.
#[derive(Debug)]
pub(in crate::worker) struct Connection {
    endpoint: Endpoint<ParentSide>,
    outgoing: OutMessage,
    /// How many bytes of `outgoing` have been sent.
    sent: usize,
    offer: MailboxOffer,
    /// Brings the mailbox to the worker; sent before `outgoing`.
    introduction: Option<(Arc<WatchedMailbox>, OutMessage)>,
    /// The reason for which the worker has said that a signal is about to end it.
    fault: Option<Fault>,
    /// The next poll spins for the answer to a job that was posted from this processor.
    spin_from: Option<usize>,
    /// The worker has ended before it read all that was sent through the socket.
    was_reset: bool,
    /// The number of the job that the worker is to be asked to end, once that is sent.
    request: Option<u64>,
    /// The worker has been sent a request, which it may have left unread in the socket, together
    /// with jobs or not.
    has_sent_request: bool,
}

impl Connection {
    pub(in crate::worker) fn new(socket: Async<OwnedFd>) -> Self {
        Self {
            endpoint: Endpoint::new(socket),
            outgoing: OutMessage::default(),
            sent: 0,
            offer: MailboxOffer::BeforeFirstJob,
            introduction: None,
            spin_from: None,
            was_reset: false,
            fault: None,
            request: None,
            has_sent_request: false,
        }
    }

    /// Returns the reason for which the worker has said, while it had the last job, that a signal
    /// is about to end it.
    pub(in crate::worker) fn fault(&self) -> Option<Fault> {
        self.fault
    }

    pub(in crate::worker) fn socket(&self) -> &Async<OwnedFd> {
        self.endpoint.socket()
    }

    /// Sets the message to be sent next, once the one before has been sent.
    pub(in crate::worker) fn put(&mut self, message: OutMessage) {
        self.outgoing = message;
        self.sent = 0;
        self.request = None;
    }

    /// Lets the next job bring the mailbox, if it has not been sent, so that the job can ask at
    /// little cost whether it is to end.
    pub(in crate::worker) fn hasten_mailbox(&mut self) {
        self.offer.hasten();
    }

    /// Lets all frames go through the socket, in order.
    pub(in crate::worker) fn do_without_mailbox(&mut self) {
        self.offer.refuse();
    }

    /// Asks the worker to end the job with this number, which was put last. The next polls send the
    /// request.
    ///
    /// It goes two ways: a job that runs reads the mailbox, which is cheap, and a worker without
    /// one, or one that waits, reads the socket.
    pub(in crate::worker) fn cancel(&mut self, job: u64) {
        self.request = Some(job);
    }

    /// Sets the job to be sent next, with the mailbox if it is time for that.
    pub(in crate::worker) fn put_job(&mut self, mut job: OutMessage) {
        job.hand_over();
        self.fault = None; // the worker has survived it
        self.introduction = self.offer.next_job();
        self.put(job);
    }

    /// Posts a job to the mailbox of a worker that spins there. Returns whether it was posted.
    pub(in crate::worker) fn post_job(&mut self, job: &mut OutMessage) -> bool {
        if !self.post(job) {
            return false;
        }
        self.sent = job.bytes().len();
        self.outgoing = std::mem::take(job);
        self.request = None;
        self.fault = None; // the worker has survived it
        true
    }

    /// Takes back the message that was put last, sent or not.
    pub(in crate::worker) fn take_back(&mut self) -> OutMessage {
        self.sent = 0;
        self.request = None;
        std::mem::take(&mut self.outgoing)
    }

    /// Returns whether a worker that has ended had received the whole message that was put last.
    pub(in crate::worker) fn has_received_all(&self) -> bool {
        // The message is the last one that was sent, so after a reset some of it was not read. If a
        // request was sent, only that may be unread, so the job may have begun.
        let is_unread = self.was_reset && !self.has_sent_request;
        self.unsent() == 0 && !is_unread && !self.endpoint.is_posted_message_unread()
    }

    fn unsent(&self) -> usize {
        self.outgoing.bytes().len() - self.sent
    }

    /// Sends the rest of the message that was put, and a request to end it.
    pub(in crate::worker) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send_message(cx))?;
        self.poll_send_request(cx)
    }

    /// Sends the request to end the job, if there is one. The job has been sent, and before it the
    /// mailbox, if it was due.
    fn poll_send_request(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(job) = self.request {
            self.endpoint.cancel(job as usize);
            let request = frame::of_bytes(Kind::Cancel, job, b"");
            // The kernel sends so few bytes as a whole, so no half of a request is ever left over.
            match try_send_with_fds(self.endpoint.socket(), &request, &[]) {
                Ok(()) => {
                    self.request = None;
                    self.has_sent_request = true;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    ready!(self.endpoint.socket().poll_writable(cx))?;
                }
                Err(error) => {
                    self.request = None;
                    return Poll::Ready(Err(error));
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_send_message(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unsent() == 0 {
            return Poll::Ready(Ok(()));
        }
        if self.sent == 0 {
            let message = std::mem::take(&mut self.outgoing);
            let posted = self.post(&message);
            self.outgoing = message;
            if posted {
                self.sent = self.outgoing.bytes().len();
                return Poll::Ready(Ok(()));
            }
        }
        ready!(self.poll_introduce(cx))?;
        while self.unsent() > 0 {
            let sent = self
                .endpoint
                .send_some(&self.outgoing, self.sent, SendFlags::DONTWAIT);
            match sent {
                Ok(sent) => {
                    self.sent += sent;
                    self.endpoint.signal();
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => ready!(self.endpoint.socket().poll_writable(cx))?,
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Posts a message to the mailbox, if the worker spins there.
    fn post(&mut self, message: &OutMessage) -> bool {
        if self.endpoint.mailbox().is_none() {
            return false;
        }
        let processor = sched_getcpu();
        // Before the job is there, so that its answer may come through the mailbox too.
        self.endpoint.watch(processor);
        let posted = self.endpoint.post(message);
        self.spin_from = (posted && self.endpoint.next_wait_spins()).then_some(processor);
        posted
    }

    /// Sends the mailbox to the worker, if that is due.
    fn poll_introduce(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some((_, message)) = &self.introduction {
            let fds: Vec<BorrowedFd<'_>> = message.fds().iter().map(AsFd::as_fd).collect();
            match try_send_with_fds(self.endpoint.socket(), message.bytes(), &fds) {
                Ok(()) => {
                    let mailbox = self.introduction.take().map(|(mailbox, _)| mailbox);
                    self.endpoint.set_mailbox(mailbox);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    ready!(self.endpoint.socket().poll_writable(cx))?;
                }
                // The worker does without a mailbox. If the socket is broken, the job meets the
                // same error.
                Err(_) => self.introduction = None,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Receives the next frame.
    pub(in crate::worker) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Frame, RecvError>> {
        if let Some(processor) = self.spin_from.take()
            && self
                .endpoint
                .spin(processor, SPIN_IN_POLL, POLL_SPIN_INTERVAL)
            && let Some(frame) = self.endpoint.take_from_mailbox()?
        {
            return Poll::Ready(Ok(frame));
        }
        if self.endpoint.mailbox().is_some() && spin_poller::is_open() {
            self.endpoint.watch(sched_getcpu());
        }
        loop {
            if let Some(received) = self.receive_now().transpose() {
                return Poll::Ready(received);
            }
            if !self.wait_for_mailbox(cx.waker()) {
                continue;
            }
            ready!(self.endpoint.socket().poll_readable(cx)).map_err(RecvError::Failed)?;
        }
    }

    /// Registers with the spin poller, or else stops watching the mailbox. Returns `false` if an
    /// answer has arrived there before.
    fn wait_for_mailbox(&self, caller: &Waker) -> bool {
        let Some(watched) = self.endpoint.mailbox() else {
            return true;
        };
        (self.endpoint.is_waiting() && spin_poller::add(watched, caller))
            || self.endpoint.stop_watching()
    }

    /// Receives a frame that has arrived. Returns `None` if no whole frame has.
    pub(in crate::worker) fn receive_now(&mut self) -> Result<Option<Frame>, RecvError> {
        loop {
            // Before the socket: the frame in the mailbox arrived first.
            if let Some(frame) = self.endpoint.take_from_mailbox()? {
                return Ok(Some(frame));
            }
            match self.endpoint.receive_from_socket(RecvFlags::DONTWAIT) {
                Ok(Some(frame)) if frame.header.kind == Kind::AnswerInMailbox => {}
                Ok(Some(frame)) if frame.header.kind == Kind::Fault => {
                    self.fault = fault_of(&frame);
                }
                // The worker may have posted its last frame since the look into the mailbox, and
                // ended.
                Err(error @ (RecvError::Closed | RecvError::Reset)) => {
                    // The kernel tells this once; the next read only finds the end.
                    self.was_reset |= matches!(error, RecvError::Reset);
                    let last = self.endpoint.take_from_mailbox()?;
                    return last.map(Some).ok_or(error);
                }
                received => return received,
            }
        }
    }

    /// Shuts the connection down in both directions.
    pub(in crate::worker) fn hang_up(&self) {
        // An error means that there is no peer any more.
        let _ = shutdown(self.endpoint.socket(), Shutdown::Both);
    }

    /// Gives the buffer of a former frame to the next one.
    pub(in crate::worker) fn recycle(&mut self, frame: Frame) {
        self.endpoint.recycle(frame.into_buffer());
    }

    /// Tells the worker that there will be no more jobs.
    pub(in crate::worker) fn close(&self) {
        // An error means that the worker has closed its end, so it has ended or is about to.
        let _ = shutdown(self.endpoint.socket(), Shutdown::Write);
        self.endpoint.signal();
    }
}

fn fault_of(frame: &Frame) -> Option<Fault> {
    match frame.header.number {
        1 => Some(Fault::StackOverflow),
        2 => Some(Fault::OutOfMemory),
        _ => None,
    }
}

/// Stops watching: the spin poller may hold the mailbox of a worker that is gone.
impl Drop for Connection {
    fn drop(&mut self) {
        self.endpoint.stop_watching();
    }
}
