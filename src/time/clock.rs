//! What a run needs to know of time.

use std::fmt;
use std::task::Waker;
use std::time::{Duration, Instant};

/// Tells a run what time it is and how long to wait for a deadline.
///
/// The system's clock is [`RealClock`]; tests use [`testing::MockClock`](crate::testing::MockClock). An implementation
/// must never go backwards.
///
/// ```
/// use std::time::Instant;
/// use seedbed::time::{Clock, RealClock};
///
/// let before = Instant::now();
/// assert!(RealClock.now() >= before);
/// ```
pub trait Clock: fmt::Debug + Send + Sync {
    /// The time now.
    fn now(&self) -> Instant;

    /// How long, in real time, until this clock shows `deadline`. `None` if it will not get there by itself.
    fn real_time_until(&self, deadline: Instant) -> Option<Duration>;

    /// If this clock jumps over idle time: how long, in real time, every task has to be blocked before it does.
    fn autojump_threshold(&self) -> Option<Duration> {
        None
    }

    /// Called when every task has been blocked for [`autojump_threshold`](Clock::autojump_threshold): move to
    /// `deadline`, the earliest that anybody waits for.
    fn jump_to(&self, deadline: Instant) {
        // A clock without a threshold is never asked to jump.
        _ = deadline;
    }

    /// Takes a run that has to be woken when the clock is changed by somebody: told to jump, for instance. Each run
    /// that has this clock calls it at every turn, before it looks at the time; so a waker that was woken is not
    /// needed again.
    fn wake_on_change(&self, run: &Waker) {
        // A clock that moves by itself only need not tell.
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
