//! Clocks, sleeping and the queue of deadlines.
//!
//! Time belongs to the run: inside [`run`](crate::run()) sleeps and deadlines read the run's [`Clock`] and wait in its
//! own queue, so that a virtual clock moves all of them together. Outside of a run the same functions use the system's
//! clock and smol's timers. [`queue`] decides which deadlines have passed, [`idle`] who is told that the run is idle;
//! both are pure. [`timers`] wakes.

mod clock;
mod idle;
mod queue;
mod sleep;
mod timers;

pub use std::time::Instant;

use std::sync::Arc;

pub use clock::{Clock, RealClock};
pub(crate) use idle::IdleKey;
pub use sleep::{Sleep, sleep, sleep_forever, sleep_until};
pub(crate) use timers::Timers;

use crate::cancel::current;

/// Returns the time of this run's clock; outside of a run, the system's.
///
/// ```
/// use std::time::Duration;
/// use seedbed::testing::MockClock;
/// use seedbed::time::current_time;
/// use seedbed::{RunBuilder, sleep};
///
/// let hour = Duration::from_secs(3600);
/// RunBuilder::new().clock(MockClock::autojump()).run(async {
///     let start = current_time();
///     sleep(hour).await; // takes no real time
///     assert_eq!(current_time() - start, hour);
/// });
/// ```
pub fn current_time() -> Instant {
    current::timers().map_or_else(Instant::now, |timers| timers.now())
}

/// Returns this run's clock; outside of a run, a [`RealClock`].
///
/// ```
/// use std::time::Duration;
/// use seedbed::RunBuilder;
/// use seedbed::testing::MockClock;
/// use seedbed::time::{current_clock, current_time};
///
/// RunBuilder::new().clock(MockClock::new()).run(async {
///     let clock = current_clock();
///     assert_eq!(clock.now(), current_time());
///     let in_an_hour = clock.now() + Duration::from_secs(3600);
///     assert_eq!(clock.real_time_until(in_an_hour), None); // it stands still
/// });
/// ```
pub fn current_clock() -> Arc<dyn Clock> {
    current::timers().map_or_else(
        || Arc::new(RealClock) as Arc<dyn Clock>,
        |timers| timers.shared_clock(),
    )
}
