//! Which job is next: first come, first served, with a lane for prioritised jobs.
//!
//! The job at the head gets all that it asks for, or waits, and the jobs behind it wait with it: a
//! large job is never overtaken by small ones. The head of the prioritised lane comes before that
//! of the other one, also while it waits.

use std::collections::BTreeMap;
use std::time::Duration;

use super::allocation::Allocation;
use super::ledger::Ledger;
use super::request::Request;

/// Names a waiting job. A prioritised ticket is less than an ordinary one, and an older one less
/// than a newer one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TicketId {
    is_ordinary: bool,
    number: u64,
}

/// The waiting jobs, each with what its owner stores with it.
pub(crate) struct Queue<T> {
    waiting: BTreeMap<TicketId, (Request, T)>,
    next_number: u64,
}

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        Self {
            waiting: BTreeMap::new(),
            next_number: 0,
        }
    }

    /// Adds a job at the end of its lane.
    pub(crate) fn push(&mut self, request: Request, is_prioritized: bool, data: T) -> TicketId {
        let id = TicketId {
            is_ordinary: !is_prioritized,
            number: self.next_number,
        };
        self.next_number += 1;
        self.waiting.insert(id, (request, data));
        id
    }

    /// Removes a job that no longer wants to run. Returns what was stored with it, unless it has
    /// its allocation.
    pub(crate) fn remove(&mut self, id: TicketId) -> Option<T> {
        self.waiting.remove(&id).map(|(_, data)| data)
    }

    /// Returns a waiting job.
    pub(crate) fn get(&self, id: TicketId) -> Option<&(Request, T)> {
        self.waiting.get(&id)
    }

    /// Takes the allocation of the job at the head, if it fits, and removes the job.
    pub(crate) fn grant_next(
        &mut self,
        ledger: &mut Ledger,
        time_left: Option<Duration>,
    ) -> Option<(T, Allocation)> {
        let head = self.waiting.first_entry()?;
        let allocation = ledger.allocate(&head.get().0, time_left)?;
        Some((head.remove().1, allocation))
    }

    /// Removes the job at the head.
    pub(crate) fn remove_head(&mut self) -> Option<T> {
        self.waiting.pop_first().map(|(_, (_, data))| data)
    }

    /// Returns the job at the head.
    pub(crate) fn head(&self) -> Option<(&Request, &T)> {
        let (_, (request, data)) = self.waiting.first_key_value()?;
        Some((request, data))
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }
}
