//! Memory that this program writes again and again, and that workers read in between.
//!
//! Fresh pages cost more than the bytes that are copied into them: 64 MiB into a new file in memory took 22 ms, into
//! one that is there 4. So a parent keeps what a large argument was written to, an [`Arena`], for the next one, and a
//! worker keeps its mapping of it, a [`View`].
//!
//! # Who may write, and when
//!
//! *The parent alone can write, ever.* It has the only mapping that can: the file is sealed with `FUTURE_WRITE`, so
//! from then on the kernel refuses to write to it by descriptor, and to map it writable, for every process; and with
//! `SHRINK` and `GROW`, so its size is for ever. A worker that has gone wild can spoil nothing.
//!
//! *The parent does not write while anybody may be reading.* This is a promise between processes, and the types hold
//! it:
//!
//! 1. An [`Arena`] is in nobody else's hands. It alone can be written.
//! 2. Before its descriptor is sent it becomes [`Lent`], which cannot be written.
//! 3. A worker makes slices of it only as [`Lease`]s, which [`MappingCache`] gives out, and counts. When its job is over, its
//!    result encoded and its argument dropped, [`MappingCache::end_job`] finds out whether leases are left; that is said in the
//!    answer.
//! 4. With an answer that says that there are none, the parent makes it an [`Arena`] again ([`Lent::returned`]). In all
//!    other cases, and they are many (the worker was killed, has crashed, was left behind, keeps a lease, is a second
//!    one that was handed the same job), it is dropped. The pages then live as long as somebody has them mapped,
//!    unchanged.
//!
//! # Why not sealed, as in [`memory`](super::memory)
//!
//! What is sealed needs no promise, and so a parent can take it from a worker. The other direction is another matter: a
//! worker runs the code that its parent names, so it trusts it anyway. That is why a parent never maps an arena that
//! came from a worker, and why [`MappingCache::new`] is unsafe.
//!
//! # Copies
//!
//! A process that is forked from this one, by whomever, does not have the mapping (`MADV_DONTFORK`). In a copy of the
//! parent it could be written to beside the parent; in a copy of a worker, made by a job, nobody counts leases, so a
//! slice could change while it is borrowed. Whoever looks for it there is ended by SIGABRT. To drop it there does nothing, as something
//! else may lie at its place: hence an [`Original`] with each.
//!
//! `unsafe` is needed to map memory and to give it out as slices; what holds the slices' promises is said above and
//! answered at each place.
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
use std::time::{Duration, Instant};

use rustix::fs::{SealFlags, fcntl_add_seals, fcntl_get_seals};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap};
use rustix::param::page_size;
use rustix::process::{Resource, getrlimit};

use super::memory::{Mapped, MemfdWriter, Refused, measure};
use super::original::Original;

/// What the process list, `/proc/*/fd` and `/proc/*/maps` call it.
const NAME: &str = "seedbed-arena";

/// What the kernel promises of an arena: it keeps its size, and nobody but who has mapped it before can write to it.
const SEALS: SealFlags = SealFlags::SHRINK
    .union(SealFlags::GROW)
    .union(SealFlags::FUTURE_WRITE)
    .union(SealFlags::SEAL);

/// Tells arenas apart, in this process and its workers. (The number of a file could come again, on old kernels, while a
/// worker has the first one mapped.)
static NEXT: AtomicU64 = AtomicU64::new(1);

/// The kernel, before Linux 5.1, knows no `FUTURE_WRITE`.
static UNKNOWN: AtomicBool = AtomicBool::new(false);

/// How long a worker keeps a mapping that no job uses.
pub(crate) const UNUSED_MAPPING_KEPT_FOR: Duration = Duration::from_secs(1);

/// How many mappings a worker keeps: arenas go to the workers in turn where several calls are made at once.
const MOST_VIEWS: usize = 4;

/// Of limited addresses, mappings that no job uses take one part of so many at most.
const SHARE: u64 = 8;

/// Memory that only this process can write, and that nobody is reading.
#[derive(Debug)]
pub(crate) struct Arena {
    file: Arc<OwnedFd>,
    mapped: Unshared,
    id: u64,
}

