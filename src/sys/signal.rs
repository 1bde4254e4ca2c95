//! The disposition and the mask of SIGINT.
//!
//! A worker ignores SIGINT: Ctrl-C reaches the whole foreground process group, and it is the parent that decides what
//! becomes of its workers. Between `exec` and the moment in which the worker says so, SIGINT must be blocked, and the
//! mask is inherited from the thread that spawns; hence both halves here.
//!
//! `unsafe` is needed because libc's calls are: rustix leaves signal state to the C library, which owns it.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::ptr;

/// Blocks SIGINT, and no other signal, on this thread; what it spawns starts with the same mask.
pub(crate) fn block_only_sigint() {
    set_mask(&set_of(&[libc::SIGINT]));
}

/// Ignores SIGINT in this process, then lets this thread receive every signal. One that arrived meanwhile is discarded.
pub(crate) fn ignore_sigint_and_unblock() {
    // SAFETY: `signal` may be called with any valid number and `SIG_IGN`, which installs no code of ours.
    let before = unsafe { libc::signal(libc::SIGINT, libc::SIG_IGN) };
    debug_assert_ne!(before, libc::SIG_ERR);
    set_mask(&set_of(&[]));
}

fn set_of(signals: &[libc::c_int]) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `sigemptyset` initialises the whole set that it is given, for which `set` has the room and alignment; it
    // cannot fail. Only then is it used.
    let mut set = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        set.assume_init()
    };
    for &signal in signals {
        // SAFETY: the set is initialised and the number is a valid signal.
        unsafe { libc::sigaddset(&raw mut set, signal) };
    }
    set
}

fn set_mask(set: &libc::sigset_t) {
    // SAFETY: the set is initialised; the old mask is not asked for, which a null pointer says.
    let error = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, set, ptr::null_mut()) };
    debug_assert_eq!(error, 0);
}

/// Whether this signal does to the process what it does by default.
pub(crate) fn is_default(signal: libc::c_int) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: with a null pointer for the new action nothing is changed, and `action` has room for the old one.
    let result = unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) };
    // SAFETY: `sigaction` says that it has filled the structure in.
    result == 0 && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_DFL
}
