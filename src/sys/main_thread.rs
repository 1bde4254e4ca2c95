//! Starts threads that have the properties of the process's main thread.
//!
//! Linux keeps CPU affinity, scheduling, I/O priority and signal mask for each thread, and a new
//! thread has those of the thread that starts it. The threads of this crate are started by
//! whichever thread needs them first, and serve all others. So they take these properties from the
//! main thread instead. Each step is an improvement of its own: one that the system refuses is left
//! out.
//!
//! `unsafe` is needed for system calls that rustix does not have.
#![allow(unsafe_code)]

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::ptr;

use rustix::process::{Pid, getpid};
use rustix::thread::{sched_getaffinity, sched_setaffinity};

use super::thread::is_main;
use super::tuning::MASK_READS;

/// Starts a thread that runs `body` with the main thread's properties.
pub(crate) fn spawn_like_main(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let inherits = is_main();
    let new = move || {
        if !inherits {
            become_like(getpid());
        }
        body();
    };
    let thread = std::thread::Builder::new().name(name.to_string());
    thread.spawn(new).map(drop)
}

/// Gives this thread the properties of another one of this process.
fn become_like(thread: Pid) {
    if let Ok(processors) = sched_getaffinity(Some(thread)) {
        // Refused if the processors were taken away from the process in the meantime.
        _ = sched_setaffinity(None, &processors);
    }
    copy_scheduling(thread);
    copy_io_priority(thread);
    if let Some(mask) = lasting_signal_mask(thread) {
        set_mask(mask);
    }
}

/// Copies policy, niceness and priority. Lowering niceness needs a right that few programs have.
fn copy_scheduling(thread: Pid) {
    const RESET_IN_NEW_THREADS: u64 = 1;
    let mut attributes = MaybeUninit::<libc::sched_attr>::zeroed();
    let size = size_of::<libc::sched_attr>();
    let thread = thread.as_raw_nonzero().get();
    // SAFETY: the kernel writes at most `size` bytes to the structure. All its fields are numbers,
    // so it is initialised by zeroes.
    let (result, attributes) = unsafe {
        let result = libc::syscall(
            libc::SYS_sched_getattr,
            thread,
            attributes.as_mut_ptr(),
            size,
            0,
        );
        (result, attributes.assume_init())
    };
    if result == 0 && attributes.sched_flags & RESET_IN_NEW_THREADS == 0 {
        // SAFETY: the structure is initialised and holds its size; 0 is the calling thread.
        unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    }
}

fn copy_io_priority(thread: Pid) {
    const THREAD: libc::c_int = 1;
    let thread = thread.as_raw_nonzero().get();
    // SAFETY: these calls take numbers only; 0 is the calling thread.
    unsafe {
        let wanted = libc::syscall(libc::SYS_ioprio_get, THREAD, thread);
        let current = libc::syscall(libc::SYS_ioprio_get, THREAD, 0);
        if wanted >= 0 && wanted != current {
            libc::syscall(libc::SYS_ioprio_set, THREAD, 0, wanted);
        }
    }
}

/// Returns the signals that another thread blocks, except those that the C library blocks for a
/// moment, while the thread starts another one, for example. `None` if that moment does not end.
fn lasting_signal_mask(thread: Pid) -> Option<u64> {
    for _ in 0..MASK_READS {
        let mask = signal_mask(thread)?;
        if !is_of_c_library(mask) {
            return Some(mask);
        }
        std::thread::yield_now();
    }
    None
}

/// Returns whether the C library may have blocked these signals for a moment. glibc then blocks its
/// own two as well, which a program cannot. musl blocks all others.
fn is_of_c_library(mask: u64) -> bool {
    const OWN_OF_GLIBC: u64 = 0b11 << 31;
    // 32 to 34, SIGKILL and SIGSTOP, which nothing blocks.
    const NOT_BLOCKED_BY_MUSL: u64 = 0b111 << 31 | 1 << 8 | 1 << 18;
    if cfg!(target_env = "musl") {
        mask | NOT_BLOCKED_BY_MUSL == u64::MAX
    } else {
        mask & OWN_OF_GLIBC == OWN_OF_GLIBC
    }
}

/// Returns the signals that a thread blocks, one bit for each, or `None` without `/proc`.
fn signal_mask(thread: Pid) -> Option<u64> {
    let thread = thread.as_raw_nonzero();
    let status = std::fs::read_to_string(format!("/proc/self/task/{thread}/status")).ok()?;
    let blocked = status
        .lines()
        .find_map(|line| line.strip_prefix("SigBlk:"))?;
    u64::from_str_radix(blocked.trim(), 16).ok()
}

/// Blocks exactly these signals on this thread.
fn set_mask(mask: u64) {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `sigemptyset` initialises the set, and cannot fail. A number that the C library keeps
    // for itself is refused without an effect. The null pointer means that the old mask is not
    // requested.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in (1..=64).filter(|signal| mask >> (signal - 1) & 1 == 1) {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, set.as_ptr(), ptr::null_mut());
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use rustix::thread::gettid;

    /// A thread that was started while the main thread started another one blocked all signals.
    #[test]
    fn a_mask_that_the_c_library_sets_for_a_moment_is_not_taken_over() {
        let creator = std::thread::spawn(|| {
            let me = gettid();
            let observer = std::thread::spawn(move || {
                (0..2000).all(|_| lasting_signal_mask(me).is_none_or(|mask| mask == 0))
            });
            while !observer.is_finished() {
                std::thread::spawn(|| ()).join().unwrap();
            }
            observer.join().unwrap()
        });
        assert!(creator.join().unwrap());
    }

    #[test]
    fn the_mask_of_a_thread_is_read_and_set() {
        let bit = |signal: i32| 1_u64 << (signal - 1);
        let both = bit(libc::SIGUSR1) | bit(libc::SIGRTMIN());
        std::thread::spawn(move || {
            set_mask(both);
            assert_eq!(signal_mask(gettid()), Some(both));
            set_mask(0);
            assert_eq!(signal_mask(gettid()), Some(0));
        })
        .join()
        .unwrap();
    }
}
