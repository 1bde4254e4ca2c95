//! The memory of a ring, as both processes map it.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};

use crate::sys::mapping::Shareable;
use crate::sys::primitives::{AtomicUsize, fence};
use crate::transport::tuning::RING_WORDS;

/// The bytes of a word.
pub(super) const WORD: usize = size_of::<usize>();

/// The memory of a ring. The words that a side writes often are in lines of their own; 128 bytes,
/// as processors fetch lines of 64 bytes in pairs.
#[repr(C)]
#[derive(Debug)]
pub(super) struct Ring<const WORDS: usize = RING_WORDS> {
    pub(super) position: ProducerPosition,
    pub(super) consumed: ConsumerPosition,
    pub(super) producer: Status,
    pub(super) consumer: Status,
    pub(super) words: [AtomicUsize; WORDS],
}

// SAFETY: all fields are atomic words (and padding), any bits are a valid value of them, and zeros
// are an empty ring. Nothing is dropped, and the alignment is 128 bytes.
#[allow(unsafe_code)]
unsafe impl<const WORDS: usize> Shareable for Ring<WORDS> {}

/// Written by the producer.
#[repr(C, align(128))]
#[derive(Debug)]
pub(super) struct ProducerPosition {
    /// The number of words committed so far.
    pub(super) tail: AtomicUsize,
}

/// Written by the consumer.
#[repr(C, align(128))]
#[derive(Debug)]
pub(super) struct ConsumerPosition {
    /// The number of words given back so far.
    pub(super) head: AtomicUsize,
    /// The number of messages whose first fragment was taken.
    pub(super) taken: AtomicUsize,
    /// The number of those that came with descriptors.
    pub(super) taken_with_fds: AtomicUsize,
}

/// The side sleeps until its socket is readable.
const PARKED: usize = 1;
/// The side is done, for good.
const CLOSED: usize = 2;

/// The state of one side. It changes seldom, so both processors keep a copy of its line.
#[repr(C, align(128))]
#[derive(Debug)]
pub(super) struct Status {
    flags: AtomicUsize,
    /// The processor on which the side last began to wait.
    processor: AtomicUsize,
}

/// The operations of the side itself.
impl Status {
    /// Announces that this side is going to sleep. It must check the ring after this call.
    pub(super) fn park(&self) {
        self.flags.fetch_or(PARKED, Relaxed);
        fence(SeqCst); // pairs with the one in `take_parked`
    }

    /// Ends a sleep, or an attempt to.
    pub(super) fn unpark(&self) {
        self.flags.fetch_and(!PARKED, Relaxed);
    }

    /// Announces that this side is done. The peer has to be woken after this call.
    pub(super) fn close(&self) {
        self.flags.fetch_or(CLOSED, Release);
    }

    /// Notes the processor on which this side waits.
    pub(super) fn wait_on(&self, processor: usize) {
        if self.processor.load(Relaxed) != processor {
            self.processor.store(processor, Relaxed);
        }
    }
}

/// The operations of the peer.
impl Status {
    /// Returns whether the side is done. All that it did before is visible then.
    pub(super) fn is_closed(&self) -> bool {
        self.flags.load(Acquire) & CLOSED != 0
    }

    /// Returns whether the side last waited on this processor.
    pub(super) fn waits_on(&self, processor: usize) -> bool {
        self.processor.load(Relaxed) == processor
    }

    /// Returns whether the side sleeps, or is about to, and does not know yet what the caller has
    /// stored. The caller must then wake it; no other call returns true for the same sleep.
    pub(super) fn take_parked(&self) -> bool {
        fence(SeqCst); // pairs with the one in `park`
        self.flags.load(Relaxed) & PARKED != 0
            && self.flags.fetch_and(!PARKED, AcqRel) & PARKED != 0
    }
}

impl<const WORDS: usize> Ring<WORDS> {
    const MASK: usize = {
        assert!(WORDS.is_power_of_two());
        WORDS - 1
    };

    /// Returns the word at a position.
    pub(super) fn word(&self, position: usize) -> &AtomicUsize {
        &self.words[position & Self::MASK]
    }

    /// Returns the `count` words from a position on, which may be in two pieces.
    pub(super) fn words(&self, position: usize, count: usize) -> (&[AtomicUsize], &[AtomicUsize]) {
        let start = position & Self::MASK;
        let to_the_end = count.min(WORDS - start);
        (
            &self.words[start..start + to_the_end],
            &self.words[..count - to_the_end],
        )
    }
}

#[cfg(any(test, fuzzing))]
impl<const WORDS: usize> Default for Ring<WORDS> {
    fn default() -> Self {
        let zero = || AtomicUsize::new(0);
        let status = || Status {
            flags: zero(),
            processor: zero(),
        };
        Ring {
            position: ProducerPosition { tail: zero() },
            consumed: ConsumerPosition {
                head: zero(),
                taken: zero(),
                taken_with_fds: zero(),
            },
            producer: status(),
            consumer: status(),
            words: std::array::from_fn(|_| zero()),
        }
    }
}

/// The first word of a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// The number of bytes in the fragment.
    pub(super) length: usize,
    /// The fragment begins a message.
    pub(super) is_first: bool,
    /// The fragment completes a message.
    pub(super) is_last: bool,
    /// The number of descriptors of the message, in its first fragment.
    pub(super) fds: u8,
}

const LENGTH_BITS: u32 = 20;
const FIRST: usize = 1 << LENGTH_BITS;
const LAST: usize = FIRST << 1;
const FDS_SHIFT: u32 = LENGTH_BITS + 2;

impl Header {
    /// The longest fragment of a ring, in bytes: a quarter of it, so that the producer writes one
    /// while the consumer reads another.
    pub(super) const fn max_length(words: usize) -> usize {
        let quarter = words / 4 * WORD;
        let limit = (1 << LENGTH_BITS) - 1;
        if quarter < limit { quarter } else { limit }
    }

    /// Returns the number of words of the fragment, with this one.
    pub(super) fn words(self) -> usize {
        1 + self.length.div_ceil(WORD)
    }

    pub(super) fn to_word(self) -> usize {
        let first = if self.is_first { FIRST } else { 0 };
        let last = if self.is_last { LAST } else { 0 };
        self.length | first | last | usize::from(self.fds) << FDS_SHIFT
    }

    /// Reads a header. Returns `None` if no producer writes such a one.
    pub(super) fn from_word(word: usize) -> Option<Self> {
        let header = Self {
            length: word & (FIRST - 1),
            is_first: word & FIRST != 0,
            is_last: word & LAST != 0,
            fds: (word >> FDS_SHIFT) as u8, // bits above it make the comparison fail
        };
        (header.to_word() == word && (header.is_first || header.fds == 0)).then_some(header)
    }
}
