//! The receiving side of a ring.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::consumer::Consumer;
use super::error::RingError;
use super::shared::{Ring, Status};
use super::wire::{ArrivedFds, BLOCKING_SPIN, Wire};
use crate::transport::tuning::{RING_BUFFER_KEPT, RING_WORDS};

/// The receiving side of a ring. Dropping it closes the ring, and discards what it has not
/// received.
#[derive(Debug)]
pub(crate) struct RingReceiver {
    pub(super) wire: Wire,
    pub(super) consumer: Consumer,
    pub(super) arrived: ArrivedFds,
    /// The fragments so far of the present message.
    pub(super) buffer: Vec<u8>,
    pub(super) state: Assembly,
    pub(super) is_moved: AtomicBool,
    is_malformed: bool,
}

/// The state of the present message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) enum Assembly {
    /// The next fragment is a first one.
    Between,
    /// Fragments are missing. The message has this many descriptors.
    Within { fds: u8 },
}

/// A message, and the descriptors that came with it.
#[derive(Debug)]
pub(crate) struct Message<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) fds: Vec<OwnedFd>,
}

fn own(ring: &Ring) -> &Status {
    &ring.consumer
}

fn peer(ring: &Ring) -> &Status {
    &ring.producer
}

impl RingReceiver {
    pub(super) fn new(wire: Wire, consumer: Consumer) -> Self {
        RingReceiver {
            wire,
            consumer,
            arrived: ArrivedFds::default(),
            buffer: Vec::new(),
            state: Assembly::Between,
            is_moved: AtomicBool::new(false),
            is_malformed: false,
        }
    }

    /// Receives the next message, if there is one.
    pub(crate) fn try_recv(&mut self) -> Result<Option<Message<'_>>, RingError> {
        let fds = self.assemble()?;
        Ok(fds.map(|fds| self.completed(fds)))
    }

    /// Receives the next message, and blocks this thread until there is one.
    pub(crate) fn recv(&mut self) -> Result<Message<'_>, RingError> {
        let fds = loop {
            if let Some(fds) = self.assemble()? {
                break fds;
            }
            if self.spin(BLOCKING_SPIN) {
                continue;
            }
            if self.begin_park() {
                self.wire.sleep()?;
            }
            self.end_park()?;
        };
        Ok(self.completed(fds))
    }

    fn completed(&self, fds: Vec<OwnedFd>) -> Message<'_> {
        Message {
            bytes: &self.buffer,
            fds,
        }
    }

    /// Takes fragments until one completes a message, which is then in the buffer. Returns its
    /// descriptors. Returns `None` after as many words as the ring has, too: a long message is
    /// received in several calls.
    fn assemble(&mut self) -> Result<Option<Vec<OwnedFd>>, RingError> {
        if *self.is_moved.get_mut() {
            return Err(RingError::Moved);
        }
        if self.is_malformed {
            return Err(RingError::Malformed);
        }
        let fds = self.assemble_fragments();
        // After a failure, the next descriptors may be those of another message.
        self.is_malformed |= matches!(fds, Err(RingError::Malformed | RingError::Failed(_)));
        fds
    }

    fn assemble_fragments(&mut self) -> Result<Option<Vec<OwnedFd>>, RingError> {
        let mut words = 0;
        while words <= RING_WORDS {
            // Read before the ring is: what the producer committed before it closed is seen then.
            let is_closed = peer(&self.wire.ring).is_closed();
            let Some(fragment) = self.consumer.next(&self.wire.ring)? else {
                return match (is_closed, self.wire.is_peer_gone) {
                    (true, _) => Err(RingError::Closed),
                    (false, true) => Err(RingError::PeerGone),
                    (false, false) => Ok(None),
                };
            };
            let header = fragment.header();
            words += header.words();
            // The sender has given up the message before, whose descriptors it had sent.
            let left_fds = header.is_first && matches!(self.state, Assembly::Within { fds: 1.. });
            if header.is_first {
                self.state = Assembly::Within { fds: header.fds };
                self.buffer.clear();
                self.buffer.shrink_to(RING_BUFFER_KEPT);
            }
            let Assembly::Within { fds } = self.state else {
                return Err(RingError::Malformed);
            };
            fragment.take_onto(&mut self.buffer);
            self.wire.wake(peer);
            if left_fds {
                drop(self.take_fds()?);
            }
            if header.is_last {
                self.state = Assembly::Between;
                if fds == 0 {
                    return Ok(Some(Vec::new()));
                }
                let mut arrived = self.take_fds()?;
                if arrived.len() != usize::from(fds) {
                    arrived.clear(); // some were lost, which is an error when they are needed
                }
                return Ok(Some(arrived));
            }
        }
        Ok(None)
    }

    /// Returns the descriptors of the next message that has some. They were sent before it.
    fn take_fds(&mut self) -> Result<Vec<OwnedFd>, RingError> {
        if self.arrived.0.is_empty() {
            self.wire.drain(&mut self.arrived)?;
        }
        self.arrived.0.pop_front().ok_or(RingError::Malformed)
    }

    /// Spins for at most `limit` until the sender has committed something. Returns whether it has.
    pub(crate) fn spin(&mut self, limit: Duration) -> bool {
        let consumer = &self.consumer;
        self.wire
            .spin(limit, own, peer, |ring| consumer.is_changed(ring))
    }

    /// Announces that this side sleeps until its [socket](Self::socket) is readable. Returns
    /// `false` if it need not sleep. A call of [`end_park`](Self::end_park) follows in any case.
    #[must_use]
    pub(crate) fn begin_park(&mut self) -> bool {
        own(&self.wire.ring).park();
        !self.wire.is_peer_gone && !self.consumer.is_changed(&self.wire.ring)
    }

    /// Ends a sleep, and reads what woke this side.
    pub(crate) fn end_park(&mut self) -> Result<(), RingError> {
        own(&self.wire.ring).unpark();
        let drained = self.wire.drain(&mut self.arrived);
        self.is_malformed |= matches!(drained, Err(RingError::Malformed));
        drained
    }

    /// Returns the socket that is readable when this side has to wake up.
    pub(crate) fn socket(&self) -> &Arc<OwnedFd> {
        &self.wire.socket
    }
}

impl Drop for RingReceiver {
    fn drop(&mut self) {
        if !self.is_moved.load(Ordering::Relaxed) && self.wire.may_close() {
            own(&self.wire.ring).close();
            self.wire.wake(peer);
        }
    }
}
