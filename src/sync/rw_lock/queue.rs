//! Decides which tasks read, write and wait.
//!
//! The queue is pure: a waiter is a payload `W` that is stored and returned. Readers and writers
//! wait in a list each, and every waiter carries the number of its arrival. So the first waiter is
//! found by one comparison, and a read-biased queue admits readers without a search.
//!
//! One rule ([`next`](Queue::next)) decides. Every change that could admit a waiter applies the
//! rule until it admits none. tricycle wakes waiters in some places only. So it leaves readers
//! waiting when a writer before them is cancelled, and admits them during a write when the bias is
//! enabled.
//!
//! Invariants, after every call:
//!
//! * A writer holds alone. `Held` includes waiters that were granted and have not claimed yet.
//! * The rule admits no waiter. So without holders, there are no waiters.

use crate::sync::locked::Deferred;
use crate::sync::wait_list::{self, Removed, WaitList};

/// The kind of access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Reading, together with other readers.
    Read,
    /// Writing, alone.
    Write,
}

/// The holders of the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// None.
    Free,
    /// This number of readers, at least one.
    Reading(usize),
    /// One writer.
    Writing,
}

/// A waiter's key: its mode, and its key in the list of that mode.
#[derive(Debug)]
pub(super) struct WaiterKey {
    mode: Mode,
    key: wait_list::WaiterKey,
}

/// A waiter.
#[derive(Debug)]
struct Waiter<W> {
    arrival: u64,
    payload: W,
}

/// The holders and the waiters.
#[derive(Debug)]
pub(super) struct Queue<W> {
    held: Held,
    read_biased: bool,
    readers: WaitList<Waiter<W>>,
    writers: WaitList<Waiter<W>>,
    /// The number of the next waiter.
    arrivals: u64,
}

impl<W> Queue<W> {
    pub(super) const fn new(read_biased: bool) -> Self {
        Queue {
            held: Held::Free,
            read_biased,
            readers: WaitList::new(),
            writers: WaitList::new(),
            arrivals: 0,
        }
    }

    pub(super) fn held(&self) -> Held {
        self.held
    }

    pub(super) fn is_read_biased(&self) -> bool {
        self.read_biased
    }

    /// Returns the number of waiters of this mode.
    pub(super) fn waiting(&self, mode: Mode) -> usize {
        match mode {
            Mode::Read => self.readers.waiting(),
            Mode::Write => self.writers.waiting(),
        }
    }

    /// Takes the lock if neither its holders nor its waiters prevent that.
    pub(super) fn try_take(&mut self, mode: Mode) -> bool {
        let admitted = match (mode, self.held) {
            // By the invariant, there are no waiters.
            (_, Held::Free) => true,
            (Mode::Read, Held::Reading(_)) => self.read_biased || self.writers.waiting() == 0,
            (Mode::Read, Held::Writing) | (Mode::Write, _) => false,
        };
        if admitted {
            self.enter(mode);
        }
        admitted
    }

    /// Adds a waiter at the end of the queue, after [`try_take`](Self::try_take) has failed.
    pub(super) fn push(&mut self, mode: Mode, payload: W) -> WaiterKey {
        let arrival = self.arrivals;
        self.arrivals += 1;
        let key = self.list(mode).push(Waiter { arrival, payload });
        WaiterKey { mode, key }
    }

    /// Returns the payload of a waiter; `None` once it has the lock, which it must
    /// [`claim`](Self::claim).
    pub(super) fn payload_mut(&mut self, key: &WaiterKey) -> Option<&mut W> {
        let waiter = self.list(key.mode).payload_mut(&key.key)?;
        Some(&mut waiter.payload)
    }

    /// Removes a granted waiter, which keeps the lock.
    pub(super) fn claim(&mut self, key: WaiterKey) {
        let removed = self.list(key.mode).remove(key.key);
        debug_assert!(
            matches!(removed, Removed::Granted(())),
            "only a granted waiter may claim"
        );
    }

    /// Removes a waiter without the lock. Returns the action for its own payload, and the payloads
    /// to wake, in order: waiters that get the lock instead, and waiters that waited only because
    /// of this one.
    pub(super) fn give_up(&mut self, key: WaiterKey) -> (Deferred<W>, Vec<W>) {
        match self.list(key.mode).remove(key.key) {
            Removed::Waiting(waiter) => (Deferred::Drop(waiter.payload), self.admit()),
            Removed::Granted(()) => (Deferred::Nothing, self.release()),
        }
    }

    /// Removes a holder; its mode is known from the state. Returns the waiters that get the lock
    /// now, in order, to be woken.
    pub(super) fn release(&mut self) -> Vec<W> {
        self.held = match self.held {
            Held::Reading(1) | Held::Writing => Held::Free,
            Held::Reading(readers) => Held::Reading(readers - 1),
            Held::Free => unreachable!("only a holder releases"),
        };
        self.admit()
    }

    /// Sets the bias. Returns the waiters that get the lock now, in order, to be woken.
    pub(super) fn set_read_biased(&mut self, read_biased: bool) -> Vec<W> {
        self.read_biased = read_biased;
        self.admit()
    }

    /// Admits all waiters that may enter, in order.
    fn admit(&mut self) -> Vec<W> {
        let mut admitted = Vec::new();
        while let Some(mode) = self.next() {
            admitted.extend(self.list(mode).grant_first().map(|waiter| waiter.payload));
            self.enter(mode);
        }
        admitted
    }

    /// The rule: returns the mode of the next waiter to admit, if one may enter now.
    fn next(&self) -> Option<Mode> {
        let reader = self.readers.first().map(|waiter| waiter.arrival);
        let writer = self.writers.first().map(|waiter| waiter.arrival);
        match (self.held, reader, writer) {
            (Held::Writing, _, _) | (_, None, None) => None,
            // A waiting writer blocks readers that arrived later, unless readers are preferred and
            // hold the lock.
            (Held::Reading(_), Some(_), _) if self.read_biased => Some(Mode::Read),
            (_, Some(reader), Some(writer)) if reader < writer => Some(Mode::Read),
            (_, Some(_), None) => Some(Mode::Read),
            (Held::Free, _, Some(_)) => Some(Mode::Write),
            (Held::Reading(_), _, Some(_)) => None,
        }
    }

    fn enter(&mut self, mode: Mode) {
        self.held = match (mode, self.held) {
            (Mode::Read, Held::Free) => Held::Reading(1),
            (Mode::Read, Held::Reading(readers)) => Held::Reading(readers + 1),
            (Mode::Write, Held::Free) => Held::Writing,
            (Mode::Write, Held::Reading(_)) | (_, Held::Writing) => {
                unreachable!("a writer holds alone")
            }
        };
    }

    fn list(&mut self, mode: Mode) -> &mut WaitList<Waiter<W>> {
        match mode {
            Mode::Read => &mut self.readers,
            Mode::Write => &mut self.writers,
        }
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
