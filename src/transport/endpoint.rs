//! One end of the connection between a parent and a worker; the same code for both.
//!
//! An [`Endpoint`] sends and receives frames through the socket or the mailbox. It holds no waker
//! and decides no wait: the parent calls it with non-blocking reads, the worker with blocking
//! reads. The spins have a time limit. The two sides hold their sockets and the mailbox
//! differently; [`Side`] gives the types.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::{RecvFlags, SendFlags, send};
use rustix::thread::sched_getcpu;

use super::backoff::{Backoff, spin_until};
use super::frame::{Frame, Inbox};
use super::mailbox::{Mailbox, Slot};
use super::out_message::OutMessage;
use super::receive::{RecvError, receive};
use crate::sys::mapping::Mapping;
use crate::sys::socket::send_message;

/// A side of the connection: parent or worker.
pub(crate) trait Side {
    type Socket: AsFd;
    /// How this side holds the mailbox.
    type Mailbox;
    /// Returns the slot that carries frames to this side.
    fn incoming(mailbox: &Self::Mailbox) -> &Slot;
    /// Returns the slot that carries frames to the peer.
    fn outgoing(mailbox: &Self::Mailbox) -> &Slot;
}

/// The worker's side.
#[derive(Debug)]
pub(crate) enum WorkerSide {}

impl Side for WorkerSide {
    type Socket = OwnedFd;
    /// It stays mapped until the process ends, because threads that jobs left behind may read it.
    type Mailbox = &'static Mapping<Mailbox>;

    fn incoming(mailbox: &Self::Mailbox) -> &Slot {
        &mailbox.job
    }

    fn outgoing(mailbox: &Self::Mailbox) -> &Slot {
        &mailbox.answer
    }
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Endpoint<S: Side> {
    socket: S::Socket,
    inbox: Inbox,
    mailbox: Option<S::Mailbox>,
    backoff: Backoff,
}

impl<S: Side> Endpoint<S> {
    /// Makes an endpoint that has no mailbox yet.
    pub(crate) fn new(socket: S::Socket) -> Self {
        Endpoint {
            socket,
            inbox: Inbox::default(),
            mailbox: None,
            backoff: Backoff::new(),
        }
    }

    pub(crate) fn socket(&self) -> &S::Socket {
        &self.socket
    }

    pub(crate) fn into_socket(self) -> S::Socket {
        self.socket
    }

    pub(crate) fn mailbox(&self) -> Option<&S::Mailbox> {
        self.mailbox.as_ref()
    }

    /// Sets or removes the mailbox.
    pub(crate) fn set_mailbox(&mut self, mailbox: Option<S::Mailbox>) {
        self.mailbox = mailbox;
    }

    /// Returns the slot that carries frames to this side, if there is a mailbox.
    fn incoming(&self) -> Option<&Slot> {
        self.mailbox.as_ref().map(S::incoming)
    }

    /// Returns the slot that carries frames to the peer, if there is a mailbox.
    fn outgoing(&self) -> Option<&Slot> {
        self.mailbox.as_ref().map(S::outgoing)
    }
}

/// Sending.
impl<S: Side> Endpoint<S> {
    /// Posts a message to the mailbox, if it has no descriptors, fits into the slot, and the peer
    /// watches that. Returns whether it was posted.
    pub(crate) fn post(&self, message: &OutMessage) -> bool {
        message.fds().is_empty()
            && self
                .outgoing()
                .is_some_and(|slot| slot.post(message.bytes()))
    }

    /// Sends some of a message through the socket, from the byte `from` on, and returns how many
    /// bytes were sent.
    pub(crate) fn send_some(
        &self,
        message: &OutMessage,
        from: usize,
        flags: SendFlags,
    ) -> rustix::io::Result<usize> {
        let bytes = &message.bytes()[from..];
        if from > 0 || message.fds().is_empty() {
            return send(&self.socket, bytes, flags | SendFlags::NOSIGNAL);
        }
        let fds: Vec<BorrowedFd<'_>> = message.fds().iter().map(AsFd::as_fd).collect();
        send_message(&self.socket, bytes, &fds, flags)
    }

    /// Tells a peer that watches the mailbox that a message is in the socket.
    pub(crate) fn signal(&self) {
        if let Some(slot) = self.outgoing() {
            slot.signal();
        }
    }

    /// Asks the peer through the mailbox, if there is one, to end the job with this number.
    pub(crate) fn cancel(&self, job: usize) {
        if let Some(slot) = self.outgoing() {
            slot.cancel(job);
        }
    }

    /// Returns whether the message that was posted is still in the mailbox.
    pub(crate) fn is_posted_message_unread(&self) -> bool {
        self.outgoing().is_some_and(Slot::is_full)
    }

