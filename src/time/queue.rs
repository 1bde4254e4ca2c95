//! Which deadlines have passed: an ordered queue, pure, with a `W` for whoever waits.

use std::collections::BTreeMap;
use std::time::Instant;

/// Names an entry: its deadline, and a number that tells equal deadlines apart and keeps them in order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    deadline: Instant,
    number: u64,
}

/// Deadlines in order.
#[derive(Debug)]
pub(crate) struct DeadlineQueue<W> {
    entries: BTreeMap<Key, W>,
    next_number: u64,
}

impl<W> DeadlineQueue<W> {
    pub(crate) const fn new() -> Self {
        DeadlineQueue {
            entries: BTreeMap::new(),
            next_number: 0,
        }
    }

    pub(crate) fn insert(&mut self, deadline: Instant, waiter: W) -> Key {
        let key = Key {
            deadline,
            number: self.next_number,
        };
        self.next_number += 1;
        self.entries.insert(key, waiter);
        key
    }

    /// The waiter, unless its deadline has been [popped](DeadlineQueue::pop_expired).
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut W> {
        self.entries.get_mut(&key)
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<W> {
        self.entries.remove(&key)
    }

    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.entries.first_key_value().map(|(key, _)| key.deadline)
    }

    /// Takes out the earliest entry if its deadline is not after `now`.
    pub(crate) fn pop_expired(&mut self, now: Instant) -> Option<W> {
        let first = self.entries.first_entry()?;
        (first.key().deadline <= now).then(|| first.remove())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    proptest! {
        /// Against a list that is searched from end to end.
        #[test]
        fn deadlines_expire_in_order_of_time_then_arrival(
            script in proptest::collection::vec((0_u8..3, 0_u64..20), 0..80)
        ) {
            let start = Instant::now();
            let at = |seconds| start + Duration::from_secs(seconds);
            let mut queue = DeadlineQueue::new();
            let mut model: Vec<(u64, usize, Key)> = Vec::new();
            for (step, (what, number)) in script.into_iter().enumerate() {
                match what {
                    0 => model.push((number, step, queue.insert(at(number), step))),
                    1 if !model.is_empty() => {
                        let (_, step, key) = model.remove(number as usize % model.len());
                        prop_assert_eq!(queue.remove(key), Some(step));
                        prop_assert_eq!(queue.remove(key), None);
                    }
                    _ => {
                        let (mut expired, rest): (Vec<_>, Vec<_>) =
                            model.into_iter().partition(|&(deadline, ..)| deadline <= number);
                        model = rest;
                        expired.sort_by_key(|&(deadline, step, _)| (deadline, step));
                        for (_, step, _) in expired {
                            prop_assert_eq!(queue.pop_expired(at(number)), Some(step));
                        }
                        prop_assert_eq!(queue.pop_expired(at(number)), None);
                    }
                }
                let earliest = model.iter().map(|&(deadline, ..)| at(deadline)).min();
                prop_assert_eq!(queue.next(), earliest);
            }
        }
    }
}
