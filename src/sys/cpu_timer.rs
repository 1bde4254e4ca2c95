//! Timers on the CPU time of this process, which signal it when its time is used up.
//!
//! The kernel's `RLIMIT_CPU` does not fit: it counts whole seconds from the start of the process,
//! and it either kills, and can then never be raised again, or sends a signal that may be blocked.
//! A timer on the CPU clock of the process counts nanoseconds from the moment when it is set, and
//! can be set again and again. There are two; the second sends SIGKILL, so that a job can only
//! escape by deleting the timers. A process that this one starts has no such timer.

use std::io;
use std::time::Duration;

use super::kernel_timer::KernelTimer;
use super::tuning::CPU_TIME_BEFORE_KILL;

const CLOCK: libc::clockid_t = libc::CLOCK_PROCESS_CPUTIME_ID;

/// Two timers on the CPU time of this process, all threads together. Dropping this deletes them. A
/// forked process has no timers.
#[derive(Debug)]
pub(crate) struct CpuTimer {
    first: KernelTimer,
    last: KernelTimer,
}

impl CpuTimer {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            first: KernelTimer::new(CLOCK, libc::SIGXCPU)?,
            last: KernelTimer::new(CLOCK, libc::SIGKILL)?,
        })
    }

    /// Sends SIGXCPU after this much more CPU time, and SIGKILL a second later.
    pub(crate) fn set(&self, time: Duration) -> io::Result<()> {
        self.last
            .set_after(time.saturating_add(CPU_TIME_BEFORE_KILL))?;
        self.first.set_after(time)
    }

    pub(crate) fn clear(&self) -> io::Result<()> {
        self.first.set_after(Duration::ZERO)?;
        self.last.set_after(Duration::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_that_is_cleared_in_time_does_not_expire() {
        let timer = CpuTimer::new().unwrap();
        for _ in 0..3 {
            timer.set(Duration::from_secs(3600)).unwrap();
            timer.clear().unwrap();
        }
        timer.set(Duration::MAX).unwrap();
    }
}
