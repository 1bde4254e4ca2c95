//! Forks a sibling: a process whose parent is the parent of this process.
//!
//! A fork server makes workers for its parent. The parent must be able to wait for them, and its
//! end must end them, while the end of the server must not. So they have to be children of the
//! parent, which the kernel makes them with `CLONE_PARENT`. The C library's `fork` cannot ask for
//! that. This is the system call itself, and what `fork` does besides for a process with one
//! thread: it updates the thread's own record of its number, and tells the kernel again where the
//! thread keeps its list of robust mutexes. `fork` also takes the locks of `malloc`, for example,
//! which matters only to processes with several threads. One difference remains: handlers of
//! `pthread_atfork` are not called.
//!
//! `unsafe` is needed because this call has no safe wrapper, and cannot have one: see
//! [`fork_for_parent`].
#![allow(unsafe_code)]

use std::io;
use std::ptr;
use std::sync::OnceLock;

use super::thread;

/// The side of the fork on which the caller is.
#[derive(Debug)]
pub(crate) enum Fork {
    /// In the new process, which has this id.
    New(u32),
    /// In the old process.
    Old,
}

/// Forks. The new process is a child of the caller's parent. The kernel writes its number to
/// `number` as a part of the fork, before the new process runs and even if the caller is killed.
///
/// # Errors
///
/// Fails if the kernel refuses, for lack of processes or memory.
///
/// # Safety
///
/// The calling thread is the only one of its process. (Otherwise the new process would have one
/// thread, and the state of the others half-changed and locked forever.) And `number` may be
/// written in this process; the new process need not have it mapped.
pub(crate) unsafe fn fork_for_parent(number: *mut u32) -> io::Result<Fork> {
    let record = thread_record();
    debug_assert!(!record.is_null(), "`is_safe` was asked first");
    let robust = RobustList::of_this_thread();
    let settid = if record.is_null() {
        0
    } else {
        libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID
    };
    let flags = libc::CLONE_PARENT | libc::CLONE_PARENT_SETTID | settid;
    // SAFETY:
    // * Without `CLONE_VM` the new process gets a copy of this one's memory, and with a null stack
    //   it continues on the copy of this stack. So both return from here as if alone, and share
    //   nothing that Rust would have to know of.
    // * The caller promises that there is one thread, so no other thread has anything half-done.
    // * The caller promises that the kernel may write to `number` in this process.
    // * `record`, if it is not null, is the word in which this thread keeps its number. The kernel
    //   writes the new number into the new process's copy, and zero when that thread ends, as it
    //   does for forks of the C library.
    // * The exit signal is that of this process, as always with `CLONE_PARENT`.
    let result = unsafe { clone(flags, number.cast(), record) };
    match result {
        0 => {
            robust.restore();
            Ok(Fork::New(own_pid(record)))
        }
        pid if pid > 0 => Ok(Fork::Old),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Returns the id of a process that has just been forked: its only thread has the same number,
/// which the kernel has written to `record`. Reading it there costs neither a system call nor the
/// page faults of its code, which are not mapped in a new process.
fn own_pid(record: *mut libc::c_int) -> u32 {
    if record.is_null() {
        return std::process::id();
    }
    // SAFETY: this is the word in which the C library keeps the calling thread's number.
    unsafe { record.read() }.cast_unsigned()
}

/// Makes the system call, whose last two arguments are the record and thread-local storage, in an
/// order that depends on the architecture. The storage is ignored without its flag, so both may be
/// the record.
///
/// # Safety
///
/// The caller argues for the whole call.
unsafe fn clone(
    flags: libc::c_int,
    number: *mut libc::c_int,
    record: *mut libc::c_int,
) -> libc::c_long {
    let (flags, stack) = (libc::c_long::from(flags), ptr::null_mut::<u8>());
    #[cfg(not(target_arch = "s390x"))]
    // SAFETY: the caller's argument.
    let result = unsafe { libc::syscall(libc::SYS_clone, flags, stack, number, record, record) };
    #[cfg(target_arch = "s390x")]
    // SAFETY: the caller's argument.
    let result = unsafe { libc::syscall(libc::SYS_clone, stack, flags, number, record, record) };
    result
}

/// Returns whether a forked thread will know its own number. Without that, `raise` and `abort` in
/// the new process would send their signals to the old one, and recursive mutexes would take their
/// owner for another thread.
pub(crate) fn is_safe() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| !thread_record().is_null())
}

/// Returns where the C library keeps this thread's number. The kernel knows the word, because it
/// clears it when the thread ends. Returns null if the kernel does not tell, or if that word is
/// another one, as with musl.
fn thread_record() -> *mut libc::c_int {
    let mut record: *mut libc::c_int = ptr::null_mut();
    // SAFETY: the call writes a pointer to its argument, which has room for one.
    let asked = unsafe { libc::prctl(libc::PR_GET_TID_ADDRESS, &raw mut record) };
    if asked != 0 || record.is_null() || !record.is_aligned() {
        return ptr::null_mut();
    }
    // SAFETY: the C library gave this address to the kernel as a word of the calling thread, which
    // is running.
    let number = unsafe { record.read() };
    if number.cast_unsigned() == thread::id() {
        record
    } else {
        ptr::null_mut()
    }
}

/// The list that the kernel reads when a thread ends with locked robust mutexes. A new process has
/// none.
struct RobustList {
    head: *mut libc::c_void,
    length: usize,
}

impl RobustList {
    fn of_this_thread() -> Self {
        let mut list = RobustList {
            head: ptr::null_mut(),
            length: 0,
        };
        // SAFETY: for thread 0, the caller, the kernel writes a pointer and a length to these
        // arguments.
        let asked = unsafe {
            libc::syscall(
                libc::SYS_get_robust_list,
                0,
                &raw mut list.head,
                &raw mut list.length,
            )
        };
        if asked != 0 {
            list.head = ptr::null_mut();
        }
        list
    }

    fn restore(&self) {
        if !self.head.is_null() {
            // SAFETY: the list is that of the same thread, in a copy of the same memory. An error
            // changes nothing.
            unsafe { libc::syscall(libc::SYS_set_robust_list, self.head, self.length) };
        }
    }
}
