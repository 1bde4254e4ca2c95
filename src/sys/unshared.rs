//! Mappings that forked copies of this process do not have.
//!
//! A process forked from this one does not have the mapping (`MADV_DONTFORK`). A forked copy of the
//! parent could otherwise write to an [arena](super::arena), and in a copy of a worker nothing
//! counts the leases, so that a slice could change while it is borrowed. An access in a forked copy
//! aborts that process. Dropping the mapping there does nothing, because another mapping may have
//! its address by then. So each mapping has a [`ProcessMark`].
//!
//! `unsafe` is needed to map memory, and to unmap it in one of the two processes only.
#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;
use std::ptr;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap};

use super::fork_detector::ProcessMark;
use super::mapped::Mapped;

/// A mapping that forked copies of this process do not have.
pub(super) struct Unshared(ManuallyDrop<Mapped>, ProcessMark);

impl Unshared {
    /// Maps the first `length` bytes of a file, which must exist.
    pub(super) fn map(file: &OwnedFd, length: usize, rights: ProtFlags) -> io::Result<Self> {
        let mark = ProcessMark::of_this_process()?;
        // SAFETY: without an address, the kernel chooses one where nothing is mapped, so no memory
        // of the program is replaced.
        let start = unsafe {
            let none = ptr::null_mut();
            mmap(none, length, rights, MapFlags::SHARED, file, 0)?
        };
        let mapped = Mapped::new(start.cast(), length);
        // SAFETY: the range is the mapping just made. The advice concerns new processes only.
        unsafe { madvise(start, length, Advice::LinuxDontFork)? };
        Ok(Self(ManuallyDrop::new(mapped), mark))
    }

    /// Returns the number of bytes.
    pub(super) fn length(&self) -> usize {
        self.0.length
    }

    /// Returns the mapping. Aborts a forked process, in which anything may be at this address.
    pub(super) fn place(&self) -> &Mapped {
        if !self.1.is_of_this_process() {
            std::process::abort();
        }
        &self.0
    }
}

impl Drop for Unshared {
    fn drop(&mut self) {
        if self.1.is_of_this_process() {
            // SAFETY: `drop` runs once, and `self` is not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.0) }
        }
    }
}

impl fmt::Debug for Unshared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unshared")
            .field("length", &self.0.length)
            .finish_non_exhaustive()
    }
}
