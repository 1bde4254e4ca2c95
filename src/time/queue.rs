//! Which deadlines have passed: an ordered queue, pure, with a `W` for whoever waits.
//!
//! Most deadlines never come: they are timeouts of work that ends in time. So leaving has to be as cheap as arriving. A
//! waiter lives in a slot and its deadline in a binary heap that refers to the slot; who leaves empties the slot and lets
//! the heap be, which forgets such *stale* entries later, many at a time. A balanced tree, which this was, pays for the
//! order of deadlines that nobody will ask for; a wheel of slots for whole milliseconds is as cheap to leave, but not
//! exact.
//!
//! Invariants:
//!
//! * Each [`Place`] stands for one occupied slot, and is given up with [`leave`](DeadlineQueue::leave), so none is stale.
//! * Each waiter has one entry in the heap, with the number that its slot has; every other entry is stale.
//! * All entries together are at most four times the waiters, and [`STALE_KEPT`].

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use slab::Slab;

/// So many stale entries, and empty slots, are kept rather than cleaned up.
const STALE_KEPT: usize = 64;

/// When so many entries have been popped one by one, and one in so many of all, the others are sorted instead: popping
/// jumps about in memory, sorting does not.
const POPPED_SINGLY: usize = 64;

/// A waiter's claim to its slot, until it [leaves](DeadlineQueue::leave).
#[derive(Debug)]
pub(crate) struct Place(u32);

/// What is kept in order. The number tells equal deadlines apart and keeps them in order of arrival.
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
    /// The deadline has passed, and the waiter has not said that it knows.
    Expired,
}

/// Deadlines in order.
#[derive(Debug)]
pub(crate) struct DeadlineQueue<W> {
    heap: BinaryHeap<Reverse<Entry>>,
    slots: Slab<Slot<W>>,
    /// How many slots are `Waiting`.
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

    pub(crate) fn insert(&mut self, deadline: Instant, waiter: W) -> Place {
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
        Place(slot)
    }

    /// The waiter; `None` once its deadline has [expired](DeadlineQueue::expire).
    pub(crate) fn waiter_mut(&mut self, place: &Place) -> Option<&mut W> {
        match &mut self.slots[place.0 as usize] {
            Slot::Waiting { waiter, .. } => Some(waiter),
            Slot::Expired => None,
        }
    }

