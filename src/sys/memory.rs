//! Memory that two processes share and that nobody can change: written once, sealed, then mapped for reading.
//!
//! [`MemfdWriter`] is a nameless file in memory (a memfd) that is being written; [`MemfdWriter::seal`] makes it [`Sealed`]. The kernel
//! then refuses to shrink, grow or write it, for every process and for ever, and has made sure that no mapping is left
//! through which it could be written. That is what makes a `&[u8]` into it sound, although another process has it too.
//!
//! # Written through the descriptor, not through a mapping
//!
//! Who writes into a shared mapping pays a page fault for each page (64 MiB took 42 ms, `write` 22 ms), is killed by SIGBUS
//! where memory runs short, unless all of it was reserved before, and cannot seal while some process that another thread
//! has just forked still has a copy of the mapping. `write` has none of these: it takes no zeroed page only to overwrite
//! it, and tells of a lack of memory with an error. So that a caller can all the same fill a slice in place, there is
//! [`Scratch`], private memory in huge pages where the kernel has them; it is written from its beginning and given back
//! piece by piece on the way, so the two together never take much more than the one (33 ms for 64 MiB, all told).
//!
//! # What came from another process
//!
//! [`Sealed::adopt`] believes nothing: the kernel is asked whether this is a memory file, what its seals are, how long it
//! is, and whether all its pages exist. (The first look at a page that was never written would make the kernel find one,
//! and where it cannot, that is a SIGBUS.)
//!
//! # Why private
//!
//! It is mapped `MAP_PRIVATE`, which is the same memory as long as nobody writes, and nobody can. Before Linux 6.7 a shared
//! mapping of a write-sealed file is refused even for reading.
//!
//! `unsafe` is needed to map memory, to give it out as slices and to unmap it. What holds the slices' promises is said above
//! and answered at each place.
#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;

use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, SeekFrom, Stat, fallocate, fcntl_add_seals,
    fcntl_get_seals, fstat, fstatfs, ftruncate, memfd_create, seek,
};
use rustix::io::{Errno, pread, pwrite, retry_on_intr};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};
use rustix::param::page_size;
use rustix::process::{Resource, getrlimit};

use super::mapping::refuse_beyond_file_limit;

/// What the process list, `/proc/*/fd` and `/proc/*/maps` call it.
const NAME: &str = "seedbed-shared";

/// What the kernel promises of memory that is shared.
const SEALS: SealFlags = SealFlags::SHRINK
    .union(SealFlags::GROW)
    .union(SealFlags::WRITE)
    .union(SealFlags::SEAL);

/// How much of a [`Scratch`] is written before it is given back: a few huge pages.
const PIECE: usize = 8 << 20;

/// The type of the file system that memfds of ordinary pages lie in; see `linux/magic.h`.
const TMPFS: i64 = 0x0102_1994;

/// The largest length of a slice, hence of what is mapped.
const LONGEST: u64 = isize::MAX as u64;

/// Memory that is being written, from its beginning to its end.
#[derive(Debug)]
pub(crate) struct MemfdWriter {
    file: OwnedFd,
    length: u64,
}

impl MemfdWriter {
    /// Makes an empty one.
    pub(crate) fn new() -> io::Result<Self> {
        Self::named(NAME)
    }

