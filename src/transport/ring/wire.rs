//! The part that both sides of a ring have: the mapping and the socket, with which a side waits and
//! wakes its peer.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, send};
use rustix::thread::sched_getcpu;

use super::error::RingError;
use super::shared::{Ring, Status};
use crate::sys::fork_detector::ProcessMark;
use crate::sys::mapping::Mapping;
use crate::sys::socket::{Incoming, receive_message, try_send_with_fds};
use crate::transport::backoff::{Backoff, spin_until};
use crate::transport::tuning::{
    MAX_RING_MESSAGES_WITH_FDS, RING_PACKETS_PER_LOOK, RING_SPIN, RING_SPIN_INTERVAL,
};

/// A packet that wakes the peer.
const WAKE_UP: u8 = b'w';
/// A packet with the descriptors of a message.
const DESCRIPTORS: u8 = b'd';

/// The mapping and the socket of one side.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) ring: Mapping<Ring>,
    /// The memory of the ring, to be sent with this side to another process.
    pub(super) memory: Arc<OwnedFd>,
    pub(super) socket: Arc<OwnedFd>,
    /// The peer's socket is closed.
    pub(super) is_peer_gone: bool,
    backoff: Backoff,
    /// The process that may close the ring: a forked copy drops it without an effect. Unknown if
    /// there is no memory for a mark.
    mark: Option<ProcessMark>,
}

/// The most messages whose descriptors can have arrived: those on their way, one in progress, and
/// one before it that was given up.
pub(super) const MOST_ARRIVED: usize = MAX_RING_MESSAGES_WITH_FDS + 2;

/// Descriptors that have arrived, by messages.
#[derive(Debug, Default)]
pub(super) struct ArrivedFds(pub(super) VecDeque<Vec<OwnedFd>>);

impl Wire {
    pub(super) fn new(ring: Mapping<Ring>, memory: Arc<OwnedFd>, socket: Arc<OwnedFd>) -> Self {
        Wire {
            ring,
            memory,
            socket,
            is_peer_gone: false,
            backoff: Backoff::new(),
            mark: ProcessMark::of_this_process().ok(),
        }
    }

    /// Returns whether this side may close the ring: no other owner in this process has its socket,
    /// and this process is no forked copy.
    pub(super) fn may_close(&self) -> bool {
        Arc::strong_count(&self.socket) == 1
            && self.mark.is_none_or(ProcessMark::is_of_this_process)
    }

    /// Wakes the peer if it sleeps.
    pub(super) fn wake(&mut self, peer: impl FnOnce(&Ring) -> &Status) {
        if peer(&self.ring).take_parked() {
            self.send_wake_up();
        }
    }

    #[cold]
    fn send_wake_up(&mut self) {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let sent = rustix::io::retry_on_intr(|| send(&self.socket, &[WAKE_UP], flags));
        // A full socket is readable, so the peer wakes up.
        self.is_peer_gone |= matches!(sent, Err(Errno::PIPE | Errno::CONNRESET));
    }

    /// Sends the descriptors of a message.
    pub(super) fn send_fds(&self, fds: &[Arc<OwnedFd>]) -> Result<(), RingError> {
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        Ok(try_send_with_fds(&self.socket, &[DESCRIPTORS], &fds)?)
    }

    /// Reads the packets that are in the socket. Stops after more than a correct peer leaves, as
    /// another one could send them as fast as they are read; the socket stays readable then.
    pub(super) fn drain(&mut self, arrived: &mut ArrivedFds) -> Result<(), RingError> {
        for _ in 0..RING_PACKETS_PER_LOOK {
            let (mut kind, mut fds) = ([0], Vec::new());
            match receive_message(&self.socket, &mut kind, &mut fds, RecvFlags::DONTWAIT) {
                Ok(Incoming { bytes: 0, .. }) => {
                    self.is_peer_gone = true;
                    return Ok(());
                }
                Ok(_) if kind == [WAKE_UP] => {}
                // A lost descriptor is an error when the message is decoded.
                Ok(_) if kind == [DESCRIPTORS] => arrived.push(fds)?,
                Ok(_) => return Err(RingError::Malformed),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(()),
                    io::ErrorKind::Interrupted => {}
                    // Reported once; packets that came before can still be read.
                    io::ErrorKind::ConnectionReset => self.is_peer_gone = true,
                    _ => return Err(RingError::Failed(error)),
                },
            }
        }
        Ok(())
    }

    /// Spins until `is_changed`, if spins have been worthwhile. Returns whether something changed.
    pub(super) fn spin(
        &mut self,
        limit: Duration,
        own: impl FnOnce(&Ring) -> &Status,
        peer: impl FnOnce(&Ring) -> &Status,
        is_changed: impl Fn(&Ring) -> bool,
    ) -> bool {
        if !self.backoff.next_wait_spins() {
            return false;
        }
        let processor = sched_getcpu();
        own(&self.ring).wait_on(processor);
        let shares_processor = peer(&self.ring).waits_on(processor);
        let found = spin_until(limit, shares_processor, || is_changed(&self.ring));
        if found {
            self.backoff.succeeded();
        } else {
            self.backoff.failed(RING_SPIN_INTERVAL);
        }
        found
    }

    /// Sleeps until the socket is readable.
    pub(super) fn sleep(&self) -> Result<(), RingError> {
        match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], None) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(RingError::Failed(error.into())),
        }
    }
}

/// The longest spin before a thread that may block sleeps.
pub(super) const BLOCKING_SPIN: Duration = RING_SPIN;

impl ArrivedFds {
    fn push(&mut self, fds: Vec<OwnedFd>) -> Result<(), RingError> {
        if self.0.len() >= MOST_ARRIVED {
            return Err(RingError::Malformed);
        }
        self.0.push_back(fds);
        Ok(())
    }
}
