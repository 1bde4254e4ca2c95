//! The dispositions and the mask of signals in workers.
//!
//! The signals that end a program ([`TERMINATION_SIGNALS`]) often go to a whole process group: from
//! the terminal, from an init system, from `timeout`. The parent decides what happens to its
//! workers, so these signals do nothing in a worker. They must be blocked between `exec` and the
//! moment when the worker handles them. A new process inherits the mask of the thread that spawns
//! it; so both halves are here.
//!
//! `unsafe` is needed for libc's calls: rustix leaves the state of signals to the C library, which
//! owns it.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::ptr;

use libc::c_int;

/// The signals that a worker leaves to its parent.
const TERMINATION_SIGNALS: [c_int; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];

/// Blocks the termination signals, and no other signal, on this thread. A process that it spawns
/// starts with the same mask.
pub(crate) fn block_only_termination_signals() {
    set_mask(&set_of(&TERMINATION_SIGNALS));
}

/// Makes the termination signals do nothing in this process, then unblocks all signals on this
/// thread. Pending termination signals are discarded.
///
/// They get a handler, because a program that a job executes would inherit that they are ignored.
/// A signal that this program ignores stays ignored, and such a program inherits that (`nohup`).
pub(crate) fn discard_termination_signals_and_unblock() {
    for signal in TERMINATION_SIGNALS {
        if disposition(signal) != Some(libc::SIG_IGN) {
            let handled = handle(signal, do_nothing, libc::SA_RESTART);
            debug_assert!(handled.is_ok());
        }
    }
    set_mask(&set_of(&[]));
}

/// Gives the termination signals their default actions, except those that this program ignores.
pub(crate) fn restore_termination_signals() {
    for signal in TERMINATION_SIGNALS {
        if disposition(signal) == Some(do_nothing as *const () as libc::sighandler_t) {
            set_disposition(signal, libc::SIG_DFL);
        }
    }
}

/// Ignores the signals by which the terminal stops a process of a background group that reads or
/// changes the terminal. Then reading is an error, and changes are made.
pub(crate) fn ignore_terminal_stops() {
    for signal in [libc::SIGTTIN, libc::SIGTTOU] {
        set_disposition(signal, libc::SIG_IGN);
    }
}

extern "C" fn do_nothing(_: c_int) {}

fn set_disposition(signal: c_int, disposition: libc::sighandler_t) {
    debug_assert!([libc::SIG_DFL, libc::SIG_IGN].contains(&disposition));
    // SAFETY: neither disposition installs code, and the numbers that this file passes are valid.
    let before = unsafe { libc::signal(signal, disposition) };
    debug_assert_ne!(before, libc::SIG_ERR);
}

/// Installs a handler, which must be async-signal-safe. No other signal interrupts it.
pub(super) fn handle(signal: c_int, handler: extern "C" fn(c_int), flags: c_int) -> io::Result<()> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: `sigaction` is a C structure of integers, a set, and a pointer that may be null.
    // Zeros are a valid value of each. `sigfillset` has room for the set.
    let mut action = unsafe {
        libc::sigfillset(&raw mut (*action.as_mut_ptr()).sa_mask);
        action.assume_init()
    };
    action.sa_sigaction = handler as *const () as libc::sighandler_t;
    action.sa_flags = flags;
    // SAFETY: the new action is initialised, and the old one is not requested. The handler has the
    // signature that these flags ask for, because no caller passes `SA_SIGINFO`; that it is
    // async-signal-safe is argued at each handler.
    match unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Unblocks a signal on this thread.
pub(super) fn unblock(signal: c_int) {
    let set = set_of(&[signal]);
    // SAFETY: the set is initialised; the null pointer means that the old mask is not requested.
    let error =
        unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, ptr::null_mut()) };
    debug_assert_eq!(error, 0);
}

/// Asks the kernel to send this signal to this process when the thread that started it ends.
pub(crate) fn set_parent_death_signal(signal: c_int) -> io::Result<()> {
    // SAFETY: this option reads one number, and changes no memory.
    match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::c_long::from(signal)) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

pub(super) fn set_of(signals: &[c_int]) -> libc::sigset_t {
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

fn disposition(signal: c_int) -> Option<libc::sighandler_t> {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: with a null pointer for the new action nothing changes, and `action` has room for the
    // old one.
    let result = unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) };
    // SAFETY: `sigaction` has succeeded, so it has filled in the structure.
    (result == 0).then(|| unsafe { action.assume_init() }.sa_sigaction)
}