    /// Gives the place up. Returns the waiter, if its deadline has not expired.
    pub(crate) fn leave(&mut self, place: Place) -> Option<W> {
        let slot = self.slots.remove(place.0 as usize);
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

    /// The earliest deadline.
    pub(crate) fn next(&mut self) -> Option<Instant> {
        while let Some(Reverse(first)) = self.heap.peek() {
            if is_waiting(&self.slots, first) {
                return Some(first.deadline);
            }
            self.heap.pop();
        }
        None
    }

    /// Takes out every waiter whose deadline is not after `now`, in order of time, then of arrival.
    pub(crate) fn expire(&mut self, now: Instant, mut expired: impl FnMut(W)) {
        let mut popped = 0;
        while let Some(Reverse(first)) = self.heap.peek()
            && first.deadline <= now
        {
            // What was popped has cost as much as one look at all the others does.
            if popped >= POPPED_SINGLY && popped >= self.heap.len() / POPPED_SINGLY {
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

    /// The same by sorting, for many at a time. `first` is the earliest deadline.
    fn expire_sorted(&mut self, first: Instant, now: Instant, expired: impl FnMut(W)) {
        // One number to compare by instead of three. Who should have been woken 584 years later than somebody else is
        // woken in order of arrival.
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
            Slot::Expired => unreachable!("seen to wait above"),
        }
    }

    /// Forgets stale entries once they are three quarters of all: each has then cost one look and a third, and no more
    /// is put in order anew than a third of it.
    fn clean_up(&mut self) {
        let kept = 4 * self.waiting + STALE_KEPT;
        if self.heap.len() > kept || self.waiting == 0 && !self.heap.is_empty() {
            let slots = &self.slots;
            self.heap.retain(|Reverse(entry)| is_waiting(slots, entry));
            self.heap.shrink_to(kept);
        }
        if self.slots.is_empty() && self.slots.capacity() > STALE_KEPT {
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

    /// A list that is searched from end to end.
    #[derive(Default)]
    struct Model {
        waiting: Vec<(u64, usize, Place)>,
    }

    impl Model {
        fn take_due(&mut self, now: u64) -> Vec<(u64, usize, Place)> {
            let mut due: Vec<_> = self
                .waiting
                .extract_if(.., |waiter| waiter.0 <= now)
                .collect();
            due.sort_by_key(|&(deadline, step, _)| (deadline, step));
            due
        }
    }

    /// What is done to a queue; `u64` is a deadline or a time, `usize` says which waiter.
    #[derive(Clone, Debug)]
    enum Step {
        Insert(u64),
        /// Many at a time, so that they are expired and forgotten many at a time as well.
        InsertMany(u64, u8),
        Leave(usize),
        LeaveMany(u8),
        Look,
        Expire(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let time = 0_u64..20;
        prop_oneof![
            6 => time.clone().prop_map(Step::Insert),
            1 => (time.clone(), any::<u8>()).prop_map(|(time, many)| Step::InsertMany(time, many)),
            4 => any::<usize>().prop_map(Step::Leave),
            1 => any::<u8>().prop_map(Step::LeaveMany),
            1 => Just(Step::Look),
            2 => time.prop_map(Step::Expire),
        ]
    }

    /// A queue and the slow model of it, and those whose deadlines have expired but who have not left.
    struct Both {
        start: Instant,
        queue: DeadlineQueue<usize>,
        model: Model,
        expired: Vec<Place>,
        inserted: usize,
    }

    impl Both {
        fn at(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }

        fn insert(&mut self, deadline: u64) {
            let number = self.inserted;
            self.inserted += 1;
            let place = self.queue.insert(self.at(deadline), number);
            self.model.waiting.push((deadline, number, place));
        }

        fn leave(&mut self, which: usize) {
            if let Some(which) = which.checked_rem(self.model.waiting.len()) {
                let (_, number, place) = self.model.waiting.swap_remove(which);
                assert_eq!(self.queue.leave(place), Some(number));
            }
            if let Some(which) = which.checked_rem(self.expired.len()) {
                let place = self.expired.swap_remove(which);
                assert!(self.queue.waiter_mut(&place).is_none());
                assert_eq!(self.queue.leave(place), None);
            }
        }

        fn expire(&mut self, now: u64) {
            let mut seen = Vec::new();
            self.queue.expire(self.at(now), |number| seen.push(number));
            let due = self.model.take_due(now);
            assert!(seen.iter().eq(due.iter().map(|(_, number, _)| number)));
            self.expired
                .extend(due.into_iter().map(|(.., place)| place));
        }

        fn act(&mut self, step: Step) {
            match step {
                Step::Insert(deadline) => self.insert(deadline),
                Step::InsertMany(first, many) => {
                    (0..many).for_each(|more| self.insert(first + u64::from(more % 7)));
                }
                Step::Leave(which) => self.leave(which),
                Step::LeaveMany(many) => (0..many).for_each(|_| self.leave(many.into())),
                Step::Look => {
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
            assert!(self.queue.heap.len() <= 4 * waiting + STALE_KEPT);
            for (_, number, place) in &self.model.waiting {
                assert_eq!(self.queue.waiter_mut(place).copied(), Some(*number));
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
    fn a_crowd_that_leaves_takes_its_memory_with_it() {
        let start = Instant::now();
        let mut queue = DeadlineQueue::new();
        let crowd: Vec<_> = (0..10_000).map(|_| queue.insert(start, ())).collect();
        for place in crowd {
            assert_eq!(queue.leave(place), Some(()));
        }
        assert!(queue.heap.capacity() <= STALE_KEPT && queue.slots.capacity() <= STALE_KEPT);
    }

    #[cfg_attr(miri, ignore = "too many deadlines")]
    #[test]
    fn one_who_comes_and_goes_for_ever_takes_no_more_memory() {
        let start = Instant::now();
        let mut queue = DeadlineQueue::new();
        let _first = queue.insert(start, ());
        for second in 0..100_000 {
            let place = queue.insert(start + Duration::from_secs(second), ());
            assert_eq!(queue.leave(place), Some(()));
        }
        assert!(
            queue.heap.capacity() < 4 * STALE_KEPT,
            "{}",
            queue.heap.capacity()
        );
        assert_eq!(
            queue.slots.capacity(),
            queue.slots.capacity().min(STALE_KEPT)
        );
    }
}
