//! The options of a handle.

use std::sync::Arc;
use std::time::Duration;

use super::job_group::JobGroup;
use super::place::Place;
use crate::delayed::job_statistics::JobStatistics;
use crate::delayed::learned::Group;
use crate::delayed::value::awaiter::JobId;
use crate::resource::{Allocation, Request};
use crate::worker::WorkerContext;

/// A request that was compared with what there is.
pub(super) struct Checked {
    pub(super) request: Request,
    /// Why the request can never be met.
    pub(super) fault: Option<String>,
    pub(super) is_for_nothing: bool,
}

#[derive(Clone)]
pub(super) struct Options {
    /// The resources of a call.
    pub(super) of_call: Arc<Checked>,
    /// The resources of a future.
    pub(super) of_future: Arc<Checked>,
    pub(super) retry: u32,
    pub(super) time_limit: Option<TimeLimit>,
    /// The group from whose jobs the memory of a call is learned.
    pub(super) memory: Option<Arc<Group>>,
    pub(super) kill_on_cancel: bool,
    pub(super) is_prioritized: bool,
    /// `None` for workers of the block.
    pub(super) workers: Option<WorkerContext>,
    /// The allocations, of the same resources, of the jobs in whose futures this block was opened.
    pub(super) held_around: Arc<[Arc<Allocation>]>,
    /// The jobs of the block, if that is within another one.
    pub(super) block: Option<Arc<JobGroup>>,
    /// The place in the limit that the job counts for.
    pub(super) place: Option<Arc<Place>>,
    /// The key under which the results of calls are kept.
    pub(super) cache_key: Option<Arc<str>>,
}

/// The time limit of jobs.
#[derive(Clone)]
pub(super) enum TimeLimit {
    Fixed(Duration),
    Learned(Arc<Group>),
}

impl Options {
    /// Returns the time limit of a job that begins now.
    pub(super) fn time_limit_now(&self) -> Option<Duration> {
        match self.time_limit.as_ref()? {
            TimeLimit::Fixed(limit) => Some(*limit),
            TimeLimit::Learned(group) => group.time_limit(),
        }
    }

    /// Returns the groups that a job belongs to.
    fn groups(&self) -> impl Iterator<Item = &JobGroup> {
        let of_places = self.place.iter().flat_map(|place| place.groups());
        self.block.as_deref().into_iter().chain(of_places)
    }

    /// Adds a job to its groups.
    pub(super) fn join_groups(&self, job: JobId) {
        self.groups().for_each(|group| group.add(job));
    }

    /// Removes a job from its groups.
    pub(super) fn leave_groups(&self, job: JobId) {
        self.groups().for_each(|group| group.remove(job));
    }

    /// Learns from a job that has succeeded.
    pub(super) fn learn(&self, cost: &JobStatistics) {
        if let Some(TimeLimit::Learned(group)) = &self.time_limit {
            group.learn_time(cost.wall);
        }
        if let (Some(group), Some(peak)) = (&self.memory, cost.peak_memory) {
            group.learn_peak(peak);
        }
    }
}
