//! A deadline in a form in which another process of this machine understands it.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::time::current_time;

/// A deadline as time since the kernel's monotonic clock began, which all processes share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SharedDeadline(Duration);

impl SharedDeadline {
    /// Converts a deadline of this run. In a run with a virtual clock, the time that is left
    /// counts.
    pub(super) fn of(deadline: Instant) -> Self {
        let left = deadline.saturating_duration_since(current_time());
        Self(monotonic_time().saturating_add(left))
    }

    /// Converts the deadline to the clock of this process. `None` if it is too far away for that.
    pub(super) fn to_instant(self) -> Option<Instant> {
        let now = (Instant::now(), monotonic_time());
        match self.0.checked_sub(now.1) {
            Some(left) => now.0.checked_add(left),
            None => Some(now.0),
        }
    }
}

fn monotonic_time() -> Duration {
    let time = clock_gettime(ClockId::Monotonic);
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_arrives_as_the_instant_that_it_was() {
        let deadline = Instant::now() + Duration::from_secs(1000);
        let arrived = SharedDeadline::of(deadline).to_instant().unwrap();
        let error = arrived.max(deadline) - arrived.min(deadline);
        assert!(error < Duration::from_secs(500), "{error:?}");
    }

    #[test]
    fn a_deadline_that_has_passed_is_now_and_one_that_is_too_far_away_is_none() {
        let before = Instant::now();
        let passed = SharedDeadline(Duration::ZERO).to_instant().unwrap();
        assert!(passed >= before);
        assert_eq!(SharedDeadline(Duration::MAX).to_instant(), None);
    }
}
