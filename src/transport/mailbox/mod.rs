//! Two slots that a parent and its worker have both mapped, for frames that need not go through the socket.
//!
//! One slot is for jobs, the other for answers. A frame lies in a slot only while its receiver is awake and looks
//! there; to a receiver that sleeps it goes through the socket, which wakes it. So neither side ever waits for the
//! other by means of this memory alone, and whoever cannot or will not use it just never looks.
//!
//! # The protocol
//!
//! A slot has one sender and one receiver, and at most one frame is on its way between them, in the slot or in the
//! socket. Its state is one word, and each change of it belongs to one side:
//!
//! | from | to | by | means |
//! |---|---|---|---|
//! | `ASLEEP`, `CALLED` | `WAITING` | receiver, [`watch`](Slot::watch) | I look here |
//! | `WAITING` | `FULL` | sender, [`post`](Slot::post) | a frame lies here |
//! | `WAITING` | `CALLED` | sender, [`call`](Slot::call) | a frame lies in the socket |
//! | `WAITING` | `ASLEEP` | receiver, [`leave`](Slot::leave) | I do not look here any more |
//! | `FULL` | `ASLEEP` | receiver, [`take`](Slot::take) | I have the frame |
//!
//! Both sides may change `WAITING`, so they do it by comparing and swapping: either the frame is in the slot before the
//! receiver has left, and [`leave`](Slot::leave) says so, or the receiver has left first, and [`post`](Slot::post)
//! fails. From all other states only one side goes on.
//!
//! A receiver that sets `WAITING` may be kept from looking, because its thread is busy elsewhere. For that the *worker* has
//! an eye on what it posted: before it goes to sleep it looks whether its answer still lies there
//! ([`is_full`](Slot::is_full)), and if so it says that through the socket. A parent need not: its worker does nothing
//! else than look.
//!
//! A worker that has ended and left its job `FULL` has not begun it.
//!
//! A broken job may write anywhere, and so here, too. Whatever it writes, the other side reads a frame, or what is no
//! frame, or nothing; never beyond the slot. (One that forges states on purpose can have itself run again, or wait: it
//! harms its own call.)

pub(crate) mod backoff;
pub(crate) mod inline;
#[cfg(all(test, loom))]
pub(crate) mod loom_tests;
use crate::sys::mapping::Shareable;
use std::sync::atomic::Ordering;

use crate::sys::primitives::AtomicUsize;

use super::frame::Garbage;

const ASLEEP: usize = 0;
const WAITING: usize = 1;
const FULL: usize = 2;
const CALLED: usize = 3;

/// So many words make a slot of 32 KiB, with the two before them and the cache line behind. A small frame lies in the
/// cache line of the state.
const WORDS: usize = 4096 - 2 - 8;

/// The slots of one worker.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Mailbox {
    /// To the worker.
    pub(crate) job: Slot,
    /// To the parent.
    pub(crate) answer: Slot,
}

// SAFETY: slots are words that are atomics; any bits are a value of them, and zeros are an empty mailbox.
#[allow(unsafe_code)]
unsafe impl Shareable for Mailbox {}

/// A place for one frame on its way from a sender to a receiver.
#[repr(C, align(64))]
#[derive(Debug)]
pub(crate) struct Slot<const CAPACITY: usize = WORDS> {
    state: AtomicUsize,
    /// Of the frame, in bytes.
    length: AtomicUsize,
    words: [AtomicUsize; CAPACITY],
    /// On which the receiver was when it began to look.
    processor: Line,
}

/// A word that seldom changes, in a cache line that therefore both processors keep.
#[repr(C, align(64))]
#[derive(Debug)]
struct Line(AtomicUsize);

const WORD: usize = size_of::<usize>();

