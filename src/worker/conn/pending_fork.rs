//! The parent's end of the pid table: forks that a fork server was asked for and that are not known
//! to have happened.
//!
//! Each request has a [slot](crate::transport::pid_table) in the table that this process and the
//! fork server share. The slot tells the outcome of the request: a process, an error, or nothing,
//! because the fork server has ended.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::sys::mapping::Mapping;
use crate::sys::process::Pidfd;
use crate::transport::pid_table::{PidState, SLOT_COUNT, Table};

/// The table of one fork server.
pub(in crate::worker) struct PidTable {
    table: Mapping<Table>,
    free_slots: Mutex<Vec<u16>>,
    /// The fork server, which writes to the table while it lives.
    server: Arc<Pidfd>,
    /// When the fork server was last known to have answered a request.
    last_answer: Mutex<Instant>,
    /// The time that the fork server may leave requests unanswered.
    answer_timeout: Duration,
    /// The fork server was killed because it did not answer.
    given_up: AtomicBool,
}

/// A request for a fork. Dropping it frees its slot for the next request, so it must be kept until
/// the fork server has answered or ended.
pub(in crate::worker) struct PendingFork {
    table: Arc<PidTable>,
    slot: u16,
    since: Instant,
}

/// The outcome of a request for a fork.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worker) enum ForkOutcome {
    /// The fork server has not answered.
    Pending,
    /// There is, or was, a process with this number.
    Forked(u32),
    /// The kernel refused the fork with this error.
    Refused(i32),
    /// The fork server has ended without an answer.
    ServerEnded,
}

impl PidTable {
    pub(in crate::worker) fn new(
        table: Mapping<Table>,
        server: Arc<Pidfd>,
        answer_timeout: Duration,
    ) -> Arc<Self> {
        // The slots are clear; writing to them makes the kernel allocate their memory now.
        (0..SLOT_COUNT).for_each(|slot| table.clear(slot));
        Arc::new(Self {
            table,
            free_slots: Mutex::new((0..SLOT_COUNT).rev().collect()),
            server,
            last_answer: Mutex::new(Instant::now()),
            answer_timeout,
            given_up: AtomicBool::new(false),
        })
    }

    /// Takes a slot for a request. `None` if there are as many requests as slots.
    pub(in crate::worker) fn reserve(self: &Arc<Self>) -> Option<PendingFork> {
        let slot = self.free_slots().pop()?;
        Some(PendingFork {
            table: self.clone(),
            slot,
            since: Instant::now(),
        })
    }

    /// Whether the fork server has answered no request for longer than its timeout. It may not have
    /// had one.
    pub(in crate::worker) fn is_silent(&self) -> bool {
        self.last_answer().elapsed() > self.answer_timeout
    }

    /// Whether the fork server was killed because it did not answer.
    pub(in crate::worker) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }

    fn last_answer(&self) -> MutexGuard<'_, Instant> {
        self.last_answer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn free_slots(&self) -> MutexGuard<'_, Vec<u16>> {
        self.free_slots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Kills the fork server. Its context starts another one when it next needs one.
    pub(in crate::worker) fn give_up(&self) {
        if self.given_up.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Err(error) = self.server.kill() {
            tracing::warn!(%error, "a fork server cannot be killed");
        }
    }
}

impl PendingFork {
    pub(in crate::worker) fn slot(&self) -> u16 {
        self.slot
    }

    pub(in crate::worker) fn outcome(&self) -> ForkOutcome {
        match self.read() {
            // The answer may be the last thing that the fork server wrote.
            ForkOutcome::Pending if self.table.server.has_ended() => match self.read() {
                ForkOutcome::Pending => ForkOutcome::ServerEnded,
                outcome => outcome,
            },
            outcome => outcome,
        }
    }

    /// Kills the fork server if this request has waited for longer than the timeout, and no other
    /// was answered in that time. The context may still use the fork server, or may have told it to
    /// exit.
    pub(in crate::worker) fn give_up_if_overdue(&self) {
        if self.since.elapsed() > self.table.answer_timeout
            && self.table.is_silent()
            && self.outcome() == ForkOutcome::Pending
        {
            self.table.give_up();
        }
    }

    fn read(&self) -> ForkOutcome {
        match self.table.table.look(self.slot) {
            PidState::Awaited => ForkOutcome::Pending,
            PidState::Forked(pid) => ForkOutcome::Forked(pid),
            PidState::Refused(error) => ForkOutcome::Refused(error),
        }
    }
}

impl Drop for PendingFork {
    fn drop(&mut self) {
        if self.read() != ForkOutcome::Pending {
            *self.table.last_answer() = Instant::now();
        }
        self.table.table.clear(self.slot);
        self.table.free_slots().push(self.slot);
    }
}

impl fmt::Debug for PidTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PidTable").finish_non_exhaustive()
    }
}

impl fmt::Debug for PendingFork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingFork")
            .field("slot", &self.slot)
            .finish_non_exhaustive()
    }
}
