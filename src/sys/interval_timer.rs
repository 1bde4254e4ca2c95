//! The interval timers of this process (`alarm`, `setitimer`), which signal it.
//!
//! `unsafe` is needed because rustix has no timers of this kind.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::ptr;

use libc::c_int;

use super::disposition::is_deadly;

/// The kernel's numbers of the timers (`ITIMER_REAL`, `ITIMER_VIRTUAL`, `ITIMER_PROF`), and the
/// signals that they send.
const TIMERS: [(c_int, c_int); 3] = [(0, libc::SIGALRM), (1, libc::SIGVTALRM), (2, libc::SIGPROF)];

/// Disarms the timers whose signals would end this process. A timer with a handler stays, since a
/// profiler may have set it. Costs three system calls.
pub(crate) fn disarm_deadly() {
    for (timer, signal) in TIMERS {
        if is_armed(timer) && is_deadly(signal) {
            disarm(timer);
        }
    }
}

fn is_armed(timer: c_int) -> bool {
    let mut value = MaybeUninit::<libc::itimerval>::uninit();
    // SAFETY: `value` has room for what the call writes.
    let result = unsafe { libc::getitimer(timer, value.as_mut_ptr()) };
    if result != 0 {
        return false;
    }
    // SAFETY: the call has succeeded, so it has filled in the structure.
    let left = unsafe { value.assume_init() }.it_value;
    left.tv_sec != 0 || left.tv_usec != 0
}

fn disarm(timer: c_int) {
    let zero = libc::timeval {
        tv_sec: 0,
        tv_usec: 0,
    };
    let value = libc::itimerval {
        it_interval: zero,
        it_value: zero,
    };
    // SAFETY: the new value is only read, and the old one is not requested. The call cannot fail
    // with a valid timer and value.
    unsafe { libc::setitimer(timer, &raw const value, ptr::null_mut()) };
}
