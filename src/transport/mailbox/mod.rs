//! The mailbox of a worker: two slots in memory shared with the parent, which carry small frames
//! without a system call.
//!
//! One slot is for jobs, the other for answers. A sender posts a frame only while the receiver
//! watches the slot. A receiver that does not watch gets its frames through the socket, which wakes
//! it. So no side waits for this memory alone. A side that cannot use the memory, or a worker that
//! backs off, reads only the socket.
//!
//! # The protocol
//!
//! A slot has one sender and one receiver. At most one frame is on its way between them, in the
//! slot or in the socket. The state of a slot is one word:
//!
//! | from | to | by | meaning |
//! |---|---|---|---|
//! | `ASLEEP`, `SIGNALLED` | `WAITING` | receiver, [`watch`](Slot::watch) | the receiver watches the slot |
//! | `WAITING` | `FULL` | sender, [`post`](Slot::post) | a frame is in the slot |
//! | `WAITING` | `SIGNALLED` | sender, [`signal`](Slot::signal) | a frame is in the socket |
//! | `WAITING` | `ASLEEP` | receiver, [`stop_watching`](Slot::stop_watching) | the receiver will read the socket |
//! | `FULL` | `ASLEEP` | receiver, [`take`](Slot::take) | the receiver has the frame |
//!
//! Both sides may change `WAITING`, so they use compare-and-swap. Either the frame is in the slot
//! before the receiver stops watching, and [`stop_watching`](Slot::stop_watching) returns `false`;
//! or the receiver stops first, and [`post`](Slot::post) fails. Every other state is changed by one
//! side only.
//!
//! A parent that set `WAITING` may not look at the slot for a while, because its thread runs
//! another task. So a *worker* that is about to sleep checks whether its answer is still in the
//! slot ([`is_full`](Slot::is_full)), and if so reports that through the socket. A parent need not
//! check: its worker does nothing but spin while it watches.
//!
//! If a worker ends while its job is still in the slot, the job has not begun.
//!
//! Next to each slot is a word with which the sender asks the receiver to end what a frame has
//! started ([`cancel`](Slot::cancel)). The sender alone writes it. It holds the number of a job, so
//! a request that comes too late concerns no later job. The protocol of these requests, which also
//! go through the socket, is at the head of `worker::child::cancel_request::requests`.
//!
//! A faulty job may overwrite this memory. The other side then reads a frame, a malformed frame or
//! nothing, and never reads beyond the slot. (A job that forges states on purpose can have itself
//! run again, or wait: it harms its own call only.)

#[cfg(all(test, loom))]
mod loom_tests;

use std::sync::atomic::Ordering;

use super::frame::MalformedFrame;
use super::tuning::{BLIND_WRITE_BYTES, SLOT_WORDS};
use crate::sys::mapping::Shareable;
use crate::sys::primitives::AtomicUsize;

const ASLEEP: usize = 0;
const WAITING: usize = 1;
const FULL: usize = 2;
const SIGNALLED: usize = 3;

/// The two slots of a worker.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Mailbox {
    /// Carries jobs to the worker.
    pub(crate) job: Slot,
    /// Carries answers to the parent.
    pub(crate) answer: Slot,
}

// SAFETY: all fields are atomic words (and padding), any bits are a valid value of them, and zeros
// are an empty mailbox. Nothing is dropped, and the alignment is 64 bytes.
#[allow(unsafe_code)]
unsafe impl Shareable for Mailbox {}

/// A buffer for one frame on its way from a sender to a receiver.
#[repr(C, align(64))]
#[derive(Debug)]
pub(crate) struct Slot<const CAPACITY: usize = SLOT_WORDS> {
    state: AtomicUsize,
    /// Length of the frame in bytes.
    length: AtomicUsize,
    words: [AtomicUsize; CAPACITY],
    rare: RareWords,
}

/// Words that seldom change, alone in a cache line, so that both processors keep a copy of the
/// line.
#[repr(C, align(64))]
#[derive(Debug)]
struct RareWords {
    /// The processor on which the receiver began to watch.
    processor: AtomicUsize,
    /// The number of the job that was last asked to end; 0 if none was.
    cancelled: AtomicUsize,
}

const WORD: usize = size_of::<usize>();

/// The sender's operations.
impl<const CAPACITY: usize> Slot<CAPACITY> {
    /// Puts a frame into the slot, if it fits and the receiver watches the slot. Returns whether it
    /// did.
    ///
    /// A small frame is written before the state is checked. This is safe, because the receiver
    /// reads the words only after the exchange succeeds. It is faster, because a check would fetch
    /// the cache line for reading and the store would fetch it again for writing. For a long frame,
    /// a useless write costs more than the second fetch, so the state is checked first.
    pub(crate) fn post(&self, frame: &[u8]) -> bool {
        if frame.len() > CAPACITY * WORD {
            return false;
        }
        if frame.len() > BLIND_WRITE_BYTES && self.state.load(Ordering::Relaxed) != WAITING {
            return false;
        }
        let (whole_words, rest) = frame.as_chunks::<WORD>();
        let mut last_word = [0; WORD];
        last_word[..rest.len()].copy_from_slice(rest);
        let last_word = (!rest.is_empty()).then_some(&last_word);
        for (bytes, word) in whole_words.iter().chain(last_word).zip(&self.words) {
            word.store(usize::from_ne_bytes(*bytes), Ordering::Relaxed);
        }
        self.length.store(frame.len(), Ordering::Relaxed);
        self.exchange(WAITING, FULL)
    }

