//! Sealed memory: written once, sealed, and then mapped for reading by several processes.
//!
//! [`MemfdWriter`] is a nameless file in memory (a memfd) that is being written;
//! [`MemfdWriter::seal`] makes it [`Sealed`]. From then on the kernel refuses to shrink, grow or
//! write it, for every process, and has made sure that no writable mapping is left. So a `&[u8]`
//! into it is sound although another process has it too.
//!
//! # Written through the descriptor, not through a mapping
//!
//! Writing through a shared mapping costs a page fault for each page (64 MiB took 42 ms; with
//! `write`, 22 ms), ends in SIGBUS if memory runs out, unless all of it was reserved, and the file
//! cannot be sealed while a process just forked by another thread still has a copy of the mapping.
//! `write` has none of these problems: it zeroes no page only to overwrite it, and reports a lack
//! of memory as an error. For callers that fill a slice in place there is
//! [`Scratch`](super::scratch::Scratch).
//!
//! # Memory from another process
//!
//! [`Sealed::adopt`] trusts nothing: it asks the kernel whether the file is in memory, which seals
//! it has, how long it is, and whether all its pages exist. (The first access to a page that was
//! never written makes the kernel allocate one; if it cannot, the process gets SIGBUS.)
//!
//! # Why `MAP_PRIVATE`
//!
//! A private mapping is the same memory as long as nothing writes, and nothing can. Before Linux
//! 6.7, a shared mapping of a write-sealed file is refused even for reading.
//!
//! `unsafe` is needed to map memory and to make slices of it. The argument is above, and at each
//! block.
#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::ops::Deref;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::ptr;
use std::slice;
use std::sync::Arc;

use rustix::fs::{
    FallocateFlags, SealFlags, SeekFrom, Stat, fallocate, fcntl_add_seals, fcntl_get_seals, fstat,
    fstatfs, ftruncate, seek,
};
use rustix::io::{Errno, pread, pwrite, retry_on_intr};
use rustix::mm::{MapFlags, ProtFlags, mmap};
use rustix::process::{Resource, getrlimit};

use super::mapped::Mapped;
use super::mapping::{memfd, refuse_beyond_file_limit};

/// The name of shared memory in `/proc/*/fd` and `/proc/*/maps`.
const SHARED_NAME: &str = "seedbed-shared";

/// The seals of shared memory.
const SHARED_SEALS: SealFlags = SealFlags::SHRINK
    .union(SealFlags::GROW)
    .union(SealFlags::WRITE)
    .union(SealFlags::SEAL);

/// The file system type of memfds with ordinary pages; see `linux/magic.h`.
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// The largest length of a slice, and so of a mapping, in bytes.
const MAX_SLICE_BYTES: u64 = isize::MAX as u64;

/// A file in memory that is being written from beginning to end.
#[derive(Debug)]
pub(crate) struct MemfdWriter {
    file: OwnedFd,
    length: u64,
}

impl MemfdWriter {
    /// Makes an empty file.
    pub(crate) fn new() -> io::Result<Self> {
        Self::named(SHARED_NAME)
    }

    /// Makes an empty file with a name that people see.
    pub(super) fn named(name: &str) -> io::Result<Self> {
        let file = memfd(name)?;
        Ok(Self { file, length: 0 })
    }

    /// Returns the number of bytes written.
    pub(crate) fn len(&self) -> u64 {
        self.length
    }

