//! The time, the clock and the timers of the run that this thread is polling.

use std::sync::Arc;
use std::time::Instant;

use super::clock::{Clock, RealClock};
use super::timers::Timers;
use crate::ambient;

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
    timers().map_or_else(Instant::now, |timers| timers.now())
}

/// Returns this run's clock; outside of a run, a [`RealClock`].
///
/// ```
/// use std::time::Duration;
/// use seedbed::testing::MockClock;
/// use seedbed::time::{current_clock, current_time};
/// use seedbed::RunBuilder;
///
/// RunBuilder::new().clock(MockClock::new()).run(async {
///     let clock = current_clock();
///     assert_eq!(clock.now(), current_time());
///     let in_an_hour = clock.now() + Duration::from_secs(3600);
///     assert_eq!(clock.real_time_until(in_an_hour), None); // it stands still
/// });
/// ```
pub fn current_clock() -> Arc<dyn Clock> {
    timers().map_or_else(
        || Arc::new(RealClock) as Arc<dyn Clock>,
        |timers| timers.shared_clock(),
    )
}

/// Returns the timers of the run that this thread is polling; `None` outside of a run, and in a
/// future that was begun in a run which has ended.
pub(crate) fn timers() -> Option<Arc<Timers>> {
    ambient::part_of_run().filter(|timers: &Arc<Timers>| !timers.has_ended())
}
