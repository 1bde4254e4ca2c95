//! A timer of the kernel that kills this process unless it is set again in time.
//!
//! It fires whatever the process does or suffers: also while it is stopped by a signal, waits in
//! the kernel, or when the machine wakes up after a suspension.
//!
//! `unsafe` is needed for libc's calls, because rustix leaves POSIX timers to the C library; see
//! [`KillTimer`].
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Returns the time since the machine was started, suspensions included.
pub(crate) fn boot_time() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}

/// A timer that sends SIGKILL to this process.
#[derive(Debug)]
pub(crate) struct KillTimer(libc::timer_t);

// SAFETY: the value is a name that the C library gave out. All threads of the process may use it,
// and nothing is read through it here.
unsafe impl Send for KillTimer {}

impl KillTimer {
    /// Makes a timer that does nothing before it is set.
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: `sigevent` is a C structure of integers, a pointer that may be null, and a union
        // of such. Zeros are a valid value of each.
        let mut event = unsafe { MaybeUninit::<libc::sigevent>::zeroed().assume_init() };
        event.sigev_notify = libc::SIGEV_SIGNAL;
        event.sigev_signo = libc::SIGKILL;
        let mut timer = MaybeUninit::uninit();
        // SAFETY: the event is initialised and asks for a signal, so no function is called. `timer`
        // has room for the name.
        let result =
            unsafe { libc::timer_create(libc::CLOCK_BOOTTIME, &raw mut event, timer.as_mut_ptr()) };
        match result {
            // SAFETY: the call has succeeded, so it has written the name.
            0 => Ok(Self(unsafe { timer.assume_init() })),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Lets the timer fire at this [`boot_time`], and not at the one that was set before.
    pub(crate) fn set(&self, time: Duration) -> io::Result<()> {
        // SAFETY: as for the event; a `timespec` may have padding on some systems.
        let mut value = unsafe { MaybeUninit::<libc::itimerspec>::zeroed().assume_init() };
        // A time of zero would stop the timer. One that is too far away is never.
        let time = time.max(Duration::from_nanos(1));
        value.it_value.tv_sec = i32::try_from(time.as_secs()).unwrap_or(i32::MAX).into();
        value.it_value.tv_nsec = time.subsec_nanos().into();
        // SAFETY: `self` is the name of a timer that exists as long as `self`. The value is
        // initialised, and the null pointer means that the old one is not requested.
        let result = unsafe {
            libc::timer_settime(
                self.0,
                libc::TIMER_ABSTIME,
                &raw const value,
                ptr::null_mut(),
            )
        };
        match result {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for KillTimer {
    fn drop(&mut self) {
        // SAFETY: `self` is the name of a timer that exists, and it is not used again.
        unsafe { libc::timer_delete(self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Forks a copy that makes a timer and sets it, then stops itself. Returns how it ended.
    #[test]
    fn the_timer_kills_a_process_that_is_stopped() {
        // SAFETY: the copy makes system calls only, and ends.
        let copy = unsafe { libc::fork() };
        if copy == 0 {
            let set = KillTimer::new().and_then(|timer| {
                timer.set(boot_time() + Duration::from_millis(1))?;
                // SAFETY: the process signals itself. It never goes on, as nothing continues it.
                unsafe { libc::kill(libc::getpid(), libc::SIGSTOP) };
                Ok(())
            });
            // SAFETY: any process may call `_exit` at any moment.
            unsafe { libc::_exit(i32::from(set.is_ok())) };
        }
        let mut status = 0;
        // SAFETY: `status` has room for an `int`.
        let waited = unsafe { libc::waitpid(copy, &raw mut status, 0) };
        assert_eq!(waited, copy);
        assert!(
            libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL,
            "{status}"
        );
    }

    #[test]
    fn a_timer_that_is_set_later_or_dropped_does_not_fire() {
        let timer = KillTimer::new().unwrap();
        timer.set(boot_time() + Duration::from_secs(3600)).unwrap();
        timer.set(boot_time() + Duration::from_secs(7200)).unwrap();
        timer.set(Duration::MAX).unwrap();
        drop(timer);
    }
}
