//! The constants of cancel scopes.

use std::time::Duration;

/// A cancelled scope that has waited this long for work which cancellation does not interrupt is
/// reported. Most clean-up takes less.
pub(super) const WAIT_REPORTED_AFTER: Duration = Duration::from_secs(2);

/// The time between two looks at the waits of cancelled scopes, while there are any.
pub(super) const WAIT_TICK_INTERVAL: Duration = Duration::from_millis(500);
