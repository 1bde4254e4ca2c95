//! The limiter of calls that name none.

use std::num::NonZero;
use std::sync::OnceLock;

use crate::sync::CapacityLimiter;

/// Returns the limiter of calls that name none: one token for each processor, shared by the whole
/// process.
///
/// # Examples
///
/// ```
/// let limiter = seedbed::worker::current_default_worker_limiter();
/// assert!(limiter.total().unwrap() >= 1);
/// ```
pub fn current_default_worker_limiter() -> CapacityLimiter {
    default_limiter().clone()
}

/// Returns the same limiter as [`current_default_worker_limiter`], without a new handle.
pub(super) fn default_limiter() -> &'static CapacityLimiter {
    static LIMITER: OnceLock<CapacityLimiter> = OnceLock::new();
    let processors = || std::thread::available_parallelism().map_or(1, NonZero::get);
    LIMITER.get_or_init(|| CapacityLimiter::new(processors()))
}
