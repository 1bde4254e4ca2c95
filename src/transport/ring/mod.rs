//! A ring in shared memory: messages from one process to another, in order, without system calls
//! while both sides keep up.
//!
//! Two processes map the [`Ring`]. One has its [`RingSender`], the other its [`RingReceiver`]. A
//! socket pair goes with the ring: it wakes a side that sleeps, carries descriptors, and hangs up
//! when a side's process ends. Either side can move to another process within a message
//! ([`handoff`]).
//!
//! # The protocol
//!
//! The ring is an array of words. The producer's position (`tail`) and the consumer's position
//! (`head`) count words, and never decrease. The words between them belong to the consumer, all
//! others to the producer.
//!
//! | step | by | effect |
//! |---|---|---|
//! | write header and bytes behind `tail` | producer | none: these words are the producer's |
//! | store `tail` | producer | commits the fragment |
//! | read the words behind `head` | consumer | none |
//! | store `taken`, then `head` | consumer | gives the words back to the producer |
//!
//! A message is one fragment, or several if it is long. Only the last one completes it, so a
//! producer that is killed at any instruction leaves whole messages, and perhaps the beginning of
//! one that never arrives. A fragment marked `FIRST` makes the consumer discard such a beginning:
//! the producer gave up that message. `taken` counts messages, by their first fragments, and limits
//! how many are on their way.
//!
//! Descriptors of a message are sent through the socket before its first fragment is committed.
//!
//! # Waiting
//!
//! A side that finds nothing to do spins for some microseconds. Then it sets `PARKED` in its status
//! word, checks the ring once more, and sleeps until its socket is readable. The peer checks that
//! word after each store, and if `PARKED` was set, clears it and sends one byte. A sequentially
//! consistent fence on both sides, between the store and the check, makes sure that one of them
//! sees the other. A side that closes sets `CLOSED`, and wakes the peer in the same way. A process
//! that ends without that closes its socket, which wakes the peer too; the peer then finds what was
//! committed before.
//!
//! # Trust
//!
//! Neither side trusts the memory. Each keeps its own position in private memory, and checks the
//! peer's: a position that the protocol does not allow, or a header that does not fit, is
//! [`RingError::Malformed`]. All accesses are atomic and within the array. A peer that forges the
//! memory makes messages wrong or missing, and harms this channel only.

mod consumer;
mod error;
#[cfg(all(any(test, fuzzing), not(loom)))]
pub(crate) mod forged;
mod handoff;
#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod model_tests;
mod producer;
mod receiver;
mod sender;
mod shared;
#[cfg(all(test, not(loom)))]
mod tests;
mod wire;

pub(crate) use error::RingError;
pub(crate) use receiver::{Message, RingReceiver};
pub(crate) use sender::{Progress, RingSender};

use std::io;
use std::sync::Arc;

use consumer::Consumer;
use producer::Producer;
use shared::Ring;
use wire::Wire;

use crate::sys::mapping::Mapping;
use crate::sys::socket::packet_pair;

/// Makes a ring on which up to `capacity` messages can be on their way, and returns its two sides.
pub(crate) fn pair(capacity: usize) -> io::Result<(RingSender, RingReceiver)> {
    let (ring, memory) = Mapping::<Ring>::make("seedbed-ring")?;
    let other = Mapping::<Ring>::find(&memory)?;
    let memory = Arc::new(memory);
    let (one_end, other_end) = packet_pair()?;
    let sender = Wire::new(ring, memory.clone(), Arc::new(one_end));
    let receiver = Wire::new(other, memory, Arc::new(other_end));
    Ok((
        RingSender::new(sender, Producer::new(capacity)),
        RingReceiver::new(receiver, Consumer::new()),
    ))
}
