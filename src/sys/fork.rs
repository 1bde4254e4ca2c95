//! Forking a process whose parent is this process's parent.
//!
//! A fork server makes workers for somebody else: that process must be able to wait for them, and its end must be theirs,
//! while the end of the server must not. So they have to be its children, and the kernel makes them so from the start with
//! `CLONE_PARENT`. The C library's `fork` has no way to ask for that; this is the system call itself, with what `fork` would
//! do beside it for a process that has one thread: tell the new thread's own record its number, and tell the kernel again
//! where that thread keeps its list of robust mutexes. What `fork` does for others, the locks of `malloc` above all, matters
//! to processes with several threads only. One thing is different: handlers of `pthread_atfork` are not called.
//!
//! `unsafe` is needed because no safe wrapper exists for this call, nor can one: see [`fork_for_parent`].
#![allow(unsafe_code)]

use std::io;
use std::ptr;

use super::thread;

/// On which side of the fork one is.
#[derive(Debug)]
pub(crate) enum Fork {
    /// In the new process.
    New,
    /// In the old one.
    Old,
}

/// Forks. The new process is a child of the caller's parent. Its number is written to `number`, as a part of the fork:
/// before the new process runs, and whatever becomes of the caller meanwhile.
///
/// # Errors
///
/// If the kernel refuses, for want of processes or memory.
///
/// # Safety
///
/// The calling thread is the only one of its process. (Otherwise the new process would have one thread and whatever
/// state, half-changed and locked for ever, the others had their hands on.) And `number` is a word that may be written in this
/// process; the new one need not have it.
pub(crate) unsafe fn fork_for_parent(number: *mut u32) -> io::Result<Fork> {
    let record = thread_record();
    let robust = RobustList::of_this_thread();
    let settid = match record.is_null() {
        true => 0,
        false => libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID,
    };
    let flags = libc::CLONE_PARENT | libc::CLONE_PARENT_SETTID | settid;
    // SAFETY: (the call) Without `CLONE_VM` the new process gets a copy of this one's memory, and with a null stack it goes
    // on upon the copy of this stack, so both return from here as if alone; nothing is shared that Rust would have to
    // know of. With one thread, the caller's promise, no other has anything half-done. `number`, by the caller's other
    // promise, is a word that the kernel may write to in this process. `record`, if it is not null, is a word of this thread's own
    // that holds its number: the kernel writes the new number into the new process's copy of it, and zero when that
    // thread ends, as the C library does with its own forks. The exit signal is that of this process, as always with
    // `CLONE_PARENT`.
    let result = unsafe { clone(flags, number.cast(), record) };
    match result {
        0 => {
            robust.restore();
            Ok(Fork::New)
        }
        pid if pid > 0 => Ok(Fork::Old),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The system call, whose arguments stand in different orders: the last two are the record and a place for thread-local
/// storage, or the other way round. The latter is not looked at without its flag, so both may be the record. Before them
/// stands a place for the new process's number.
///
/// # Safety
///
/// As argued where it is called.
unsafe fn clone(
    flags: libc::c_int,
    number: *mut libc::c_int,
    record: *mut libc::c_int,
) -> libc::c_long {
    let (flags, stack) = (libc::c_long::from(flags), ptr::null_mut::<u8>());
    #[cfg(not(target_arch = "s390x"))]
    // SAFETY: the caller's.
    let result = unsafe { libc::syscall(libc::SYS_clone, flags, stack, number, record, record) };
    #[cfg(target_arch = "s390x")]
    // SAFETY: the caller's.
    let result = unsafe { libc::syscall(libc::SYS_clone, stack, flags, number, record, record) };
    result
}

/// Where the C library keeps this thread's number, if that can be found out: the kernel knows the word, because it is to
/// clear it when the thread ends. Null if it cannot, or if that word is another one (musl's is); then the library's copy
/// of the number is wrong in the new process, which a recursive or error-checking mutex of its would mind.
fn thread_record() -> *mut libc::c_int {
    let mut record: *mut libc::c_int = ptr::null_mut();
    // SAFETY: this call writes a pointer to where its argument points, which has room for one.
    let asked = unsafe { libc::prctl(libc::PR_GET_TID_ADDRESS, &raw mut record) };
    if asked != 0 || record.is_null() || !record.is_aligned() {
        return ptr::null_mut();
    }
    // SAFETY: the kernel was given this address by the C library as a word of the calling thread's, which runs.
    let number = unsafe { record.read() };
    match number.cast_unsigned() == thread::id() {
        true => record,
        false => ptr::null_mut(),
    }
}

/// What the kernel looks at when a thread ends with locked robust mutexes. It forgets it in a new process.
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
        // SAFETY: for thread 0, the caller, the kernel writes a pointer and a length to where these point.
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
            // SAFETY: the same list of the same thread, in a copy of the same memory. An error leaves things as they are.
            unsafe { libc::syscall(libc::SYS_set_robust_list, self.head, self.length) };
        }
    }
}
