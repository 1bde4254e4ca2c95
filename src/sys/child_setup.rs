//! Sets up new processes between `fork` and `exec`, and reads and sets the signal mask of the
//! threads that start them.
//!
//! `unsafe` is needed for `pre_exec`, and for libc's calls: rustix leaves the state of signals to
//! the C library, which owns it.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;

use rustix::process::{
    Pid, Resource, Rlimit, Signal, getpid, getppid, getrlimit, set_child_subreaper,
    set_parent_process_death_signal, setrlimit,
};
use rustix::thread::{CpuSet, sched_setaffinity};

/// The changes that a new process makes to itself. With none of them, the standard library can
/// start it with `posix_spawn`, whose cost does not grow with this process's memory.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ChildSetup {
    /// Unblock all signals.
    pub(crate) empty_mask: bool,
    /// Adopt descendants whose parents have ended. Do not be stopped for using the terminal, as a
    /// process that is not in the terminal's foreground group is.
    pub(crate) leads_tree: bool,
    /// Ask the kernel for SIGKILL when the thread that starts the process ends.
    pub(crate) die_with_thread: bool,
    /// Run on these processors only.
    pub(crate) cpus: Option<CpuSet>,
    /// The limit of private memory in bytes (`RLIMIT_DATA`), unless a lower one is inherited.
    pub(crate) data_limit: Option<u64>,
}

impl ChildSetup {
    /// Lets the processes of `command` make the changes, after all others that are set in it.
    pub(crate) fn apply_to(self, command: &mut Command) {
        let limits = self.cpus.is_some() || self.data_limit.is_some();
        if !(self.empty_mask || self.leads_tree || self.die_with_thread || limits) {
            return;
        }
        let (parent, empty) = (getpid(), set_of_none());
        // SAFETY: the closure runs in a forked process that may have had other threads. It makes
        // system calls and calls `pthread_sigmask`, which are async-signal-safe; it neither
        // allocates nor takes a lock.
        unsafe { command.pre_exec(move || self.run(parent, &empty)) };
    }

    fn run(self, parent: Pid, empty: &libc::sigset_t) -> io::Result<()> {
        if self.leads_tree {
            // Any number but 0 switches it on.
            set_child_subreaper(Some(parent))?;
            for signal in [libc::SIGTTIN, libc::SIGTTOU] {
                // SAFETY: `signal` is async-signal-safe, and `SIG_IGN` installs no code.
                unsafe { libc::signal(signal, libc::SIG_IGN) };
            }
        }
        if self.die_with_thread {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // The parent may have ended before the signal was requested.
            if getppid() != Some(parent) {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
        }
        if let Some(cpus) = &self.cpus {
            sched_setaffinity(None, cpus)?;
        }
        if let Some(limit) = self.data_limit {
            limit_data(limit)?;
        }
        if self.empty_mask {
            set_mask(empty)?;
        }
        Ok(())
    }
}

/// Limits the private memory of this process, which cannot raise the limit again. (Its memory as a
/// copy of its parent ends with `exec`, so only that of the program counts.)
fn limit_data(bytes: u64) -> io::Result<()> {
    let inherited = getrlimit(Resource::Data);
    let limits = [Some(bytes), inherited.current, inherited.maximum];
    let lowest = limits.into_iter().flatten().min();
    let limit = Rlimit {
        current: lowest,
        maximum: lowest,
    };
    Ok(setrlimit(Resource::Data, limit)?)
}

/// Whether the calling thread blocks a signal. Processes that it starts inherit that.
pub(crate) fn blocks_any_signal() -> bool {
    let mut mask = MaybeUninit::uninit();
    // SAFETY: with a null pointer for the new mask nothing changes, and `mask` has room for the
    // current one.
    let error = unsafe { libc::pthread_sigmask(0, ptr::null(), mask.as_mut_ptr()) };
    if error != 0 {
        return false;
    }
    // SAFETY: `pthread_sigmask` has succeeded, so it has filled in the set.
    let mask = unsafe { mask.assume_init() };
    // SAFETY: the set is initialised and the numbers are those of signals.
    (1..=libc::SIGRTMAX()).any(|signal| unsafe { libc::sigismember(&raw const mask, signal) } == 1)
}

/// Blocks all signals on the calling thread, so that it never runs a handler of the program's.
pub(crate) fn block_all_signals() {
    let mut all = MaybeUninit::uninit();
    // SAFETY: `sigfillset` initialises the whole set, for which `all` has the size and alignment,
    // and cannot fail.
    let all = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        all.assume_init()
    };
    let set = set_mask(&all);
    debug_assert!(set.is_ok(), "the arguments are valid");
}

fn set_of_none() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `sigemptyset` initialises the whole set, for which `set` has the size and alignment,
    // and cannot fail.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        set.assume_init()
    }
}

fn set_mask(set: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: the set is initialised; the null pointer means that the old mask is not requested.
    match unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, set, ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}
