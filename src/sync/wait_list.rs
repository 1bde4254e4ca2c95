//! A first-in, first-out list of waiters, with removal of any waiter in O(1).
//!
//! The list is pure: it stores a payload `W` for each waiter (in practice a waker and a value) and
//! never inspects it. A waiter that is granted gets a `G` in its slot (in practice the value that
//! was handed to it). The waiters lie in the slots of one vector and are linked by index. So a push
//! allocates only when the vector grows, a removal needs no search, and no `unsafe` is needed. With
//! a `VecDeque`, a removal would be O(n), and removing a crowd of cancelled waiters O(n²).
//!
//! A waiter is *waiting* until a `grant_` method selects it, then *granted* until
//! [`WaitList::remove`] removes it. Invariants:
//!
//! * Each [`WaiterKey`] belongs to exactly one occupied slot, and each occupied slot has at most
//!   one key (none if the owner forgot it). Keys cannot be copied and `remove` consumes them, so no
//!   key is stale.
//! * The slots in the chain from `first` to `last` are exactly the waiting ones, in order of
//!   arrival.
//! * The slots in the chain from `free` are exactly the free ones.
//!
//! A key must only be used with the list that returned it; another list panics or returns another
//! waiter.

use super::tuning::WAIT_LIST_SLOTS_KEPT;

/// Index of a slot.
type Index = usize;

/// The key of a waiter's slot.
#[derive(Debug)]
pub(crate) struct WaiterKey(Index);

/// The content of a slot.
#[derive(Debug)]
enum Slot<W, G> {
    /// No waiter. Links to the next free slot.
    Free { next: Option<Index> },
    /// A waiter in the queue, between its neighbours.
    Waiting {
        payload: W,
        previous: Option<Index>,
        next: Option<Index>,
    },
    /// A waiter that was granted this and has not been removed yet.
    Granted(G),
}

/// The waiters, first come, first served.
#[derive(Debug)]
pub(crate) struct WaitList<W, G = ()> {
    slots: Vec<Slot<W, G>>,
    /// Head of the chain of free slots.
    free: Option<Index>,
    /// The longest waiter.
    first: Option<Index>,
    /// The latest waiter.
    last: Option<Index>,
    /// Number of waiting slots.
    waiting: usize,
    /// Number of waiting and granted slots.
    occupied: usize,
}

/// The content of a waiter's slot at its removal.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Removed<W, G = ()> {
    /// The waiter was still waiting; its payload.
    Waiting(W),
    /// The waiter had been granted this.
    Granted(G),
}

impl<W> WaitList<W> {
    /// Grants the longest waiter and returns its payload; `None` without a waiter.
    pub(crate) fn grant_first(&mut self) -> Option<W> {
        self.grant_first_with(|payload| ((), payload))
    }
}

impl<W, G> WaitList<W, G> {
    /// Creates an empty list without an allocation.
    pub(crate) const fn new() -> Self {
        WaitList {
            slots: Vec::new(),
            free: None,
            first: None,
            last: None,
            waiting: 0,
            occupied: 0,
        }
    }

    /// Returns the number of waiters that are not granted yet.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Adds a waiter at the end.
    pub(crate) fn push(&mut self, payload: W) -> WaiterKey {
        let index = self.occupy(Slot::Waiting {
            payload,
            previous: self.last,
            next: None,
        });
        self.link(self.last, Some(index));
        self.last = Some(index);
        self.waiting += 1;
        WaiterKey(index)
    }

    /// Returns the longest waiter's payload; `None` without a waiter.
    pub(crate) fn first(&self) -> Option<&W> {
        match &self.slots[self.first?] {
            Slot::Waiting { payload, .. } => Some(payload),
            Slot::Granted(_) | Slot::Free { .. } => {
                unreachable!("the queue links waiting slots only")
            }
        }
    }

    /// Grants the longest waiter; `None` without a waiter. `grant` turns the payload into the grant
    /// and the value to return.
    pub(crate) fn grant_first_with<R>(&mut self, grant: impl FnOnce(W) -> (G, R)) -> Option<R> {
        let index = self.first?;
        Some(self.grant(index, grant))
    }

    /// Grants every waiter whose payload matches `picked`, in order. Visits all waiters.
    pub(crate) fn grant_where<R>(
        &mut self,
        picked: impl Fn(&W) -> bool,
        grant: impl Fn(W) -> (G, R),
    ) -> Vec<R> {
        let mut results = Vec::new();
        let mut next_waiting = self.first;
        while let Some(index) = next_waiting {
            let Slot::Waiting { payload, next, .. } = &self.slots[index] else {
                unreachable!("the queue links waiting slots only")
            };
            next_waiting = *next;
            if picked(payload) {
                results.push(self.grant(index, &grant));
            }
        }
        results
    }

    /// Returns the waiter's payload; `None` once it is granted.
    pub(crate) fn payload_mut(&mut self, key: &WaiterKey) -> Option<&mut W> {
        match &mut self.slots[key.0] {
            Slot::Waiting { payload, .. } => Some(payload),
            Slot::Granted(_) => None,
            Slot::Free { .. } => unreachable!("a key's slot is occupied"),
        }
    }

    /// Removes the waiter; the order of the others is unchanged.
    pub(crate) fn remove(&mut self, key: WaiterKey) -> Removed<W, G> {
        let index = key.0;
        let removed = self.unlink(index, self.free);
        self.free = Some(index);
        self.occupied -= 1;
        self.give_memory_back();
        removed
    }

