//! The resources that this process has used: processor time, and physical memory at its peak.
//!
//! `unsafe` is needed for system calls that no crate wraps; see [`read`] and
//! [`cpu_times_of_ended`].
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::ops::{Add, Sub};
use std::os::fd::{AsRawFd, BorrowedFd};
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
    let times_of = |who| CpuTimes::from(read(who));
    times_of(libc::RUSAGE_SELF) + times_of(libc::RUSAGE_CHILDREN)
}

/// Returns the processor time of a child that has ended and has not been reaped, and of the
/// children that it has waited for. `None` if the child runs.
///
/// Its peak of memory is not returned: the kernel counts the copy of the parent that the child was
/// before it executed its program.
///
/// # Errors
///
/// If the child has been reaped, or is stopped and traced by this process.
pub(crate) fn cpu_times_of_ended(child: BorrowedFd<'_>) -> io::Result<Option<CpuTimes>> {
    const ENDED: libc::c_int = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: `info` and `usage` have room for what the call writes; the other arguments are
    // numbers.
    let result = unsafe {
        libc::syscall(
            libc::SYS_waitid,
            libc::P_PIDFD,
            child.as_raw_fd(),
            info.as_mut_ptr(),
            ENDED,
            usage.as_mut_ptr(),
        )
    };
    // SAFETY: all fields are integers or a union of such and pointers, for which zeros are a valid
    // value, also if the call has written nothing.
    let (info, usage) = unsafe { (info.assume_init(), usage.assume_init()) };
    match (result, info.si_signo, info.si_code) {
        (0, 0, _) => Ok(None), // it runs
        (0, _, libc::CLD_EXITED | libc::CLD_KILLED | libc::CLD_DUMPED) => Ok(Some(usage.into())),
        (0, ..) => Err(io::ErrorKind::Unsupported.into()),
        _ => Err(io::Error::last_os_error()),
    }
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

impl From<libc::rusage> for CpuTimes {
    fn from(usage: libc::rusage) -> Self {
        Self {
            user: duration(usage.ru_utime),
            system: duration(usage.ru_stime),
        }
    }
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