impl Arena {
    /// Begins one, which is written from its beginning to its end.
    pub(crate) fn writer() -> io::Result<MemfdWriter> {
        MemfdWriter::named(NAME)
    }

    /// Makes one of a writer, to be used again after this once, with a little room beyond. Gives the writer back if that
    /// is not possible.
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
                let _ = writer.cut_off_what_is_beyond(); // or the room stays behind what was written, where nobody looks
                Err(writer)
            }
        }
    }

    fn map_and_seal(writer: &MemfdWriter) -> io::Result<Unshared> {
        let capacity = Self::capacity_for(writer.len());
        writer.make_room_beyond(capacity)?;
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        // The capacity fits: it is that of a file that has been made.
        let mapped = Unshared::map(writer.file(), capacity as usize, rights)?;
        let sealed = fcntl_add_seals(writer.file(), SEALS);
        UNKNOWN.fetch_or(sealed == Err(Errno::INVAL), Ordering::Relaxed);
        sealed?;
        Ok(mapped)
    }

    /// The room that is made for so many bytes: a sixteenth more at most, so that the next message, if it is somewhat
    /// longer, fits.
    pub(crate) fn capacity_for(length: u64) -> u64 {
        let step = (length / 32).next_power_of_two();
        length.next_multiple_of(step.max(page_size() as u64))
    }

    pub(crate) fn capacity(&self) -> usize {
        self.mapped.0.length
    }

    /// What to write to.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        let Mapped { start, length } = self.mapped.place();
        // SAFETY: `start` is not null, aligned for bytes, and begins a mapping of `length` bytes, at most `isize::MAX` as the
        // kernel maps no more, which lives as long as `self`, is this process's (`place`), and can be read and written: all
        // pages of the file exist (`MemfdWriter::make_room_beyond`) and it cannot shrink. The bytes are initialised, as all that
        // a kernel gives. Nobody else in this process knows the mapping, and `self` is borrowed uniquely. Other processes
        // cannot write (see the head of this file); that they do not read matters to them, not to this slice.
        unsafe { slice::from_raw_parts_mut(start.as_ptr(), *length) }
    }

    /// What has been written.
    pub(crate) fn bytes(&self) -> &[u8] {
        let Mapped { start, length } = self.mapped.place();
        // SAFETY: as above; it is written through `bytes_mut` alone, which needs a unique borrow.
        unsafe { slice::from_raw_parts(start.as_ptr(), *length) }
    }
}

/// An arena that goes to a worker, or is there. It cannot be written. Dropped, it is not used again.
#[derive(Debug)]
pub(crate) struct Lent {
    arena: Arena,
    /// How many workers have been handed it.
    receivers: u32,
}

impl Lent {
    pub(crate) fn new(arena: Arena) -> Self {
        Self {
            arena,
            receivers: 0,
        }
    }

    /// What is sent.
    pub(crate) fn file(&self) -> &Arc<OwnedFd> {
        &self.arena.file
    }

    /// By which workers know it again.
    pub(crate) fn id(&self) -> u64 {
        self.arena.id
    }

    /// It is handed to a worker.
    pub(crate) fn hand_over(&mut self) {
        self.receivers += 1;
    }

    /// A worker has said that it reads it no longer. Gives it back if that was the only one.
    pub(crate) fn returned(self) -> Option<Arena> {
        (self.receivers <= 1).then_some(self.arena)
    }
}

/// A worker's mapping of an arena, for reading.
#[derive(Debug)]
struct View(Unshared);

