//! The workers that a fork server was asked for, and of which nothing is known yet.
//!
//! Each has a [place](crate::wire::births) in the table that this process and the fork server share, from the moment in which
//! it is asked for until it is known what became of it: a process, an error, or nothing, because the fork server has ended.

use std::sync::{Arc, Mutex, PoisonError};

use crate::sys::mapping::Mapping;
use crate::sys::process::Pidfd;
use crate::wire::births::{Birth, PLACES, Table};

/// The table of one fork server.
pub(super) struct Births {
    table: Mapping<Table>,
    free: Mutex<Vec<u16>>,
    /// Writes to the table as long as it lives.
    server: Arc<Pidfd>,
}

/// A place in the table. It must be kept until its request is over, as whoever has it next is taken for this one otherwise.
pub(super) struct Awaited {
    births: Arc<Births>,
    place: u16,
}

/// What became of a worker that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nothing so far.
    Open,
    /// It is there, or was.
    Born(u32),
    /// There is none, because the kernel refused it with this error.
    Refused(i32),
    /// There is none, because the fork server has ended.
    Never,
}

impl Births {
    pub(super) fn new(table: Mapping<Table>, server: Arc<Pidfd>) -> Arc<Self> {
        Arc::new(Births {
            table,
            free: Mutex::new((0..PLACES).rev().collect()),
            server,
        })
    }

    /// Takes a place, if there is one left.
    pub(super) fn expect(self: &Arc<Self>) -> Option<Awaited> {
        let place = self.free().pop()?;
        Some(Awaited {
            births: self.clone(),
            place,
        })
    }

    fn free(&self) -> std::sync::MutexGuard<'_, Vec<u16>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Awaited {
    pub(super) fn place(&self) -> u16 {
        self.place
    }

    pub(super) fn fate(&self) -> Fate {
        // It may have written as the last thing that it did.
        match (self.look(), || self.births.server.has_ended()) {
            (Fate::Open, ended) if ended() => match self.look() {
                Fate::Open => Fate::Never,
                fate => fate,
            },
            (fate, _) => fate,
        }
    }

    fn look(&self) -> Fate {
        match self.births.table.look(self.place) {
            Birth::Awaited => Fate::Open,
            Birth::Born(number) => Fate::Born(number),
            Birth::Refused(error) => Fate::Refused(error),
        }
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.births.table.clear(self.place);
        self.births.free().push(self.place);
    }
}

impl std::fmt::Debug for Births {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Births").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Awaited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Awaited")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}
