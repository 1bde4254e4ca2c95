//! Moves a side of a ring to another process, within a message.
//!
//! The side is encoded as its position and references to two descriptors, which are attached to the
//! message. From then on, the original refuses to work, and its drop does not close the ring. If
//! the message is lost, so is the side; its socket is closed with the message, and the peer learns
//! that the side is gone.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::consumer::Consumer;
use super::error::RingError;
use super::producer::Producer;
use super::receiver::{Assembly, RingReceiver};
use super::sender::RingSender;
use super::shared::Ring;
use super::wire::{ArrivedFds, MOST_ARRIVED, Wire};
use crate::sys::mapping::Mapping;
use crate::sys::socket::MAX_FDS;
use crate::transport::payload::attachments::{
    DescriptorRef, attach_descriptor, note_moved_side, take_descriptor,
};
use crate::transport::tuning::RING_WORDS;

/// A sending side within a message.
#[derive(Serialize, Deserialize)]
struct SenderParts {
    memory: DescriptorRef,
    socket: DescriptorRef,
    producer: Producer,
}

/// A receiving side within a message.
#[derive(Serialize, Deserialize)]
struct ReceiverParts {
    memory: DescriptorRef,
    socket: DescriptorRef,
    consumer: Consumer,
    state: Assembly,
    /// The beginning of a message of which fragments are missing.
    begun: Vec<u8>,
    /// Descriptors of messages that are in the ring.
    arrived: Vec<Vec<DescriptorRef>>,
}

const OUTSIDE: &str = "a side of a channel can only be sent to another process: within the argument or the result of a job, \
     or a message of a channel. No other encoding of it, nor one within `Described`, leads to the channel";

fn attached<E: serde::ser::Error>(fd: &Arc<OwnedFd>) -> Result<DescriptorRef, E> {
    match attach_descriptor(fd) {
        Some(attached) => attached.map_err(E::custom),
        None => Err(E::custom(OUTSIDE)),
    }
}

/// Checks that a side can be moved.
fn begin<S: Serializer>(serializer: &S, is_moved: &AtomicBool) -> Result<(), S::Error> {
    if serializer.is_human_readable() {
        return Err(S::Error::custom(OUTSIDE));
    }
    if is_moved.load(Ordering::Relaxed) {
        return Err(S::Error::custom(RingError::Moved));
    }
    Ok(())
}

/// Marks a side that was encoded as moved, if it was.
fn end(side: &AtomicBool, is_moved: bool) {
    if is_moved {
        side.store(true, Ordering::Relaxed);
        note_moved_side();
    }
}

impl Serialize for RingSender {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        begin(&serializer, &self.is_moved)?;
        let parts = SenderParts {
            memory: attached(&self.wire.memory)?,
            socket: attached(&self.wire.socket)?,
            producer: self.producer.clone(),
        };
        let is_moved = parts.socket.leads_somewhere();
        let done = parts.serialize(serializer)?;
        end(&self.is_moved, is_moved);
        Ok(done)
    }
}

impl Serialize for RingReceiver {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        begin(&serializer, &self.is_moved)?;
        let arrived = self.arrived.0.iter().map(|fds| {
            let shared = |fd: &OwnedFd| fd.as_fd().try_clone_to_owned().map(Arc::new);
            let attach = |fd| attached(&shared(fd).map_err(S::Error::custom)?);
            fds.iter().map(attach).collect()
        });
        let parts = ReceiverParts {
            memory: attached(&self.wire.memory)?,
            socket: attached(&self.wire.socket)?,
            consumer: self.consumer.clone(),
            state: self.state,
            begun: match self.state {
                Assembly::Between => Vec::new(),
                Assembly::Within { .. } => self.buffer.clone(),
            },
            arrived: arrived.collect::<Result<_, _>>()?,
        };
        let is_moved = parts.socket.leads_somewhere();
        let done = parts.serialize(serializer)?;
        end(&self.is_moved, is_moved);
        Ok(done)
    }
}

fn wire<E: serde::de::Error>(memory: DescriptorRef, socket: DescriptorRef) -> Result<Wire, E> {
    let take = |reference| take_descriptor(reference).map_err(E::custom);
    let (memory, socket) = (take(memory)?, take(socket)?);
    let ring = Mapping::<Ring>::find(&memory).map_err(E::custom)?;
    Ok(Wire::new(ring, memory, socket))
}

impl<'de> Deserialize<'de> for RingSender {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            return Err(D::Error::custom(OUTSIDE));
        }
        let parts = SenderParts::deserialize(deserializer)?;
        if !parts.producer.is_possible::<RING_WORDS>() {
            return Err(D::Error::custom(RingError::Malformed));
        }
        let wire = wire(parts.memory, parts.socket)?;
        Ok(RingSender::new(wire, parts.producer))
    }
}

impl<'de> Deserialize<'de> for RingReceiver {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            return Err(D::Error::custom(OUTSIDE));
        }
        let parts = ReceiverParts::deserialize(deserializer)?;
        // A descriptor that is listed again and again would use up those of this process.
        let fds: usize = parts.arrived.iter().map(Vec::len).sum();
        let is_possible = parts.consumer.is_possible::<RING_WORDS>()
            && parts.arrived.len() <= MOST_ARRIVED
            && fds <= MOST_ARRIVED * MAX_FDS;
        if !is_possible {
            return Err(D::Error::custom(RingError::Malformed));
        }
        let mut receiver = RingReceiver::new(wire(parts.memory, parts.socket)?, parts.consumer);
        receiver.state = parts.state;
        receiver.buffer = parts.begun;
        let owned = |reference| {
            let fd = take_descriptor(reference).map_err(D::Error::custom)?;
            fd.as_fd().try_clone_to_owned().map_err(D::Error::custom)
        };
        let arrived = parts.arrived.into_iter();
        let arrived: Result<VecDeque<Vec<OwnedFd>>, D::Error> = arrived
            .map(|fds| fds.into_iter().map(owned).collect())
            .collect();
        receiver.arrived = ArrivedFds(arrived?);
        Ok(receiver)
    }
}