    /// The same, with a name for people.
    pub(super) fn named(name: &str) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = match memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
            // Before Linux 6.3 there is no such flag; where an administrator demands it, there is.
            Err(Errno::INVAL) => memfd_create(name, flags)?,
            made => made?,
        };
        Ok(Self { file, length: 0 })
    }

    /// Returns how much has been written.
    pub(crate) fn len(&self) -> u64 {
        self.length
    }

    /// Writes all of `bytes`, or, if there is an error, nothing.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.make_sure_of_room(bytes.len())?;
        let before = self.length;
        let written = self.write(bytes);
        if written.is_err() {
            self.length = before;
            // Beyond is what nobody reads, until the next bytes are written there; it may only not be sealed.
            self.cut_off_what_is_beyond()?;
        }
        written
    }

    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match retry_on_intr(|| pwrite(&self.file, bytes, self.length))? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => {
                    self.length += written as u64;
                    bytes = &bytes[written..];
                }
            }
        }
        Ok(())
    }

    /// Appends all that has been written to `out`.
    pub(crate) fn read_onto(&self, out: &mut Vec<u8>) -> io::Result<()> {
        let before = out.len();
        out.resize(before + self.length as usize, 0); // as long as what was written from slices
        let mut read = before;
        while read < out.len() {
            let at = (read - before) as u64;
            match retry_on_intr(|| pread(&self.file, &mut out[read..], at))? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                more => read += more,
            }
        }
        Ok(())
    }

    /// Has the kernel find the pages up to `length` bytes, of which none is written.
    pub(super) fn make_room_beyond(&self, length: u64) -> io::Result<()> {
        let more = length.saturating_sub(self.length);
        if more > 0 {
            refuse_beyond_file_limit(length)?;
            let modes = FallocateFlags::empty();
            retry_on_intr(|| fallocate(&self.file, modes, self.length, more))?;
        }
        Ok(())
    }

    /// Takes that back.
    pub(super) fn cut_off_what_is_beyond(&self) -> io::Result<()> {
        Ok(ftruncate(&self.file, self.length)?)
    }

    pub(super) fn file(&self) -> &OwnedFd {
        &self.file
    }

    pub(super) fn into_file(self) -> OwnedFd {
        self.file
    }

    /// Refuses what does not fit. Where the size of files is limited (`RLIMIT_FSIZE`), writing beyond it would be a signal.
    fn make_sure_of_room(&self, more: usize) -> io::Result<()> {
        let wanted = self.length.saturating_add(more as u64);
        let limit = getrlimit(Resource::Fsize).current.unwrap_or(u64::MAX);
        match wanted > limit.min(LONGEST) {
            true => Err(Errno::FBIG.into()),
            false => Ok(()),
        }
    }

    /// Makes it immutable, and gives it to be sent; or gives it back.
    pub(crate) fn seal_for_others(self) -> Result<OwnedFd, Self> {
        match fcntl_add_seals(&self.file, SEALS) {
            Ok(()) => Ok(self.file),
            Err(_) => Err(self),
        }
    }

    /// Makes it immutable, and maps it. One that is empty cannot be mapped.
    pub(crate) fn seal(self) -> io::Result<Sealed> {
        fcntl_add_seals(&self.file, SEALS)?;
        // The length fits: all of it has been written from slices.
        Sealed::map(self.file, self.length as usize)
    }
}

/// Immutable memory, mapped for reading. Dropping it unmaps it, and closes the descriptor if nobody else has it.
#[derive(Debug)]
pub(crate) struct Sealed {
    /// Shared with messages on their way.
    file: Arc<OwnedFd>,
    mapped: Mapped,
}

impl Sealed {
    /// Takes over what another process has sent.
    pub(crate) fn adopt(file: OwnedFd) -> Result<Self, Refused> {
        let length = length_of_sealed(&file)?;
        Self::map(file, length).map_err(Refused::Map)
    }

    /// Maps all `length` bytes of a file, which are there and sealed.
    fn map(file: OwnedFd, length: usize) -> io::Result<Self> {
        // SAFETY: without a wish for an address the kernel chooses one where nothing is mapped, so no memory of anybody's
        // is replaced.
        let start = unsafe {
            mmap(
                ptr::null_mut(),
                length,
                ProtFlags::READ,
                MapFlags::PRIVATE,
                &file,
                0,
            )?
        };
        Ok(Self {
            file: Arc::new(file),
            mapped: Mapped::new(start.cast(), length),
        })
    }

    /// Returns the descriptor, to be sent.
    pub(crate) fn file(&self) -> &Arc<OwnedFd> {
        &self.file
    }
}

impl Deref for Sealed {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let Mapped { start, length } = &self.mapped;
        // SAFETY: `start` is not null, aligned as bytes are, and `length` bytes from there on are one mapping of this file
        // that lives as long as `self`; `length` is at most `isize::MAX`, because the kernel maps no more. All are readable
        // without a fault: the file is as long (looked up in `adopt`, written in `MemfdWriter`) and cannot shrink (`SHRINK`), and
        // all its pages exist. They are initialised, as all memory that a kernel gives is. Nobody changes them while they
        // are borrowed, or ever: `WRITE` forbids it to every process, and could be set only because no mapping was left that
        // can be written; nor can this private one, which has no right to (and a job that took the right with `mprotect`
        // would, by unsafe code of its own, write into a copy of its own).
        unsafe { slice::from_raw_parts(start.as_ptr(), *length) }
    }
}

/// Tells how large a file in memory is, as far as it has pages. Of what is no file, 0.
pub(crate) fn size_of_memory(file: BorrowedFd<'_>) -> usize {
    fstat(file).map_or(0, |stat| length_of(&stat).unwrap_or(0))
}

