//! The resources that this process has used: processor time, and physical memory at its peak.
//!
//! `unsafe` is needed for a system call that no crate wraps; see [`read`].
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::ops::{Add, Sub};
use std::time::Duration;

/// Processor time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CpuTimes {
    pub(crate) user: Duration,
    pub(crate) system: Duration,
}

impl Add for CpuTimes {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            user: self.user + other.user,
            system: self.system + other.system,
        }
    }
}

impl Sub for CpuTimes {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
        }
    }
}

/// Returns the processor time of this process, and of the children that it has waited for.
pub(crate) fn cpu_times() -> CpuTimes {
    let times_of = |who| {
        let usage = read(who);
        CpuTimes {
            user: duration(usage.ru_utime),
            system: duration(usage.ru_stime),
        }
    };
    times_of(libc::RUSAGE_SELF) + times_of(libc::RUSAGE_CHILDREN)
}

/// Returns the greatest number of bytes that this process has had in physical memory, since it was
/// executed or since [`forget_peak_memory`].
pub(crate) fn peak_memory() -> u64 {
    // The kernel counts in kibibytes.
    u64::try_from(read(libc::RUSAGE_SELF).ru_maxrss).unwrap_or(0) * 1024
}

/// Makes [`peak_memory`] begin anew, with what this process has now. Returns whether that was
/// possible.
pub(crate) fn forget_peak_memory() -> bool {
    std::fs::write("/proc/self/clear_refs", "5").is_ok()
}

fn read(who: libc::c_int) -> libc::rusage {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: `usage` has room for what the call writes.
    unsafe { libc::getrusage(who, usage.as_mut_ptr()) };
    // SAFETY: all fields are integers, for which zeros are a valid value, also if the call has
    // written nothing.
    unsafe { usage.assume_init() }
}

fn duration(time: libc::timeval) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let micros = u64::try_from(time.tv_usec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn computing_uses_processor_time() {
        let before = cpu_times();
        // Ends, because the thread runs.
        while (cpu_times() - before).user < Duration::from_millis(5) {
            std::hint::black_box((0..1000).sum::<u64>());
        }
    }

    #[test]
    fn memory_that_was_written_shows_in_the_peak() {
        const BYTES: usize = 64 << 20;
        let before = peak_memory();
        std::hint::black_box(vec![1_u8; BYTES]);
        assert!(peak_memory() >= BYTES as u64 && peak_memory() >= before);
    }
}
