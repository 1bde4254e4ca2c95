//! Spinning with a bound, and backing off after unsuccessful spins.
//!
//! Waking a sleeping core takes about 30 us; reading a cache line takes nanoseconds. So a side that
//! expects a frame within microseconds spins for it. A side whose spins keep failing wastes CPU
//! time and must spin less often.

use std::cell::Cell;
use std::hint::spin_loop;
use std::thread::yield_now;
use std::time::{Duration, Instant};

use super::tuning::{CONTENTION_MEMORY, LONG_YIELD, SPINS_BETWEEN_YIELDS};

thread_local! {
    /// Until then another process competes for the processors, as far as this thread knows.
    static CONTENDED_UNTIL: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Spins until `condition` holds, for about `limit` at most, and returns whether it holds.
///
/// If `shares_processor` is set, the other side needs this processor to make progress, so each
/// check is followed by a yield. Otherwise the spin yields now and then, in case another thread
/// needs the processor.
///
/// A yield that hands the processor to a busy process of another program gives away a whole time
/// slice, about a thousand calls. So after one that took long, spins do without yields for a while,
/// and where they cannot, the caller sleeps: the scheduler prefers a process that wakes up to one
/// that has used its slice.
pub(crate) fn spin_until(
    limit: Duration,
    shares_processor: bool,
    mut condition: impl FnMut() -> bool,
) -> bool {
    if cfg!(all(test, loom)) {
        return condition(); // a model has no time
    }
    let spins = if shares_processor {
        1
    } else {
        SPINS_BETWEEN_YIELDS
    };
    let mut start = None;
    loop {
        for _ in 0..spins {
            if condition() {
                return true;
            }
            spin_loop();
        }
        // The clock is read only after the first round: most spins end before that.
        let now = Instant::now();
        let start = *start.get_or_insert(now);
        match (is_contended(now), shares_processor) {
            (true, true) => return condition(),
            (true, false) => {}
            (false, _) => yield_measured(now),
        }
        if start.elapsed() > limit {
            return condition();
        }
    }
}

fn is_contended(now: Instant) -> bool {
    // A thread that is ending knows nothing.
    let until = CONTENDED_UNTIL.try_with(Cell::get).unwrap_or(None);
    until.is_some_and(|until| now < until)
}

/// Yields the processor, and notes if that gave away a time slice.
fn yield_measured(now: Instant) {
    yield_now();
    if now.elapsed() > LONG_YIELD {
        let until = Instant::now() + CONTENTION_MEMORY;
        let _ = CONTENDED_UNTIL.try_with(|contended| contended.set(Some(until)));
    }
}

/// Decides for each wait whether it starts with a spin.
///
/// After each failed spin, the number of waits without a spin doubles, up to a maximum; one success
/// resets it.
#[derive(Debug)]
pub(crate) struct Backoff {
    /// Failed spins in a row.
    failures: u32,
    /// Waits left in which the side does not spin.
    waits_to_skip: u32,
}

impl Backoff {
    pub(crate) const fn new() -> Self {
        Backoff {
            failures: 0,
            waits_to_skip: 0,
        }
    }

    /// Starts a wait, and returns whether it should spin. Call it once for each wait.
    pub(crate) fn next_wait_spins(&mut self) -> bool {
        let spins = self.waits_to_skip == 0;
        self.waits_to_skip = self.waits_to_skip.saturating_sub(1);
        spins
    }

    /// Notes that a spin succeeded: every wait spins again.
    pub(crate) fn succeeded(&mut self) {
        *self = Self::new();
    }

    /// Notes that a wait without a spin ended so soon that a spin might have succeeded.
    pub(crate) fn would_have_succeeded(&mut self) {
        self.waits_to_skip /= 2;
    }

    /// Notes that a spin failed. At least one of `longest_interval` waits spins, which must be a
    /// power of two.
    pub(crate) fn failed(&mut self, longest_interval: u32) {
        self.waits_to_skip = (1 << self.failures).min(longest_interval) - 1;
        self.failures = (self.failures + 1).min(longest_interval.ilog2());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns how many of `waits` spin if every spin fails.
    fn count_spins(waits: usize, longest_interval: u32) -> usize {
        let mut backoff = Backoff::new();
        let spins = (0..waits).filter(|_| {
            let spins = backoff.next_wait_spins();
            if spins {
                backoff.failed(longest_interval);
            }
            spins
        });
        spins.count()
    }

    #[test]
    fn a_side_whose_spins_fail_spins_less_and_less_often_but_never_stops() {
        assert_eq!(count_spins(1, 16), 1);
        assert_eq!(count_spins(2, 16), 2); // the first failure has no effect
        assert_eq!(count_spins(16, 16), 5); // the 1st, 2nd, 4th, 8th and 16th
        assert_eq!(count_spins(16 + 160, 16), 5 + 10);
    }

    #[test]
    fn one_success_resets_the_backoff() {
        let mut backoff = Backoff::new();
        (0..10).for_each(|_| backoff.failed(64));
        assert!(!backoff.next_wait_spins());
        backoff.succeeded();
        assert!(backoff.next_wait_spins());
        assert!(backoff.next_wait_spins());
    }

    #[test]
    fn short_waits_without_a_spin_shorten_the_backoff() {
        let mut backoff = Backoff::new();
        (0..10).for_each(|_| backoff.failed(64));
        let mut waits = 0;
        while !backoff.next_wait_spins() {
            backoff.would_have_succeeded();
            waits += 1;
        }
        assert_eq!(waits, 6);
    }

    #[test]
    fn a_spin_ends_when_its_condition_holds_or_its_limit_is_over() {
        let mut left = 1000;
        let held = spin_until(Duration::MAX, false, || {
            left -= 1;
            left == 0
        });
        assert!(held);
        assert!(!spin_until(Duration::ZERO, true, || false));
    }
}
