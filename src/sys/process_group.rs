//! The process group that a worker leads, which ends with the worker's parent.
//!
//! The kernel ends a child by the parent-death signal, but not what the child has started. So in a
//! worker that leads a group, that signal is one with a handler, which kills the whole group. It
//! also comes while a job spins, and needs no thread and no other process.
//!
//! `unsafe` is needed for libc's calls: rustix takes a process group outside of the pid namespace,
//! whose number is 0, for impossible, and has no handlers.
#![allow(unsafe_code)]

use std::io;

use libc::c_int;
use rustix::process::Pid;

use super::signal;

/// Returns the group of this process, or `None` if it lies outside of the pid namespace. Programs
/// in a new namespace that was made without a new group or session are in such a group.
pub(crate) fn current() -> Option<Pid> {
    // SAFETY: the call has no arguments, and changes nothing.
    Pid::from_raw(unsafe { libc::getpgrp() })
}

/// Kills this process and the group that it leads when the thread that started this process ends.
///
/// The signal also comes if an earlier call was undone: by a change of the user, which makes the
/// kernel forget it, or by a job that blocked the signal.
pub(crate) fn end_with_parent() -> io::Result<()> {
    let signal = death_signal();
    // `SA_ONSTACK`, because the job's stack may have no room left.
    signal::handle(signal, kill_group, libc::SA_ONSTACK)?;
    signal::unblock(signal);
    signal::set_parent_death_signal(signal)
}

/// A real-time signal that the C library has no use for, and that programs rarely use: not one of
/// the first, nor the last.
fn death_signal() -> c_int {
    libc::SIGRTMAX() - 1
}

/// Kills the group that this process leads, and this process. A process that a job has forked
/// inherits the handler and leads no group.
extern "C" fn kill_group(_: c_int) {
    // SAFETY: `getpid` and `kill` are async-signal-safe and change no memory. A group with the
    // number of this process is the one that this process has made.
    unsafe {
        let this = libc::getpid();
        libc::kill(-this, libc::SIGKILL);
        libc::kill(this, libc::SIGKILL);
    }
}
