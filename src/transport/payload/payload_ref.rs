//! The head of an encoded value: where its encoding lies, and how long it is.
//!
//! The first byte of an encoded value is its [`Tag`]. If the encoding is not in the frame, a
//! [`PayloadRef`] follows, and the memory is the last of the descriptors that are attached.

use super::attachment_error::AttachmentError;
use super::inline::PAGE;

/// Where the encoding of a value lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(in crate::transport) enum Tag {
    /// In the frame, up to its end.
    InFrame,
    /// In attached memory, which is sealed.
    Sealed,
    /// In attached memory, which is an arena of the parent's.
    Lent,
    /// In the frame, with an inline region behind it. The last eight bytes of the frame are the
    /// length of the encoding.
    InFrameWithRegion,
}

impl Tag {
    const ALL: [Tag; 4] = [Tag::InFrame, Tag::Sealed, Tag::Lent, Tag::InFrameWithRegion];

    /// Splits a payload into its tag and the rest.
    pub(super) fn split(payload: &[u8]) -> Option<(Self, &[u8])> {
        let (byte, rest) = payload.split_first()?;
        let tag = Self::ALL.get(usize::from(*byte))?;
        Some((*tag, rest))
    }
}

/// Says where in attached memory the encoding and the inline region lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PayloadRef {
    /// Length of the encoding, in bytes from the beginning of the memory.
    pub(super) encoding: usize,
    /// Length of the encoding and the inline region together.
    pub(super) length: usize,
    /// Identifies the arena to the worker; 0 for sealed memory.
    pub(super) arena: u64,
}

impl PayloadRef {
    pub(super) fn to_bytes(self) -> [u8; 24] {
        let numbers = [self.encoding as u64, self.length as u64, self.arena];
        let mut bytes = [0; 24];
        for (field, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            field.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 24] = bytes.try_into().ok()?;
        let number = |at: usize| {
            let number = bytes[at..at + 8].try_into().expect("the range has 8 bytes");
            u64::from_le_bytes(number)
        };
        let payload_ref = Self {
            encoding: usize::try_from(number(0)).ok()?,
            length: usize::try_from(number(8)).ok()?,
            arena: number(16),
        };
        (payload_ref.encoding <= payload_ref.length).then_some(payload_ref)
    }

    /// Returns where the encoding ends and where the inline region begins, if there is one, in
    /// memory of `memory_len` bytes.
    pub(super) fn locate(
        self,
        memory_len: usize,
    ) -> Result<(usize, Option<usize>), AttachmentError> {
        if self.length > memory_len {
            return Err(AttachmentError::Short {
                wanted: self.length as u64,
                actual: memory_len,
            });
        }
        let base = self.encoding.next_multiple_of(PAGE);
        Ok((self.encoding, (base < self.length).then_some(base)))
    }
}
