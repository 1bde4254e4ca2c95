//! The workers that a fork server was asked for, and of which nothing is known yet.
//!
//! Each has a [place](crate::transport::pid_table) in the table that this process and the fork server share, from the moment in
//! which it is asked for until it is known what became of it: a process, an error, or nothing, because the fork server
//! has ended.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::sys::mapping::Mapping;
use crate::sys::process::Pidfd;
use crate::transport::pid_table::{Birth, PLACES, Table};

/// The table of one fork server.
pub(in crate::worker) struct Births {
    table: Mapping<Table>,
    free: Mutex<Vec<u16>>,
    /// Writes to the table as long as it lives.
    server: Arc<Pidfd>,
    /// When it was last known to have done something.
    heard: Mutex<Instant>,
}

/// A place in the table. It must be kept until its request is over, as whoever has it next is taken for this one otherwise.
pub(in crate::worker) struct Awaited {
    births: Arc<Births>,
    place: u16,
    since: Instant,
}

/// What became of a worker that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worker) enum Fate {
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
    pub(in crate::worker) fn new(table: Mapping<Table>, server: Arc<Pidfd>) -> Arc<Self> {
        // They are as they should be; but now there is memory for them.
        (0..PLACES).for_each(|place| table.clear(place));
        Arc::new(Births {
            table,
            free: Mutex::new((0..PLACES).rev().collect()),
            server,
            heard: Mutex::new(Instant::now()),
        })
    }

    /// Takes a place, if there is one left.
    pub(in crate::worker) fn expect(self: &Arc<Self>) -> Option<Awaited> {
        let place = self.free().pop()?;
        Some(Awaited {
            births: self.clone(),
            place,
            since: Instant::now(),
        })
    }

    /// For how long the fork server has given no sign of life. (Nobody may have asked it for one.)
    pub(in crate::worker) fn quiet_for(&self) -> Duration {
        self.heard().elapsed()
    }

    fn heard(&self) -> MutexGuard<'_, Instant> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn free(&self) -> MutexGuard<'_, Vec<u16>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Awaited {
    pub(in crate::worker) fn place(&self) -> u16 {
        self.place
    }

    pub(in crate::worker) fn fate(&self) -> Fate {
        match self.look() {
            // It may have written as the last thing that it did.
            Fate::Open if self.births.server.has_ended() => match self.look() {
                Fate::Open => Fate::Never,
                fate => fate,
            },
            fate => fate,
        }
    }

    /// For how long this has been waited for, and the fork server has done nothing else either.
    pub(in crate::worker) fn overdue_for(&self) -> Duration {
        match self.fate() {
            Fate::Open => self.since.elapsed().min(self.births.quiet_for()),
            Fate::Born(_) | Fate::Refused(_) | Fate::Never => Duration::ZERO,
        }
    }

    /// Kills the fork server, upon which there is nothing to wait for.
    pub(in crate::worker) fn kill_server(&self) {
        if let Err(error) = self.births.server.kill() {
            tracing::warn!(%error, "a fork server cannot be killed");
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
        if self.look() != Fate::Open {
            *self.births.heard() = Instant::now();
        }
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
