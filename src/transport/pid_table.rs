//! Where a fork server's parent learns of the workers that are forked for it: a table that both have mapped, with a
//! place for each request.
//!
//! The kernel itself writes a new process's number into its place, as a part of the fork and before that process runs.
//! So there is no moment in which there is a worker that its parent could not find, whoever is killed meanwhile, and
//! nobody has to introduce it. The workers do not inherit the table: what a job writes astray does not get there.
//!
//! `unsafe` is needed to declare that the table may be shared.
#![allow(unsafe_code)]

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::sys::mapping::Shareable;

/// How many requests there may be at once: a page of them.
pub(crate) const PLACES: u16 = 1024;

/// Stands before the number of an error; those of processes are small.
const REFUSED: u32 = 1 << 31;

/// A place for each request.
pub(crate) struct Table {
    places: [AtomicU32; PLACES as usize],
}

// SAFETY: atomics of four bytes, which begin at zero.
unsafe impl Shareable for Table {}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Birth {
    /// Nothing so far.
    Awaited,
    /// A process with this number.
    Born(u32),
    /// The kernel refused, with this error.
    Refused(i32),
}

impl Table {
    pub(crate) fn look(&self, place: u16) -> Birth {
        match self.places[usize::from(place)].load(Ordering::Acquire) {
            0 => Birth::Awaited,
            error if error & REFUSED != 0 => Birth::Refused((error & !REFUSED).cast_signed()),
            number => Birth::Born(number),
        }
    }

    /// The word of a place, if there is such a place, for the kernel to write to.
    pub(crate) fn place(&self, place: u64) -> Option<&AtomicU32> {
        self.places.get(usize::try_from(place).ok()?)
    }

    /// Makes a place one of a new request.
    pub(crate) fn clear(&self, place: u16) {
        self.places[usize::from(place)].store(0, Ordering::Release);
    }
}

/// Notes in its place that a process could not be made.
pub(crate) fn refuse(place: &AtomicU32, error: &io::Error) {
    let number = error.raw_os_error().unwrap_or(libc::EIO);
    place.store(REFUSED | number.cast_unsigned(), Ordering::Release);
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sys::mapping::Mapping;

    #[test]
    fn a_place_tells_what_was_written_there_until_it_is_cleared() {
        let (table, _memory) = Mapping::<Table>::make("test").unwrap();
        assert_eq!(table.look(7), Birth::Awaited);
        table.place(7).unwrap().store(4711, Ordering::Release);
        assert_eq!(table.look(7), Birth::Born(4711));
        refuse(
            table.place(8).unwrap(),
            &io::Error::from_raw_os_error(libc::EAGAIN),
        );
        assert_eq!(table.look(8), Birth::Refused(libc::EAGAIN));
        table.clear(7);
        assert_eq!(table.look(7), Birth::Awaited);
        assert!(table.place(u64::from(PLACES)).is_none());
    }
}
