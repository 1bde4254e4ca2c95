//! The queue of waiters, of type `W`, that wait for the run to be idle for some time, their
//! *cushion*. It is pure.
//!
//! The waiters with the shortest cushion are taken first, all at once. Waking them ends the
//! idleness, so the time of the others starts again, and no elapsed time is stored here.

use std::collections::BTreeMap;
use std::time::Duration;

/// Identifies an entry: its cushion, and a number that keeps equal cushions in order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct IdleKey {
    cushion: Duration,
    number: u64,
}

/// The waiters, by cushion.
#[derive(Debug)]
pub(crate) struct IdleQueue<W> {
    waiting: BTreeMap<IdleKey, W>,
    next_number: u64,
}

impl<W> IdleQueue<W> {
    pub(crate) const fn new() -> Self {
        IdleQueue {
            waiting: BTreeMap::new(),
            next_number: 0,
        }
    }

    pub(crate) fn insert(&mut self, cushion: Duration, waiter: W) -> IdleKey {
        let key = IdleKey {
            cushion,
            number: self.next_number,
        };
        self.next_number += 1;
        self.waiting.insert(key, waiter);
        key
    }

    /// Returns the waiter, unless it has been [taken](IdleQueue::take_shortest).
    pub(crate) fn get_mut(&mut self, key: IdleKey) -> Option<&mut W> {
        self.waiting.get_mut(&key)
    }

    pub(crate) fn remove(&mut self, key: IdleKey) -> Option<W> {
        self.waiting.remove(&key)
    }

    /// Returns the shortest cushion; `None` if there is no waiter.
    pub(crate) fn shortest(&self) -> Option<Duration> {
        self.waiting.first_key_value().map(|(key, _)| key.cushion)
    }

    /// Removes all waiters.
    pub(crate) fn take_all(&mut self) -> Vec<W> {
        std::mem::take(&mut self.waiting).into_values().collect()
    }

    /// Removes the waiters with the shortest cushion, in order of arrival.
    pub(crate) fn take_shortest(&mut self) -> Vec<W> {
        let shortest = self.shortest();
        std::iter::from_fn(|| {
            let first = self.waiting.first_entry()?;
            (Some(first.key().cushion) == shortest).then(|| first.remove())
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Compares the queue with a list in order of arrival.
        #[cfg_attr(miri, ignore = "too many cases")]
        #[test]
        fn the_shortest_cushion_comes_first_and_equal_ones_together(
            script in proptest::collection::vec((0_u8..4, 0_usize..5), 0..60)
        ) {
            let cushion = |millis| Duration::from_millis(millis as u64);
            let mut queue = IdleQueue::new();
            let mut model: Vec<(usize, usize, IdleKey)> = Vec::new();
            for (name, (what, number)) in script.into_iter().enumerate() {
                match what {
                    0 | 1 => model.push((number, name, queue.insert(cushion(number), name))),
                    2 if !model.is_empty() => {
                        let (_, name, key) = model.remove(number % model.len());
                        prop_assert_eq!(queue.get_mut(key).copied(), Some(name));
                        prop_assert_eq!(queue.remove(key), Some(name));
                        prop_assert_eq!(queue.get_mut(key), None);
                    }
                    _ => {
                        let shortest = model.iter().map(|&(cushion, ..)| cushion).min();
                        let (first, rest): (Vec<_>, Vec<_>) =
                            model.into_iter().partition(|&(cushion, ..)| Some(cushion) == shortest);
                        model = rest;
                        let names: Vec<_> = first.into_iter().map(|(_, name, _)| name).collect();
                        prop_assert_eq!(queue.take_shortest(), names);
                    }
                }
                let shortest = model.iter().map(|&(millis, ..)| cushion(millis)).min();
                prop_assert_eq!(queue.shortest(), shortest);
            }
        }
    }
}
