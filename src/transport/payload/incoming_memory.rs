//! The memory that has come with a message.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::attachment_error::AttachmentError;
use super::inline::InlineRegion;
use crate::sys::memory::{Sealed, inspect};

/// The process that an incoming message came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A worker, or a process that a job has given its descriptors to. It may send anything.
    #[default]
    Untrusted,
    /// The parent of this worker.
    Parent,
}

/// The memory of an incoming message.
#[derive(Debug, Default)]
pub(super) struct IncomingMemory {
    pub(super) fds: Vec<IncomingFd>,
    pub(super) region: InlineRegion,
    pub(super) origin: Origin,
}

/// An attached descriptor.
#[derive(Debug)]
pub(super) enum IncomingFd {
    Unused(OwnedFd),
    Mapped(Arc<Sealed>),
    /// The value has it as a descriptor.
    Taken(Arc<OwnedFd>),
    /// The descriptor did not lead to sealed memory.
    Refused,
}

impl IncomingFd {
    /// Returns the memory, which is mapped the first time.
    pub(super) fn map(&mut self, origin: Origin) -> Result<Arc<Sealed>, AttachmentError> {
        let memory = match std::mem::replace(self, Self::Refused) {
            Self::Unused(fd) => {
                if let Origin::Untrusted = origin {
                    inspect(&fd).map_err(AttachmentError::Refused)?;
                }
                Arc::new(Sealed::adopt(fd).map_err(AttachmentError::Refused)?)
            }
            Self::Mapped(memory) => memory,
            Self::Taken(_) | Self::Refused => return Err(AttachmentError::Malformed),
        };
        *self = Self::Mapped(memory.clone());
        Ok(memory)
    }

    /// Returns the descriptor itself.
    pub(super) fn take(&mut self) -> Result<Arc<OwnedFd>, AttachmentError> {
        let fd = match std::mem::replace(self, Self::Refused) {
            Self::Unused(fd) => Arc::new(fd),
            Self::Taken(fd) => fd,
            Self::Mapped(_) | Self::Refused => return Err(AttachmentError::Malformed),
        };
        *self = Self::Taken(fd.clone());
        Ok(fd)
    }
}
