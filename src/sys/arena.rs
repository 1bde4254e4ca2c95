//! Arenas: memory that a parent writes again and again, and that workers read in between.
//!
//! Fresh pages cost more than copying the bytes into them: writing 64 MiB into a new file in memory
//! took 22 ms, into an existing one 4 ms. So a parent keeps the memory of a large argument, an
//! [`Arena`], for the next one, and a worker keeps its mapping of it, a [`View`].
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
//! A process forked from this one does not have the mapping (`MADV_DONTFORK`). A forked copy of the
//! parent could otherwise write to it, and in a copy of a worker nothing counts the leases, so that
//! a slice could change while it is borrowed. An access in a forked copy aborts that process.
//! Dropping the mapping there does nothing, because another mapping may have its address by then.
//! So each mapping has a [`ProcessMark`].
//!
//! `unsafe` is needed to map memory and to make slices of it. The argument is above, and at each
//! block.
#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::ptr;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use rustix::fs::{SealFlags, fcntl_add_seals, fcntl_get_seals};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap};
use rustix::param::page_size;
use rustix::process::{Resource, getrlimit};

use super::fork_detector::ProcessMark;
use super::memory::{Mapped, MemfdWriter, Refused, measure};
use super::tuning::{MAX_KEPT_MAPPINGS, UNUSED_MAPPING_KEPT_FOR, UNUSED_MAPPINGS_DIVISOR};

/// The name of arenas in `/proc/*/fd` and `/proc/*/maps`.
const ARENA_NAME: &str = "seedbed-arena";

/// The seals of an arena: it keeps its size, and only existing mappings can write to it.
const ARENA_SEALS: SealFlags = SealFlags::SHRINK
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
        self.mapped.0.length
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

/// A worker's read-only mapping of an arena.
#[derive(Debug)]
struct View(Unshared);

impl View {
    /// Maps the first `length` bytes of a file that the parent has sent.
    fn map(file: &OwnedFd, length: usize) -> Result<Self, Refused> {
        let seals = fcntl_get_seals(file).map_err(|_| Refused::NoMemory)?;
        if !seals.contains(ARENA_SEALS) {
            return Err(Refused::NotSealed);
        }
        if length > measure(file)? {
            return Err(Refused::Hollow);
        }
        let mapped = Unshared::map(file, length, ProtFlags::READ);
        mapped.map(Self).map_err(Refused::Map)
    }

    fn length(&self) -> usize {
        self.0.0.length
    }
}

/// The right to read an arena, in a worker. While a lease exists, the parent does not write the
/// arena.
#[derive(Clone, Debug)]
pub(crate) struct Lease(Arc<View>);

impl Deref for Lease {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let Mapped { start, length } = self.0.0.place();
        // SAFETY:
        // * `start` is not null, aligned for bytes, and begins a mapping of `length` bytes, at most
        //   `isize::MAX`, the most that the kernel maps. The mapping lives as long as `self` and is
        //   this process's (`place`).
        // * All of it can be read without a fault: the pages exist and the file cannot shrink;
        //   `View::map` has asked the kernel for both. The kernel initialises all memory.
        // * The bytes do not change: only the parent can write, and it does not while there is a
        //   lease. The creator of the `MappingCache` has promised that, and `MappingCache::end_job`
        //   keeps track of the leases.
        unsafe { slice::from_raw_parts(start.as_ptr(), *length) }
    }
}

/// The arenas that a worker has mapped. (During a long job, the other mappings stay.)
#[derive(Debug)]
pub(crate) struct MappingCache {
    /// In the order of their last use.
    kept: Vec<Kept>,
}

#[derive(Debug)]
struct Kept {
    id: u64,
    view: Arc<View>,
    /// When the last job that used the mapping ended; `None` while a job uses it.
    unused_since: Option<Instant>,
}

impl MappingCache {
    /// Makes an empty cache.
    ///
    /// # Safety
    ///
    /// The process that sends the files for `lend` must be their only writer, and must give each
    /// its own identifier. It must not write to a file between sending it and learning from here
    /// that no lease is left. It may be told so only after `end_job` has returned `false`, for all
    /// files lent since the call of `end_job` before.
    pub(crate) unsafe fn new() -> Self {
        Self { kept: Vec::new() }
    }

