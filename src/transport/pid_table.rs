//! The pid table: shared memory in which a parent finds the process ids of the workers that its
//! fork server forks.
//!
//! Each request has a slot. The kernel itself writes the new process id into the slot, as a part of
//! the fork and before the new process runs. So the parent can find each worker from its first
//! moment on, whichever process is killed, and no process has to report it. The workers do not
//! inherit the table, so a faulty job cannot overwrite it.
//!
//! `unsafe` is needed to declare that the table may be shared.
#![allow(unsafe_code)]

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::sys::mapping::Shareable;

/// The number of slots, and so of requests at one time: one page.
pub(crate) const SLOT_COUNT: u16 = 1024;

/// Marks an error number. Process ids are smaller.
const REFUSED: u32 = 1 << 31;

/// A slot for each request.
pub(crate) struct Table {
    slots: [AtomicU32; SLOT_COUNT as usize],
}

// SAFETY: the fields are atomics of four bytes, for which any bits are a valid value. Zeros mean
// that all slots are free.
unsafe impl Shareable for Table {}

/// The outcome of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PidState {
    /// The fork server has not forked yet.
    Awaited,
    /// It has forked a process with this id.
    Forked(u32),
    /// The kernel refused to fork, with this error.
    Refused(i32),
}

impl Table {
    pub(crate) fn look(&self, slot: u16) -> PidState {
        match self.slots[usize::from(slot)].load(Ordering::Acquire) {
            0 => PidState::Awaited,
            error if error & REFUSED != 0 => PidState::Refused((error & !REFUSED).cast_signed()),
            number => PidState::Forked(number),
        }
    }

    /// Returns the word of a slot, to which the kernel writes, or `None` if there is no such slot.
    pub(crate) fn slot(&self, slot: u64) -> Option<&AtomicU32> {
        self.slots.get(usize::try_from(slot).ok()?)
    }

    /// Clears a slot for a new request.
    pub(crate) fn clear(&self, slot: u16) {
        self.slots[usize::from(slot)].store(0, Ordering::Release);
    }
}

/// Writes into a slot that the kernel refused to fork.
pub(crate) fn refuse(slot: &AtomicU32, error: &io::Error) {
    let number = error.raw_os_error().unwrap_or(libc::EIO);
    slot.store(REFUSED | number.cast_unsigned(), Ordering::Release);
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sys::mapping::Mapping;

    #[test]
    fn a_slot_keeps_its_value_until_it_is_cleared() {
        let (table, _memory) = Mapping::<Table>::make("test").unwrap();
        assert_eq!(table.look(7), PidState::Awaited);
        table.slot(7).unwrap().store(4711, Ordering::Release);
        assert_eq!(table.look(7), PidState::Forked(4711));
        refuse(
            table.slot(8).unwrap(),
            &io::Error::from_raw_os_error(libc::EAGAIN),
        );
        assert_eq!(table.look(8), PidState::Refused(libc::EAGAIN));
        table.clear(7);
        assert_eq!(table.look(7), PidState::Awaited);
        assert!(table.slot(u64::from(SLOT_COUNT)).is_none());
    }
}
