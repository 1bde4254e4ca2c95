//! The producer's side of a ring's memory. It makes no system call.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use serde::{Deserialize, Serialize};

use super::error::Malformed;
use super::shared::{Header, Ring, WORD};
use crate::transport::tuning::MAX_RING_MESSAGES_WITH_FDS;

/// The producer's position and what it knows of the consumer's, in private memory.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Producer {
    /// The number of words committed.
    tail: usize,
    /// The number of messages begun.
    sent: usize,
    /// The number of those with descriptors.
    sent_with_fds: usize,
    /// The consumer's position, as last seen.
    head: usize,
    /// The consumer's number of messages, as last seen.
    taken: usize,
    capacity: usize,
}

/// Room for a fragment, which is the producer's until it is committed.
#[derive(Debug)]
#[must_use = "nothing is sent until the fragment is committed"]
pub(super) struct Room<'a, const WORDS: usize> {
    producer: &'a mut Producer,
    ring: &'a Ring<WORDS>,
    header: Header,
}

impl Producer {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            ..Self::default()
        }
    }

    /// Returns whether a sender can be in this state, which may come from another process.
    pub(super) fn is_possible<const WORDS: usize>(&self) -> bool {
        self.tail.wrapping_sub(self.head) <= WORDS
            && self.sent.wrapping_sub(self.taken) <= self.capacity
    }

    /// Reserves room for a fragment. Returns `None` if there is too little, or if too many messages
    /// are on their way.
    pub(super) fn reserve<'a, const WORDS: usize>(
        &'a mut self,
        ring: &'a Ring<WORDS>,
        header: Header,
    ) -> Result<Option<Room<'a, WORDS>>, Malformed> {
        if !self.has_room::<WORDS>(header) {
            self.look(ring)?;
            if !self.has_room::<WORDS>(header) {
                return Ok(None);
            }
        }
        if header.fds > 0 {
            // The position first: if a message is taken after that, the position has changed.
            self.look(ring)?;
            if self.with_fds_on_their_way(ring)? >= MAX_RING_MESSAGES_WITH_FDS {
                return Ok(None);
            }
        }
        Ok(Some(Room {
            producer: self,
            ring,
            header,
        }))
    }

    fn has_room<const WORDS: usize>(&self, header: Header) -> bool {
        let used = self.tail.wrapping_sub(self.head);
        let begun = self.sent.wrapping_sub(self.taken);
        header.words() <= WORDS - used && (!header.is_first || begun < self.capacity)
    }

    /// Reads the consumer's position.
    fn look<const WORDS: usize>(&mut self, ring: &Ring<WORDS>) -> Result<(), Malformed> {
        let head = ring.consumed.head.load(Acquire);
        let taken = ring.consumed.taken.load(Relaxed);
        let is_possible = self.tail.wrapping_sub(head) <= self.tail.wrapping_sub(self.head)
            && self.sent.wrapping_sub(taken) <= self.sent.wrapping_sub(self.taken);
        if !is_possible {
            return Err(Malformed);
        }
        (self.head, self.taken) = (head, taken);
        Ok(())
    }

    fn with_fds_on_their_way<const WORDS: usize>(
        &self,
        ring: &Ring<WORDS>,
    ) -> Result<usize, Malformed> {
        let taken = ring.consumed.taken_with_fds.load(Relaxed);
        let on_their_way = self.sent_with_fds.wrapping_sub(taken);
        if on_their_way > MAX_RING_MESSAGES_WITH_FDS {
            return Err(Malformed);
        }
        Ok(on_their_way)
    }

    /// Returns whether the consumer has given back words or messages that this side has not seen,
    /// or has closed.
    pub(super) fn is_changed<const WORDS: usize>(&self, ring: &Ring<WORDS>) -> bool {
        ring.consumed.head.load(Acquire) != self.head || ring.consumer.is_closed()
    }

    /// Makes room in a test as if `words` had been sent and taken.
    #[cfg(all(test, not(loom)))]
    pub(super) fn skip(&mut self, words: usize) {
        self.tail = self.tail.wrapping_add(words);
        self.head = self.head.wrapping_add(words);
    }
}

impl<const WORDS: usize> Room<'_, WORDS> {
    /// Writes the fragment and commits it. `bytes` are as long as the header says.
    pub(super) fn commit(self, bytes: &[u8]) {
        let Self {
            producer,
            ring,
            header,
        } = self;
        debug_assert_eq!(bytes.len(), header.length);
        ring.word(producer.tail).store(header.to_word(), Relaxed);
        let (one, two) = ring.words(producer.tail.wrapping_add(1), header.words() - 1);
        let (whole, rest) = bytes.as_chunks::<WORD>();
        let mut words = one.iter().chain(two);
        for (bytes, word) in whole.iter().zip(&mut words) {
            word.store(usize::from_ne_bytes(*bytes), Relaxed);
        }
        if let Some(word) = words.next() {
            let mut last = [0; WORD];
            last[..rest.len()].copy_from_slice(rest);
            word.store(usize::from_ne_bytes(last), Relaxed);
        }
        producer.tail = producer.tail.wrapping_add(header.words());
        if header.is_first {
            producer.sent = producer.sent.wrapping_add(1);
            producer.sent_with_fds = producer
                .sent_with_fds
                .wrapping_add(usize::from(header.fds > 0));
        }
        ring.position.tail.store(producer.tail, Release);
    }
}
