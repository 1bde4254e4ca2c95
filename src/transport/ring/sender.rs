//! The sending side of a ring.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::error::RingError;
use super::producer::Producer;
use super::shared::{Header, Ring, Status};
use super::wire::{ArrivedFds, BLOCKING_SPIN, Wire};
use crate::transport::tuning::RING_WORDS;

/// How far an attempt to send a message has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Progress {
    /// The receiver can take the message.
    Sent,
    /// The receiver has to take something first.
    Waits,
}

/// The sending side of a ring. Dropping it closes the ring.
#[derive(Debug)]
pub(crate) struct RingSender {
    pub(super) wire: Wire,
    pub(super) producer: Producer,
    /// The bytes of the present message that are committed. 0 between two messages.
    sent: usize,
    pub(super) is_moved: AtomicBool,
    is_malformed: bool,
}

fn own(ring: &Ring) -> &Status {
    &ring.producer
}

fn peer(ring: &Ring) -> &Status {
    &ring.consumer
}

const MAX_FRAGMENT: usize = Header::max_length(RING_WORDS);

impl RingSender {
    pub(super) fn new(wire: Wire, producer: Producer) -> Self {
        RingSender {
            wire,
            producer,
            sent: 0,
            is_moved: AtomicBool::new(false),
            is_malformed: false,
        }
    }

    /// Sends a message, or the part of it for which there is room. If it [waits](Progress::Waits),
    /// the next call continues with the same message, unless it was [abandoned](Self::abandon).
    pub(crate) fn try_send(
        &mut self,
        message: &[u8],
        fds: &[Arc<OwnedFd>],
    ) -> Result<Progress, RingError> {
        let progress = self.send_fragments(message, fds);
        self.is_malformed |= matches!(progress, Err(RingError::Malformed));
        if !matches!(progress, Ok(Progress::Waits)) {
            self.sent = 0;
        }
        progress
    }

    fn send_fragments(
        &mut self,
        message: &[u8],
        fds: &[Arc<OwnedFd>],
    ) -> Result<Progress, RingError> {
        if *self.is_moved.get_mut() {
            return Err(RingError::Moved);
        }
        if self.is_malformed {
            return Err(RingError::Malformed);
        }
        let fds_count = u8::try_from(fds.len()).map_err(|_| RingError::Malformed)?;
        loop {
            if peer(&self.wire.ring).is_closed() {
                return Err(RingError::Closed);
            }
            let rest = message.get(self.sent..).unwrap_or_default();
            let length = rest.len().min(MAX_FRAGMENT);
            let header = Header {
                length,
                is_first: self.sent == 0,
                is_last: length == rest.len(),
                fds: if self.sent == 0 { fds_count } else { 0 },
            };
            let Some(room) = self.producer.reserve(&self.wire.ring, header)? else {
                return if self.wire.is_peer_gone {
                    Err(RingError::PeerGone)
                } else {
                    Ok(Progress::Waits)
                };
            };
            if header.fds > 0 {
                self.wire.send_fds(fds)?;
            }
            room.commit(&rest[..length]);
            self.sent += length;
            self.wire.wake(peer);
            if header.is_last {
                return Ok(Progress::Sent);
            }
        }
    }

    /// Gives up a message that was sent in part: it never arrives.
    pub(crate) fn abandon(&mut self) {
        self.sent = 0; // the next fragment is marked as a first one
    }

    /// Sends a message, and blocks this thread while there is no room for it.
    pub(crate) fn send(&mut self, message: &[u8], fds: &[Arc<OwnedFd>]) -> Result<(), RingError> {
        let sent = self.send_waiting(message, fds);
        if sent.is_err() {
            self.abandon(); // the next message does not continue this one
        }
        sent
    }

    fn send_waiting(&mut self, message: &[u8], fds: &[Arc<OwnedFd>]) -> Result<(), RingError> {
        loop {
            if let Progress::Sent = self.try_send(message, fds)? {
                return Ok(());
            }
            if self.spin(BLOCKING_SPIN) {
                continue;
            }
            if self.begin_park() {
                self.wire.sleep()?;
            }
            self.end_park()?;
        }
    }

    /// Spins for at most `limit` until the receiver has taken something. Returns whether it has.
    pub(crate) fn spin(&mut self, limit: Duration) -> bool {
        let producer = &self.producer;
        self.wire
            .spin(limit, own, peer, |ring| producer.is_changed(ring))
    }

    /// Announces that this side sleeps until its [socket](Self::socket) is readable. Returns
    /// `false` if it need not sleep. A call of [`end_park`](Self::end_park) follows in any case.
    #[must_use]
    pub(crate) fn begin_park(&mut self) -> bool {
        own(&self.wire.ring).park();
        !self.wire.is_peer_gone && !self.producer.is_changed(&self.wire.ring)
    }

    /// Ends a sleep, and reads what woke this side.
    pub(crate) fn end_park(&mut self) -> Result<(), RingError> {
        own(&self.wire.ring).unpark();
        self.wire.drain(&mut ArrivedFds::default())
    }

    /// Returns the socket that is readable when this side has to wake up.
    pub(crate) fn socket(&self) -> &Arc<OwnedFd> {
        &self.wire.socket
    }

    /// Returns whether the receiver has closed its side.
    pub(crate) fn is_closed(&self) -> bool {
        peer(&self.wire.ring).is_closed()
    }
}

impl Drop for RingSender {
    fn drop(&mut self) {
        if !self.is_moved.load(Ordering::Relaxed) && self.wire.may_close() {
            own(&self.wire.ring).close();
            self.wire.wake(peer);
        }
    }
}
