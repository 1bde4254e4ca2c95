//! The memory that a parent and a worker share during a session: its layout, and rings of records.
//!
//! `unsafe` states that the memory may be shared.
#![allow(unsafe_code)]

use std::sync::atomic::Ordering;

use crate::sys::futex::Futex;
use crate::sys::mapping::Shareable;
use crate::sys::primitives::{SharedU32, SharedU64};
use crate::transport::tuning::MAP_RING_WORDS;

/// A flag of `limit`: the session ends after the items that it counts.
pub(crate) const CLOSED: u64 = 1;

/// A flag of `limit`: the parent reads no more results, so the worker does not wait for room.
pub(crate) const ABANDONED: u64 = 2;

/// The count in `limit` begins at this bit.
pub(crate) const LIMIT_SHIFT: u32 = 2;

/// A flag of `progress`: the item in progress has exceeded its time, and must not end.
pub(crate) const CONDEMNED: u64 = 1 << 63;

/// A value of `waiting`: the worker has items to work on.
pub(crate) const WAITS_FOR_NOTHING: u32 = 0;

/// A value of `waiting`: the worker has no item.
pub(crate) const WAITS_FOR_ITEMS: u32 = 1;

/// A value of `waiting`: the worker has a result for which there is no room.
pub(crate) const WAITS_FOR_ROOM: u32 = 2;

/// The shared memory of a session, with rings of this many words.
#[repr(C)]
#[derive(Debug)]
#[cfg_attr(all(test, loom), derive(Default))]
pub(crate) struct SessionMemory<const WORDS: usize = MAP_RING_WORDS> {
    pub(super) parent: ParentWords,
    pub(super) worker: WorkerWords,
    pub(super) wait: WaitWords,
    pub(super) items: Ring<WORDS>,
    pub(super) results: Ring<WORDS>,
}

// SAFETY: all fields are atomic words (and padding), any bits are a valid value of them, and zeros
// are a session without items. Nothing is dropped, and the alignment is 64 bytes.
unsafe impl<const WORDS: usize> Shareable for SessionMemory<WORDS> {}

/// Words that the parent writes.
#[repr(C, align(64))]
#[derive(Debug)]
#[cfg_attr(all(test, loom), derive(Default))]
pub(super) struct ParentWords {
    pub(super) limit: SharedU64,
    /// Number of words of the results that have been read.
    pub(super) taken: SharedU64,
}

/// Words that the worker writes.
#[repr(C, align(64))]
#[derive(Debug)]
#[cfg_attr(all(test, loom), derive(Default))]
pub(super) struct WorkerWords {
    pub(super) progress: SharedU64,
    /// When the item in progress began, in nanoseconds of the monotonic clock. Written only if the
    /// items have a time limit.
    pub(super) began: SharedU64,
    /// The time that the worker has spent on items, in nanoseconds, as of a recent item.
    pub(super) busy: SharedU64,
    /// The number of items for which it needed that time.
    pub(super) measured: SharedU64,
}

/// Words that seldom change, by which either side wakes the other.
#[repr(C, align(64))]
#[derive(Debug)]
#[cfg_attr(all(test, loom), derive(Default))]
pub(super) struct WaitWords {
    /// The reason for which the worker waits; see [`WAITS_FOR_NOTHING`].
    pub(super) waiting: SharedU32,
    /// The futex on which the worker waits.
    pub(super) bell: Futex,
    /// 1 if the parent wants to be woken by the next item that ends.
    pub(super) parked: SharedU32,
}

/// A ring of records in words. A record is a word with its tag and its length, and then its bytes.
/// Positions count words from the beginning of the session; they do not wrap.
#[repr(C, align(64))]
#[derive(Debug)]
pub(super) struct Ring<const WORDS: usize>([SharedU64; WORDS]);

const WORD: usize = size_of::<u64>();

/// Returns how many words a record of this many bytes takes.
pub(crate) const fn record_words(length: usize) -> u64 {
    1 + length.div_ceil(WORD) as u64
}

