//! Arenas that no message needs, for the next ones.
//!
//! Each worker context has a pool. What is here says which arena is drawn, which are kept, and for how long; the clock
//! is asked and the arenas are dropped by [`worker`](crate::worker), because to unmap and free 64 MiB takes some ten
//! milliseconds.
//!
//! * *Drawn* is the smallest that is large enough, and not far too large, if it is known how much is needed, and the largest if it is not; of
//!   equals the one that was used last, as its worker may still have it mapped.
//! * *Kept* are at most [`MOST`] (who makes more large calls at once than that is short of processors first) and at
//!   most [`ROOM`] in all; those that were used last. What is larger than all the room is not made into an arena at
//!   all.
//! * For [`LINGER`] after its last use, and until somebody looks then, as workers keep their mappings. A program that makes
//!   large calls one after the other finds it there, and one that makes one a minute has its memory for itself.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::sys::arena::{Arena, LINGER};

/// How many arenas are kept.
const MOST: usize = 16;

/// How many times as large as what is written an arena may be, if that is known: a job that keeps a little of it keeps it whole.
const MOST_SPARE: usize = 8;

/// How many bytes they have together.
const ROOM: usize = 256 << 20;

/// The arenas of a context that are not in use.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    /// The one that was used last at the end.
    idle: Mutex<Vec<Idle>>,
}

#[derive(Debug)]
struct Idle {
    arena: Arena,
    since: Instant,
}

/// How much is going to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    Exactly(usize),
    /// So much is known, and more may come.
    AtLeast(usize),
}

impl Pool {
    /// Takes out an arena for so much.
    pub(crate) fn draw(&self, need: Need) -> Option<Arena> {
        let mut idle = self.idle();
        let latest_first = idle.iter().enumerate().rev();
        let capacities = latest_first.map(|(at, idle)| (at, idle.arena.capacity()));
        let drawn = match need {
            Need::Exactly(length) => capacities
                .filter(|(_, capacity)| *capacity >= length && *capacity / MOST_SPARE <= length)
                .min_by_key(|(_, capacity)| *capacity),
            Need::AtLeast(length) => capacities
                .rev() // as of equals the last is taken
                .filter(|(_, capacity)| *capacity >= length)
                .max_by_key(|(_, capacity)| *capacity),
        };
        drawn.map(|(at, _)| idle.remove(at).arena)
    }

    /// Whether an arena for so much would be kept.
    pub(crate) fn has_room_for(&self, length: u64) -> bool {
        Arena::capacity_for(length) <= ROOM as u64
    }

    /// Puts one back at this time. Gives those for which there is no room any more.
    #[must_use = "to drop them takes long"]
    pub(crate) fn put(&self, arena: Arena, now: Instant) -> Vec<Arena> {
        let mut idle = self.idle();
        idle.push(Idle { arena, since: now });
        let mut room = ROOM;
        let fitting = idle.iter().rev().take(MOST).take_while(|kept| {
            let rest = room.checked_sub(kept.arena.capacity());
            room = rest.unwrap_or(room);
            rest.is_some()
        });
        let superfluous = idle.len() - fitting.count();
        arenas(idle.drain(..superfluous))
    }

    /// Takes out those that were not used for a while before this time.
    #[must_use = "to drop them takes long"]
    pub(crate) fn trim(&self, now: Instant) -> Vec<Arena> {
        let mut idle = self.idle();
        let is_old = |idle: &Idle| now.saturating_duration_since(idle.since) >= LINGER;
        // They lie in the order of their use.
        let old = idle.iter().take_while(|idle| is_old(idle)).count();
        arenas(idle.drain(..old))
    }

    /// Takes out all.
    #[must_use = "to drop them takes long"]
    pub(crate) fn empty(&self) -> Vec<Arena> {
        arenas(self.idle().drain(..))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.idle().is_empty()
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        // Each change is one step.
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
        let mut draft = Arena::draft().unwrap();
        draft.append(&vec![0; length]).unwrap();
        Arena::of(draft).unwrap()
    }

    #[test]
    fn what_fits_best_is_drawn_or_the_largest_if_more_may_come_and_of_equals_the_last_one() {
        let pool = Pool::default();
        let now = Instant::now();
        let mut addresses = Vec::new();
        for length in [100_000, 10_000, 300_000, 10_000, 300_000] {
            let arena = arena(length);
            addresses.push(arena.bytes().as_ptr());
            assert!(pool.put(arena, now).is_empty());
        }
        let draw = |need| {
            let arena = pool.draw(need)?;
            Some(
                addresses
                    .iter()
                    .position(|at| *at == arena.bytes().as_ptr()),
            )
            .flatten()
        };
        assert_eq!(draw(Need::Exactly(5000)), Some(3));
        assert_eq!(draw(Need::Exactly(50_000)), Some(0));
        assert_eq!(draw(Need::AtLeast(5000)), Some(4));
        assert_eq!(draw(Need::AtLeast(500_000)), None);
        assert_eq!(draw(Need::Exactly(500_000)), None);
        assert_eq!(draw(Need::Exactly(200_000)), Some(2));
        assert_eq!(draw(Need::AtLeast(0)), Some(1));
        assert!(pool.is_empty());
    }

    #[test]
    fn what_is_larger_than_all_the_room_is_not_for_the_pool() {
        let pool = Pool::default();
        assert!(pool.has_room_for(ROOM as u64));
        assert!(!pool.has_room_for(ROOM as u64 + 1));
    }

    #[test]
    fn the_largest_that_there_is_room_for_takes_the_place_of_all_others() {
        let pool = Pool::default();
        let now = Instant::now();
        assert!(pool.put(arena(5000), now).is_empty());
        let largest = arena(ROOM);
        assert_eq!(pool.put(largest, now).len(), 1);
        assert_eq!(pool.put(arena(5000), now).len(), 1);
        assert!(pool.draw(Need::Exactly(ROOM)).is_none());
        assert_eq!(pool.empty().len(), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Against a list of the times of use.
        #[cfg_attr(miri, ignore = "too many cases")]
        #[test]
        fn so_many_are_kept_and_for_so_long(steps in prop::collection::vec((0u64..700, 0u8..8), 1..60)) {
            let pool = Pool::default();
            let begun = Instant::now();
            let mut now = Duration::ZERO;
            let mut model: Vec<Duration> = Vec::new();
            for (pause, step) in steps {
                now += Duration::from_millis(pause / 8);
                match step {
                    0 => {
                        drop(pool.trim(begun + now));
                        model.retain(|since| now - *since < LINGER);
                    }
                    1 => {
                        prop_assert_eq!(pool.draw(Need::AtLeast(1)).is_some(), model.pop().is_some());
                    }
                    _ => {
                        model.push(now);
                        let superfluous = model.len().saturating_sub(MOST);
                        prop_assert_eq!(pool.put(arena(4096), begun + now).len(), superfluous);
                        model.drain(..superfluous);
                    }
                }
                prop_assert_eq!(pool.idle().len(), model.len());
            }
        }
    }
}
