//! A timer of the kernel that kills this process unless it is set again in time.
//!
//! It fires whatever the process does or suffers: also while it is stopped by a signal, waits in
//! the kernel, or when the machine wakes up after a suspension.

use std::io;
use std::time::Duration;

use super::kernel_timer::KernelTimer;

/// A timer that sends SIGKILL to this process.
#[derive(Debug)]
pub(crate) struct KillTimer(KernelTimer);

impl KillTimer {
    /// Makes a timer that does nothing before it is set.
    pub(crate) fn new() -> io::Result<Self> {
        KernelTimer::new(libc::CLOCK_BOOTTIME, libc::SIGKILL).map(Self)
    }

    /// Lets the timer fire at this [`boot_time`](super::clock::boot_time), and not at the one that
    /// was set before.
    pub(crate) fn set(&self, time: Duration) -> io::Result<()> {
        self.0.set_at(time)
    }
}

#[cfg(test)]
#[allow(unsafe_code)] // forks a process, which ends
mod tests {
    use super::*;
    use crate::sys::clock::boot_time;

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
