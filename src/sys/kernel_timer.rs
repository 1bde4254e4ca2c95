//! A timer of the kernel that signals this process.
//!
//! `unsafe` is needed because rustix has no timers of this kind.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::time::Duration;

/// A timer that sends a signal to this process. Dropping it deletes the timer. A forked process has
/// no timers.
#[derive(Debug)]
pub(super) struct KernelTimer(libc::timer_t);

impl KernelTimer {
    /// Makes a timer on this clock, which does nothing before it is set.
    pub(super) fn new(clock: libc::clockid_t, signal: libc::c_int) -> io::Result<Self> {
        // SAFETY: `sigevent` is a C structure of integers, a union of an integer and a pointer, and
        // padding. Zeros are a valid value of each.
        let mut event: libc::sigevent = unsafe { MaybeUninit::zeroed().assume_init() };
        event.sigev_notify = libc::SIGEV_SIGNAL;
        event.sigev_signo = signal;
        let mut timer: libc::timer_t = ptr::null_mut();
        // SAFETY: both pointers lead to local variables of the right types; the call reads the
        // first and writes the second.
        let result = unsafe { libc::timer_create(clock, &raw mut event, &raw mut timer) };
        match result {
            0 => Ok(Self(timer)),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Makes the timer expire once, after this much time of its clock; zero stops it.
    pub(super) fn set_after(&self, time: Duration) -> io::Result<()> {
        self.set(0, time)
    }

    /// Makes the timer expire once, at this time of its clock, which must not be zero.
    pub(super) fn set_at(&self, time: Duration) -> io::Result<()> {
        self.set(libc::TIMER_ABSTIME, time)
    }

    fn set(&self, flags: libc::c_int, time: Duration) -> io::Result<()> {
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
        let result =
            unsafe { libc::timer_settime(self.0, flags, &raw const value, ptr::null_mut()) };
        match result {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for KernelTimer {
    fn drop(&mut self) {
        // SAFETY: each clause of `set` holds, and the timer is not used afterwards. In a forked
        // process the call fails, which is harmless.
        unsafe { libc::timer_delete(self.0) };
    }
}
