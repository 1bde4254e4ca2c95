//! Limits that are learned from earlier jobs.

mod rule;

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use self::rule::Sample;
use crate::sys::primitives::lock;

/// A limit that is learned from the earlier jobs of a group: for
/// [`Jobs::time_limit`](crate::delayed::Jobs::time_limit) and
/// [`Jobs::memory`](crate::delayed::Jobs::memory). (Grain's `WTime(group=)`.)
///
/// A group is known by its name, and belongs to its block: a later block learns anew. Only jobs
/// that succeed are counted. The mean and the standard deviation σ are those of all of them so far.
///
/// * **Before 8 jobs have succeeded,** there is no time limit, and each job has the memory that is
///   its share: as much of the block's as it has of the block's cores.
/// * **A time limit** is then the mean + 5 σ, at least twice the mean, and at least 10 seconds. If
///   the block's [wall time](crate::delayed::Resources::wall_time) is limited, a job must still
///   have the mean + 2 σ of it when it begins, unless its request says a
///   [`WallTime`](crate::delayed::WallTime).
/// * **Memory** is then the mean of the peaks + 5 σ, at least the greatest peak and a quarter, at
///   least 64 MiB, and at most what the block has.
///
/// The memory of a job, and the wall time that it must have, are fixed when it enters the queue:
/// what is learned while it waits is for jobs that are submitted later. So of many jobs that are
/// submitted at once, each has its share. (A job of [`then`](crate::delayed::Jobs::then) enters the
/// queue when its argument is there.) A time limit is that of the moment at which the job begins.
///
/// A job that ran out of its learned memory runs once more, before all that wait, with all memory
/// of the block, and so next to no other job with memory. So its work may be done twice. Its peak
/// counts when it succeeds. If it cannot have all memory, because a future that holds some has
/// opened its block, or if the block's wall time has become too short, its error is of the kind
/// [`Impossible`](crate::delayed::JobErrorKind::Impossible).
///
/// # Examples
///
/// ```
/// use seedbed::delayed::{Cores, Learned, Memory, Resources, open};
///
/// fn zeros(mebibytes: usize) -> usize {
///     std::hint::black_box(vec![1_u8; mebibytes << 20]).len()
/// }
///
/// fn main() {
///     let resources = Resources::local().memory(Memory::gib(1));
///     seedbed::run(open(resources, async |jobs| {
///         let zeros_job = jobs.on(Cores(1)).memory(Learned::new("zeros")).time_limit(Learned::new("zeros"));
///         for _ in 0..8 {
///             zeros_job.call(zeros, 10).await.unwrap();
///         }
///         // Far more than before: this job runs twice.
///         let much = zeros_job.call(zeros, 300);
///         assert_eq!((&much).await.unwrap(), 300 << 20);
///         assert_eq!(much.statistics().unwrap().attempts, 2);
///     }));
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Learned {
    group: Arc<str>,
}

impl Learned {
    /// Makes a limit that is learned from the jobs of this group.
    ///
    /// ```
    /// use seedbed::delayed::Learned;
    ///
    /// assert_eq!(Learned::new("sweep"), Learned::new("sweep".to_owned()));
    /// ```
    pub fn new(group: impl Into<Arc<str>>) -> Self {
        Self {
            group: group.into(),
        }
    }

    pub(super) fn group(&self) -> &Arc<str> {
        &self.group
    }
}

/// A time limit of jobs: a duration, or one that is [`Learned`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use seedbed::delayed::{Learned, TimeLimit};
///
/// let fixed: TimeLimit = Duration::from_secs(5).into();
/// let learned = TimeLimit::from(Learned::new("sweep"));
/// assert_eq!(format!("{fixed:?} {learned:?}"), "5s Learned { group: \"sweep\" }");
/// ```
#[derive(Clone)]
pub struct TimeLimit(pub(super) Limit);

#[derive(Clone)]
pub(super) enum Limit {
    Fixed(Duration),
    Learned(Learned),
}

impl From<Duration> for TimeLimit {
    fn from(limit: Duration) -> Self {
        Self(Limit::Fixed(limit))
    }
}

impl From<Learned> for TimeLimit {
    fn from(learned: Learned) -> Self {
        Self(Limit::Learned(learned))
    }
}

impl fmt::Debug for TimeLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Limit::Fixed(limit) => limit.fmt(f),
            Limit::Learned(learned) => learned.fmt(f),
        }
    }
}

/// The time and memory that the jobs of a group have taken.
#[derive(Default)]
pub(super) struct Group {
    /// In seconds.
    times: Mutex<Sample>,
    /// In bytes.
    peaks: Mutex<Sample>,
}

impl Group {
    pub(super) fn learn_time(&self, time: Duration) {
        lock(&self.times).add(time.as_secs_f64());
    }

    pub(super) fn learn_peak(&self, bytes: u64) {
        lock(&self.peaks).add(bytes as f64);
    }

    pub(super) fn time_limit(&self) -> Option<Duration> {
        rule::time_limit(&lock(&self.times))
    }

    /// Returns the time that a job is expected to take at most.
    pub(super) fn expected_time(&self) -> Option<Duration> {
        rule::expected_time(&lock(&self.times))
    }

    /// Returns the memory that a job gets, in bytes.
    pub(super) fn memory(&self) -> Option<u64> {
        rule::memory(&lock(&self.peaks))
    }
}
