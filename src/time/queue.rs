//! The queue of deadlines, each with a waiter of type `W`. It is pure: it reads no clock and wakes
//! no task.
//!
//! Most deadlines never pass, because they are timeouts of work that ends in time. So removing one
//! must be as cheap as inserting it. A waiter is stored in a slot, and its deadline in a binary
//! heap that refers to the slot. Removing a waiter empties the slot and leaves a *stale* entry in
//! the heap, and these are removed later, many at a time. (A balanced tree would keep deadlines in
//! order that are never needed. A timer wheel is as cheap, but not exact.)
//!
//! Invariants:
//!
//! * Each [`DeadlineKey`] belongs to one occupied slot, and [`remove`](DeadlineQueue::remove)
//!   consumes it, so none is stale.
//! * Each waiter has one entry in the heap, with the same number as its slot. Every other entry is
//!   stale.
//! * There are at most four times as many entries as waiters, plus [`STALE_ENTRIES_KEPT`].

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use slab::Slab;

use super::tuning::{ENTRIES_PER_POP, POPPED_BEFORE_SORTING, STALE_ENTRIES_KEPT};

/// Identifies a deadline until it is [removed](DeadlineQueue::remove).
#[derive(Debug)]
pub(crate) struct DeadlineKey(u32);

/// An entry of the heap. The number keeps equal deadlines in order of arrival.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    deadline: Instant,
    number: u64,
    slot: u32,
}

#[derive(Debug)]
enum Slot<W> {
    Waiting {
        number: u64,
        waiter: W,
    },
    /// The deadline has passed, and was not removed yet.
    Expired,
}

/// Deadlines in order.
#[derive(Debug)]
pub(crate) struct DeadlineQueue<W> {
    heap: BinaryHeap<Reverse<Entry>>,
    slots: Slab<Slot<W>>,
    /// The number of slots that are `Waiting`.
    waiting: usize,
    next_number: u64,
}

impl<W> DeadlineQueue<W> {
    pub(crate) const fn new() -> Self {
        DeadlineQueue {
            heap: BinaryHeap::new(),
            slots: Slab::new(),
            waiting: 0,
            next_number: 0,
        }
    }

    pub(crate) fn insert(&mut self, deadline: Instant, waiter: W) -> DeadlineKey {
        let number = self.next_number;
        self.next_number += 1;
        self.waiting += 1;
        let slot = self.slots.insert(Slot::Waiting { number, waiter });
        let slot = u32::try_from(slot).expect("fewer than 2^32 deadlines in one run");
        self.heap.push(Reverse(Entry {
            deadline,
            number,
            slot,
        }));
        DeadlineKey(slot)
    }

    /// Returns the waiter; `None` once its deadline has [expired](DeadlineQueue::expire).
    pub(crate) fn waiter_mut(&mut self, key: &DeadlineKey) -> Option<&mut W> {
        match &mut self.slots[key.0 as usize] {
            Slot::Waiting { waiter, .. } => Some(waiter),
            Slot::Expired => None,
        }
    }

    /// Removes every waiter, in the order of slots. Their deadlines count as expired.
    pub(crate) fn expire_all(&mut self) -> Vec<W> {
        self.heap.clear();
        self.waiting = 0;
        let slots = self.slots.iter_mut();
        let taken = slots.filter_map(|(_, slot)| match std::mem::replace(slot, Slot::Expired) {
            Slot::Waiting { waiter, .. } => Some(waiter),
            Slot::Expired => None,
        });
        taken.collect()
    }

    /// Removes a deadline. Returns its waiter, unless it has expired.
    pub(crate) fn remove(&mut self, key: DeadlineKey) -> Option<W> {
        let slot = self.slots.remove(key.0 as usize);
        let waiter = match slot {
            Slot::Waiting { waiter, .. } => {
                self.waiting -= 1;
                Some(waiter)
            }
            Slot::Expired => None,
        };
        self.clean_up();
        waiter
    }

    /// Returns the earliest deadline.
    pub(crate) fn next(&mut self) -> Option<Instant> {
        while let Some(Reverse(first)) = self.heap.peek() {
            if is_waiting(&self.slots, first) {
                return Some(first.deadline);
            }
            self.heap.pop();
        }
        None
    }

