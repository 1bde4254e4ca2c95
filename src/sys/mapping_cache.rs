//! The mappings of its parent's arenas that a worker keeps, and the leases of them.
//!
//! See [`arena`](super::arena) for the promise that makes it sound to read them.
//!
//! `unsafe` is needed to make slices of mapped memory, and to give the promise.
#![allow(unsafe_code)]

use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::slice;
use std::sync::Arc;
use std::time::Instant;

use rustix::fs::fcntl_get_seals;
use rustix::mm::ProtFlags;
use rustix::process::{Resource, getrlimit};

use super::arena::ARENA_SEALS;
use super::mapped::Mapped;
use super::memory::{Refused, measure};
use super::tuning::{MAX_KEPT_MAPPINGS, UNUSED_MAPPING_KEPT_FOR, UNUSED_MAPPINGS_DIVISOR};
use super::unshared::Unshared;

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
        self.0.length()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::arena::{Arena, Lent};
    use crate::sys::memory::MemfdWriter;
    use rustix::fs::{FallocateFlags, fallocate, ftruncate};
    use rustix::io::{Errno, pwrite};
    use std::io;
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
        let beyond = usize::try_from(Arena::capacity_for(5)).unwrap() + 1;
        assert!(matches!(refusal(short.file(), beyond), Refused::Hollow));
        assert!(mappings.is_empty());
    }
}