/// Looks at what was sent by a process that may mean no good, such as a worker gone wild, before it is adopted: whether each
/// page is there. To count them, as is enough among friends, would count those that lie behind the end, too; this takes
/// ten nanoseconds for each.
pub(crate) fn inspect(file: &OwnedFd) -> Result<(), Refused> {
    let length = length_of_sealed(file)?;
    match seek(file, SeekFrom::Hole(0)).map_err(Refused::Kernel)? {
        first_hole if first_hole < length as u64 => Err(Refused::Hollow),
        _ => Ok(()),
    }
}

/// Tells how long a file in memory is that nobody can change.
fn length_of_sealed(file: &OwnedFd) -> Result<usize, Refused> {
    let seals = fcntl_get_seals(file).map_err(|_| Refused::NoMemory)?;
    if !seals.contains(SEALS) {
        return Err(Refused::NotSealed);
    }
    measure(file)
}

/// Tells how long a file in memory is, if it is one and all of it is there.
pub(super) fn measure(file: &OwnedFd) -> Result<usize, Refused> {
    // Huge pages of a pool (`MFD_HUGETLB`), which nobody of ours makes, can be sealed too, but are unmapped otherwise.
    let system = fstatfs(file).map_err(Refused::Kernel)?;
    if system.f_type != TMPFS {
        return Err(Refused::NoMemory);
    }
    let stat = fstat(file).map_err(Refused::Kernel)?;
    length_of(&stat)
}

/// Reads the length off, if all of the file is there.
fn length_of(stat: &Stat) -> Result<usize, Refused> {
    const BLOCK: u64 = 512; // by definition of `st_blocks`
    let length = u64::try_from(stat.st_size).map_err(|_| Refused::NoMemory)?;
    if (stat.st_blocks as u64).saturating_mul(BLOCK) < length {
        return Err(Refused::Hollow);
    }
    match length {
        0 => Err(Refused::Hollow),
        1..=LONGEST => Ok(length as usize),
        _ => Err(Refused::TooLong(length)),
    }
}

/// Why memory that another process has sent is not looked at.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The descriptor is of something else.
    NoMemory,
    /// It could be changed.
    NotSealed,
    /// Not all of its pages exist.
    Hollow,
    /// So many bytes cannot be mapped.
    TooLong(u64),
    /// The kernel did not tell.
    Kernel(Errno),
    /// It could not be mapped.
    Map(io::Error),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMemory => f.write_str("a descriptor that came along is not of shared memory"),
            Self::NotSealed => f.write_str(
                "shared memory that came along is not sealed, so whoever has it could change or truncate it",
            ),
            Self::Hollow => {
                f.write_str("shared memory that came along is empty or has holes where nothing was ever written")
            }
            Self::TooLong(length) => {
                write!(f, "shared memory of {length} bytes came along, which is more than this process can map")
            }
            Self::Kernel(error) => write!(f, "shared memory that came along cannot be looked at: {error}"),
            Self::Map(error) => write!(f, "shared memory that came along cannot be mapped: {error}"),
        }
    }
}

/// Asks for huge pages for what will be written to `memory`, of which no page has been touched yet.
pub(crate) fn prefer_huge_pages(memory: &mut [u8]) {
    let page = page_size();
    let start = memory.as_mut_ptr();
    let inner = start.align_offset(page).min(memory.len());
    let length = (memory.len() - inner) / page * page;
    let place = start.wrapping_add(inner).cast();
    // SAFETY: the range begins at a page, as it was aligned, and lies within memory that is borrowed uniquely. The advice is
    // about pages that will be found for it, and changes nothing that is in it.
    let _ = unsafe { madvise(place, length, Advice::LinuxHugepage) }; // where there are none, small ones do
}

/// Private memory, zeroed, to be filled and then written into a [`MemfdWriter`].
#[derive(Debug)]
pub(crate) struct Scratch(Mapped);

impl Scratch {
    /// Makes `length` bytes, more than none.
    pub(crate) fn new(length: usize) -> io::Result<Self> {
        // SAFETY: as in `Sealed::map`.
        let start = unsafe {
            mmap_anonymous(
                ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )?
        };
        let mapped = Mapped::new(start.cast(), length);
        // SAFETY: the range is a mapping that has just been made. The advice changes nothing about what it holds.
        let _ = unsafe { madvise(start, length, Advice::LinuxHugepage) }; // where there are none, small ones do
        Ok(Self(mapped))
    }