impl<const WORDS: usize> Ring<WORDS> {
    fn word(&self, position: u64) -> &SharedU64 {
        // A power of two, so this is a mask.
        &self.0[position as usize % WORDS]
    }

    /// Writes a record, for which there must be room. Returns the position behind it.
    pub(super) fn put(&self, mut position: u64, tag: u8, bytes: &[u8]) -> u64 {
        debug_assert!(record_words(bytes.len()) <= WORDS as u64);
        let head = (bytes.len() as u64) << 8 | u64::from(tag);
        self.word(position).store(head, Ordering::Relaxed);
        position += 1;
        let (whole, rest) = bytes.as_chunks::<WORD>();
        for bytes in whole {
            let word = u64::from_ne_bytes(*bytes);
            self.word(position).store(word, Ordering::Relaxed);
            position += 1;
        }
        if !rest.is_empty() {
            let mut last = [0; WORD];
            last[..rest.len()].copy_from_slice(rest);
            let word = u64::from_ne_bytes(last);
            self.word(position).store(word, Ordering::Relaxed);
            position += 1;
        }
        position
    }

    /// Copies the bytes of a record to `bytes`, in place of their contents. Returns its tag and the
    /// position behind it; `None` if its length is not possible.
    pub(super) fn get(&self, mut position: u64, bytes: &mut Vec<u8>) -> Option<(u8, u64)> {
        bytes.clear();
        let head = self.word(position).load(Ordering::Relaxed);
        position += 1;
        let length = usize::try_from(head >> 8).ok()?;
        if length > (WORDS - 1) * WORD {
            return None;
        }
        let words = length.div_ceil(WORD);
        bytes.reserve(words * WORD);
        for _ in 0..words {
            let word = self.word(position).load(Ordering::Relaxed);
            bytes.extend_from_slice(&word.to_ne_bytes());
            position += 1;
        }
        bytes.truncate(length);
        Some((head as u8, position))
    }
}

impl<const WORDS: usize> SessionMemory<WORDS> {
    /// Returns the number of items that the worker may begin, and the flags.
    pub(super) fn limit(&self) -> (u64, u64) {
        let limit = self.parent.limit.load(Ordering::SeqCst);
        (limit >> LIMIT_SHIFT, limit & (CLOSED | ABANDONED))
    }
}

#[cfg(all(test, loom))]
impl<const WORDS: usize> Default for Ring<WORDS> {
    fn default() -> Self {
        Ring(std::array::from_fn(|_| SharedU64::default()))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sys::mapping::Mapping;
    use proptest::prelude::*;

    proptest! {
        #[cfg_attr(miri, ignore = "maps shared memory")]
        #[test]
        fn records_are_read_as_they_were_written_across_the_end_of_the_ring(
            records: Vec<(u8, Vec<u8>)>,
            start in 0..2 * MAP_RING_WORDS as u64,
        ) {
            let (memory, _file) = Mapping::<SessionMemory>::make("test").unwrap();
            let mut at = start + MAP_RING_WORDS as u64 - 100;
            for (tag, bytes) in &records {
                let next = memory.items.put(at, *tag, bytes);
                prop_assert_eq!(next - at, record_words(bytes.len()));
                let mut read = vec![1; 7];
                prop_assert_eq!(memory.items.get(at, &mut read), Some((*tag, next)));
                prop_assert_eq!(&read, bytes);
                at = next;
            }
        }

        #[cfg_attr(miri, ignore = "maps shared memory")]
        #[test]
        fn a_record_with_any_head_is_read_or_refused(head: u64) {
            let (memory, _file) = Mapping::<SessionMemory>::make("test").unwrap();
            memory.results.word(5).store(head, Ordering::Relaxed);
            let mut read = Vec::new();
            let got = memory.results.get(5, &mut read);
            prop_assert_eq!(got.is_some(), head >> 8 <= 8 * (MAP_RING_WORDS as u64 - 1));
        }
    }
}
