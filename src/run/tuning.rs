//! The constants of the run's loop.

use std::time::Duration;

/// How long the loop goes on, as long as tasks are ready, before it lets the reactor look for
/// events. That takes about half a microsecond.
pub(super) const REACTOR_INTERVAL: Duration = Duration::from_micros(20);

/// How much earlier than the next deadline the loop's timer may fire. Re-arming the timer costs
/// more than waking early. Each wait computes the distance of the deadline again.
pub(super) const TIMER_SLACK: Duration = Duration::from_millis(1);
