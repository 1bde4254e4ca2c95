//! Decides who may read, who may write, and who waits.
//!
//! Pure: a waiter is a payload `W` that is stored and handed back. Readers and writers wait in a list each, and every
//! waiter carries the number of its arrival, so that "who was first" is one comparison, and read-biased admission need
//! not search behind writers.
//!
//! There is one rule ([`next`](Queue::next)), and every change that could let somebody in ends by applying it until it
//! lets nobody in. tricycle, which wakes in some places and not in others, leaves readers waiting when a writer before
//! them is cancelled, and lets them in beside a writer when the bias is switched on.
//!
//! Invariants, after every call:
//!
//! * A writer holds alone. `Held` counts those who were granted and have not claimed yet.
//! * The rule lets nobody in who waits. So if nobody holds it, nobody waits.

use crate::sync::locked::Deferred;
use crate::sync::wait_list::{self, Removed, WaitList};

/// What somebody wants, or has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// To look, beside others who look.
    Read,
    /// To change, alone.
    Write,
}

/// Who has the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// Nobody.
    Free,
    /// So many readers, at least one.
    Reading(usize),
    /// One writer.
    Writing,
}

/// A waiter's place: its key, in the list of its mode.
#[derive(Debug)]
pub(super) struct WaiterKey {
    mode: Mode,
    key: wait_list::WaiterKey,
}

/// Somebody who waits.
#[derive(Debug)]
struct Waiter<W> {
    arrival: u64,
    payload: W,
}

/// Who has the lock and who waits for it.
#[derive(Debug)]
pub(super) struct Queue<W> {
    held: Held,
    read_biased: bool,
    readers: WaitList<Waiter<W>>,
    writers: WaitList<Waiter<W>>,
    /// The number of the next arrival.
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

    /// How many wait to do this.
    pub(super) fn waiting(&self, mode: Mode) -> usize {
        match mode {
            Mode::Read => self.readers.waiting(),
            Mode::Write => self.writers.waiting(),
        }
    }

    /// Takes the lock if nothing is in the way, neither its holders nor those who wait.
    pub(super) fn try_take(&mut self, mode: Mode) -> bool {
        let admitted = match (mode, self.held) {
            // By the invariant, nobody waits.
            (_, Held::Free) => true,
            (Mode::Read, Held::Reading(_)) => self.read_biased || self.writers.waiting() == 0,
            (Mode::Read, Held::Writing) | (Mode::Write, _) => false,
        };
        if admitted {
            self.enter(mode);
        }
        admitted
    }

    /// Waits at the end of the queue, after [`try_take`](Self::try_take) has failed.
    pub(super) fn push(&mut self, mode: Mode, payload: W) -> WaiterKey {
        let arrival = self.arrivals;
        self.arrivals += 1;
        let key = self.list(mode).push(Waiter { arrival, payload });
        WaiterKey { mode, key }
    }

    /// The payload of somebody who waits; `None` once the lock is theirs, which they should then
    /// [`claim`](Self::claim).
    pub(super) fn payload_mut(&mut self, key: &WaiterKey) -> Option<&mut W> {
        let waiter = self.list(key.mode).payload_mut(&key.key)?;
        Some(&mut waiter.payload)
    }

    /// A granted waiter takes the lock.
    pub(super) fn claim(&mut self, key: WaiterKey) {
        let removed = self.list(key.mode).remove(key.key);
        debug_assert!(
            matches!(removed, Removed::Granted(())),
            "only a granted waiter may claim"
        );
    }

    /// A waiter leaves without the lock. What comes back is what to do with its own payload, and whom to wake, in
    /// order: those for whom its grant makes room, and those who waited only because it did.
    pub(super) fn give_up(&mut self, key: WaiterKey) -> (Deferred<W>, Vec<W>) {
        match self.list(key.mode).remove(key.key) {
            Removed::Waiting(waiter) => (Deferred::Drop(waiter.payload), self.admit()),
            Removed::Granted(()) => (Deferred::Nothing, self.release()),
        }
    }

    /// A holder lets go; which mode it had is known. Those who get the lock now are the ones to wake, in order.
    pub(super) fn release(&mut self) -> Vec<W> {
        self.held = match self.held {
            Held::Reading(1) | Held::Writing => Held::Free,
            Held::Reading(readers) => Held::Reading(readers - 1),
            Held::Free => unreachable!("only a holder lets go"),
        };
        self.admit()
    }

    /// Switches the bias. Those who get the lock now are the ones to wake, in order.
    pub(super) fn set_read_biased(&mut self, read_biased: bool) -> Vec<W> {
        self.read_biased = read_biased;
        self.admit()
    }

    /// Lets in whoever may; in order.
    fn admit(&mut self) -> Vec<W> {
        let mut admitted = Vec::new();
        while let Some(mode) = self.next() {
            admitted.extend(self.list(mode).grant_first().map(|waiter| waiter.payload));
            self.enter(mode);
        }
        admitted
    }

    /// The rule: what the next waiter to be let in wants, if one may be let in now.
    fn next(&self) -> Option<Mode> {
        let reader = self.readers.first().map(|waiter| waiter.arrival);
        let writer = self.writers.first().map(|waiter| waiter.arrival);
        match (self.held, reader, writer) {
            (Held::Writing, _, _) | (_, None, None) => None,
            // A waiting writer holds readers up if it came before them; not so if readers are preferred and have it.
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
