//! What shared memory is made of, and how the part of it travels that is not sealed: copied behind the encoding of the
//! message.
//!
//! Sealed memory goes beside a message as a descriptor of its own ([`enclosure`](crate::transport::payload::attachments)). What is only the
//! sender's, such as a `Vec`, is written to where the large part of the message lies anyway, and read there in place:
//! in an arena, as a lease, or in sealed memory, as a part of that. A small message has it in its frame, where nothing
//! can stay, so the receiver copies it once more.
//!
//! Each stretch begins at a multiple of its alignment, counted from a base, which in memory is the first page that has
//! nothing of the encoding in it.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Deref, Range};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;

use bytemuck::Pod;

use crate::sys::arena::Lease;
use crate::sys::memory::Sealed;

/// The smallest pages that any kernel of ours has.
pub(crate) const PAGE: usize = 4096;

/// The least alignment: that of memory from the C library.
const ALIGNMENT: usize = 16;

/// Where values lie that nobody changes.
#[derive(Clone, Debug)]
pub(crate) enum Memory {
    /// In memory that nobody can change.
    Sealed(Arc<Sealed>),
    /// In a worker, in an arena that its parent does not change meanwhile.
    Leased(Lease),
    /// In this process alone.
    Owned(Arc<dyn Owned>),
}

/// Values that this process owns, as bytes, which stay where they are.
pub(crate) trait Owned: Send + Sync + UnwindSafe + RefUnwindSafe {
    fn bytes(&self) -> &[u8];
}

/// Values in a `Vec`.
pub(crate) struct Values<T>(pub(crate) Vec<T>);

// Plain values, which nobody changes, are whole after any panic.
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
    /// Copies bytes to a place in new memory that is aligned so, and says where that is.
    pub(crate) fn copy_of(bytes: &[u8], alignment: usize) -> (Self, usize) {
        let mut room = vec![0u128; (bytes.len() + alignment).div_ceil(size_of::<u128>())];
        let place: &mut [u8] = bytemuck::cast_slice_mut(&mut room);
        let offset = place.as_ptr().align_offset(alignment);
        place[offset..][..bytes.len()].copy_from_slice(bytes);
        (Self::Owned(Arc::new(Values(room))), offset)
    }
}

/// What is to be written behind the encoding of a message.
#[derive(Debug, Default)]
pub(crate) struct Stretches {
    list: Vec<Stretch>,
    /// By their address, length and alignment, where those are that stand in the message more than once.
    known: BTreeMap<(usize, usize, usize), usize>,
    /// How far they reach from the base.
    end: usize,
}

#[derive(Debug)]
struct Stretch {
    memory: Memory,
    range: Range<usize>,
    /// From the base.
    offset: usize,
}

impl Stretches {
    /// Takes in a stretch of `memory`, and says where it will begin.
    pub(in crate::transport) fn add(
        &mut self,
        memory: &Memory,
        range: Range<usize>,
        alignment: usize,
    ) -> usize {
        let bytes = &memory[range.clone()];
        let alignment = alignment.max(ALIGNMENT);
        let key = (bytes.as_ptr().addr(), bytes.len(), alignment);
        if let Some(offset) = self.known.get(&key) {
            return *offset;
        }
        let offset = self.end.next_multiple_of(alignment);
        self.end = offset + bytes.len();
        self.known.insert(key, offset);
        self.list.push(Stretch {
            memory: memory.clone(),
            range,
            offset,
        });
        offset
    }

    pub(in crate::transport) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many bytes there are from the base to the end of the last.
    pub(in crate::transport) fn len(&self) -> usize {
        self.end
    }

    /// All of them, in the order of their places.
    pub(in crate::transport) fn iter(&self) -> impl Iterator<Item = (usize, &[u8])> {
        let bytes = |stretch: &Stretch| stretch.range.clone();
        self.list
            .iter()
            .map(move |stretch| (stretch.offset, &stretch.memory[bytes(stretch)]))
    }
}

/// Where the stretches of a message are that has arrived.
#[derive(Clone, Debug)]
pub(crate) enum Within {
    /// There are none.
    Nowhere,
    /// There.
    At(Memory, Range<usize>),
    /// Here, for the moment.
    Here(Arc<[u8]>),
}

impl Within {
    /// How many bytes there are.
    pub(in crate::transport) fn len(&self) -> usize {
        match self {
            Self::Nowhere => 0,
            Self::At(_, range) => range.len(),
            Self::Here(bytes) => bytes.len(),
        }
    }
}
