//! The idle arenas of a worker context, for its next messages.
//!
//! * *Choice.* If the length is known, the pool gives out the smallest arena that is large enough
//!   and not far too large. If it is not, the pool gives out the largest. Among equals it gives out
//!   the one used last, which a worker may still have mapped.
//! * *Size.* At most [`MAX_IDLE_ARENAS`] with [`MAX_IDLE_ARENA_BYTES`] together are kept, those
//!   used last. A file larger than that never becomes an arena.
//! * *Age.* Arenas are dropped [`UNUSED_MAPPING_KEPT_FOR`] after their last use, as workers drop
//!   their mappings.
//!
//! The pool reads no clock and drops no arena: the caller does, because unmapping 64 MiB takes some
//! ten milliseconds.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::sys::arena::Arena;
use crate::sys::tuning::UNUSED_MAPPING_KEPT_FOR;
use crate::transport::tuning::{MAX_ARENA_EXCESS, MAX_IDLE_ARENA_BYTES, MAX_IDLE_ARENAS};

/// Idle arenas.
#[derive(Debug, Default)]
pub(crate) struct ArenaPool {
    /// In the order of their last use.
    idle: Mutex<Vec<Idle>>,
}

#[derive(Debug)]
struct Idle {
    arena: Arena,
    since: Instant,
}

/// How many bytes are going to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    Exactly(usize),
    /// This many, and perhaps more.
    AtLeast(usize),
}

impl ArenaPool {
    /// Takes out an arena for as many bytes as `need` says.
    pub(crate) fn take(&self, need: Need) -> Option<Arena> {
        let mut idle = self.idle();
        let latest_first = idle.iter().enumerate().rev();
        let capacities = latest_first.map(|(at, idle)| (at, idle.arena.capacity()));
        let taken = match need {
            Need::Exactly(length) => capacities
                .filter(|(_, capacity)| {
                    *capacity >= length && *capacity / MAX_ARENA_EXCESS <= length
                })
                .min_by_key(|(_, capacity)| *capacity),
            Need::AtLeast(length) => capacities
                .rev() // `max_by_key` returns the last of equals
                .filter(|(_, capacity)| *capacity >= length)
                .max_by_key(|(_, capacity)| *capacity),
        };
        taken.map(|(at, _)| idle.remove(at).arena)
    }

    /// Returns whether an arena for `length` bytes would be kept.
    pub(crate) fn has_room_for(&self, length: u64) -> bool {
        Arena::capacity_for(length) <= MAX_IDLE_ARENA_BYTES as u64
    }

    /// Puts an arena back at the time `now`. Returns the arenas for which the pool has no room any
    /// more.
    #[must_use = "dropping arenas takes long"]
    pub(crate) fn put(&self, arena: Arena, now: Instant) -> Vec<Arena> {
        let mut idle = self.idle();
        idle.push(Idle { arena, since: now });
        let mut room = MAX_IDLE_ARENA_BYTES;
        let fitting = idle.iter().rev().take(MAX_IDLE_ARENAS).take_while(|kept| {
            let rest = room.checked_sub(kept.arena.capacity());
            room = rest.unwrap_or(room);
            rest.is_some()
        });
        let superfluous = idle.len() - fitting.count();
        arenas(idle.drain(..superfluous))
    }

    /// Takes out the arenas that are too old at the time `now`.
    #[must_use = "dropping arenas takes long"]
    pub(crate) fn take_old(&self, now: Instant) -> Vec<Arena> {
        let mut idle = self.idle();
        let is_old =
            |idle: &Idle| now.saturating_duration_since(idle.since) >= UNUSED_MAPPING_KEPT_FOR;
        let old = idle.iter().take_while(|idle| is_old(idle)).count();
        arenas(idle.drain(..old))
    }

    /// Takes out all arenas.
    #[must_use = "dropping arenas takes long"]
    pub(crate) fn take_all(&self) -> Vec<Arena> {
        arenas(self.idle().drain(..))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.idle().is_empty()
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        // Each change is one operation on the list, so a panic leaves it consistent.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn arenas(idle: impl Iterator<Item = Idle>) -> Vec<Arena> {
    idle.map(|idle| idle.arena).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn arena(length: usize) -> Arena {
        let mut writer = Arena::writer().unwrap();
        writer.append(&vec![0; length]).unwrap();
        Arena::of(writer).unwrap()
    }

    #[test]
    fn the_best_fit_is_taken_or_the_largest_if_more_may_come_and_among_equals_the_last() {
        let pool = ArenaPool::default();
        let now = Instant::now();
        let mut addresses = Vec::new();
        for length in [100_000, 10_000, 300_000, 10_000, 300_000] {
            let arena = arena(length);
            addresses.push(arena.bytes().as_ptr());
            assert!(pool.put(arena, now).is_empty());
        }
        let take = |need| {
            let arena = pool.take(need)?;
            Some(
                addresses
                    .iter()
                    .position(|at| *at == arena.bytes().as_ptr()),
            )
            .flatten()
        };
        assert_eq!(take(Need::Exactly(5000)), Some(3));
        assert_eq!(take(Need::Exactly(50_000)), Some(0));
        assert_eq!(take(Need::AtLeast(5000)), Some(4));
        assert_eq!(take(Need::AtLeast(500_000)), None);
        assert_eq!(take(Need::Exactly(500_000)), None);
        assert_eq!(take(Need::Exactly(200_000)), Some(2));
        assert_eq!(take(Need::AtLeast(0)), Some(1));
        assert!(pool.is_empty());
    }

    #[test]
    fn an_arena_above_the_limit_of_the_pool_is_not_kept() {
        let pool = ArenaPool::default();
        assert!(pool.has_room_for(MAX_IDLE_ARENA_BYTES as u64));
        assert!(!pool.has_room_for(MAX_IDLE_ARENA_BYTES as u64 + 1));
    }

    #[test]
    fn the_largest_possible_arena_replaces_all_others() {
        let pool = ArenaPool::default();
        let now = Instant::now();
        assert!(pool.put(arena(5000), now).is_empty());
        let largest = arena(MAX_IDLE_ARENA_BYTES);
        assert_eq!(pool.put(largest, now).len(), 1);
        assert_eq!(pool.put(arena(5000), now).len(), 1);
        assert!(pool.take(Need::Exactly(MAX_IDLE_ARENA_BYTES)).is_none());
        assert_eq!(pool.take_all().len(), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Compared with a list of the times of last use.
        #[cfg_attr(miri, ignore = "too many cases")]
        #[test]
        fn arenas_are_kept_up_to_the_limits_of_number_and_age(steps in prop::collection::vec((0u64..700, 0u8..8), 1..60)) {
            let pool = ArenaPool::default();
            let begun = Instant::now();
            let mut now = Duration::ZERO;
            let mut model: Vec<Duration> = Vec::new();
            for (pause, step) in steps {
                now += Duration::from_millis(pause / 8);
                match step {
                    0 => {
                        drop(pool.take_old(begun + now));
                        model.retain(|since| now - *since < UNUSED_MAPPING_KEPT_FOR);
                    }
                    1 => {
                        prop_assert_eq!(pool.take(Need::AtLeast(1)).is_some(), model.pop().is_some());
                    }
                    _ => {
                        model.push(now);
                        let superfluous = model.len().saturating_sub(MAX_IDLE_ARENAS);
                        prop_assert_eq!(pool.put(arena(4096), begun + now).len(), superfluous);
                        model.drain(..superfluous);
                    }
                }
                prop_assert_eq!(pool.idle().len(), model.len());
            }
        }
    }
}