    /// Writes all of `bytes`, or nothing if there is an error.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.make_sure_of_room(bytes.len())?;
        let before = self.length;
        let written = self.write(bytes);
        if written.is_err() {
            self.length = before;
            // The partial bytes are beyond the end, where the next ones replace them; but they must
            // not be sealed.
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

    /// Appends all written bytes to `out`.
    pub(crate) fn read_onto(&self, out: &mut Vec<u8>) -> io::Result<()> {
        let before = out.len();
        // The bytes came from slices, so their number is a `usize`.
        out.resize(before + self.length as usize, 0);
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

    /// Allocates the pages up to `length` bytes.
    pub(super) fn make_room_beyond(&self, length: u64) -> io::Result<()> {
        let more = length.saturating_sub(self.length);
        if more > 0 {
            refuse_beyond_file_limit(length)?;
            let modes = FallocateFlags::empty();
            retry_on_intr(|| fallocate(&self.file, modes, self.length, more))?;
        }
        Ok(())
    }

    /// Frees the pages beyond the written bytes.
    pub(super) fn cut_off_what_is_beyond(&self) -> io::Result<()> {
        Ok(ftruncate(&self.file, self.length)?)
    }

    pub(super) fn file(&self) -> &OwnedFd {
        &self.file
    }

    pub(super) fn into_file(self) -> OwnedFd {
        self.file
    }

    /// Fails if `more` bytes do not fit. Writing beyond the limit of file sizes (`RLIMIT_FSIZE`)
    /// would raise a signal.
    fn make_sure_of_room(&self, more: usize) -> io::Result<()> {
        let wanted = self.length.saturating_add(more as u64);
        let limit = getrlimit(Resource::Fsize).current.unwrap_or(u64::MAX);
        if wanted > limit.min(MAX_SLICE_BYTES) {
            Err(Errno::FBIG.into())
        } else {
            Ok(())
        }
    }

    /// Seals the file and returns its descriptor, or returns the file unchanged if that fails.
    pub(crate) fn seal_for_others(self) -> Result<OwnedFd, Self> {
        match fcntl_add_seals(&self.file, SHARED_SEALS) {
            Ok(()) => Ok(self.file),
            Err(_) => Err(self),
        }
    }

    /// Seals and maps the file, which must not be empty.
    pub(crate) fn seal(self) -> io::Result<Sealed> {
        fcntl_add_seals(&self.file, SHARED_SEALS)?;
        // The length is a `usize`: all bytes came from slices.
        Sealed::map(self.file, self.length as usize)
    }
}

/// Sealed memory, mapped for reading. Dropping it unmaps it, and closes the descriptor if it is not
/// shared.
#[derive(Debug)]
pub(crate) struct Sealed {
    /// Shared with messages that are being sent.
    file: Arc<OwnedFd>,
    mapped: Mapped,
}

impl Sealed {
    /// Maps a file that another process has sent, after checking it.
    pub(crate) fn adopt(file: OwnedFd) -> Result<Self, Refused> {
        let length = length_of_sealed(&file)?;
        Self::map(file, length).map_err(Refused::Map)
    }

    /// Maps all `length` bytes of a file, which exist and are sealed.
    fn map(file: OwnedFd, length: usize) -> io::Result<Self> {
        // SAFETY: without an address, the kernel chooses one where nothing is mapped, so no memory
        // of the program is replaced.
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
        // SAFETY:
        // * `start` is not null, aligned for bytes, and begins one mapping of `length` bytes that
        //   lives as long as `self`; `length` is at most `isize::MAX`, the most that the kernel
        //   maps.
        // * All of it can be read without a fault: the file is that long (checked in `adopt`,
        //   written in `MemfdWriter`) and cannot shrink (`SHRINK`), and all its pages exist. The
        //   kernel initialises all memory.
        // * The bytes never change: `WRITE` forbids it to every process, and could be set only
        //   because no writable mapping was left. This private mapping is not writable. (A job that
        //   makes it writable with `mprotect`, by unsafe code of its own, writes into a copy of its
        //   own.)
        unsafe { slice::from_raw_parts(start.as_ptr(), *length) }
    }
}

/// Returns the length of a file in memory, if all its pages exist, or 0.
pub(crate) fn size_of_memory(file: BorrowedFd<'_>) -> usize {
    fstat(file).map_or(0, |stat| length_of(&stat).unwrap_or(0))
}

/// Checks a file from a process that may be faulty, such as a worker, before it is adopted: whether
/// each page exists. Counting pages would be enough for a correct peer, but also counts pages
/// behind the end. This check takes ten nanoseconds a page.
pub(crate) fn inspect(file: &OwnedFd) -> Result<(), Refused> {
    let length = length_of_sealed(file)?;
    match seek(file, SeekFrom::Hole(0)).map_err(Refused::Kernel)? {
        first_hole if first_hole < length as u64 => Err(Refused::Hollow),
        _ => Ok(()),
    }
}

/// Returns the length of a sealed file in memory.
fn length_of_sealed(file: &OwnedFd) -> Result<usize, Refused> {
    let seals = fcntl_get_seals(file).map_err(|_| Refused::NoMemory)?;
    if !seals.contains(SHARED_SEALS) {
        return Err(Refused::NotSealed);
    }
    measure(file)
}

/// Returns the length of a file in memory, all of whose pages exist.
pub(super) fn measure(file: &OwnedFd) -> Result<usize, Refused> {
    // Huge pages of a pool (`MFD_HUGETLB`) can be sealed too, but are unmapped differently. This
    // crate never makes any.
    let system = fstatfs(file).map_err(Refused::Kernel)?;
    if system.f_type != TMPFS_MAGIC {
        return Err(Refused::NoMemory);
    }
    let stat = fstat(file).map_err(Refused::Kernel)?;
    length_of(&stat)
}

/// Returns the length of a file in memory, all of whose pages exist, from its `stat`.
fn length_of(stat: &Stat) -> Result<usize, Refused> {
    const BLOCK: u64 = 512; // the unit of `st_blocks`
    let length = u64::try_from(stat.st_size).map_err(|_| Refused::NoMemory)?;
    if (stat.st_blocks as u64).saturating_mul(BLOCK) < length {
        return Err(Refused::Hollow);
    }
    match length {
        0 => Err(Refused::Hollow),
        1..=MAX_SLICE_BYTES => Ok(length as usize),
        _ => Err(Refused::TooLong(length)),
    }
}

/// The reason why memory from another process is refused.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The descriptor does not lead to a file in memory.
    NoMemory,
    /// The memory could still change.
    NotSealed,
    /// Not all of its pages exist.
    Hollow,
    /// This many bytes cannot be mapped.
    TooLong(u64),
    /// The kernel failed to answer.
    Kernel(Errno),
    /// The memory could not be mapped.
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rustix::fs::{MemfdFlags, memfd_create};
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
    fn memory_that_another_process_has_sealed_is_adopted() {
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
            let file = filled(4096, SHARED_SEALS.difference(missing));
            assert!(matches!(refusal(file), Refused::NotSealed), "{missing:?}");
        }
        // With this one alone, mappings that were made before can still write.
        let file = filled(
            4096,
            SHARED_SEALS.difference(SealFlags::WRITE) | SealFlags::FUTURE_WRITE,
        );
        assert!(matches!(refusal(file), Refused::NotSealed));
    }

