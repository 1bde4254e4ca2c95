//! Decides when a failed child is started again.

use std::time::Duration;

use super::tuning::{FAILURE_LIMIT, FIRST_PAUSE, HEALTHY_AFTER, LONGEST_PAUSE};

/// The policy of a supervisor, and the failures so far.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    pub(super) first_pause: Duration,
    pub(super) longest_pause: Duration,
    /// The failure of a child that lived this long counts as the first.
    pub(super) healthy_after: Duration,
    /// The failures in a row after which the supervisor gives up.
    pub(super) limit: u32,
    in_a_row: u32,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Backoff {
            first_pause: FIRST_PAUSE,
            longest_pause: LONGEST_PAUSE,
            healthy_after: HEALTHY_AFTER,
            limit: FAILURE_LIMIT,
            in_a_row: 0,
        }
    }

    /// Records the failure of a child that lived for `lived`. Returns the number of failures in a
    /// row.
    pub(super) fn record(&mut self, lived: Duration) -> u32 {
        if lived >= self.healthy_after {
            self.in_a_row = 0;
        }
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.in_a_row
    }

    /// Returns the pause before the next start. `None` to give up.
    pub(super) fn pause(&self) -> Option<Duration> {
        if self.in_a_row >= self.limit {
            return None;
        }
        let doubled = 2_u32.saturating_pow(self.in_a_row.saturating_sub(1));
        let pause = self.first_pause.saturating_mul(doubled);
        Some(pause.min(self.longest_pause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::from_millis(1);

    fn pauses(backoff: &mut Backoff, count: usize) -> Vec<Option<Duration>> {
        let failure = |_| {
            backoff.record(MOMENT);
            backoff.pause()
        };
        (0..count).map(failure).collect()
    }

    #[test]
    fn the_pauses_double_up_to_the_longest_and_then_it_gives_up() {
        let mut backoff = Backoff::new();
        (backoff.first_pause, backoff.longest_pause) = (5 * MOMENT, 18 * MOMENT);
        backoff.limit = 6;
        let expected = [5, 10, 18, 18, 18].map(|pause| Some(pause * MOMENT));
        assert_eq!(pauses(&mut backoff, 5), expected);
        assert_eq!(pauses(&mut backoff, 2), [None, None]);
        assert_eq!(backoff.record(backoff.healthy_after), 1);
        assert_eq!(backoff.pause(), Some(5 * MOMENT));
    }

    #[test]
    fn no_number_of_failures_and_no_duration_overflows() {
        let mut backoff = Backoff::new();
        (backoff.first_pause, backoff.longest_pause) = (Duration::MAX, Duration::MAX);
        backoff.limit = u32::MAX;
        assert_eq!(pauses(&mut backoff, 100), [Some(Duration::MAX); 100]);
        backoff.in_a_row = u32::MAX;
        assert_eq!(backoff.record(MOMENT), u32::MAX);
        backoff.limit = 0;
        assert_eq!(backoff.pause(), None);
    }
}