    /// Writes all of it into `writer`, and gives its memory back on the way.
    pub(crate) fn pour(self, writer: &mut MemfdWriter) -> io::Result<()> {
        for at in (0..self.len()).step_by(PIECE) {
            let length = PIECE.min(self.len() - at);
            writer.append(&self[at..at + length])?;
            let start = self.0.start.as_ptr().wrapping_add(at).cast();
            // SAFETY: the range lies in our own mapping and begins with a page, as `PIECE` is a whole number of pages. The
            // advice turns what it holds into zeros, which nobody sees: there is no borrow of it at this point, and this
            // loop, whose `self` it is, does not look back. A private anonymous mapping stays readable.
            let _ = unsafe { madvise(start, length, Advice::LinuxDontNeed) }; // or else when this is dropped
        }
        Ok(())
    }
}

impl Deref for Scratch {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `start` is not null, aligned for bytes, and begins a mapping of `length` bytes that is readable and
        // initialised (zeros at first), lives as long as `self`, and is known to nobody else; the kernel maps at most
        // `isize::MAX`. It is changed through `deref_mut` only, which borrows `self` as a whole.
        unsafe { slice::from_raw_parts(self.0.start.as_ptr(), self.0.length) }
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and it is writable and borrowed uniquely.
        unsafe { slice::from_raw_parts_mut(self.0.start.as_ptr(), self.0.length) }
    }
}

/// A mapping that is unmapped when dropped.
#[derive(Debug)]
pub(super) struct Mapped {
    pub(super) start: NonNull<u8>,
    pub(super) length: usize,
}

impl Mapped {
    /// Takes over a mapping of `length` bytes, which nobody else unmaps.
    pub(super) fn new(start: *mut u8, length: usize) -> Self {
        let start = NonNull::new(start).expect("the kernel maps nothing at address 0 unasked");
        Self { start, length }
    }
}

// SAFETY: it is an address and a length. Memory that is mapped belongs to the process, not to a thread; who may look at it
// and who may change it is decided by the borrows of its owner, as with a `Vec<u8>`.
unsafe impl Send for Mapped {}