    #[test]
    fn memory_with_holes_is_refused_because_an_access_may_raise_a_signal() {
        assert!(matches!(
            refusal(wild(1 << 20, SHARED_SEALS)),
            Refused::Hollow
        ));
        assert!(matches!(
            refusal(wild(1 << 60, SHARED_SEALS)),
            Refused::Hollow
        ));
        assert!(matches!(refusal(wild(0, SHARED_SEALS)), Refused::Hollow));
        let one_page_short = wild(3 * 4096, SealFlags::empty());
        fallocate(&one_page_short, FallocateFlags::KEEP_SIZE, 0, 2 * 4096).unwrap();
        fcntl_add_seals(&one_page_short, SHARED_SEALS).unwrap();
        assert!(matches!(refusal(one_page_short), Refused::Hollow));
    }

    #[test]
    fn pages_behind_the_end_do_not_count_for_missing_ones() {
        let elsewhere = wild(3 * 4096, SealFlags::empty());
        fallocate(&elsewhere, FallocateFlags::KEEP_SIZE, 3 * 4096, 5 * 4096).unwrap();
        fcntl_add_seals(&elsewhere, SHARED_SEALS).unwrap();
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
        assert!(length_of(&stat).is_ok_and(|length| length as u64 == MAX_SLICE_BYTES));
        stat.st_size = -1;
        assert!(matches!(length_of(&stat), Err(Refused::NoMemory)));
        // So much can be a slice, and yet there are no addresses for it.
        let file = sealed(b"short").file().try_clone().unwrap();
        assert!(Sealed::map(file, 1 << 62).is_err());
    }

    #[test]
    fn a_file_that_is_not_in_memory_is_refused() {
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
            |line: &&str| line.starts_with(&format!("{address:x}-")) && line.contains(SHARED_NAME);
        assert_eq!(maps.lines().filter(of_ours).count(), 0);
        assert!(
            fstat(&on_its_way).is_ok_and(|stat| stat.st_size == 5000),
            "{number}"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn appended_bytes_are_read_back(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..9000), 1..6)) {
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
    fn more_than_can_be_a_slice_is_an_error() {
        let mut writer = MemfdWriter::new().unwrap();
        writer.length = MAX_SLICE_BYTES;
        assert_eq!(
            writer.append(b"x").unwrap_err().kind(),
            io::ErrorKind::FileTooLarge
        );
    }
}
