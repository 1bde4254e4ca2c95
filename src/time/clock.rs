//! `Clock`: the interface between a run and its source of time.

use std::fmt;
use std::task::Waker;
use std::time::{Duration, Instant};

/// Tells a run what time it is and how long to wait for a deadline.
///
/// The system's clock is [`RealClock`]; tests use
/// [`testing::MockClock`](crate::testing::MockClock). An implementation must never go backwards.
///
/// ```
/// use std::time::Instant;
/// use seedbed::time::{Clock, RealClock};
///
/// let before = Instant::now();
/// assert!(RealClock.now() >= before);
/// ```
#[doc(alias = "virtual time")]
pub trait Clock: fmt::Debug + Send + Sync {
    /// Returns the time.
    fn now(&self) -> Instant;

    /// Returns how long it takes, in real time, until this clock shows `deadline`; `None` if it
    /// does not get there by itself.
    fn real_time_until(&self, deadline: Instant) -> Option<Duration>;

    /// Returns how long, in real time, every task has to be blocked before this clock jumps over
    /// idle time; `None` if it does not jump.
    fn autojump_threshold(&self) -> Option<Duration> {
        None
    }

    /// Moves this clock to `deadline`, the earliest of the run. The run calls this when every task
    /// has been blocked for [`autojump_threshold`](Clock::autojump_threshold).
    fn jump_to(&self, deadline: Instant) {
        // A clock without a threshold never jumps.
        _ = deadline;
    }

    /// Registers the waker of a run, which must be woken when the clock is changed from outside:
    /// when a test advances it, for example. Each run with this clock calls this in every turn of
    /// its loop, before it reads the time, so a waker that was woken need not be kept.
    fn wake_on_change(&self, run: &Waker) {
        // A clock that only moves by itself never wakes a run.
        _ = run;
    }
}

/// The system's monotonic clock.
///
/// ```
/// use std::time::Duration;
/// use seedbed::time::{Clock, RealClock};
///
/// let deadline = RealClock.now() + Duration::from_secs(5);
/// assert!(RealClock.real_time_until(deadline).unwrap() <= Duration::from_secs(5));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RealClock;

impl Clock for RealClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn real_time_until(&self, deadline: Instant) -> Option<Duration> {
        Some(deadline.saturating_duration_since(Instant::now()))
    }
}
