//! The kernel's clocks, which all processes of a machine share.

use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Returns the time of the clock that [`std::time::Instant`] reads, too.
pub(crate) fn monotonic_time() -> Duration {
    duration(clock_gettime(ClockId::Monotonic))
}

/// Returns the time since the machine was started, suspensions included.
pub(crate) fn boot_time() -> Duration {
    duration(clock_gettime(ClockId::Boottime))
}

fn duration(time: Timespec) -> Duration {
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}
