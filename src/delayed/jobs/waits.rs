//! Which job of this process waits for the results of which others, and waits that have no end.
//!
//! A wait has no end if a job in the queue needs resources that a waiting job holds, on whose way
//! the wait lies. Two cases are told:
//!
//! * at the beginning of the wait, if the awaited job does not fit next to what the waiting one
//!   holds;
//! * as soon as every job that holds resources waits for jobs in the queue, of which none can
//!   start.
//!
//! Jobs whose waiting is not that for a delayed value count as running, so there is no false alarm
//! because of them, and no alarm either.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::delayed::value::awaiter::JobId;
use crate::delayed::value::watcher::Watcher;

/// The waits of jobs for results of others.
#[derive(Default)]
pub(super) struct Waits {
    waiting: HashMap<JobId, Waiting>,
    /// The number of waiting jobs that hold resources.
    holders: usize,
    next_number: u64,
}

/// A job that waits.
struct Waiting {
    is_holder: bool,
    waits: Vec<Wait>,
}

struct Wait {
    number: WaitNumber,
    jobs: Vec<JobId>,
    watcher: Arc<Watcher>,
}

/// Names a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WaitNumber(u64);

/// A wait that has no end.
pub(super) struct Deadlock {
    pub(super) watcher: Arc<Watcher>,
    /// A job in the queue, for which it waits.
    pub(super) job: JobId,
}

impl Waits {
    /// Adds a wait of the job `waiting` for `jobs`.
    pub(super) fn add(
        &mut self,
        waiting: JobId,
        is_holder: bool,
        jobs: Vec<JobId>,
        watcher: &Arc<Watcher>,
    ) -> WaitNumber {
        let number = WaitNumber(self.next_number);
        self.next_number += 1;
        let entry = self.waiting.entry(waiting).or_insert_with(|| {
            self.holders += usize::from(is_holder);
            Waiting {
                is_holder,
                waits: Vec::new(),
            }
        });
        entry.waits.push(Wait {
            number,
            jobs,
            watcher: watcher.clone(),
        });
        number
    }

    /// Removes a wait that has ended. Returns the watcher, to be dropped without a lock.
    #[must_use]
    pub(super) fn remove(&mut self, waiting: JobId, number: WaitNumber) -> Option<Arc<Watcher>> {
        let entry = self.waiting.get_mut(&waiting)?;
        let at = entry.waits.iter().position(|wait| wait.number == number)?;
        let wait = entry.waits.swap_remove(at);
        if entry.waits.is_empty() {
            self.holders -= usize::from(entry.is_holder);
            self.waiting.remove(&waiting);
        }
        Some(wait.watcher)
    }

    /// Removes all waits of a job that has ended. Returns the watchers, to be dropped without a
    /// lock.
    #[must_use]
    pub(super) fn remove_all(&mut self, waiting: JobId) -> Vec<Arc<Watcher>> {
        let Some(entry) = self.waiting.remove(&waiting) else {
            return Vec::new();
        };
        self.holders -= usize::from(entry.is_holder);
        entry.waits.into_iter().map(|wait| wait.watcher).collect()
    }

    /// Returns the number of waiting jobs that hold resources.
    pub(super) fn holders(&self) -> usize {
        self.holders
    }

    /// Finds a job that was waited for by `jobs`, or is among them, and of which `is_wanted` is
    /// true.
    pub(super) fn find(
        &self,
        jobs: &[JobId],
        mut is_wanted: impl FnMut(JobId) -> bool,
    ) -> Option<JobId> {
        let mut seen = HashSet::new();
        let mut to_visit = jobs.to_vec();
        while let Some(job) = to_visit.pop() {
            if is_wanted(job) {
                return Some(job);
            }
            if let Some(entry) = self.waiting.get(&job)
                && seen.insert(job)
            {
                let jobs = entry.waits.iter().flat_map(|wait| &wait.jobs);
                to_visit.extend(jobs.copied());
            }
        }
        None
    }

    /// Removes and returns the newest wait of a job that holds resources, if all such jobs wait for
    /// one that is in the queue.
    pub(super) fn take_deadlock(
        &mut self,
        mut is_queued: impl FnMut(JobId) -> bool,
    ) -> Option<Deadlock> {
        let mut newest: Option<(WaitNumber, JobId, JobId)> = None;
        for (&holder, entry) in &self.waiting {
            if !entry.is_holder {
                continue;
            }
            let mut is_stuck = false;
            for wait in &entry.waits {
                if let Some(queued) = self.find(&wait.jobs, &mut is_queued) {
                    is_stuck = true;
                    if newest.is_none_or(|(number, ..)| number < wait.number) {
                        newest = Some((wait.number, holder, queued));
                    }
                }
            }
            if !is_stuck {
                return None;
            }
        }
        let (number, holder, job) = newest?;
        let watcher = self.remove(holder, number)?;
        Some(Deadlock { watcher, job })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits among numbered jobs, of which some hold resources.
    struct Jobs {
        ids: Vec<JobId>,
        waits: Waits,
    }

    impl Jobs {
        fn new() -> Self {
            Self {
                ids: (0..6).map(|_| JobId::next()).collect(),
                waits: Waits::default(),
            }
        }

        fn wait(&mut self, waiting: usize, is_holder: bool, jobs: &[usize]) -> WaitNumber {
            let jobs = jobs.iter().map(|&job| self.ids[job]).collect();
            let watcher = Arc::new(Watcher::new());
            self.waits.add(self.ids[waiting], is_holder, jobs, &watcher)
        }

        /// Returns a queued job for which a wait cannot end.
        fn deadlock(&mut self, queued: &[usize]) -> Option<usize> {
            let ids = &self.ids;
            let is_queued = |job| queued.iter().any(|&at| ids[at] == job);
            let deadlock = self.waits.take_deadlock(is_queued)?;
            ids.iter().position(|&id| id == deadlock.job)
        }
    }

    #[test]
    fn a_chain_and_a_circle_of_waits_are_followed_once() {
        let mut jobs = Jobs::new();
        jobs.wait(0, true, &[1]);
        jobs.wait(1, false, &[2, 0]);
        assert_eq!(jobs.deadlock(&[3]), None);
        jobs.wait(2, false, &[3]);
        assert_eq!(jobs.deadlock(&[3]), Some(3));
        assert_eq!(jobs.waits.holders(), 0);
        assert_eq!(jobs.deadlock(&[3]), None);
    }

    #[test]
    fn all_holders_must_wait_for_the_queue_and_the_newest_wait_is_ended() {
        let mut jobs = Jobs::new();
        jobs.wait(0, true, &[4]);
        let other = jobs.wait(1, true, &[2]);
        assert_eq!(jobs.waits.holders(), 2);
        assert_eq!(jobs.deadlock(&[4]), None);
        jobs.wait(1, true, &[5]);
        assert_eq!(jobs.waits.holders(), 2);
        assert_eq!(jobs.deadlock(&[4, 5]), Some(5));
        assert_eq!(jobs.deadlock(&[4, 5]), None);
        let id = jobs.ids[1];
        assert!(jobs.waits.remove(id, other).is_some());
        assert!(jobs.waits.remove(id, other).is_none());
        assert_eq!(jobs.waits.holders(), 1);
        assert_eq!(jobs.waits.remove_all(jobs.ids[0]).len(), 1);
        assert_eq!(jobs.waits.holders(), 0);
    }
}
