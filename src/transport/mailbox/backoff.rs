//! How long to look for something before one sleeps: the bound, and what is learnt from looking in vain.
//!
//! A core that sleeps takes some 30 us to wake, and a look at a cache line some nanoseconds. So whoever will have a
//! frame within microseconds does better to look for it; who will not, has wasted its time, and learns from that.

use std::hint::spin_loop;
use std::thread::yield_now;
use std::time::{Duration, Instant};

/// So many looks, of some 25 ns each, between two offers of the processor to whoever else wants it.
const LOOKS: u32 = 64;

/// Looks until `seen` says that there is something, for about `limit` at most. Those who are `together` with the other
/// side on one processor give it away at once, or there never would be anything.
pub(crate) fn look_for(limit: Duration, together: bool, mut seen: impl FnMut() -> bool) -> bool {
    let looks = if together { 1 } else { LOOKS };
    let mut begun = None;
    loop {
        for _ in 0..looks {
            if seen() {
                return true;
            }
            spin_loop();
        }
        // Most looks are over before the first time.
        let begun = begun.get_or_insert_with(Instant::now);
        yield_now();
        if begun.elapsed() > limit {
            return seen();
        }
    }
}

/// Whether to look at all. After each time in vain there are twice as many waits in which one does not, up to a limit.
#[derive(Debug)]
pub(crate) struct Patience {
    /// In a row.
    in_vain: u32,
    /// So many waits more in which one does not look.
    resting: u32,
}

impl Patience {
    pub(crate) const fn new() -> Self {
        Patience {
            in_vain: 0,
            resting: 0,
        }
    }

    /// Asked once for each wait.
    pub(crate) fn is_there(&mut self) -> bool {
        match self.resting {
            0 => true,
            _ => {
                self.resting -= 1;
                false
            }
        }
    }

    /// There was something soon.
    pub(crate) fn was_rewarded(&mut self) {
        *self = Self::new();
    }

    /// One did not look, and there was something so soon that it might have been seen.
    pub(crate) fn might_have_been(&mut self) {
        self.resting /= 2;
    }

    /// There was nothing. At least one of `every` waits is a look even so, `every` being a power of two.
    pub(crate) fn was_in_vain(&mut self, every: u32) {
        self.resting = (1 << self.in_vain).min(every) - 1;
        self.in_vain = (self.in_vain + 1).min(every.ilog2());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `waits` are looks, if none of them is rewarded.
    fn looks_in_vain(waits: usize, every: u32) -> usize {
        let mut patience = Patience::new();
        let looks = (0..waits).filter(|_| {
            let looks = patience.is_there();
            if looks {
                patience.was_in_vain(every);
            }
            looks
        });
        looks.count()
    }

    #[test]
    fn who_always_looks_in_vain_looks_ever_more_rarely_but_does_not_give_up() {
        assert_eq!(looks_in_vain(1, 16), 1);
        assert_eq!(looks_in_vain(2, 16), 2); // the first time is forgiven
        assert_eq!(looks_in_vain(16, 16), 5); // the 1st, 2nd, 4th, 8th and 16th
        assert_eq!(looks_in_vain(16 + 160, 16), 5 + 10);
    }

    #[test]
    fn one_reward_makes_up_for_all() {
        let mut patience = Patience::new();
        (0..10).for_each(|_| patience.was_in_vain(64));
        assert!(!patience.is_there());
        patience.was_rewarded();
        assert!(patience.is_there());
        assert!(patience.is_there());
    }

    #[test]
    fn who_rests_while_there_is_something_to_be_seen_looks_again_sooner() {
        let mut patience = Patience::new();
        (0..10).for_each(|_| patience.was_in_vain(64));
        let mut waits = 0;
        while !patience.is_there() {
            patience.might_have_been();
            waits += 1;
        }
        assert_eq!(waits, 6);
    }

    #[test]
    fn a_look_ends_with_what_was_looked_for_or_after_its_time() {
        let mut left = 1000;
        let seen = look_for(Duration::MAX, false, || {
            left -= 1;
            left == 0
        });
        assert!(seen);
        assert!(!look_for(Duration::ZERO, true, || false));
    }
}
