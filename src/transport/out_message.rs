//! A frame to be sent, with the memory and the descriptors attached to it.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::frame;
use super::frame::{HEADER, Header, Kind, NOTHING_KEPT};
use super::payload::outgoing_memory::Attachments;
use crate::sys::arena::Arena;

/// A finished frame and its attachments. The descriptors among them travel with the frame's first
/// byte.
#[derive(Debug, Default)]
pub(crate) struct OutMessage {
    bytes: Vec<u8>,
    attached: Attachments,
}

impl From<Vec<u8>> for OutMessage {
    fn from(frame: Vec<u8>) -> Self {
        OutMessage {
            bytes: frame,
            attached: Attachments::default(),
        }
    }
}

impl OutMessage {
    /// Attaches descriptors, at most [`MAX_FDS`](crate::sys::socket::MAX_FDS), to a finished frame.
    pub(crate) fn new(mut frame: Vec<u8>, attached: impl Into<Attachments>) -> Self {
        let attached = attached.into();
        let count = u8::try_from(attached.fds.len()).expect("the caller has counted them");
        frame::set_fds(&mut frame, count);
        OutMessage {
            bytes: frame,
            attached,
        }
    }

    /// Makes a frame in one buffer, like [`frame::build`]; `fill` appends the payload and returns
    /// the attachments.
    pub(crate) fn build<E>(
        kind: Kind,
        number: u64,
        fill: impl FnOnce(&mut Vec<u8>) -> Result<Attachments, E>,
    ) -> Result<Self, E> {
        let mut attached = Attachments::default();
        let frame = frame::build(kind, number, |frame| {
            attached = fill(frame)?;
            Ok(())
        })?;
        Ok(Self::new(frame, attached))
    }

    /// Numbers the message as one of a worker's calls; see [`frame::mark`].
    pub(crate) fn mark(&mut self, call: u16) {
        frame::mark(&mut self.bytes, call);
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn payload(&self) -> &[u8] {
        self.bytes.get(HEADER..).unwrap_or_default()
    }

    pub(crate) fn fds(&self) -> &[Arc<OwnedFd>] {
        &self.attached.fds
    }

    /// Returns whether the message holds sides of channels, so that only one worker can receive it.
    pub(crate) fn moves_sides(&self) -> bool {
        self.attached.moves_sides
    }

    /// Returns whether the message brings something that cannot leave this machine: a file, a
    /// socket or a side of a channel.
    pub(crate) fn has_descriptors(&self) -> bool {
        self.attached.has_descriptors
    }

    pub(crate) fn set_number(&mut self, number: u64) {
        frame::set_number(&mut self.bytes, number);
    }

    pub(crate) fn number(&self) -> u64 {
        frame::number(&self.bytes)
    }

    /// Notes that a worker gets the message: from now on it may read the arena in which the payload
    /// lies.
    pub(crate) fn hand_over(&mut self) {
        if let Some(lent) = &mut self.attached.lent {
            lent.hand_over();
        }
    }

    /// Consumes a message that the worker has answered. Returns the arena of its payload, if the
    /// worker has kept nothing of it, so that the arena may be written again.
    pub(crate) fn into_arena(self, answer: &Header) -> Option<Arena> {
        match answer.number {
            NOTHING_KEPT => self.attached.lent?.returned(),
            _ => None,
        }
    }
}