    /// Stores `slot` in a free slot or a new one.
    fn occupy(&mut self, slot: Slot<W, G>) -> Index {
        self.occupied += 1;
        let Some(index) = self.free else {
            self.slots.push(slot);
            return self.slots.len() - 1;
        };
        match std::mem::replace(&mut self.slots[index], slot) {
            Slot::Free { next } => self.free = next,
            Slot::Waiting { .. } | Slot::Granted(_) => {
                unreachable!("the free chain holds free slots only")
            }
        }
        index
    }

    /// Turns a waiting slot into a granted one.
    fn grant<R>(&mut self, index: Index, grant: impl FnOnce(W) -> (G, R)) -> R {
        // Until the grant is stored, the slot is in no chain at all.
        let Removed::Waiting(payload) = self.unlink(index, None) else {
            unreachable!("only a waiting slot is granted")
        };
        let (grant, result) = grant(payload);
        self.slots[index] = Slot::Granted(grant);
        result
    }

    /// Empties a waiting or granted slot and removes a waiting one from the queue. `next` is the
    /// next free slot.
    fn unlink(&mut self, index: Index, next: Option<Index>) -> Removed<W, G> {
        match std::mem::replace(&mut self.slots[index], Slot::Free { next }) {
            Slot::Waiting {
                payload,
                previous,
                next,
            } => {
                self.link(previous, next);
                if next.is_none() {
                    self.last = previous;
                }
                self.waiting -= 1;
                Removed::Waiting(payload)
            }
            Slot::Granted(grant) => Removed::Granted(grant),
            Slot::Free { .. } => unreachable!("a key's slot is occupied"),
        }
    }

    /// Links two slots of the queue as neighbours; `None` is the queue's begin or end.
    fn link(&mut self, before: Option<Index>, after: Option<Index>) {
        match before {
            Some(index) => *self.ends(index).1 = after,
            None => self.first = after,
        }
        if let Some(index) = after {
            *self.ends(index).0 = before;
        }
    }

    /// Returns both links of a waiting slot.
    fn ends(&mut self, index: Index) -> (&mut Option<Index>, &mut Option<Index>) {
        match &mut self.slots[index] {
            Slot::Waiting { previous, next, .. } => (previous, next),
            Slot::Granted(_) | Slot::Free { .. } => {
                unreachable!("the queue links waiting slots only")
            }
        }
    }

    /// Frees the slots when a large crowd of waiters has gone. The crowd's own pushes pay for this.
    fn give_memory_back(&mut self) {
        if self.occupied == 0 && self.slots.len() > WAIT_LIST_SLOTS_KEPT {
            self.slots = Vec::new();
            self.free = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiters_are_granted_in_the_order_they_came() {
        let mut list = WaitList::<_>::new();
        let _tickets: Vec<_> = (0..5).map(|n| list.push(n)).collect();
        let granted: Vec<_> = std::iter::from_fn(|| list.grant_first()).collect();
        assert_eq!(granted, [0, 1, 2, 3, 4]);
        assert_eq!(list.waiting(), 0);
    }

    #[test]
    fn leaving_from_the_front_the_middle_or_the_end_keeps_the_order_of_the_others() {
        for leaver in 0..5 {
            let mut list = WaitList::<_>::new();
            let mut waiters: Vec<_> = (0..5).map(|n| list.push(n)).collect();
            assert_eq!(
                list.remove(waiters.remove(leaver)),
                Removed::Waiting(leaver)
            );
            assert_eq!(list.waiting(), 4);
            let _late = list.push(5);
            let granted: Vec<_> = std::iter::from_fn(|| list.grant_first()).collect();
            assert_eq!(
                granted,
                (0..=5).filter(|n| *n != leaver).collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn a_granted_waiter_keeps_its_slot_until_it_knows() {
        let mut list = WaitList::<_>::new();
        let key = list.push('a');
        assert_eq!(list.payload_mut(&key), Some(&mut 'a'));
        assert_eq!(list.grant_first(), Some('a'));
        assert_eq!(list.payload_mut(&key), None);
        let _other = list.push('b');
        assert_eq!(list.remove(key), Removed::Granted(()));
        assert_eq!(list.waiting(), 1);
    }

    #[test]
    fn a_grant_lies_in_the_slot_until_it_is_fetched() {
        let mut list = WaitList::new();
        let key = list.push(1);
        assert_eq!(list.first(), Some(&1));
        assert_eq!(list.grant_first_with(|payload| ("grant", payload)), Some(1));
        assert_eq!(list.first(), None);
        assert_eq!(list.remove(key), Removed::Granted("grant"));
    }

    #[test]
    fn picking_by_payload_leaves_the_others_in_order() {
        let mut list = WaitList::new();
        let _tickets: Vec<_> = (0..6).map(|n| list.push(n)).collect();
        let even = list.grant_where(|n| n % 2 == 0, |n| ((), n));
        assert_eq!(even, [0, 2, 4]);
        let rest: Vec<_> = std::iter::from_fn(|| list.grant_first()).collect();
        assert_eq!(rest, [1, 3, 5]);
        assert!(list.grant_where(|_| true, |n| ((), n)).is_empty());
    }

    #[test]
    fn slots_are_used_again_and_a_crowd_leaves_no_memory() {
        let many = if cfg!(miri) { 100 } else { 1000 };
        let mut list = WaitList::<_>::new();
        for _ in 0..many {
            let key = list.push(());
            list.remove(key);
        }
        assert_eq!(list.slots.len(), 1);

        let crowd: Vec<_> = (0..many).map(|_| list.push(())).collect();
        for key in crowd {
            list.remove(key);
        }
        assert_eq!(list.slots.capacity(), 0);
        let key = list.push(());
        assert_eq!(list.remove(key), Removed::Waiting(()));
    }
}
