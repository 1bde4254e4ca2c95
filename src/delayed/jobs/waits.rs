//! Which job of this process waits for which others, and waits that have no end.
//!
//! A wait has no end if a job in the queue needs resources that a waiting job holds, on whose way
//! the wait lies. Two cases are told:
//!
//! * at the beginning of the wait for a value, if the job that makes it does not fit next to what
//!   the waiting one holds;
//! * as soon as every job that holds resources waits for jobs in the queue, of which none can
//!   start.
//!
//! The wait for a value then ends with an error. The waits for the end of a block and for a place
//! of a limit have none to return; there, the job in the queue is refused.
//!
//! If there are several such waits, the newest is ended; if none is for a value, the job is refused
//! that the newest needs. The others are looked at again when the future has acted on that.
//!
//! A future may have several waits at once, in a `join!` or in a `select!`, which look the same
//! from here. So it waits without end if one of its waits has no end, also if that one has a time
//! limit, or another one could end it. But a future of which one wait has ended counts as running
//! until it was polled and has dropped that wait, as it may drop the others too.
//!
//! Jobs that wait for anything else count as running, so there is no false alarm because of them,
//! and no alarm either.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::delayed::value::awaiter::{JobId, Target};
use crate::delayed::value::watcher::Watcher;

/// The waits of jobs for others.
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

impl Waiting {
    /// Returns whether one of the waits has ended, so that the job runs, or will when it is polled.
    fn goes_on(&self) -> bool {
        self.waits.iter().any(|wait| wait.on.has_ended())
    }
}

struct Wait {
    number: WaitNumber,
    on: On,
}

impl Wait {
    /// Orders waits that have no end: the last one is ended. An error of a wait costs less than
    /// that of a job.
    fn rank(&self) -> (bool, WaitNumber) {
        (matches!(self.on, On::Values(..)), self.number)
    }
}

/// The goal of a wait.
pub(super) enum On {
    /// The results of jobs. The watcher is told if there are none.
    Values(Vec<JobId>, Arc<Watcher>),
    /// The end of jobs.
    Ends(Arc<dyn Target>),
}

impl On {
    /// Returns whether a wait for this has ended.
    pub(super) fn has_ended(&self) -> bool {
        match self {
            Self::Values(_, watcher) => watcher.has_ended(),
            Self::Ends(target) => target.is_reached(),
        }
    }
}

/// Names a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WaitNumber(u64);

/// A wait that has no end, because of a job in the queue.
pub(super) enum Deadlock {
    /// This wait for the job's result is to end with an error.
    Wait(Arc<Watcher>, JobId),
    /// The job is to be refused.
    Job(JobId),
}

/// Returns whether a job is the one that is looked for.
type IsWanted<'a> = &'a mut dyn FnMut(JobId) -> bool;

impl Waits {
    /// Adds a wait of the job `waiting`.
    pub(super) fn add(&mut self, waiting: JobId, is_holder: bool, on: On) -> WaitNumber {
        let number = WaitNumber(self.next_number);
        self.next_number += 1;
        let entry = self.waiting.entry(waiting).or_insert_with(|| {
            self.holders += usize::from(is_holder);
            Waiting {
                is_holder,
                waits: Vec::new(),
            }
        });
        entry.waits.push(Wait { number, on });
        number
    }

    /// Removes a wait that was dropped. Returns what it was for, to be dropped without a lock.
    #[must_use]
    pub(super) fn remove(&mut self, waiting: JobId, number: WaitNumber) -> Option<On> {
        let entry = self.waiting.get_mut(&waiting)?;
        let at = entry.waits.iter().position(|wait| wait.number == number)?;
        let wait = entry.waits.swap_remove(at);
        if entry.waits.is_empty() {
            self.holders -= usize::from(entry.is_holder);
            self.waiting.remove(&waiting);
        }
        Some(wait.on)
    }

    /// Removes all waits of a job that has ended. Returns what they were for, to be dropped without
    /// a lock.
    #[must_use]
    pub(super) fn remove_all(&mut self, waiting: JobId) -> Vec<On> {
        let Some(entry) = self.waiting.remove(&waiting) else {
            return Vec::new();
        };
        self.holders -= usize::from(entry.is_holder);
        entry.waits.into_iter().map(|wait| wait.on).collect()
    }

    /// Returns the number of waiting jobs that hold resources.
    pub(super) fn holders(&self) -> usize {
        self.holders
    }

    /// Returns whether a job waits for others.
    pub(super) fn is_waiting(&self, job: JobId) -> bool {
        self.waiting.get(&job).is_some_and(|entry| !entry.goes_on())
    }

    /// Finds a job that was waited for by `jobs`, or is among them, and of which `is_wanted` is
    /// true.
    pub(super) fn find(
        &self,
        jobs: &[JobId],
        mut is_wanted: impl FnMut(JobId) -> bool,
    ) -> Option<JobId> {
        self.search(jobs.to_vec(), &mut is_wanted, &mut HashSet::new())
    }