    /// Removes every waiter whose deadline is not after `now`, and passes them to `expired` in
    /// order of time, then of arrival.
    pub(crate) fn expire(&mut self, now: Instant, mut expired: impl FnMut(W)) {
        let mut popped = 0;
        while let Some(Reverse(first)) = self.heap.peek()
            && first.deadline <= now
        {
            if popped >= POPPED_BEFORE_SORTING && popped >= self.heap.len() / ENTRIES_PER_POP {
                let first = first.deadline;
                self.expire_sorted(first, now, &mut expired);
                break;
            }
            let (number, slot) = (first.number, first.slot);
            self.heap.pop();
            popped += 1;
            if let Some(waiter) = self.expire_slot(slot, number) {
                expired(waiter);
            }
        }
        self.clean_up();
    }

    /// Does what `expire` does, but by sorting, for many at a time. `first` is the earliest
    /// deadline.
    fn expire_sorted(&mut self, first: Instant, now: Instant, expired: impl FnMut(W)) {
        // One number to compare by instead of three. Deadlines more than 584 years after the first
        // one count as equal.
        let key = |Reverse(entry): Reverse<Entry>| {
            let nanos = entry.deadline.duration_since(first).as_nanos();
            let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
            (
                u128::from(nanos) << 64 | u128::from(entry.number),
                entry.slot,
            )
        };
        let mut rest = std::mem::take(&mut self.heap).into_vec();
        let mut due: Vec<_> = rest
            .extract_if(.., |Reverse(entry)| entry.deadline <= now)
            .map(key)
            .collect();
        self.heap = BinaryHeap::from(rest);
        due.sort_unstable_by_key(|&(key, _)| key);
        due.iter()
            .filter_map(|&(key, slot)| self.expire_slot(slot, key as u64))
            .for_each(expired);
    }

    /// Takes the waiter out of a slot, unless the entry with this number is stale.
    fn expire_slot(&mut self, slot: u32, number: u64) -> Option<W> {
        let slot = self.slots.get_mut(slot as usize)?;
        let Slot::Waiting {
            number: in_slot, ..
        } = slot
        else {
            return None;
        };
        if *in_slot != number {
            return None;
        }
        self.waiting -= 1;
        match std::mem::replace(slot, Slot::Expired) {
            Slot::Waiting { waiter, .. } => Some(waiter),
            Slot::Expired => unreachable!("matched as waiting above"),
        }
    }

    /// Removes stale entries once they are three quarters of all. This costs a constant time per
    /// stale entry.
    fn clean_up(&mut self) {
        let kept = 4 * self.waiting + STALE_ENTRIES_KEPT;
        if self.heap.len() > kept || self.waiting == 0 && !self.heap.is_empty() {
            let slots = &self.slots;
            self.heap.retain(|Reverse(entry)| is_waiting(slots, entry));
            self.heap.shrink_to(kept);
        }
        if self.slots.is_empty() && self.slots.capacity() > STALE_ENTRIES_KEPT {
            self.slots = Slab::new();
        }
    }
}

