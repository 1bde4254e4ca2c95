//! A value in memory that two processes have mapped.
//!
//! The memory is a file without a name (a memfd), sealed so that no process can shrink it: an
//! access never raises SIGBUS. Its pages are allocated at once, so that a lack of memory is an
//! error then and not at a later write.
//!
//! `unsafe` is needed to map memory and to use it as a value; see [`Mapping`]'s `Deref`.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::{self, NonNull};

use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, fcntl_get_seals, fstat,
    ftruncate, memfd_create,
};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};
use rustix::process::{Resource, getrlimit};

/// A type whose values may lie in memory that another process changes at any time.
///
/// # Safety
///
/// All fields are atomics (and padding that is never read), any bytes are a valid value, zeros are
/// the initial value, it has nothing to drop, and its alignment is at most that of a page.
pub(crate) unsafe trait Shareable: Sync {}

/// With both seals, the memory keeps its size.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);

/// Makes a file in memory, to which a process can give seals. The name is for people.
pub(super) fn memfd(name: &str) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        // Linux before 6.3 does not know this flag. Since then, an administrator may demand it.
        Err(Errno::INVAL) => Ok(memfd_create(name, flags)?),
        made => Ok(made?),
    }
}

/// A `T` in memory that is shared with another process.
#[derive(Debug)]
pub(crate) struct Mapping<T: Shareable> {
    place: NonNull<T>,
}

// SAFETY: it only gives out `&T`, and `Shareable` demands `T: Sync`. Any thread may unmap the
// memory.
unsafe impl<T: Shareable> Send for Mapping<T> {}
// SAFETY: it only gives out `&T`, and `Shareable` demands `T: Sync`.
unsafe impl<T: Shareable> Sync for Mapping<T> {}

impl<T: Shareable> Mapping<T> {
    /// Makes a zeroed value, and returns the descriptor with which another process maps it.
    pub(crate) fn make(name: &str) -> io::Result<(Self, OwnedFd)> {
        refuse_beyond_file_limit(size_of::<T>() as u64)?;
        let file = memfd(name)?;
        ftruncate(&file, size_of::<T>() as u64)?;
        fallocate(&file, FallocateFlags::empty(), 0, size_of::<T>() as u64)?;
        fcntl_add_seals(&file, SEALS | SealFlags::SEAL)?;
        Ok((Self::new(&file)?, file))
    }

    /// Maps memory that another process made for a `T`.
    pub(crate) fn find(file: impl AsFd) -> io::Result<Self> {
        let sealed = fcntl_get_seals(&file)?.contains(SEALS);
        let size = u64::try_from(fstat(&file)?.st_size).unwrap_or(0);
        if !sealed || size != size_of::<T>() as u64 {
            return Err(io::Error::other("it is not the memory that was to come"));
        }
        Self::new(&file)
    }

    /// Maps a file that is sealed and as large as `T`.
    fn new(file: impl AsFd) -> io::Result<Self> {
        // SAFETY: without an address, the kernel chooses one where nothing is mapped.
        let place = unsafe {
            mmap(
                ptr::null_mut(),
                size_of::<T>(),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                file,
                0,
            )?
        };
        let place = NonNull::new(place.cast()).expect("the kernel maps nothing at zero unasked");
        Ok(Mapping { place })
    }
}

impl<T: Shareable> Mapping<T> {
    /// Keeps the mapping out of processes that are forked from this one.
    pub(crate) fn keep_from_forks(&self) -> io::Result<()> {
        let (place, size) = (self.place.as_ptr().cast::<c_void>(), size_of::<T>());
        // SAFETY: the range is this mapping, and the advice concerns new processes only. The code
        // that forks makes sure that the new process does not access it.
        unsafe { madvise(place, size, Advice::LinuxDontFork)? };
        Ok(())
    }
}

/// Fails if a file, which includes a memfd, may not have this size. The attempt would raise
/// SIGXFSZ, which ends a process by default.
pub(crate) fn refuse_beyond_file_limit(size: u64) -> io::Result<()> {
    match getrlimit(Resource::Fsize).current {
        Some(most) if size > most => Err(io::Error::from_raw_os_error(libc::EFBIG)),
        Some(_) | None => Ok(()),
    }
}

impl<T: Shareable> Deref for Mapping<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY:
        // * The mapping is as large as a `T` and aligned to a page, which is enough by `Shareable`.
        //   It lives as long as `self`.
        // * No process can shrink a sealed file, so all of it can be read and written.
        // * Any bytes are a `T`, and writes of other threads and processes are writes to atomics,
        //   as `Shareable` demands.
        unsafe { self.place.as_ref() }
    }
}

impl<T: Shareable> Drop for Mapping<T> {
    fn drop(&mut self) {
        // SAFETY: this is its own mapping, and no borrow of it is left.
        let unmapped = unsafe { munmap(self.place.as_ptr().cast::<c_void>(), size_of::<T>()) };
        debug_assert_eq!(unmapped, Ok(()));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    struct Counter(AtomicUsize);

    // SAFETY: an atomic that begins at zero.
    unsafe impl Shareable for Counter {}

    #[test]
    fn a_write_through_one_mapping_is_seen_through_the_other() {
        let (ours, file) = Mapping::<Counter>::make("test").unwrap();
        let theirs = Mapping::<Counter>::find(&file).unwrap();
        ours.0.store(7, Ordering::Release);
        assert_eq!(theirs.0.load(Ordering::Acquire), 7);
    }

    #[test]
    fn memory_of_another_size_or_without_seals_is_refused() {
        let (_, larger) = Mapping::<Pair>::make("test").unwrap();
        assert!(Mapping::<Counter>::find(&larger).is_err());
        let unsealed = memfd_create("test", MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&unsealed, size_of::<Counter>() as u64).unwrap();
        assert!(Mapping::<Counter>::find(&unsealed).is_err());
        assert!(Mapping::<Counter>::find(std::fs::File::open("/dev/null").unwrap()).is_err());
    }

    #[test]
    fn the_memory_cannot_shrink() {
        let (_, file) = Mapping::<Counter>::make("test").unwrap();
        assert!(ftruncate(&file, 0).is_err());
    }

    struct Pair(#[expect(dead_code)] [AtomicUsize; 2]);

    // SAFETY: atomics that begin at zero.
    unsafe impl Shareable for Pair {}
}
