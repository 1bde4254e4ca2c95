//! The constants of threads.

use std::time::Duration;

/// The time that a thread stays idle before it exits.
pub(super) const IDLE_THREAD_TIMEOUT: Duration = Duration::from_secs(10);

/// The tokens of the default limiter. The number is Trio's, and as arbitrary: enough to overlap
/// waits, few enough not to overload a machine.
pub(super) const DEFAULT_THREAD_LIMIT: usize = 40;
