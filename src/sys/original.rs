//! Whether this process is still the one that it was, and not a copy that a fork has made of it, however it was forked.
//!
//! The kernel is told to wipe a page in copies, so that looking costs a load where asking for the process's number
//! costs a system call.
//!
//! `unsafe` is needed to map that page, and to look at it.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// What is set in the process that made it, and not in its copies.
#[derive(Debug)]
pub(crate) struct Original {
    mark: NonNull<AtomicBool>,
}

// SAFETY: it is the address of an atomic, which belongs to the process and not to a thread; unmapping is right from any thread.
unsafe impl Send for Original {}
// SAFETY: as above, and it gives out nothing.
unsafe impl Sync for Original {}

const SIZE: usize = 1;

impl Original {
    /// Marks this process.
    pub(crate) fn new() -> io::Result<Self> {
        let (rights, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a new mapping at a place that the kernel chooses harms nobody.
        let page = unsafe { mmap_anonymous(ptr::null_mut(), SIZE, rights, flags)? };
        let mark = NonNull::new(page.cast()).expect("the kernel maps nothing at zero unasked");
        let original = Original { mark };
        // SAFETY: this concerns new processes only, and the page that was just made.
        unsafe { madvise(page, SIZE, Advice::LinuxWipeOnFork)? };
        original.flag().store(true, Ordering::Relaxed);
        Ok(original)
    }

    /// Marks this process, a copy of the one that was marked.
    pub(crate) fn pass_on(&self) {
        self.flag().store(true, Ordering::Relaxed);
    }

    /// Whether this process has been marked itself.
    pub(crate) fn is_here(&self) -> bool {
        self.flag().load(Ordering::Relaxed)
    }

    fn flag(&self) -> &AtomicBool {
        // SAFETY: the page is mapped as long as `self`, holds zeros or what was stored here, both of which are a flag,
        // and is aligned to more than a byte.
        unsafe { self.mark.as_ref() }
    }
}

impl Drop for Original {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `new` made, and nobody borrows from it any more.
        let unmapped = unsafe { munmap(self.mark.as_ptr().cast::<c_void>(), SIZE) };
        debug_assert_eq!(unmapped, Ok(()));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_told_from_the_original() {
        let original = Original::new().unwrap();
        assert!(original.is_here());
        // SAFETY: the copy looks at a page, which needs no lock, and ends at once.
        let copy = unsafe { libc::fork() };
        if copy == 0 {
            let was_here = original.is_here();
            original.pass_on();
            let code = i32::from(was_here || !original.is_here());
            // SAFETY: `_exit` may be called by any process at any moment.
            unsafe { libc::_exit(code) };
        }
        let mut status = 0;
        // SAFETY: `status` is a place for an `int`.
        let waited = unsafe { libc::waitpid(copy, &raw mut status, 0) };
        assert_eq!((waited, status), (copy, 0));
        assert!(original.is_here());
    }
}
