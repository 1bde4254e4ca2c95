//! The memory that a message takes along.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::attachment_error::TooManyDescriptorsError;
use super::inline::RegionBuilder;
use crate::sys::arena::Lent;
use crate::sys::memory::Sealed;
use crate::sys::socket::MAX_FDS;

/// The descriptors that are sent with a frame.
#[derive(Debug, Default)]
pub(crate) struct Attachments {
    pub(crate) fds: Vec<Arc<OwnedFd>>,
    /// The arena to which the last descriptor leads. Boxed, because few messages have one.
    pub(crate) lent: Option<Box<Lent>>,
    /// The message takes a side of a channel away from this process, so it can be received once.
    pub(crate) moves_sides: bool,
    /// One of them leads to something else than memory.
    pub(crate) has_descriptors: bool,
}

impl From<Vec<Arc<OwnedFd>>> for Attachments {
    fn from(fds: Vec<Arc<OwnedFd>>) -> Self {
        Self {
            fds,
            ..Self::default()
        }
    }
}

/// The memory of an outgoing message.
#[derive(Debug, Default)]
pub(crate) struct OutgoingMemory {
    /// Sent as descriptors, in this order.
    pub(super) attached: Vec<Attached>,
    /// Sent as a copy.
    pub(in crate::transport) region: RegionBuilder,
    /// See [`Attachments::moves_sides`].
    pub(in crate::transport) moves_sides: bool,
}

/// The object that a descriptor of an outgoing message leads to.
#[derive(Debug)]
pub(super) enum Attached {
    Memory(Arc<Sealed>),
    Descriptor(Arc<OwnedFd>),
}

impl OutgoingMemory {
    /// Returns whether one of the descriptors leads to something else than memory.
    pub(in crate::transport) fn has_descriptors(&self) -> bool {
        let is_descriptor = |attached: &Attached| matches!(attached, Attached::Descriptor(_));
        self.attached.iter().any(is_descriptor)
    }

    /// Returns the descriptors to be sent.
    pub(in crate::transport) fn fds(&self) -> impl Iterator<Item = Arc<OwnedFd>> {
        self.attached.iter().map(|attached| match attached {
            Attached::Memory(memory) => memory.file().clone(),
            Attached::Descriptor(fd) => fd.clone(),
        })
    }

    /// Returns the index of what is like `attached`, after adding it if it is new.
    pub(super) fn index_of(&mut self, attached: Attached) -> Result<u8, TooManyDescriptorsError> {
        let known = self
            .attached
            .iter()
            .position(|other| match (other, &attached) {
                (Attached::Memory(other), Attached::Memory(memory)) => Arc::ptr_eq(other, memory),
                (Attached::Descriptor(other), Attached::Descriptor(fd)) => Arc::ptr_eq(other, fd),
                _ => false,
            });
        let index = known.unwrap_or(self.attached.len());
        if index == MAX_FDS {
            return Err(TooManyDescriptorsError);
        }
        if known.is_none() {
            self.attached.push(attached);
        }
        Ok(u8::try_from(index).expect("`MAX_FDS` is below 256"))
    }
}
