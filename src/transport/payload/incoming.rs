//! The encoding of a value that has arrived, in its frame or in attached memory.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use bincode::de::read::Reader;
use bincode::error::DecodeError;

use super::attachment_error::AttachmentError;
use super::incoming_memory::Origin;
use super::inline::{InlineRegion, Memory};
use super::payload_ref::{PayloadRef, Tag};
use crate::sys::mapping_cache::MappingCache;
use crate::sys::memory::{Sealed, inspect, size_of_memory};
use crate::sys::scratch::prefer_huge_pages;
use crate::transport::tuning::HUGE_PAGE_MIN;

/// The encoding of one value, and the memory that came with it.
#[derive(Debug)]
pub(crate) struct Incoming<'a> {
    pub(in crate::transport) encoding: EncodedBytes<'a>,
    pub(in crate::transport) region: InlineRegion,
    pub(in crate::transport) fds: Vec<OwnedFd>,
    pub(in crate::transport) origin: Origin,
}

#[derive(Debug)]
pub(in crate::transport) enum EncodedBytes<'a> {
    InFrame(&'a [u8]),
    /// The first bytes of the memory, this many.
    InMemory(Memory, usize),
}

impl<'a> Incoming<'a> {
    /// Locates a value that a process has sent which may be faulty: a worker, or the other side of
    /// a channel.
    pub(in crate::transport) fn from_worker(
        payload: &'a [u8],
        fds: Vec<OwnedFd>,
    ) -> Result<Self, AttachmentError> {
        let refers_to_memory = matches!(Tag::split(payload), Some((Tag::Sealed | Tag::Lent, _)));
        if let (true, Some(memory)) = (refers_to_memory, fds.last()) {
            inspect(memory).map_err(AttachmentError::Refused)?;
        }
        Self::locate(payload, fds, None)
    }

    /// Locates a value that this worker's parent has sent.
    pub(in crate::transport) fn from_parent(
        payload: &'a [u8],
        fds: Vec<OwnedFd>,
        mappings: &mut MappingCache,
    ) -> Result<Self, AttachmentError> {
        Self::locate(payload, fds, Some(mappings))
    }

    /// Locates a value. An arena is accepted only with `mappings`.
    fn locate(
        payload: &'a [u8],
        mut fds: Vec<OwnedFd>,
        mappings: Option<&mut MappingCache>,
    ) -> Result<Self, AttachmentError> {
        let origin = match mappings {
            Some(_) => Origin::Parent,
            None => Origin::Untrusted,
        };
        let (tag, rest) = Tag::split(payload).ok_or(AttachmentError::Malformed)?;
        let (encoding, region) = match tag {
            Tag::InFrame => (EncodedBytes::InFrame(rest), InlineRegion::None),
            Tag::InFrameWithRegion => {
                let (encoding, region) = split_region(rest).ok_or(AttachmentError::Malformed)?;
                let region = InlineRegion::InFrame(region.into());
                (EncodedBytes::InFrame(encoding), region)
            }
            Tag::Sealed | Tag::Lent => {
                let payload_ref = PayloadRef::from_bytes(rest).ok_or(AttachmentError::Malformed)?;
                let memory = match (tag, mappings) {
                    (Tag::Sealed, _) => {
                        let memory = fds.pop().ok_or(AttachmentError::Lost)?;
                        let memory = Sealed::adopt(memory).map_err(AttachmentError::Refused)?;
                        Memory::Sealed(Arc::new(memory))
                    }
                    (_, Some(mappings)) => {
                        let memory = fds.pop().ok_or(AttachmentError::Lost)?;
                        let lease = mappings
                            .lend(payload_ref.arena, &memory, payload_ref.length)
                            .map_err(AttachmentError::Refused)?;
                        Memory::Leased(lease)
                    }
                    (_, None) => return Err(AttachmentError::Malformed),
                };
                let (encoding, base) = payload_ref.locate(memory.len())?;
                let region = base.map_or(InlineRegion::None, |base| {
                    InlineRegion::InMemory(memory.clone(), base..payload_ref.length)
                });
                (EncodedBytes::InMemory(memory, encoding), region)
            }
        };
        Ok(Self {
            encoding,
            region,
            fds,
            origin,
        })
    }
}

/// Splits the payload of a [`Tag::InFrameWithRegion`] into the encoding and the inline region.
fn split_region(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (bytes, encoding) = bytes.split_last_chunk::<8>()?;
    let encoding = usize::try_from(u64::from_le_bytes(*encoding)).ok()?;
    bytes.split_at_checked(encoding)
}

/// Returns how many bytes the encoding of a value has, from its frame's payload and the last of its
/// descriptors. Memory of another process counts only as far as its pages exist.
pub(in crate::transport) fn encoded_len(payload: &[u8], last_fd: Option<BorrowedFd<'_>>) -> usize {
    match (Tag::split(payload), last_fd) {
        (Some((Tag::Sealed | Tag::Lent, payload_ref)), Some(memory)) => {
            let length = PayloadRef::from_bytes(payload_ref).map_or(0, |found| found.length);
            length.min(size_of_memory(memory))
        }
        (Some((Tag::InFrameWithRegion, rest)), _) => rest.len().saturating_sub(8),
        _ => payload.len().saturating_sub(1),
    }
}

/// Reads a large value from a slice, into huge pages where those help.
pub(in crate::transport) struct LargeReader<'a, 'b>(pub(in crate::transport) &'a mut &'b [u8]);

// Called for each number of which a value consists.
impl Reader for LargeReader<'_, '_> {
    #[inline]
    fn read(&mut self, target: &mut [u8]) -> Result<(), DecodeError> {
        let Some((bytes, rest)) = self.0.split_at_checked(target.len()) else {
            return Err(DecodeError::UnexpectedEnd {
                additional: target.len() - self.0.len(),
            });
        };
        if target.len() >= HUGE_PAGE_MIN {
            prefer_huge_pages(target);
        }
        target.copy_from_slice(bytes);
        *self.0 = rest;
        Ok(())
    }

    #[inline]
    fn peek_read(&mut self, length: usize) -> Option<&[u8]> {
        self.0.get(..length)
    }

    #[inline]
    fn consume(&mut self, length: usize) {
        *self.0 = self.0.get(length..).unwrap_or_default();
    }
}