    /// Waits up to `limit` until the peer has taken the message that was posted, if there is one.
    /// Returns whether it has.
    pub(crate) fn wait_until_taken(&self, limit: Duration) -> bool {
        let Some(slot) = self.outgoing().filter(|slot| slot.is_full()) else {
            return true;
        };
        let shares_processor = slot.is_watched_from(sched_getcpu());
        spin_until(limit, shares_processor, || !slot.is_full())
    }
}

/// Receiving.
impl<S: Side> Endpoint<S> {
    /// Starts to watch the mailbox, so that the peer may post there. `processor` is that of this
    /// thread.
    pub(crate) fn watch(&self, processor: usize) {
        if let Some(slot) = self.incoming() {
            slot.watch(processor);
        }
    }

    /// Stops watching the mailbox. Returns `false` if a frame has arrived there before.
    pub(crate) fn stop_watching(&self) -> bool {
        self.incoming().is_none_or(Slot::stop_watching)
    }

    /// Returns whether this side watches the mailbox and nothing has arrived.
    pub(crate) fn is_waiting(&self) -> bool {
        self.incoming().is_some_and(Slot::is_waiting)
    }

    /// Starts a wait for the next frame, and returns whether it should start with a
    /// [spin](Self::spin).
    pub(crate) fn next_wait_spins(&mut self) -> bool {
        self.mailbox.is_some() && self.backoff.next_wait_spins()
    }

    /// Notes that a wait without a spin ended so soon that a spin might have succeeded.
    pub(crate) fn spin_would_have_succeeded(&mut self) {
        self.backoff.would_have_succeeded();
    }

    /// Spins on the watched mailbox for about a microsecond, and returns whether something has
    /// arrived there or in the socket. `processor` is that of this thread. A [spin](Self::spin)
    /// follows.
    pub(crate) fn spin_briefly(&self, processor: usize) -> bool {
        self.mailbox.as_ref().is_some_and(|mailbox| {
            let incoming = S::incoming(mailbox);
            let shares_processor = S::outgoing(mailbox).is_watched_from(processor);
            spin_until(Duration::ZERO, shares_processor, || !incoming.is_waiting())
        })
    }

    /// Spins on the watched mailbox up to `limit`, and returns whether something has arrived there
    /// or in the socket. `processor` is that of this thread. If this spin fails, later waits skip
    /// the spin, but at least one in `longest_interval` still spins.
    pub(crate) fn spin(
        &mut self,
        processor: usize,
        limit: Duration,
        longest_interval: u32,
    ) -> bool {
        let Some(mailbox) = &self.mailbox else {
            return false;
        };
        let incoming = S::incoming(mailbox);
        let shares_processor = S::outgoing(mailbox).is_watched_from(processor);
        let found = spin_until(limit, shares_processor, || !incoming.is_waiting());
        if found {
            self.backoff.succeeded();
        } else {
            self.backoff.failed(longest_interval);
        }
        found
    }

    /// Takes the frame out of the mailbox, if there is one.
    pub(crate) fn take_from_mailbox(&self) -> Result<Option<Frame>, RecvError> {
        let Some(slot) = self.incoming() else {
            return Ok(None);
        };
        Ok(slot.take()?.map(Frame::from_bytes).transpose()?)
    }

    /// Returns whether no part of the next frame has arrived through the socket.
    pub(crate) fn is_between_frames(&self) -> bool {
        self.inbox.is_empty()
    }

    /// Receives a frame through the socket. Returns `None` if a read would block.
    pub(crate) fn receive_from_socket(
        &mut self,
        flags: RecvFlags,
    ) -> Result<Option<Frame>, RecvError> {
        loop {
            if let Some(frame) = self.take_received()? {
                return Ok(Some(frame));
            }
            if !self.read(flags)? {
                return Ok(None);
            }
        }
    }

    /// Takes a frame that has been read.
    pub(crate) fn take_received(&mut self) -> Result<Option<Frame>, RecvError> {
        Ok(self.inbox.take()?)
    }

    /// Reads from the socket once. Returns `false` if the read would block.
    pub(crate) fn read(&mut self, flags: RecvFlags) -> Result<bool, RecvError> {
        loop {
            match receive(&self.socket, &mut self.inbox, flags) {
                Ok(0) => return Err(RecvError::Closed),
                Ok(_) => return Ok(true),
                Err(error) => match error.kind() {
                    std::io::ErrorKind::Interrupted => {}
                    std::io::ErrorKind::WouldBlock => return Ok(false),
                    _ => return Err(error.into()),
                },
            }
        }
    }

    /// Gives the buffer of a former frame to the next one.
    pub(crate) fn recycle(&mut self, buffer: Vec<u8>) {
        self.inbox.recycle(buffer);
    }
}