    /// Returns a lease of the first `length` bytes of an arena, which is mapped if necessary.
    pub(crate) fn lend(
        &mut self,
        id: u64,
        file: &OwnedFd,
        length: usize,
    ) -> Result<Lease, Refused> {
        let known = self.kept.iter().position(|kept| kept.id == id);
        let known = known.map(|at| self.kept.remove(at));
        let view = match known {
            Some(Kept { view, .. }) if view.length() >= length => view,
            // A mapping that is too short is dropped before the longer one is made.
            too_short => {
                drop(too_short);
                self.kept
                    .drain(..self.kept.len().saturating_sub(MAX_KEPT_MAPPINGS - 1));
                Arc::new(View::map(file, length).or_else(|_| {
                    self.unmap_unused(); // the address space may be too small
                    View::map(file, length)
                })?)
            }
        };
        self.kept.push(Kept {
            id,
            view: view.clone(),
            unused_since: None,
        });
        Ok(Lease(view))
    }

    /// Ends a job. Returns whether leases of it are left; the cache forgets their arenas.
    pub(crate) fn end_job(&mut self) -> bool {
        let before = self.kept.len();
        // `get_mut` succeeds only without leases, and after all accesses through them.
        self.kept.retain_mut(|kept| {
            kept.unused_since.is_some() || Arc::get_mut(&mut kept.view).is_some()
        });
        let are_left = self.kept.len() < before;
        for kept in &mut self.kept {
            kept.unused_since.get_or_insert_with(Instant::now);
        }
        // If the address space is limited, jobs need it more than the cache.
        if !self.is_empty()
            && let Some(most) = getrlimit(Resource::As).current
            && self.mapped() as u64 > most / UNUSED_MAPPINGS_DIVISOR
        {
            self.unmap_unused();
        }
        are_left
    }

