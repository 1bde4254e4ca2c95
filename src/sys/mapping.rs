//! A value that two processes have mapped: made here, or found in memory that came from there.
//!
//! The memory is a file without a name, sealed so that nobody can shrink it: a mapping of it never raises SIGBUS. Its
//! pages are allocated when it is made, so that a machine without memory says so then and not at some later write.
//!
//! Where no file may be as large (`ulimit -f`), there are System V's segments, which are none, and keep their size,
//! too. They are the second choice, because they have numbers in place of descriptors, and so can be found by whoever
//! has the same user; and their pages are allocated when they are first written.
//!
//! `unsafe` is needed to look at mapped memory as at a value, which is argued in [`Mapping::new`].
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
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};
use rustix::process::{Resource, getrlimit};
use serde::{Deserialize, Serialize};

/// A type that may lie in memory which another process changes meanwhile, whatever it writes there.
///
/// # Safety
///
/// All of it are atomics (and padding that nobody reads), any bytes are a value of it, all zeros are the one it begins
/// with, it has nothing to drop, and its alignment is at most that of a page.
pub(crate) unsafe trait Shareable: Sync {}

/// Neither may be missing: with both, the memory keeps its size for ever.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);

/// The kernel's number for shared memory that is no file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Segment(i32);

/// A `T` in memory that is shared with another process.
#[derive(Debug)]
pub(crate) struct Mapping<T: Shareable> {
    place: NonNull<T>,
}

// SAFETY: it gives out `&T` alone, and `Shareable` asks for `T: Sync`; unmapping is right from any thread.
unsafe impl<T: Shareable> Send for Mapping<T> {}
// SAFETY: as above.
unsafe impl<T: Shareable> Sync for Mapping<T> {}

impl<T: Shareable> Mapping<T> {
    /// Makes one of zeros, and what another process needs to find it.
    pub(crate) fn make(name: &str) -> io::Result<(Self, OwnedFd)> {
        refuse_beyond_file_limit(size_of::<T>() as u64)?;
        let file = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&file, size_of::<T>() as u64)?;
        fallocate(&file, FallocateFlags::empty(), 0, size_of::<T>() as u64)?;
        fcntl_add_seals(&file, SEALS | SealFlags::SEAL)?;
        Ok((Self::new(&file)?, file))
    }

    /// Makes one of zeros where no file may be as large, and what a child process needs to find it as long as it is here.
    pub(crate) fn make_segment() -> io::Result<(Self, Segment)> {
        // SAFETY: this concerns no memory of this process.
        let segment = unsafe { libc::shmget(libc::IPC_PRIVATE, size_of::<T>(), 0o600) };
        if segment < 0 {
            return Err(io::Error::last_os_error());
        }
        let segment = Segment(segment);
        let found = Self::find_segment(segment);
        // SAFETY: asks for nothing to be written. From now on the segment ends with the last mapping of it, and yet may
        // be mapped until then.
        unsafe { libc::shmctl(segment.0, libc::IPC_RMID, ptr::null_mut()) };
        Ok((found?, segment))
    }

    /// Finds one in a segment that another process made of a `T`.
    pub(crate) fn find_segment(Segment(segment): Segment) -> io::Result<Self> {
        // SAFETY: a new mapping at a place that the kernel chooses harms nobody.
        let place = unsafe { libc::shmat(segment, ptr::null(), 0) };
        if place.addr() == usize::MAX {
            return Err(io::Error::last_os_error());
        }
        let place = NonNull::new(place.cast()).expect("the kernel maps nothing at zero unasked");
        Ok(Mapping { place })
    }

    /// Finds one in memory that another process made.
    pub(crate) fn find(file: impl AsFd) -> io::Result<Self> {
        let sealed = fcntl_get_seals(&file)?.contains(SEALS);
        let size = u64::try_from(fstat(&file)?.st_size).unwrap_or(0);
        if !sealed || size != size_of::<T>() as u64 {
            return Err(io::Error::other("it is not the memory that was to come"));
        }
        Self::new(&file)
    }

    /// Of memory that is sealed and as large as `T`.
    fn new(file: impl AsFd) -> io::Result<Self> {
        // SAFETY: a new mapping at a place that the kernel chooses harms nobody.
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
    /// Lets copies of this process, made by a fork, do without it.
    pub(crate) fn keep_from_copies(&self) -> io::Result<()> {
        let (place, size) = (self.place.as_ptr().cast::<c_void>(), size_of::<T>());
        // SAFETY: this advice concerns new processes only, and this very mapping, as long as it is. In a copy nobody
        // may look at it; whoever forks sees to that.
        unsafe { madvise(place, size, Advice::LinuxDontFork)? };
        Ok(())
    }
}

/// Fails where a file may not be as large, memory that is a file included. To find that out by trying is deadly: the
/// kernel sends SIGXFSZ, which ends a process that has not seen to it.
pub(crate) fn refuse_beyond_file_limit(size: u64) -> io::Result<()> {
    match getrlimit(Resource::Fsize).current {
        Some(most) if size > most => Err(io::Error::from_raw_os_error(libc::EFBIG)),
        Some(_) | None => Ok(()),
    }
}

impl<T: Shareable> Deref for Mapping<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the mapping is as large as a `T` and aligned to a page, which by `Shareable` is enough; it lives as
        // long as `self`, and nobody can make a sealed file, or a segment, any shorter. Any bytes are a `T`, and what
        // others write meanwhile, here or in another process, they write to atomics.
        unsafe { self.place.as_ref() }
    }
}

impl<T: Shareable> Drop for Mapping<T> {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that was made for it, and nobody borrows from it any more.
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
    fn what_is_written_through_one_mapping_is_seen_through_the_other() {
        let (ours, file) = Mapping::<Counter>::make("test").unwrap();
        let theirs = Mapping::<Counter>::find(&file).unwrap();
        ours.0.store(7, Ordering::Release);
        assert_eq!(theirs.0.load(Ordering::Acquire), 7);
    }

    #[test]
    fn a_segment_is_shared_like_a_file_and_is_gone_with_its_mappings() {
        let (ours, segment) = Mapping::<Counter>::make_segment().unwrap();
        let theirs = Mapping::<Counter>::find_segment(segment).unwrap();
        ours.0.store(7, Ordering::Release);
        drop(ours);
        assert_eq!(theirs.0.load(Ordering::Acquire), 7);
        drop(theirs);
        assert!(Mapping::<Counter>::find_segment(segment).is_err());
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
    fn nobody_can_shrink_it() {
        let (_, file) = Mapping::<Counter>::make("test").unwrap();
        assert!(ftruncate(&file, 0).is_err());
    }

    struct Pair(#[expect(dead_code)] [AtomicUsize; 2]);

    // SAFETY: atomics that begin at zero.
    unsafe impl Shareable for Pair {}
}
