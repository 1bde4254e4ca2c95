//! The disposition and the mask of SIGINT.
//!
//! A worker ignores SIGINT: Ctrl-C reaches the whole foreground process group, and the parent
//! decides what happens to its workers. SIGINT must be blocked between `exec` and the moment when
//! the worker ignores it. A new process inherits the mask of the thread that spawns it; so both
//! halves are here.
//!
//! `unsafe` is needed for libc's calls: rustix leaves the state of signals to the C library, which
//! owns it.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::ptr;

/// Blocks SIGINT, and no other signal, on this thread. A process that it spawns starts with the
/// same mask.
pub(crate) fn block_only_sigint() {
    set_mask(&set_of(&[libc::SIGINT]));
}

/// Ignores SIGINT in this process, then unblocks all signals on this thread. A pending SIGINT is
/// discarded.
pub(crate) fn ignore_sigint_and_unblock() {
    // SAFETY: `signal` may be called with any valid number and `SIG_IGN`, which installs no code.
    let before = unsafe { libc::signal(libc::SIGINT, libc::SIG_IGN) };
    debug_assert_ne!(before, libc::SIG_ERR);
    set_mask(&set_of(&[]));
}

pub(super) fn set_of(signals: &[libc::c_int]) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `sigemptyset` initialises the whole set, for which `set` has the size and alignment,
    // and cannot fail. The set is used only afterwards.
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
    // SAFETY: the set is initialised; the null pointer means that the old mask is not requested.
    let error = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, set, ptr::null_mut()) };
    debug_assert_eq!(error, 0);
}