// SAFETY: as above; through a shared reference nothing is changed.
unsafe impl Sync for Mapped {}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: it is our own mapping, made with this length, and no borrow of it outlives its owner.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
        debug_assert!(unmapped.is_ok(), "{unmapped:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;
    use std::os::fd::AsRawFd;

    fn sealed(bytes: &[u8]) -> Sealed {
        let mut writer = MemfdWriter::new().unwrap();
        writer.append(bytes).unwrap();
        writer.seal().unwrap()
    }

    /// A file in memory, as a process that does not know our rules would make it.
    fn wild(length: u64, seals: SealFlags) -> OwnedFd {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = memfd_create("wild", flags).unwrap();
        ftruncate(&file, length).unwrap();
        fcntl_add_seals(&file, seals).unwrap();
        file
    }

    fn filled(length: u64, seals: SealFlags) -> OwnedFd {
        let file = wild(0, SealFlags::empty());
        if length > 0 {
            fallocate(&file, FallocateFlags::empty(), 0, length).unwrap();
        }
        fcntl_add_seals(&file, seals).unwrap();
        file
    }

    fn refusal(file: OwnedFd) -> Refused {
        Sealed::adopt(file).expect_err("this is not to be looked at")
    }

    #[test]
    fn sealed_memory_cannot_be_written_truncated_or_unsealed_by_anybody() {
        let sealed = sealed(b"for ever");
        let number = sealed.file().as_raw_fd();
        let path = format!("/proc/self/fd/{number}");
        assert_eq!(pwrite(sealed.file(), b"F", 0), Err(Errno::PERM));
        assert_eq!(ftruncate(sealed.file(), 1), Err(Errno::PERM));
        assert_eq!(ftruncate(sealed.file(), 100), Err(Errno::PERM));
        let again = std::fs::OpenOptions::new().write(true).open(path);
        assert!(again.is_err() || again.unwrap().write(b"F").is_err());
        let more = fcntl_add_seals(sealed.file(), SealFlags::FUTURE_WRITE);
        assert_eq!(more, Err(Errno::PERM));
        let punched = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        assert_eq!(fallocate(sealed.file(), punched, 0, 8), Err(Errno::PERM));
        assert_eq!(&*sealed, b"for ever");
    }

    #[test]
    fn what_another_process_has_sealed_is_taken_over() {
        let ours = sealed(b"shared");
        let theirs = Sealed::adopt(ours.file().try_clone().unwrap()).unwrap();
        assert_eq!(&*theirs, b"shared");
        assert_ne!(theirs.as_ptr(), ours.as_ptr());
    }

    #[test]
    fn memory_that_could_change_is_refused() {
        let seals = [
            SealFlags::SHRINK,
            SealFlags::GROW,
            SealFlags::WRITE,
            SealFlags::SEAL,
        ];
        for missing in seals {
            let file = filled(4096, SEALS.difference(missing));
            assert!(matches!(refusal(file), Refused::NotSealed), "{missing:?}");
        }
        // With this one alone, mappings that were made before can still write.
        let file = filled(
            4096,
            SEALS.difference(SealFlags::WRITE) | SealFlags::FUTURE_WRITE,
        );
        assert!(matches!(refusal(file), Refused::NotSealed));
    }

    #[test]
    fn memory_with_holes_is_refused_because_looking_at_them_may_be_a_signal() {
        assert!(matches!(refusal(wild(1 << 20, SEALS)), Refused::Hollow));
        assert!(matches!(refusal(wild(1 << 60, SEALS)), Refused::Hollow));
        assert!(matches!(refusal(wild(0, SEALS)), Refused::Hollow));
        let one_page_short = wild(3 * 4096, SealFlags::empty());
        fallocate(&one_page_short, FallocateFlags::KEEP_SIZE, 0, 2 * 4096).unwrap();
        fcntl_add_seals(&one_page_short, SEALS).unwrap();
        assert!(matches!(refusal(one_page_short), Refused::Hollow));
    }

    #[test]
    fn pages_behind_the_end_do_not_stand_for_those_that_are_not_there() {
        let elsewhere = wild(3 * 4096, SealFlags::empty());
        fallocate(&elsewhere, FallocateFlags::KEEP_SIZE, 3 * 4096, 5 * 4096).unwrap();
        fcntl_add_seals(&elsewhere, SEALS).unwrap();
        assert!(matches!(inspect(&elsewhere), Err(Refused::Hollow)));
        let whole = sealed(&[1; 3 * 4096 + 1]);
        inspect(whole.file()).unwrap();
        let unsealed = wild(4096, SealFlags::empty());
        assert!(matches!(inspect(&unsealed), Err(Refused::NotSealed)));
    }

    #[test]
    fn a_length_beyond_what_can_be_mapped_is_refused() {
        // SAFETY: all fields of a `Stat` are integers, for which zero bytes are a value.
        let mut stat: Stat = unsafe { std::mem::zeroed() };
        stat.st_blocks = i64::MAX;
        stat.st_size = i64::MAX;
        assert!(length_of(&stat).is_ok_and(|length| length as u64 == LONGEST));
        stat.st_size = -1;
        assert!(matches!(length_of(&stat), Err(Refused::NoMemory)));
        // So much can be a slice, and yet there are no addresses for it.
        let file = sealed(b"short").file().try_clone().unwrap();
        assert!(Sealed::map(file, 1 << 62).is_err());
    }

    #[test]
    fn what_is_no_memory_is_refused() {
        let pipe: OwnedFd = io::pipe().unwrap().0.into();
        assert!(matches!(refusal(pipe), Refused::NoMemory));
        let file = std::fs::File::open("/proc/self/comm").unwrap();
        assert!(matches!(refusal(file.into()), Refused::NoMemory));
    }

    #[test]
    fn dropping_the_last_owner_closes_and_unmaps() {
        let sealed = sealed(&[1; 5000]);
        let address = sealed.as_ptr() as usize;
        let on_its_way = sealed.file().clone();
        let number = on_its_way.as_raw_fd();
        drop(sealed);
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let of_ours =
            |line: &&str| line.starts_with(&format!("{address:x}-")) && line.contains(NAME);
        assert_eq!(maps.lines().filter(of_ours).count(), 0);
        assert!(
            fstat(&on_its_way).is_ok_and(|stat| stat.st_size == 5000),
            "{number}"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn what_is_appended_is_there(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..9000), 1..6)) {
            let mut writer = MemfdWriter::new().unwrap();
            for piece in &pieces {
                writer.append(piece).unwrap();
            }
            let whole = pieces.concat();
            prop_assert_eq!(writer.len(), whole.len() as u64);
            prop_assert_eq!(&*writer.seal().unwrap(), whole);
        }
    }

    #[test]
    fn scratch_memory_is_zero_and_its_pieces_arrive_in_order() {
        let length = 2 * PIECE + 4097;
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
        let mut writer = MemfdWriter::new().unwrap();
        writer.length = LONGEST;
        assert_eq!(
            writer.append(b"x").unwrap_err().kind(),
            io::ErrorKind::FileTooLarge
        );
    }
}
