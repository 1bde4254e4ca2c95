//! The constants of cancel scopes.

use std::time::Duration;

/// A cancelled scope that has waited this long for work which cancellation does not interrupt is
/// reported. Most clean-up takes less.
pub(super) const WAIT_REPORTED_AFTER: Duration = Duration::from_secs(2);