    fn search(
        &self,
        mut to_visit: Vec<JobId>,
        is_wanted: IsWanted<'_>,
        seen: &mut HashSet<JobId>,
    ) -> Option<JobId> {
        while let Some(job) = to_visit.pop() {
            if is_wanted(job) {
                return Some(job);
            }
            if let Some(entry) = self.waiting.get(&job)
                && seen.insert(job)
                && !entry.goes_on()
            {
                for wait in &entry.waits {
                    let found = self.expand(wait, &mut to_visit, is_wanted, seen);
                    if found.is_some() {
                        return found;
                    }
                }
            }
        }
        None
    }

    /// Adds the jobs to `to_visit` for each of which a wait waits. If it waits for one of several
    /// sets of jobs, finds a wanted job in each set, and returns one of them.
    fn expand(
        &self,
        wait: &Wait,
        to_visit: &mut Vec<JobId>,
        is_wanted: IsWanted<'_>,
        seen: &HashSet<JobId>,
    ) -> Option<JobId> {
        let target = match &wait.on {
            On::Values(jobs, _) => {
                to_visit.extend(jobs);
                return None;
            }
            On::Ends(target) => target,
        };
        let mut alternatives = target.alternatives();
        if alternatives.len() == 1 {
            to_visit.extend(alternatives.pop().into_iter().flatten());
            return None;
        }
        let mut found = None;
        for jobs in alternatives {
            found = Some(self.search(jobs, is_wanted, &mut seen.clone())?);
        }
        found
    }