fn is_waiting<W>(slots: &Slab<Slot<W>>, entry: &Entry) -> bool {
    let slot = slots.get(entry.slot as usize);
    matches!(slot, Some(Slot::Waiting { number, .. }) if *number == entry.number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    /// The model: a list that is searched from end to end.
    #[derive(Default)]
    struct Model {
        waiting: Vec<(u64, usize, DeadlineKey)>,
    }

    impl Model {
        fn take_due(&mut self, now: u64) -> Vec<(u64, usize, DeadlineKey)> {
            let mut due: Vec<_> = self
                .waiting
                .extract_if(.., |waiter| waiter.0 <= now)
                .collect();
            due.sort_by_key(|&(deadline, step, _)| (deadline, step));
            due
        }
    }

    /// An operation on a queue. `u64` is a deadline or a time, `usize` chooses a waiter.
    #[derive(Clone, Debug)]
    enum Step {
        Insert(u64),
        /// Inserts many at a time, so that many expire or are cleaned up at a time.
        InsertMany(u64, u8),
        Remove(usize),
        RemoveMany(u8),
        Next,
        Expire(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let time = 0_u64..20;
        prop_oneof![
            6 => time.clone().prop_map(Step::Insert),
            1 => (time.clone(), any::<u8>()).prop_map(|(time, many)| Step::InsertMany(time, many)),
            4 => any::<usize>().prop_map(Step::Remove),
            1 => any::<u8>().prop_map(Step::RemoveMany),
            1 => Just(Step::Next),
            2 => time.prop_map(Step::Expire),
        ]
    }

    /// A queue, its model, and the keys that have expired but were not removed yet.
    struct Both {
        start: Instant,
        queue: DeadlineQueue<usize>,
        model: Model,
        expired: Vec<DeadlineKey>,
        inserted: usize,
    }

    impl Both {
        fn at(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }

        fn insert(&mut self, deadline: u64) {
            let number = self.inserted;
            self.inserted += 1;
            let key = self.queue.insert(self.at(deadline), number);
            self.model.waiting.push((deadline, number, key));
        }

        fn remove(&mut self, which: usize) {
            if let Some(which) = which.checked_rem(self.model.waiting.len()) {
                let (_, number, key) = self.model.waiting.swap_remove(which);
                assert_eq!(self.queue.remove(key), Some(number));
            }
            if let Some(which) = which.checked_rem(self.expired.len()) {
                let key = self.expired.swap_remove(which);
                assert!(self.queue.waiter_mut(&key).is_none());
                assert_eq!(self.queue.remove(key), None);
            }
        }

        fn expire(&mut self, now: u64) {
            let mut seen = Vec::new();
            self.queue.expire(self.at(now), |number| seen.push(number));
            let due = self.model.take_due(now);
            assert!(seen.iter().eq(due.iter().map(|(_, number, _)| number)));
            self.expired.extend(due.into_iter().map(|(.., key)| key));
        }

        fn act(&mut self, step: Step) {
            match step {
                Step::Insert(deadline) => self.insert(deadline),
                Step::InsertMany(first, many) => {
                    (0..many).for_each(|more| self.insert(first + u64::from(more % 7)));
                }
                Step::Remove(which) => self.remove(which),
                Step::RemoveMany(many) => (0..many).for_each(|_| self.remove(many.into())),
                Step::Next => {
                    let earliest = self
                        .model
                        .waiting
                        .iter()
                        .map(|&(deadline, ..)| deadline)
                        .min();
                    assert_eq!(
                        self.queue.next(),
                        earliest.map(|deadline| self.at(deadline))
                    );
                }
                Step::Expire(now) => self.expire(now),
            }
        }

        fn check(&mut self) {
            let waiting = self.model.waiting.len();
            assert_eq!(self.queue.waiting, waiting);
            assert_eq!(self.queue.slots.len(), waiting + self.expired.len());
            assert!(self.queue.heap.len() <= 4 * waiting + STALE_ENTRIES_KEPT);
            for (_, number, key) in &self.model.waiting {
                assert_eq!(self.queue.waiter_mut(key).copied(), Some(*number));
            }
        }
    }

    proptest! {
        #[cfg_attr(miri, ignore = "too many cases")]
        #[test]
        fn deadlines_expire_in_order_of_time_then_arrival(
            script in proptest::collection::vec(step(), 0..80)
        ) {
            let mut both = Both {
                start: Instant::now(),
                queue: DeadlineQueue::new(),
                model: Model::default(),
                expired: Vec::new(),
                inserted: 0,
            };
            for step in script {
                both.act(step);
                both.check();
            }
        }
    }

    #[cfg_attr(miri, ignore = "too many deadlines")]
    #[test]
    fn the_memory_of_many_waiters_is_freed_when_they_are_removed() {
        let start = Instant::now();
        let mut queue = DeadlineQueue::new();
        let crowd: Vec<_> = (0..10_000).map(|_| queue.insert(start, ())).collect();
        for key in crowd {
            assert_eq!(queue.remove(key), Some(()));
        }
        assert!(
            queue.heap.capacity() <= STALE_ENTRIES_KEPT
                && queue.slots.capacity() <= STALE_ENTRIES_KEPT
        );
    }

    #[cfg_attr(miri, ignore = "too many deadlines")]
    #[test]
    fn inserting_and_removing_repeatedly_does_not_use_more_memory() {
        let start = Instant::now();
        let mut queue = DeadlineQueue::new();
        let _first = queue.insert(start, ());
        for second in 0..100_000 {
            let key = queue.insert(start + Duration::from_secs(second), ());
            assert_eq!(queue.remove(key), Some(()));
        }
        assert!(
            queue.heap.capacity() < 4 * STALE_ENTRIES_KEPT,
            "{}",
            queue.heap.capacity()
        );
        assert_eq!(
            queue.slots.capacity(),
            queue.slots.capacity().min(STALE_ENTRIES_KEPT)
        );
    }
}
