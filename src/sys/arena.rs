//! Arenas: memory that a parent writes again and again, and that workers read in between.
//!
//! Fresh pages cost more than copying the bytes into them: writing 64 MiB into a new file in memory
//! took 22 ms, into an existing one 4 ms. So a parent keeps the memory of a large argument, an
//! [`Arena`], for the next one, and a worker keeps its mapping of it, in a [`MappingCache`].
//!
//! # Who may write, and when
//!
//! *Only the parent can write.* It has the only writable mapping: the file is sealed with
//! `FUTURE_WRITE`, so the kernel refuses to write to it by descriptor and to map it writable, for
//! every process. It is also sealed with `SHRINK` and `GROW`, so it keeps its size. A faulty worker
//! cannot damage it.
//!
//! *The parent does not write while a worker may be reading.* This is a promise between processes,
//! which the types keep:
//!
//! 1. An [`Arena`] is used by no other process. Only an arena can be written.
//! 2. Before its descriptor is sent, it becomes [`Lent`], which cannot be written.
//! 3. A worker reads it only through [`Lease`]s, which the [`MappingCache`] gives out and counts.
//!    When the job is over, its result encoded and its argument dropped, [`MappingCache::end_job`]
//!    finds out whether leases are left. The answer says so.
//! 4. If the answer says that no lease is left, the parent makes it an [`Arena`] again
//!    ([`Lent::returned`]). In all other cases (the worker was killed, crashed, was abandoned or
//!    keeps a lease, or two workers got the same job) the arena is dropped. The pages then stay
//!    unchanged until the last process unmaps them.
//!
//! # Why an arena is not sealed like [`memory`](super::memory)
//!
//! Sealed memory needs no promise, so a parent can accept it from a worker. In the other direction
//! a promise is enough: a worker executes the code that its parent names, so it trusts its parent.
//! A parent never maps an arena that a worker sends, and [`MappingCache::new`] is unsafe.
//!
//! # Forks
//!
//! A process forked from this one does not have the mapping; see [`unshared`](super::unshared).
//!
//! `unsafe` is needed to make slices of mapped memory. The argument is above, and at each block.
//!
//! [`Lease`]: super::mapping_cache::Lease
//! [`MappingCache`]: super::mapping_cache::MappingCache
//! [`MappingCache::end_job`]: super::mapping_cache::MappingCache::end_job
//! [`MappingCache::new`]: super::mapping_cache::MappingCache::new
#![allow(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{SealFlags, fcntl_add_seals};
use rustix::io::Errno;
use rustix::mm::ProtFlags;
use rustix::param::page_size;

use super::mapped::Mapped;
use super::memory::MemfdWriter;
use super::unshared::Unshared;

/// The name of arenas in `/proc/*/fd` and `/proc/*/maps`.
const ARENA_NAME: &str = "seedbed-arena";

/// The seals of an arena: it keeps its size, and only existing mappings can write to it.
pub(super) const ARENA_SEALS: SealFlags = SealFlags::SHRINK
    .union(SealFlags::GROW)
    .union(SealFlags::FUTURE_WRITE)
    .union(SealFlags::SEAL);

/// The next identifier of an arena, unique in this process and its workers. (On old kernels, an
/// inode number could be reused while a worker has the first file mapped.)
static NEXT: AtomicU64 = AtomicU64::new(1);

/// Set if the kernel does not know `FUTURE_WRITE`, as before Linux 5.1.
static UNKNOWN: AtomicBool = AtomicBool::new(false);

/// Memory that only this process can write, and that no process reads.
#[derive(Debug)]
pub(crate) struct Arena {
    file: Arc<OwnedFd>,
    mapped: Unshared,
    id: u64,
}

impl Arena {
    /// Starts a file that becomes an arena, to be written from beginning to end.
    pub(crate) fn writer() -> io::Result<MemfdWriter> {
        MemfdWriter::named(ARENA_NAME)
    }

    /// Makes an arena of a written file, with a little spare room. Returns the file unchanged if
    /// that fails.
    pub(crate) fn of(writer: MemfdWriter) -> Result<Self, MemfdWriter> {
        if writer.len() == 0 || UNKNOWN.load(Ordering::Relaxed) {
            return Err(writer);
        }
        match Self::map_and_seal(&writer) {
            Ok(mapped) => Ok(Self {
                file: Arc::new(writer.into_file()),
                mapped,
                id: NEXT.fetch_add(1, Ordering::Relaxed),
            }),
            Err(_) => {
                // On failure, the unused room stays behind the written bytes and costs only memory.
                let _ = writer.cut_off_what_is_beyond();
                Err(writer)
            }
        }
    }

    fn map_and_seal(writer: &MemfdWriter) -> io::Result<Unshared> {
        let capacity = Self::capacity_for(writer.len());
        writer.make_room_beyond(capacity)?;
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        // The capacity fits into `usize`: a file of this size exists.
        let mapped = Unshared::map(writer.file(), capacity as usize, rights)?;
        let sealed = fcntl_add_seals(writer.file(), ARENA_SEALS);
        UNKNOWN.fetch_or(sealed == Err(Errno::INVAL), Ordering::Relaxed);
        sealed?;
        Ok(mapped)
    }

    /// Returns the capacity of an arena for `length` bytes: at most a sixteenth more, so that a
    /// somewhat longer message fits next time.
    pub(crate) fn capacity_for(length: u64) -> u64 {
        let step = (length / 32).next_power_of_two();
        length.next_multiple_of(step.max(page_size() as u64))
    }

