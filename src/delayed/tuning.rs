//! Constants of delayed values.

use std::time::Duration;

/// The number of nodes that one poll of a delayed value visits before other tasks may run. At 20 to
/// 60 ns for each, a poll takes at most about 0.2 ms.
pub(super) const STEPS_PER_POLL: usize = 4096;

/// The number of jobs of a group that must have succeeded before a limit is learned from them, as
/// in grain.
pub(super) const JOBS_BEFORE_LIMIT: u32 = 8;

/// The number of standard deviations above the mean at which a learned limit is.
pub(super) const LEARNED_DEVIATIONS: f64 = 5.0;

/// The shortest learned time limit. The times of shorter jobs are mostly those of the machine's
/// other work.
pub(super) const LEAST_LEARNED_TIME: Duration = Duration::from_secs(10);

/// The smallest learned amount of memory in bytes.
pub(super) const LEAST_LEARNED_MEMORY: u64 = 64 << 20;

/// How many of the jobs the statistics name that have what the head of the queue waits for.
pub(super) const HOLDERS_NAMED: usize = 3;