    /// Finds a wait of a job that holds resources, if all such jobs wait for one that is in the
    /// queue: the newest wait for a value, or else the newest of all. The wait is recorded until it
    /// is dropped, but does not count once it has ended.
    pub(super) fn find_deadlock(
        &self,
        mut is_queued: impl FnMut(JobId) -> bool,
    ) -> Option<Deadlock> {
        let mut last: Option<(&Wait, JobId)> = None;
        for (&holder, entry) in &self.waiting {
            if !entry.is_holder {
                continue;
            }
            if entry.goes_on() {
                return None;
            }
            let mut is_stuck = false;
            for wait in &entry.waits {
                let (mut to_visit, mut seen) = (Vec::new(), HashSet::from([holder]));
                let queued = self
                    .expand(wait, &mut to_visit, &mut is_queued, &seen)
                    .or_else(|| self.search(to_visit, &mut is_queued, &mut seen));
                let Some(queued) = queued else { continue };
                is_stuck = true;
                if last.is_none_or(|(other, _)| other.rank() < wait.rank()) {
                    last = Some((wait, queued));
                }
            }
            if !is_stuck {
                return None;
            }
        }
        let (wait, job) = last?;
        Some(match &wait.on {
            On::Values(_, watcher) => Deadlock::Wait(watcher.clone(), job),
            On::Ends(_) => Deadlock::Job(job),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delayed::error::JobError;

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
            self.wait_with(waiting, is_holder, jobs).0
        }

        fn wait_with(
            &mut self,
            waiting: usize,
            is_holder: bool,
            jobs: &[usize],
        ) -> (WaitNumber, Arc<Watcher>) {
            let jobs = jobs.iter().map(|&job| self.ids[job]).collect();
            let watcher = Arc::new(Watcher::new());
            let on = On::Values(jobs, watcher.clone());
            (self.waits.add(self.ids[waiting], is_holder, on), watcher)
        }

        /// Adds a wait of a job that holds resources for the end of one of several sets of jobs.
        fn wait_for_one_of(&mut self, waiting: usize, sets: &[&[usize]]) -> WaitNumber {
            let set = |set: &&[usize]| set.iter().map(|&job| self.ids[job]).collect();
            let sets = Sets(sets.iter().map(set).collect());
            let on = On::Ends(Arc::new(sets));
            self.waits.add(self.ids[waiting], true, on)
        }

        /// Returns a queued job for which a wait cannot end. If it is a wait for a value, it ends.
        fn deadlock(&self, queued: &[usize]) -> Option<usize> {
            let ids = &self.ids;
            let is_queued = |job| queued.iter().any(|&at| ids[at] == job);
            let job = match self.waits.find_deadlock(is_queued)? {
                Deadlock::Wait(watcher, job) => {
                    watcher.give_up(JobError::cancelled("job"));
                    job
                }
                Deadlock::Job(job) => job,
            };
            ids.iter().position(|&id| id == job)
        }

        fn remove(&mut self, waiting: usize, number: WaitNumber) {
            assert!(self.waits.remove(self.ids[waiting], number).is_some());
        }
    }

    /// Sets of jobs of which one must end.
    struct Sets(Vec<Vec<JobId>>);

    impl Target for Sets {
        fn alternatives(&self) -> Vec<Vec<JobId>> {
            self.0.clone()
        }

        fn is_reached(&self) -> bool {
            self.0.is_empty()
        }
    }

    #[test]
    fn a_wait_for_one_of_several_has_no_end_if_none_of_them_has() {
        let mut jobs = Jobs::new();
        jobs.wait(3, false, &[4]);
        let several = jobs.wait_for_one_of(0, &[&[1, 2], &[3]]);
        assert_eq!(jobs.deadlock(&[2]), None);
        assert_eq!(jobs.deadlock(&[4]), None);
        assert!([2, 4].map(Some).contains(&jobs.deadlock(&[2, 4])));
        // The wait goes on, as the job is refused.
        assert!(jobs.waits.is_waiting(jobs.ids[0]));
        // A place of a limit is free, so the job goes on, although another wait of it has no end.
        let none = jobs.wait_for_one_of(0, &[]);
        assert!(!jobs.waits.is_waiting(jobs.ids[0]));
        assert_eq!(jobs.deadlock(&[2, 4]), None);
        jobs.remove(0, none);
        assert!([2, 4].map(Some).contains(&jobs.deadlock(&[2, 4])));
        jobs.remove(0, several);
        // A job that waits for a place which only itself could free finds no end of its search.
        jobs.wait_for_one_of(0, &[&[0], &[4]]);
        assert_eq!(jobs.deadlock(&[4]), None);
    }

    #[test]
    fn a_wait_for_a_value_is_ended_before_a_job_is_refused() {
        let mut jobs = Jobs::new();
        let value = jobs.wait(0, true, &[2]);
        jobs.wait_for_one_of(1, &[&[3]]);
        assert_eq!(jobs.deadlock(&[2, 3]), Some(2));
        assert_eq!(jobs.deadlock(&[2, 3]), None);
        jobs.remove(0, value);
        assert_eq!(jobs.deadlock(&[2, 3]), Some(3));
        assert_eq!(jobs.waits.holders(), 1);
    }

    #[test]
    fn the_job_is_refused_that_the_newest_wait_needs() {
        // The waits of several jobs have no order in the map.
        for _ in 0..20 {
            let mut jobs = Jobs::new();
            for waiting in [1, 0, 2] {
                jobs.wait_for_one_of(waiting, &[&[3 + waiting]]);
            }
            assert_eq!(jobs.deadlock(&[3, 4, 5]), Some(5));
            jobs.wait_for_one_of(1, &[&[4]]);
            assert_eq!(jobs.deadlock(&[3, 4, 5]), Some(4));
        }
    }

    #[test]
    fn a_job_without_resources_whose_wait_has_ended_goes_on() {
        let mut jobs = Jobs::new();
        jobs.wait(0, true, &[1]);
        jobs.wait(1, false, &[2]);
        let (other, watcher) = jobs.wait_with(1, false, &[3]);
        let is_queued = |jobs: &Jobs, job| job == jobs.ids[2];
        watcher.give_up(JobError::cancelled("job"));
        // It has not been polled, and may drop its first wait when it is.
        assert_eq!(jobs.deadlock(&[2]), None);
        let found = jobs.waits.find(&[jobs.ids[1]], |job| is_queued(&jobs, job));
        assert!(found.is_none());
        jobs.remove(1, other);
        let found = jobs.waits.find(&[jobs.ids[1]], |job| is_queued(&jobs, job));
        assert_eq!(found, Some(jobs.ids[2]));
        assert_eq!(jobs.deadlock(&[2]), Some(2));
    }

    #[test]
    fn a_chain_and_a_circle_of_waits_are_followed_once() {
        let mut jobs = Jobs::new();
        let first = jobs.wait(0, true, &[1]);
        jobs.wait(1, false, &[2, 0]);
        assert_eq!(jobs.deadlock(&[3]), None);
        jobs.wait(2, false, &[3]);
        assert_eq!(jobs.deadlock(&[3]), Some(3));
        assert_eq!(jobs.deadlock(&[3]), None);
        assert_eq!(jobs.waits.holders(), 1);
        jobs.remove(0, first);
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
        let newest = jobs.wait(1, true, &[5]);
        assert_eq!(jobs.waits.holders(), 2);
        assert_eq!(jobs.deadlock(&[4, 5]), Some(5));
        assert_eq!(jobs.deadlock(&[4, 5]), None);
        jobs.remove(1, newest);
        assert_eq!(jobs.deadlock(&[4, 5]), None);
        let id = jobs.ids[1];
        assert!(jobs.waits.remove(id, other).is_some());
        assert!(jobs.waits.remove(id, other).is_none());
        assert_eq!(jobs.waits.holders(), 1);
        assert_eq!(jobs.waits.remove_all(jobs.ids[0]).len(), 1);
        assert_eq!(jobs.waits.holders(), 0);
    }
}
