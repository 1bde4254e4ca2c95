//! The timers of `timer_create` that the jobs of a worker leave.
//!
//! The kernel counts the timers that a process creates, and the count is a new timer's number. So
//! one timer, created and deleted, tells whether a job has created others. Only if it has, the list
//! of timers is read, which takes ten times as long. (In a process that has just been forked, the
//! count is zero.)
//!
//! `unsafe` is needed because rustix has no timers of this kind, and because the functions of the C
//! library take no numbers.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::ptr;

use libc::{c_int, c_long};

use super::disposition::is_deadly;

/// Lists the timers of this process: see `proc_pid_timers(5)`.
const LIST: &str = "/proc/self/timers";

/// Finds the timers that were created since it was created itself.
#[derive(Debug)]
pub(crate) struct NewTimers {
    /// The number of a timer that was created after the last search, or at the beginning. `None` if
    /// this process may not create timers.
    newest_known: Option<c_int>,
}

impl NewTimers {
    /// Timers that exist already, such as those of CPU limits and of `init` closures, are not new.
    /// Costs two system calls.
    pub(crate) fn since_now() -> Self {
        Self {
            newest_known: next_number(),
        }
    }

    /// All timers of a process that has just been forked are new, because it inherits none.
    pub(crate) fn since_fork() -> Self {
        Self {
            newest_known: Some(-1), // its first timer has the number zero
        }
    }

    /// Disarms the new timers whose signals would end this process. Costs two system calls if there
    /// is no new timer. Where the kernel does not list timers (`CONFIG_CHECKPOINT_RESTORE`), none
    /// is found.
    pub(crate) fn disarm_deadly(&mut self) {
        let Some(known) = self.newest_known else {
            return;
        };
        // Without a number, a job has forbidden the call, or has reached the limit of timers.
        if let Some(number) = next_number() {
            self.newest_known = Some(number);
            if number == known.wrapping_add(1) {
                return;
            }
        }
        let list = std::fs::read_to_string(LIST).unwrap_or_default();
        for timer in timers(&list) {
            if timer.number > known && timer.is_deadly() {
                disarm(timer.number);
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Listed {
    number: c_int,
    signal: c_int,
    /// It sends its signal, and does not only count.
    sends: bool,
}

impl Listed {
    fn is_deadly(self) -> bool {
        self.sends && is_deadly(self.signal)
    }
}

/// Parses the kernel's list, in which each timer has several lines: its number first, then its
/// signal, then whether that is sent, and where to.
fn timers(list: &str) -> impl Iterator<Item = Listed> {
    list.split("ID: ").skip(1).filter_map(|timer| {
        let mut lines = timer.lines();
        let number = lines.next()?.trim().parse().ok()?;
        let signal = lines.next()?.strip_prefix("signal: ")?.split('/').next()?;
        let notify = lines.next()?.strip_prefix("notify: ")?;
        Some(Listed {
            number,
            signal: signal.parse().ok()?,
            sends: notify.starts_with("signal/"),
        })
    })
}

/// Returns the number that the next timer of this process would have had: creates a timer that
/// sends no signal, and deletes it.
fn next_number() -> Option<c_int> {
    // SAFETY: `sigevent` is a C structure of integers, a union of an integer and a pointer, and
    // padding. Zeros are a valid value of each.
    let mut event: libc::sigevent = unsafe { MaybeUninit::zeroed().assume_init() };
    event.sigev_notify = libc::SIGEV_NONE;
    let mut number: c_int = 0;
    // SAFETY: the call reads a `sigevent`, whose layout the C library shares with the kernel, and
    // writes a number; both are local variables that live on.
    let created = unsafe {
        libc::syscall(
            libc::SYS_timer_create,
            c_long::from(libc::CLOCK_MONOTONIC),
            &raw mut event,
            &raw mut number,
        )
    };
    if created != 0 {
        return None;
    }
    // SAFETY: the call takes a number. The timer was created above, and no other code knows of it.
    unsafe { libc::syscall(libc::SYS_timer_delete, c_long::from(number)) };
    Some(number)
}

/// Stops a timer. It stays valid, so that the code which created it can still delete it.
fn disarm(number: c_int) {
    let zeros = [0 as c_long; 4];
    // SAFETY: the call takes a number and reads an `itimerspec`, which is four words for the
    // kernel; the null pointer means that the old value is not requested. If the timer no longer
    // exists, the call fails.
    unsafe {
        libc::syscall(
            libc::SYS_timer_settime,
            c_long::from(number),
            0 as c_long,
            zeros.as_ptr(),
            ptr::null_mut::<c_long>(),
        )
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_list_is_parsed() {
        let list = "ID: 0\nsignal: 14/0000000000000000\nnotify: signal/pid.6832\nClockID: 1\n\
                    ID: 7\nsignal: 0/0000000000000000\nnotify: none/pid.6832\nClockID: -6\n\
                    ID: 12\nsignal: 32/00007f0000000000\nnotify: signal/tid.6833\nClockID: 0\n";
        let timer = |number, signal, sends| Listed {
            number,
            signal,
            sends,
        };
        assert_eq!(
            timers(list).collect::<Vec<_>>(),
            [timer(0, 14, true), timer(7, 0, false), timer(12, 32, true)]
        );
        assert_eq!(timers("").count(), 0);
        assert_eq!(
            timers("ID: x\nsignal: 14/0\nnotify: signal/pid.1\n").count(),
            0
        );
    }

    #[test]
    fn the_first_timer_of_a_forked_process_is_the_first_new_one() {
        // SAFETY: the copy makes system calls only, and ends at once.
        let copy = unsafe { libc::fork() };
        if copy == 0 {
            let is_first = next_number() == NewTimers::since_fork().newest_known.map(|n| n + 1);
            // SAFETY: any process may call `_exit` at any moment.
            unsafe { libc::_exit(i32::from(!is_first)) };
        }
        let mut status = 0;
        // SAFETY: `status` has room for an `int`.
        let waited = unsafe { libc::waitpid(copy, &raw mut status, 0) };
        assert_eq!((waited, status), (copy, 0));
    }

    #[test]
    fn each_timer_has_a_number_of_its_own() {
        let first = next_number().unwrap();
        assert!(next_number().unwrap() > first);
    }

    #[test]
    fn only_signals_that_would_end_the_process_are_deadly() {
        let is_deadly = |signal, sends| {
            Listed {
                number: 0,
                signal,
                sends,
            }
            .is_deadly()
        };
        assert!(is_deadly(libc::SIGKILL, true));
        assert!(is_deadly(libc::SIGVTALRM, true));
        assert!(!is_deadly(libc::SIGVTALRM, false));
        assert!(!is_deadly(libc::SIGWINCH, true));
        assert!(!is_deadly(32, true), "the C library's own");
    }
}
