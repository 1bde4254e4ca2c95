//! A clock that counts the CPU time of this process, and signals it when that is used up.
//!
//! The kernel's `RLIMIT_CPU` will not do: it counts whole seconds from the process's start, and it either kills, and
//! then can never be raised again, or sends a signal that may be blocked. A timer on the process's CPU clock counts
//! nanoseconds from the moment in which it is set, and as often as it is set; two of them, the second of which sends
//! SIGKILL, leave no way out but to delete them. What is different: a process that this one starts has no such timer.
//!
//! `unsafe` is needed because rustix has no timers of this kind.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::time::Duration;

/// How much more CPU time a process may use that has not been ended by SIGXCPU.
const RESPITE: Duration = Duration::from_secs(1);

/// Two timers on the CPU time of this process, all its threads together. Dropping it deletes them. A forked process has
/// none of them.
#[derive(Debug)]
pub(crate) struct CpuTimer {
    first: Timer,
    last: Timer,
}

impl CpuTimer {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            first: Timer::new(libc::SIGXCPU)?,
            last: Timer::new(libc::SIGKILL)?,
        })
    }

    /// Sends SIGXCPU after so much CPU time from now, and SIGKILL after a second more.
    pub(crate) fn set(&self, time: Duration) -> io::Result<()> {
        self.last.set(time.saturating_add(RESPITE))?;
        self.first.set(time)
    }

    pub(crate) fn clear(&self) -> io::Result<()> {
        self.first.set(Duration::ZERO)?;
        self.last.set(Duration::ZERO)
    }
}

#[derive(Debug)]
struct Timer(libc::timer_t);

impl Timer {
    fn new(signal: libc::c_int) -> io::Result<Self> {
        // SAFETY: `sigevent` is a C structure of integers, a union of an integer and a pointer, and padding, of all of
        // which zeros are values.
        let mut event: libc::sigevent = unsafe { MaybeUninit::zeroed().assume_init() };
        event.sigev_notify = libc::SIGEV_SIGNAL;
        event.sigev_signo = signal;
        let mut timer: libc::timer_t = ptr::null_mut();
        // SAFETY: both pointers lead to local variables of the right types; the call reads the first and writes the
        // second.
        let result = unsafe {
            libc::timer_create(
                libc::CLOCK_PROCESS_CPUTIME_ID,
                &raw mut event,
                &raw mut timer,
            )
        };
        match result {
            0 => Ok(Self(timer)),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Lets it go off once, after so much CPU time; zero stops it.
    fn set(&self, time: Duration) -> io::Result<()> {
        let once = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let value = libc::itimerspec {
            it_interval: once,
            it_value: libc::timespec {
                // Some centuries will do.
                tv_sec: time
                    .as_secs()
                    .min(1 << 33)
                    .try_into()
                    .unwrap_or(libc::time_t::MAX),
                tv_nsec: time.subsec_nanos() as libc::c_long,
            },
        };
        // SAFETY: the timer was made by `new` and is deleted by `drop` alone: nobody else has its name. In a process
        // that was forked meanwhile the C library's record of it, where it keeps one, was copied, and the kernel has an
        // error for a timer that is not there. `value` is read only, and the old value is not asked for.
        let result = unsafe { libc::timer_settime(self.0, 0, &raw const value, ptr::null_mut()) };
        match result {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: as in `set`; nobody uses it afterwards. What a forked process lacks cannot be deleted there,
        // harmlessly.
        unsafe { libc::timer_delete(self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_that_is_cleared_in_time_does_not_go_off() {
        let alarm = CpuTimer::new().unwrap();
        for _ in 0..3 {
            alarm.set(Duration::from_secs(3600)).unwrap();
            alarm.clear().unwrap();
        }
        alarm.set(Duration::MAX).unwrap();
    }
}