/// For the sender.
impl<const CAPACITY: usize> Slot<CAPACITY> {
    /// Lays a frame there, if it fits and the receiver looks.
    pub(crate) fn post(&self, frame: &[u8]) -> bool {
        if frame.len() > CAPACITY * WORD || !self.has_receiver() {
            return false;
        }
        for (bytes, word) in frame.chunks(WORD).zip(&self.words) {
            let mut whole = [0; WORD];
            whole[..bytes.len()].copy_from_slice(bytes);
            word.store(usize::from_ne_bytes(whole), Ordering::Relaxed);
        }
        self.length.store(frame.len(), Ordering::Relaxed);
        self.turn(WAITING, FULL)
    }

    /// Whether the receiver looks here.
    ///
    /// Asked by an exchange that changes nothing, which brings the cache line over for writing. A load would bring it
    /// for reading first, and then it would have to be asked for again.
    pub(crate) fn has_receiver(&self) -> bool {
        self.turn(WAITING, WAITING)
    }

    /// Tells a receiver that looks here that there is something in the socket.
    pub(crate) fn call(&self) {
        let _ = self.turn(WAITING, CALLED); // one that does not look hears of it from the socket
    }

    /// Whether what was posted has not been taken.
    pub(crate) fn is_full(&self) -> bool {
        self.state.load(Ordering::Acquire) == FULL
    }

    /// Whether the receiver began to look on this processor.
    pub(crate) fn is_watched_from(&self, processor: usize) -> bool {
        self.processor.0.load(Ordering::Relaxed) == processor
    }
}

/// For the receiver.
impl<const CAPACITY: usize> Slot<CAPACITY> {
    /// Begins to look here, on this processor.
    pub(crate) fn watch(&self, processor: usize) {
        if !self.is_watched_from(processor) {
            self.processor.0.store(processor, Ordering::Relaxed);
        }
        match self.state.load(Ordering::Relaxed) {
            // The sender may be changing it.
            WAITING | FULL => {}
            // The sender does not touch it.
            _ => self.state.store(WAITING, Ordering::Release),
        }
    }

    /// Whether there is nothing to be seen yet by who looks here.
    pub(crate) fn is_quiet(&self) -> bool {
        self.state.load(Ordering::Acquire) == WAITING
    }

    /// Whether the sender has called the receiver to the socket.
    pub(crate) fn is_called(&self) -> bool {
        self.state.load(Ordering::Acquire) == CALLED
    }

    /// Does not look here any longer. False if a frame has come before.
    ///
    /// Whoever looked for the receiver may say this, too, even late, when another looks for it: nothing but `WAITING` is
    /// changed, and only by comparing, so that no frame is lost.
    pub(crate) fn leave(&self) -> bool {
        self.turn(WAITING, ASLEEP) || !self.is_full()
    }

    /// Takes the frame that lies here, if there is one.
    pub(crate) fn take(&self) -> Result<Option<Vec<u8>>, Garbage> {
        if self.state.load(Ordering::Acquire) != FULL {
            return Ok(None);
        }
        let length = self.length.load(Ordering::Relaxed);
        if length > CAPACITY * WORD {
            return Err(Garbage);
        }
        let mut frame = Vec::with_capacity(length.next_multiple_of(WORD));
        for word in &self.words[..length.div_ceil(WORD)] {
            frame.extend_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
        }
        frame.truncate(length);
        // Should a broken job say once more that there is a frame, then it is none, and not this one again.
        self.length.store(0, Ordering::Relaxed);
        self.state.store(ASLEEP, Ordering::Release);
        Ok(Some(frame))
    }
}

impl<const CAPACITY: usize> Slot<CAPACITY> {
    /// Changes the state, unless the other side has.
    fn turn(&self, from: usize, to: usize) -> bool {
        self.state
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }
}

#[cfg(test)]
impl<const CAPACITY: usize> Slot<CAPACITY> {
    /// Writes what a broken job may.
    #[cfg(not(loom))]
    pub(crate) fn scribble(&self, state: usize, length: usize) {
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
            processor: Line(AtomicUsize::new(0)),
            words: std::array::from_fn(|_| AtomicUsize::new(0)),
        }
    }
}
