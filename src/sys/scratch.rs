//! Private memory in huge pages, if the kernel has them.
//!
//! [`Scratch`] is for callers that fill a slice in place. It is written to a file in memory from
//! its beginning and freed piece by piece, so that both together never take much more memory than
//! one (33 ms for 64 MiB in total).
//!
//! `unsafe` is needed to map memory, to make slices of it, and to advise the kernel on it.
#![allow(unsafe_code)]

use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr;
use std::slice;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};
use rustix::param::page_size;

use super::mapped::Mapped;
use super::memory::MemfdWriter;
use super::tuning::FREED_PIECE_BYTES;

/// Asks for huge pages for `memory`, of which no page has been touched yet.
pub(crate) fn prefer_huge_pages(memory: &mut [u8]) {
    let page = page_size();
    let start = memory.as_mut_ptr();
    let inner = start.align_offset(page).min(memory.len());
    let length = (memory.len() - inner) / page * page;
    let place = start.wrapping_add(inner).cast();
    // SAFETY: the range begins at a page boundary, because it was aligned, and lies within memory
    // that is borrowed uniquely. The advice concerns pages that will be allocated, and changes no
    // contents.
    // Without huge pages, small ones serve.
    let _ = unsafe { madvise(place, length, Advice::LinuxHugepage) };
}

/// Private zeroed memory, to be filled and then written into a [`MemfdWriter`].
#[derive(Debug)]
pub(crate) struct Scratch(Mapped);

impl Scratch {
    /// Allocates `length` bytes, which must not be 0.
    pub(crate) fn new(length: usize) -> io::Result<Self> {
        // SAFETY: without an address, the kernel chooses one where nothing is mapped, so no memory
        // of the program is replaced.
        let start = unsafe {
            mmap_anonymous(
                ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )?
        };
        let mapped = Mapped::new(start.cast(), length);
        // SAFETY: the range is the mapping just made. The advice changes no contents.
        // Without huge pages, small ones serve.
        let _ = unsafe { madvise(start, length, Advice::LinuxHugepage) };
        Ok(Self(mapped))
    }

    /// Writes all bytes into `writer`, and frees the memory while doing so.
    pub(crate) fn pour(self, writer: &mut MemfdWriter) -> io::Result<()> {
        for at in (0..self.len()).step_by(FREED_PIECE_BYTES) {
            let length = FREED_PIECE_BYTES.min(self.len() - at);
            writer.append(&self[at..at + length])?;
            let start = self.0.start.as_ptr().wrapping_add(at).cast();
            // SAFETY: the range lies in this mapping and begins at a page boundary, because
            // `FREED_PIECE_BYTES` is a whole number of pages. The advice turns the contents into
            // zeros, which no code sees: nothing borrows the range at this point, and this loop,
            // which owns `self`, does not read it again. A private anonymous mapping stays
            // readable.
            // If it fails, dropping `self` frees the memory.
            let _ = unsafe { madvise(start, length, Advice::LinuxDontNeed) };
        }
        Ok(())
    }
}

impl Deref for Scratch {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `start` is not null, aligned for bytes, and begins a mapping of `length` bytes,
        // at most `isize::MAX`, the most that the kernel maps. It is readable, initialised (zeros
        // at first), lives as long as `self`, and is known to no other code. It is changed through
        // `deref_mut` only, which borrows `self` uniquely.
        unsafe { slice::from_raw_parts(self.0.start.as_ptr(), self.0.length) }
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: each clause of `deref` holds; the mapping is writable, and borrowed uniquely.
        unsafe { slice::from_raw_parts_mut(self.0.start.as_ptr(), self.0.length) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch_memory_is_zero_and_its_pieces_arrive_in_order() {
        let length = 2 * FREED_PIECE_BYTES + 4097;
        let mut scratch = Scratch::new(length).unwrap();
        assert!(scratch.iter().all(|byte| *byte == 0));
        for (at, byte) in scratch.iter_mut().enumerate() {
            *byte = (at % 251) as u8;
        }
        let mut writer = MemfdWriter::new().unwrap();
        scratch.pour(&mut writer).unwrap();
        let sealed = writer.seal().unwrap();
        assert_eq!(sealed.len(), length);
        assert!(
            sealed
                .iter()
                .enumerate()
                .all(|(at, byte)| *byte == (at % 251) as u8)
        );
    }

    #[test]
    fn more_than_there_are_addresses_is_an_error() {
        assert!(Scratch::new(isize::MAX as usize).is_err());
    }
}