    fn mapped(&self) -> usize {
        self.kept.iter().map(|kept| kept.view.length()).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Unmaps arenas that have not been used for [`UNUSED_MAPPING_KEPT_FOR`].
    pub(crate) fn unmap_old(&mut self) {
        if let Some(kept) = self.kept.first()
            && kept.unused_since.is_some()
        {
            let now = Instant::now();
            self.unmap_if(|since| now.saturating_duration_since(since) >= UNUSED_MAPPING_KEPT_FOR);
        }
    }

    /// Unmaps all arenas that no job uses.
    pub(crate) fn unmap_unused(&mut self) {
        self.unmap_if(|_| true);
    }

    fn unmap_if(&mut self, is_old: impl Fn(Instant) -> bool) {
        self.kept
            .retain(|kept| !kept.unused_since.is_some_and(&is_old));
    }
}

/// A mapping that forked copies of this process do not have.
struct Unshared(ManuallyDrop<Mapped>, ProcessMark);

impl Unshared {
    /// Maps the first `length` bytes of a file, which must exist.
    fn map(file: &OwnedFd, length: usize, rights: ProtFlags) -> io::Result<Self> {
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

    /// Returns the mapping. Aborts a forked process, in which anything may be at this address.
    fn place(&self) -> &Mapped {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rustix::fs::{FallocateFlags, fallocate, ftruncate};
    use rustix::io::pwrite;
    use std::os::fd::AsRawFd;

    fn arena(bytes: &[u8]) -> Arena {
        let mut writer = Arena::writer().unwrap();
        writer.append(bytes).unwrap();
        Arena::of(writer).expect("this kernel can make arenas")
    }

    /// Makes a cache. The tests keep its promise: they do not write an arena while they have a
    /// lease.
    fn mappings() -> MappingCache {
        // SAFETY: only the tests write these arenas, each with its own identifier, and not while
        // they have leases.
        unsafe { MappingCache::new() }
    }

    fn lend(mappings: &mut MappingCache, lent: &Lent, length: usize) -> Lease {
        mappings.lend(lent.id(), lent.file(), length).unwrap()
    }

    #[test]
    fn only_the_creator_of_an_arena_can_write_to_it_and_its_size_is_fixed() {
        let mut arena = arena(b"for this time");
        arena.bytes_mut()[0] = b'F';
        let lent = Lent::new(arena);
        assert_eq!(pwrite(lent.file(), b"x", 0), Err(Errno::PERM));
        assert_eq!(ftruncate(lent.file(), 1), Err(Errno::PERM));
        assert_eq!(ftruncate(lent.file(), 1 << 20), Err(Errno::PERM));
        let punched = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        assert_eq!(fallocate(lent.file(), punched, 0, 4096), Err(Errno::PERM));
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        assert!(Unshared::map(lent.file(), 4096, rights).is_err());
        let path = format!("/proc/self/fd/{}", lent.file().as_raw_fd());
        let again = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(path);
        if let Ok(again) = again {
            assert!(Unshared::map(&again.into(), 4096, rights).is_err());
        }
        assert_eq!(&lend(&mut mappings(), &lent, 13)[..], b"For this time");
    }

    #[test]
    fn later_contents_are_read_through_the_existing_mapping() {
        let mut mappings = mappings();
        let lent = Lent::new(arena(b"first"));
        let first = lend(&mut mappings, &lent, 5);
        let address = first.as_ptr();
        assert_eq!(&first[..], b"first");
        drop(first);
        assert!(!mappings.end_job());
        let mut arena = lent.returned().unwrap();
        arena.bytes_mut()[..4].copy_from_slice(b"next");
        let lent = Lent::new(arena);
        let next = lend(&mut mappings, &lent, 4);
        assert_eq!((&next[..4], next.as_ptr()), (&b"next"[..], address));
    }

    #[test]
    fn a_longer_message_is_mapped_anew() {
        let mut mappings = mappings();
        let lent = Lent::new(arena(&[7; 10_000]));
        assert_eq!(lend(&mut mappings, &lent, 100).len(), 100);
        assert!(!mappings.end_job());
        assert_eq!(lend(&mut mappings, &lent, 10_000)[..], [7; 10_000]);
        assert!(!mappings.end_job());
        assert_eq!(mappings.kept.len(), 1);
    }

    #[test]
    fn a_remaining_lease_is_reported_once_and_outlives_its_cache_entry() {
        let mut mappings = mappings();
        let lent = Lent::new(arena(b"kept"));
        let kept = lend(&mut mappings, &lent, 4).clone();
        assert!(mappings.end_job());
        assert!(!mappings.end_job(), "that was an earlier job");
        assert!(mappings.is_empty());
        drop(lent);
        assert_eq!(&kept[..], b"kept");
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
    fn unused_arenas_are_unmapped_in_time() {
        let mut mappings = mappings();
        let lents = [1, 2].map(|byte| Lent::new(arena(&[byte])));
        let [old, new] = &lents;
        drop(lend(&mut mappings, old, 1));
        assert!(!mappings.end_job());
        let in_use = lend(&mut mappings, new, 1);
        let later = Instant::now() + UNUSED_MAPPING_KEPT_FOR;
        mappings.unmap_if(|since| since + UNUSED_MAPPING_KEPT_FOR <= later);
        assert_eq!(mappings.kept.len(), 1, "one is in use");
        mappings.unmap_old();
        drop(in_use);
        assert!(!mappings.end_job());
        mappings.unmap_old();
        assert_eq!(mappings.kept.len(), 1, "it was used a moment ago");
        mappings.unmap_unused();
        assert!(mappings.is_empty());
    }

    #[test]
    fn so_many_are_kept_and_no_more() {
        let mut mappings = mappings();
        let lents: Vec<Lent> = (0..10).map(|byte| Lent::new(arena(&[byte]))).collect();
        for lent in &lents {
            drop(lend(&mut mappings, lent, 1));
            assert!(!mappings.end_job());
            assert!(mappings.kept.len() <= MAX_KEPT_MAPPINGS);
        }
        let last = lents.last().unwrap().id();
        assert!(mappings.kept.iter().any(|kept| kept.id == last));
    }

    #[test]
    fn a_file_that_is_no_arena_or_too_short_is_refused() {
        let mut mappings = mappings();
        let mut refusal = |file: &OwnedFd, length| mappings.lend(0, file, length).unwrap_err();
        let pipe: OwnedFd = io::pipe().unwrap().0.into();
        assert!(matches!(refusal(&pipe, 1), Refused::NoMemory));
        let mut writer = MemfdWriter::new().unwrap();
        writer.append(b"draft").unwrap();
        assert!(matches!(refusal(writer.file(), 1), Refused::NotSealed));
        let short = Lent::new(arena(b"short"));
        let beyond = short.arena.capacity() + 1;
        assert!(matches!(refusal(short.file(), beyond), Refused::Hollow));
        assert!(mappings.is_empty());
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