    pub(crate) fn capacity(&self) -> usize {
        self.mapped.length()
    }

    /// Returns all bytes of the arena, to be written.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        let Mapped { start, length } = self.mapped.place();
        // SAFETY:
        // * `start` is not null, aligned for bytes, and begins a mapping of `length` bytes, at most
        //   `isize::MAX`, the most that the kernel maps. The mapping lives as long as `self` and is
        //   this process's (`place`).
        // * All of it can be read and written: all pages of the file exist
        //   (`MemfdWriter::make_room_beyond`), and it cannot shrink. The kernel initialises all
        //   memory.
        // * No other code of this process knows the mapping, and `self` is borrowed uniquely. Other
        //   processes cannot write (see the head of this file). That they do not read matters to
        //   them, not to this slice.
        unsafe { slice::from_raw_parts_mut(start.as_ptr(), *length) }
    }

    /// Returns all bytes of the arena.
    pub(crate) fn bytes(&self) -> &[u8] {
        let Mapped { start, length } = self.mapped.place();
        // SAFETY: each clause of `bytes_mut` holds. Only `bytes_mut` writes, and needs a unique
        // borrow.
        unsafe { slice::from_raw_parts(start.as_ptr(), *length) }
    }
}

/// An arena that is being sent or has been. It cannot be written. Dropping it frees the memory.
#[derive(Debug)]
pub(crate) struct Lent {
    arena: Arena,
    /// Number of workers that were given the arena.
    receivers: u32,
}

impl Lent {
    pub(crate) fn new(arena: Arena) -> Self {
        Self {
            arena,
            receivers: 0,
        }
    }

    /// Returns the descriptor to be sent.
    pub(crate) fn file(&self) -> &Arc<OwnedFd> {
        &self.arena.file
    }

    /// Returns the identifier by which workers recognise the arena.
    pub(crate) fn id(&self) -> u64 {
        self.arena.id
    }

    /// Notes that a worker is given the arena.
    pub(crate) fn hand_over(&mut self) {
        self.receivers += 1;
    }

    /// Returns the arena after a worker has said that it reads it no longer, if that was the only
    /// worker.
    pub(crate) fn returned(self) -> Option<Arena> {
        (self.receivers <= 1).then_some(self.arena)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::ptr;

    fn arena(bytes: &[u8]) -> Arena {
        let mut writer = Arena::writer().unwrap();
        writer.append(bytes).unwrap();
        Arena::of(writer).expect("this kernel can make arenas")
    }

    #[test]
    fn an_arena_that_several_workers_were_handed_is_not_used_again() {
        let mut lent = Lent::new(arena(b"twice"));
        lent.hand_over();
        assert!(lent.receivers == 1);
        lent.hand_over();
        assert!(lent.returned().is_none());
    }

    #[test]
    fn an_empty_file_becomes_no_arena() {
        assert!(Arena::of(Arena::writer().unwrap()).is_err());
    }

    /// Simulates a kernel that does not know `FUTURE_WRITE`.
    #[test]
    fn a_file_that_cannot_be_sealed_is_returned_unchanged() {
        let mut writer = Arena::writer().unwrap();
        writer.append(b"draft").unwrap();
        fcntl_add_seals(writer.file(), SealFlags::SEAL).unwrap();
        let writer = Arena::of(writer).expect_err("it takes no more seals");
        let length = rustix::fs::fstat(writer.file()).unwrap().st_size;
        assert_eq!((writer.len(), length), (5, 5));
    }

    /// A forked copy must neither write to the original's memory nor unmap another mapping at its
    /// address.
    #[test]
    fn a_forked_process_does_not_have_the_mapping() {
        let mut arena = arena(&[1; 4096]);
        let place = arena.bytes_mut().as_mut_ptr();
        // SAFETY: the forked process makes raw system calls, drops values that allocate nothing,
        // and ends.
        let copy = unsafe { libc::fork() };
        if copy == 0 {
            let mapped = |what| {
                // SAFETY: maps a page where nothing is mapped, or fails.
                unsafe {
                    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | what;
                    libc::mmap(place.cast(), 4096, libc::PROT_READ, flags, -1, 0)
                }
            };
            let was_free = mapped(libc::MAP_FIXED_NOREPLACE) == place.cast();
            // SAFETY: the arena is not used afterwards.
            unsafe { ptr::drop_in_place(&raw mut arena.mapped) };
            let is_there_yet = mapped(libc::MAP_FIXED_NOREPLACE) == libc::MAP_FAILED;
            // SAFETY: any process may call `_exit` at any moment.
            unsafe { libc::_exit(i32::from(was_free && is_there_yet)) };
        }
        let mut status = 0;
        // SAFETY: `status` has room for an `int`.
        let waited = unsafe { libc::waitpid(copy, &raw mut status, 0) };
        assert_eq!((waited, libc::WEXITSTATUS(status)), (copy, 1));
        assert_eq!(arena.bytes()[0], 1);
    }

    proptest! {
        #[test]
        fn the_room_is_enough_and_at_most_a_sixteenth_or_a_page_too_much(length in 1u64..1 << 40) {
            let capacity = Arena::capacity_for(length);
            prop_assert!(capacity >= length);
            prop_assert!(capacity - length <= (length / 16).max(page_size() as u64));
            prop_assert_eq!(capacity % page_size() as u64, 0);
            prop_assert_eq!(Arena::capacity_for(capacity), capacity);
        }
    }
}
