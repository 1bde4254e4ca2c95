//! Timers on the CPU time of this process, which signal it when its time is used up.
//!
//! The kernel's `RLIMIT_CPU` does not fit: it counts whole seconds from the start of the process,
//! and it either kills, and can then never be raised again, or sends a signal that may be blocked.
//! A timer on the CPU clock of the process counts nanoseconds from the moment when it is set, and
//! can be set again and again. There are two; the second sends SIGKILL, so that a job can only
//! escape by deleting the timers. A process that this one starts has no such timer.
//!
//! `unsafe` is needed because rustix has no timers of this kind.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::time::Duration;

use super::tuning::CPU_TIME_BEFORE_KILL;

/// Two timers on the CPU time of this process, all threads together. Dropping this deletes them. A
/// forked process has no timers.
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

    /// Sends SIGXCPU after this much more CPU time, and SIGKILL a second later.
    pub(crate) fn set(&self, time: Duration) -> io::Result<()> {
        self.last.set(time.saturating_add(CPU_TIME_BEFORE_KILL))?;
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
        // SAFETY: `sigevent` is a C structure of integers, a union of an integer and a pointer, and
        // padding. Zeros are a valid value of each.
        let mut event: libc::sigevent = unsafe { MaybeUninit::zeroed().assume_init() };
        event.sigev_notify = libc::SIGEV_SIGNAL;
        event.sigev_signo = signal;
        let mut timer: libc::timer_t = ptr::null_mut();
        // SAFETY: both pointers lead to local variables of the right types; the call reads the
        // first and writes the second.
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

    /// Makes the timer expire once, after this much CPU time; zero stops it.
    fn set(&self, time: Duration) -> io::Result<()> {
        let once = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let value = libc::itimerspec {
            it_interval: once,
            it_value: libc::timespec {
                // A time too long for the kernel stands for some centuries.
                tv_sec: time
                    .as_secs()
                    .min(1 << 33)
                    .try_into()
                    .unwrap_or(i32::MAX.into()),
                tv_nsec: time.subsec_nanos() as libc::c_long,
            },
        };
        // SAFETY: only `new` makes the timer, only `drop` deletes it, and no other code knows its
        // identifier. In a process that was forked since, the C library's record of it was copied,
        // and the kernel returns an error for the missing timer. `value` is only read, and the old
        // value is not requested.
        let result = unsafe { libc::timer_settime(self.0, 0, &raw const value, ptr::null_mut()) };
        match result {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: each clause of `set` holds, and the timer is not used afterwards. In a forked
        // process the call fails, which is harmless.
        unsafe { libc::timer_delete(self.0) };
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
