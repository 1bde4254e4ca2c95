//! The consumer's side of a ring's memory. It makes no system call.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use serde::{Deserialize, Serialize};

use super::error::Malformed;
use super::shared::{Header, Ring, WORD};

/// The consumer's position and what it knows of the producer's, in private memory.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Consumer {
    /// The number of words given back.
    head: usize,
    /// The producer's position, as last seen.
    tail: usize,
    /// The number of messages whose first fragment was taken.
    taken: usize,
    /// The number of those with descriptors.
    taken_with_fds: usize,
}

/// A committed fragment, whose words are the consumer's until it is taken.
#[derive(Debug)]
#[must_use = "the fragment stays in the ring until it is taken"]
pub(super) struct Fragment<'a, const WORDS: usize> {
    consumer: &'a mut Consumer,
    ring: &'a Ring<WORDS>,
    header: Header,
}

impl Consumer {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Returns whether a receiver can be in this state, which may come from another process.
    pub(super) fn is_possible<const WORDS: usize>(&self) -> bool {
        self.tail.wrapping_sub(self.head) <= WORDS
    }

    /// Returns the next fragment, or `None` if none is committed.
    pub(super) fn next<'a, const WORDS: usize>(
        &'a mut self,
        ring: &'a Ring<WORDS>,
    ) -> Result<Option<Fragment<'a, WORDS>>, Malformed> {
        if self.tail == self.head {
            let tail = ring.position.tail.load(Acquire);
            if tail.wrapping_sub(self.head) > WORDS {
                return Err(Malformed);
            }
            self.tail = tail;
            if tail == self.head {
                return Ok(None);
            }
        }
        let word = ring.word(self.head).load(Relaxed);
        let header = Header::from_word(word).ok_or(Malformed)?;
        let is_whole = header.words() <= self.tail.wrapping_sub(self.head)
            && header.length <= Header::max_length(WORDS);
        if !is_whole {
            return Err(Malformed);
        }
        Ok(Some(Fragment {
            consumer: self,
            ring,
            header,
        }))
    }

    /// Returns whether a fragment is committed, or the producer has closed.
    pub(super) fn is_changed<const WORDS: usize>(&self, ring: &Ring<WORDS>) -> bool {
        ring.position.tail.load(Acquire) != self.head || ring.producer.is_closed()
    }

    /// Moves on in a test as if `words` had been received.
    #[cfg(all(test, not(loom)))]
    pub(super) fn skip(&mut self, words: usize) {
        self.tail = self.tail.wrapping_add(words);
        self.head = self.head.wrapping_add(words);
    }
}

impl<const WORDS: usize> Fragment<'_, WORDS> {
    pub(super) fn header(&self) -> Header {
        self.header
    }

    /// Appends the bytes to `buffer`, and gives the words back to the producer.
    pub(super) fn take_onto(self, buffer: &mut Vec<u8>) {
        let Self {
            consumer,
            ring,
            header,
        } = self;
        let before = buffer.len();
        let count = header.words() - 1;
        buffer.resize(before + count * WORD, 0);
        let (one, two) = ring.words(consumer.head.wrapping_add(1), count);
        let (targets, _) = buffer[before..].as_chunks_mut::<WORD>();
        for (target, word) in targets.iter_mut().zip(one.iter().chain(two)) {
            *target = word.load(Relaxed).to_ne_bytes();
        }
        buffer.truncate(before + header.length);
        consumer.head = consumer.head.wrapping_add(header.words());
        if header.is_first {
            consumer.taken = consumer.taken.wrapping_add(1);
            ring.consumed.taken.store(consumer.taken, Relaxed);
            if header.fds > 0 {
                consumer.taken_with_fds = consumer.taken_with_fds.wrapping_add(1);
                let taken = consumer.taken_with_fds;
                ring.consumed.taken_with_fds.store(taken, Relaxed);
            }
        }
        // Orders the reads above before the words are written again, and publishes the counts.
        ring.consumed.head.store(consumer.head, Release);
    }
}