    /// Tells a receiver that watches the slot that a frame is in the socket.
    pub(crate) fn signal(&self) {
        // A receiver that does not watch the slot reads the socket anyway.
        let _ = self.exchange(WAITING, SIGNALLED);
    }

    /// Returns whether the frame that was posted is still in the slot.
    pub(crate) fn is_full(&self) -> bool {
        self.state.load(Ordering::Acquire) == FULL
    }

    /// Returns whether the receiver began to watch on this processor.
    pub(crate) fn is_watched_from(&self, processor: usize) -> bool {
        self.rare.processor.load(Ordering::Relaxed) == processor
    }

    /// Asks the receiver to end the job with this number.
    pub(crate) fn cancel(&self, job: usize) {
        self.rare.cancelled.store(job, Ordering::Release);
    }
}

/// The receiver's operations.
impl<const CAPACITY: usize> Slot<CAPACITY> {
    /// Starts to watch the slot from this processor.
    pub(crate) fn watch(&self, processor: usize) {
        if !self.is_watched_from(processor) {
            self.rare.processor.store(processor, Ordering::Relaxed);
        }
        match self.state.load(Ordering::Relaxed) {
            // The sender may be changing the state.
            WAITING | FULL => {}
            // In all other states, the sender does not change it.
            _ => self.state.store(WAITING, Ordering::Release),
        }
    }

    /// Returns whether the receiver watches the slot and nothing has arrived.
    pub(crate) fn is_waiting(&self) -> bool {
        self.state.load(Ordering::Acquire) == WAITING
    }

    /// Returns whether the sender has put a frame into the socket while the receiver watched the
    /// slot.
    pub(crate) fn is_signalled(&self) -> bool {
        self.state.load(Ordering::Acquire) == SIGNALLED
    }

    /// Stops watching. Returns `false` if a frame is in the slot; the receiver must then take it.
    ///
    /// A former watcher may call this late, while another already watches the slot: only `WAITING`
    /// is changed, and by compare-and-swap, so no frame is lost.
    pub(crate) fn stop_watching(&self) -> bool {
        self.exchange(WAITING, ASLEEP) || !self.is_full()
    }

    /// Returns whether the sender has asked to end the job with this number, and no later one.
    pub(crate) fn is_cancelled(&self, job: usize) -> bool {
        self.rare.cancelled.load(Ordering::Acquire) == job
    }

    /// Takes the frame out of the slot, if there is one.
    pub(crate) fn take(&self) -> Result<Option<Vec<u8>>, MalformedFrame> {
        if self.state.load(Ordering::Acquire) != FULL {
            return Ok(None);
        }
        let length = self.length.load(Ordering::Relaxed);
        if length > CAPACITY * WORD {
            return Err(MalformedFrame);
        }
        let mut frame = Vec::with_capacity(length.next_multiple_of(WORD));
        for word in &self.words[..length.div_ceil(WORD)] {
            frame.extend_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
        }
        frame.truncate(length);
        // If a faulty job sets `FULL` again, the slot holds an empty, malformed frame rather than
        // this one.
        self.length.store(0, Ordering::Relaxed);
        self.state.store(ASLEEP, Ordering::Release);
        Ok(Some(frame))
    }
}

impl<const CAPACITY: usize> Slot<CAPACITY> {
    /// Changes the state, unless the other side has changed it.
    fn exchange(&self, from: usize, to: usize) -> bool {
        self.state
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }
}

#[cfg(test)]
impl<const CAPACITY: usize> Slot<CAPACITY> {
    /// Overwrites the state and the length, as a faulty job may.
    #[cfg(not(loom))]
    pub(crate) fn overwrite(&self, state: usize, length: usize) {
        self.length.store(length, Ordering::Relaxed);
        self.state.store(state, Ordering::Relaxed);
    }

    #[cfg(not(loom))]
    pub(crate) fn length(&self) -> usize {
        self.length.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
impl<const CAPACITY: usize> Default for Slot<CAPACITY> {
    fn default() -> Self {
        Slot {
            state: AtomicUsize::new(ASLEEP),
            length: AtomicUsize::new(0),
            rare: RareWords {
                processor: AtomicUsize::new(0),
                cancelled: AtomicUsize::new(0),
            },
            words: std::array::from_fn(|_| AtomicUsize::new(0)),
        }
    }
}