impl View {
    /// Maps the first `length` bytes of what the parent has sent.
    fn map(file: &OwnedFd, length: usize) -> Result<Self, Refused> {
        let seals = fcntl_get_seals(file).map_err(|_| Refused::NoMemory)?;
        if !seals.contains(SEALS) {
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

/// The right to read an arena, in a worker. As long as there is one, the parent does not write there.
#[derive(Clone, Debug)]
pub(crate) struct Lease(Arc<View>);

impl Deref for Lease {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let Mapped { start, length } = self.0.0.place();
        // SAFETY: `start` is not null, aligned for bytes, and begins a mapping of `length` bytes, at most `isize::MAX` as the
        // kernel maps no more, that lives as long as `self` and is this process's (`place`). All can be read without a
        // fault: their pages exist and the file cannot shrink, both of which `View::map` has asked the kernel. The bytes are
        // initialised, as all that a kernel gives, and nobody changes them: only the parent can, and does not while there
        // is a lease, which whoever made the `MappingCache` has promised, and `MappingCache::end_job` has kept track of.
        unsafe { slice::from_raw_parts(start.as_ptr(), *length) }
    }
}

/// The arenas that a worker has mapped. (One that is given a long job keeps for as long what it had mapped before.)
#[derive(Debug)]
pub(crate) struct MappingCache {
    /// The one that was used last at the end.
    kept: Vec<Kept>,
}

#[derive(Debug)]
struct Kept {
    id: u64,
    view: Arc<View>,
    /// When the last job that used it ended; `None` while one does.
    unused_since: Option<Instant>,
}

impl MappingCache {
    /// Has none yet.
    ///
    /// # Safety
    ///
    /// Whoever sends the files that are given to `lend` must be their only writer, must not write to one between
    /// sending it and hearing from here that no lease is left, and must give each a number of its own. That has to be
    /// said after `end_job` has said so, for all that were lent since it was asked before.
    pub(crate) unsafe fn new() -> Self {
        Self { kept: Vec::new() }
    }

    /// Makes the first `length` bytes of an arena readable.
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
            // One that is too short goes before the longer one comes.
            too_short => {
                drop(too_short);
                self.kept
                    .drain(..self.kept.len().saturating_sub(MOST_VIEWS - 1));
                Arc::new(View::map(file, length).or_else(|_| {
                    self.unmap_unused(); // there may be too few addresses
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

    /// The job is over. Tells whether somebody holds on to what it was lent; that is not known here any more, then.
    pub(crate) fn end_job(&mut self) -> bool {
        let before = self.kept.len();
        // A unique borrow is had only when all leases are gone, and after all that was done with them.
        self.kept.retain_mut(|kept| {
            kept.unused_since.is_some() || Arc::get_mut(&mut kept.view).is_some()
        });
        let are_left = self.kept.len() < before;
        for kept in &mut self.kept {
            kept.unused_since.get_or_insert_with(Instant::now);
        }
        // Where addresses are limited, the jobs' own memory comes first.
        if !self.is_empty()
            && let Some(most) = getrlimit(Resource::As).current
            && self.mapped() as u64 > most / SHARE
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

    /// Lets go of what was not used for a while.
    pub(crate) fn unmap_old(&mut self) {
        if let Some(kept) = self.kept.first()
            && kept.unused_since.is_some()
        {
            let now = Instant::now();
            self.unmap_if(|since| now.saturating_duration_since(since) >= UNUSED_MAPPING_KEPT_FOR);
        }
    }

    /// Lets go of all.
    pub(crate) fn unmap_unused(&mut self) {
        self.unmap_if(|_| true);
    }

    fn unmap_if(&mut self, is_old: impl Fn(Instant) -> bool) {
        self.kept
            .retain(|kept| !kept.unused_since.is_some_and(&is_old));
    }
}

/// A mapping that copies of this process do not have.
struct Unshared(ManuallyDrop<Mapped>, Original);

impl Unshared {
    /// Maps the first `length` bytes, which are there.
    fn map(file: &OwnedFd, length: usize, rights: ProtFlags) -> io::Result<Self> {
        let original = Original::new()?;
        // SAFETY: without a wish for an address the kernel chooses one where nothing is mapped, so no memory of
        // anybody's is replaced.
        let start = unsafe {
            let none = ptr::null_mut();
            mmap(none, length, rights, MapFlags::SHARED, file, 0)?
        };
        let mapped = Mapped::new(start.cast(), length);
        // SAFETY: the range is a mapping that has just been made. The advice concerns new processes alone.
        unsafe { madvise(start, length, Advice::LinuxDontFork)? };
        Ok(Self(ManuallyDrop::new(mapped), original))
    }

    /// Where it is. Ends a process that does not have it: there may be anything by now.
    fn place(&self) -> &Mapped {
        if !self.1.is_here() {
            std::process::abort();
        }
        &self.0
    }
}

impl Drop for Unshared {
    fn drop(&mut self) {
        if self.1.is_here() {
            // SAFETY: `drop` is called once, and nobody looks there afterwards.
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

    /// What a test says of itself: that it does not write where it has a lease.
    fn mappings() -> MappingCache {
        // SAFETY: the arenas of these tests are written by the test alone, and not while it has leases.
        unsafe { MappingCache::new() }
    }

    fn lend(mappings: &mut MappingCache, lent: &Lent, length: usize) -> Lease {
        mappings.lend(lent.id(), lent.file(), length).unwrap()
    }

    #[test]
    fn nobody_but_who_made_it_can_write_to_it_or_change_its_size() {
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
    fn what_is_written_the_next_time_is_read_through_the_mapping_that_is_there() {
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
    fn a_lease_that_is_left_is_told_of_once_and_outlives_what_was_known_of_it() {
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
    fn what_no_job_uses_is_let_go_in_time() {
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
            assert!(mappings.kept.len() <= MOST_VIEWS);
        }
        let last = lents.last().unwrap().id();
        assert!(mappings.kept.iter().any(|kept| kept.id == last));
    }

    #[test]
    fn what_is_no_arena_or_too_short_is_refused() {
        let mut mappings = mappings();
        let mut refusal = |file: &OwnedFd, length| mappings.lend(0, file, length).unwrap_err();
        let pipe: OwnedFd = io::pipe().unwrap().0.into();
        assert!(matches!(refusal(&pipe, 1), Refused::NoMemory));
        let mut writer = MemfdWriter::new().unwrap();
        writer.append(b"writer").unwrap();
        assert!(matches!(refusal(writer.file(), 1), Refused::NotSealed));
        let short = Lent::new(arena(b"short"));
        let beyond = short.arena.capacity() + 1;
        assert!(matches!(refusal(short.file(), beyond), Refused::Hollow));
        assert!(mappings.is_empty());
    }

    #[test]
    fn nothing_is_made_of_nothing() {
        assert!(Arena::of(Arena::writer().unwrap()).is_err());
    }

    /// As on a kernel that does not know how to keep it from others.
    #[test]
    fn where_it_cannot_be_sealed_the_draft_comes_back_as_it_was() {
        let mut writer = Arena::writer().unwrap();
        writer.append(b"writer").unwrap();
        fcntl_add_seals(writer.file(), SealFlags::SEAL).unwrap();
        let writer = Arena::of(writer).expect_err("it takes no more seals");
        let length = rustix::fs::fstat(writer.file()).unwrap().st_size;
        assert_eq!((writer.len(), length), (5, 5));
    }

    /// A copy must neither write where the original does, nor unmap what lies there by now.
    #[test]
    fn a_copy_of_the_process_does_not_have_it() {
        let mut arena = arena(&[1; 4096]);
        let place = arena.bytes_mut().as_mut_ptr();
        // SAFETY: the copy makes raw calls, drops what allocates nothing, and ends.
        let copy = unsafe { libc::fork() };
        if copy == 0 {
            let mapped = |what| {
                // SAFETY: asks for a page at a place where nothing is mapped, or gets an error.
                unsafe {
                    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | what;
                    libc::mmap(place.cast(), 4096, libc::PROT_READ, flags, -1, 0)
                }
            };
            let was_free = mapped(libc::MAP_FIXED_NOREPLACE) == place.cast();
            // SAFETY: nobody looks at it any more.
            unsafe { ptr::drop_in_place(&raw mut arena.mapped) };
            let is_there_yet = mapped(libc::MAP_FIXED_NOREPLACE) == libc::MAP_FAILED;
            // SAFETY: `_exit` may be called by any process at any moment.
            unsafe { libc::_exit(i32::from(was_free && is_there_yet)) };
        }
        let mut status = 0;
        // SAFETY: `status` is a place for an `int`.
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
