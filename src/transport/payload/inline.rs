//! The memory of shared slices, and the inline region: the slices of a message that are copied into
//! it.
//!
//! Sealed memory is attached to a message as a descriptor of its own
//! ([`attachments`](super::attachments)). Memory that belongs to the sender alone, such as a `Vec`,
//! is copied behind the encoding of the message. If the encoding is in an arena or in sealed
//! memory, the receiver uses the copy in place. If it is in the frame, where nothing can stay, the
//! receiver copies it once more.
//!
//! Each slice begins at a multiple of its alignment, counted from the base of the region. In
//! memory, the base is the first page without bytes of the encoding.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Deref, Range};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;

use bytemuck::Pod;

use crate::sys::mapping_cache::Lease;
use crate::sys::memory::Sealed;

/// The smallest page size, in bytes, of all supported kernels.
pub(crate) const PAGE: usize = 4096;

/// The least alignment in bytes: that of the C library's allocations.
const MIN_ALIGNMENT: usize = 16;

/// Memory that does not change while it is shared.
#[derive(Clone, Debug)]
pub(crate) enum Memory {
    /// Sealed: no process can change it.
    Sealed(Arc<Sealed>),
    /// In a worker: in an arena, which the parent does not change while it is leased.
    Leased(Lease),
    /// Private memory of this process.
    Owned(Arc<dyn Owned>),
}

/// Private values as bytes, which stay at one address.
pub(crate) trait Owned: Send + Sync + UnwindSafe + RefUnwindSafe {
    fn bytes(&self) -> &[u8];
}

/// Values in a `Vec`.
pub(crate) struct Values<T>(pub(crate) Vec<T>);

// Plain values that never change are consistent after any panic.
impl<T> UnwindSafe for Values<T> {}
impl<T> RefUnwindSafe for Values<T> {}

impl<T: Pod + Send + Sync> Owned for Values<T> {
    fn bytes(&self) -> &[u8] {
        match &self.0[..] {
            [] => &[],
            values => bytemuck::cast_slice(values),
        }
    }
}

impl fmt::Debug for dyn Owned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Owned").finish_non_exhaustive()
    }
}

impl Deref for Memory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Sealed(memory) => memory,
            Self::Leased(memory) => memory,
            Self::Owned(memory) => memory.bytes(),
        }
    }
}

impl Memory {
    /// Copies bytes into new memory with the given alignment. Returns the memory and the offset of
    /// the copy in it.
    pub(crate) fn copy_of(bytes: &[u8], alignment: usize) -> (Self, usize) {
        let mut words = vec![0u128; (bytes.len() + alignment).div_ceil(size_of::<u128>())];
        let buffer: &mut [u8] = bytemuck::cast_slice_mut(&mut words);
        let offset = buffer.as_ptr().align_offset(alignment);
        buffer[offset..][..bytes.len()].copy_from_slice(bytes);
        (Self::Owned(Arc::new(Values(words))), offset)
    }
}

/// The slices that make up the inline region of an outgoing message.
#[derive(Debug, Default)]
pub(crate) struct RegionBuilder {
    slices: Vec<RegionSlice>,
    /// The offset of each slice, by address, length and alignment, so that equal slices are written
    /// once.
    offsets: BTreeMap<(usize, usize, usize), usize>,
    /// Length of the region in bytes.
    len: usize,
}

#[derive(Debug)]
struct RegionSlice {
    memory: Memory,
    range: Range<usize>,
    /// Counted from the base of the region.
    offset: usize,
}

impl RegionBuilder {
    /// Adds a range of `memory`, and returns its offset in the region.
    pub(super) fn add(&mut self, memory: &Memory, range: Range<usize>, alignment: usize) -> usize {
        let bytes = &memory[range.clone()];
        let alignment = alignment.max(MIN_ALIGNMENT);
        let key = (bytes.as_ptr().addr(), bytes.len(), alignment);
        if let Some(offset) = self.offsets.get(&key) {
            return *offset;
        }
        let offset = self.len.next_multiple_of(alignment);
        self.len = offset + bytes.len();
        self.offsets.insert(key, offset);
        self.slices.push(RegionSlice {
            memory: memory.clone(),
            range,
            offset,
        });
        offset
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slices.is_empty()
    }

    /// Returns the length of the region in bytes.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Returns the slices and their offsets, in ascending order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &[u8])> {
        self.slices
            .iter()
            .map(|slice| (slice.offset, &slice.memory[slice.range.clone()]))
    }
}

/// The inline region of a message that has arrived.
#[derive(Clone, Debug, Default)]
pub(crate) enum InlineRegion {
    #[default]
    None,
    /// A range of memory that may be kept.
    InMemory(Memory, Range<usize>),
    /// A copy of the bytes in the frame.
    InFrame(Arc<[u8]>),
}

impl InlineRegion {
    /// Returns the length of the region in bytes.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::InMemory(_, range) => range.len(),
            Self::InFrame(bytes) => bytes.len(),
        }
    }
}
