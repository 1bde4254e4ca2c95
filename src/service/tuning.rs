//! The constants of this module.

use std::time::Duration;

/// The pause of a supervisor after the first failure, unless `backoff` sets another.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause of a supervisor, unless `backoff` sets another.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The number of failures in a row after which a supervisor gives up, unless `limit` sets another.
pub(super) const FAILURE_LIMIT: u32 = 5;

/// The time after which a child counts as healthy, unless `healthy_after` sets another.
pub(super) const HEALTHY_AFTER: Duration = Duration::from_secs(60);

/// The smallest part of a pause that jitter leaves.
pub(super) const JITTER_SMALLEST: f64 = 0.5;

/// The time of a service between the beginning of its shutdown and the cut, unless `drain_for` sets
/// another. Less than the 90 seconds after which systemd kills a service.
pub(super) const DRAIN_FOR: Duration = Duration::from_secs(30);
