//! A mapping that is unmapped when it is dropped.
//!
//! `unsafe` is needed to unmap it, and to say that threads may share it.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use rustix::mm::munmap;

/// A mapping that is unmapped when dropped.
#[derive(Debug)]
pub(super) struct Mapped {
    pub(super) start: NonNull<u8>,
    pub(super) length: usize,
}

impl Mapped {
    /// Takes over a mapping of `length` bytes, which no other code unmaps.
    pub(super) fn new(start: *mut u8, length: usize) -> Self {
        let start = NonNull::new(start).expect("the kernel maps nothing at address 0 unasked");
        Self { start, length }
    }
}

// SAFETY: it is an address and a length. Mapped memory belongs to the process, not to a thread; the
// borrows of its owner decide which code may read or change it, as with a `Vec<u8>`.
unsafe impl Send for Mapped {}

// SAFETY: a shared reference changes nothing.
unsafe impl Sync for Mapped {}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping is its own, was made with this length, and no borrow of it outlives
        // its owner.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
        debug_assert!(unmapped.is_ok(), "{unmapped:?}");
    }
}
