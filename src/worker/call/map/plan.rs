//! A map as its caller described it.

use std::time::Duration;

use crate::sync::CapacityLimiter;
use crate::transport::job::code::{Code, JobFn};
use crate::worker::error::WorkerError;
use crate::worker::pool::context::WorkerContext;

/// The settings of a map that has not begun.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) job_name: &'static str,
    /// The code of sessions and that of single calls. `None` if the function lies outside the main
    /// executable.
    pub(super) code: Option<MapCode>,
    /// `None` for the context that is current when the map begins.
    pub(super) context: Option<WorkerContext>,
    /// `None` for the limiter of the context, or the default one.
    pub(super) limiter: Option<CapacityLimiter>,
    pub(super) chunk: Option<usize>,
    pub(super) kill_on_cancel: bool,
    pub(super) time_limit: Option<Duration>,
    pub(super) retries: u32,
}

/// The code of a map.
#[derive(Clone, Copy, Debug)]
pub(super) struct MapCode {
    pub(super) session: Code<JobFn>,
    pub(super) single: Code<JobFn>,
}

/// The settings of a map that has begun.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) job_name: &'static str,
    pub(super) context: WorkerContext,
    pub(super) limiter: CapacityLimiter,
    pub(super) chunk: Option<usize>,
    pub(super) kill_on_cancel: bool,
    pub(super) time_limit: Option<Duration>,
    pub(super) retries: u32,
}

impl Plan {
    /// Names the job, its context and the item in an error.
    pub(super) fn named(&self, error: WorkerError, index: usize) -> WorkerError {
        error
            .of_job(self.job_name)
            .of_context(self.context.config().context_name())
            .of_item(index)
    }

    /// Returns how many workers the map may use.
    pub(super) fn workers(&self) -> usize {
        let total = self.limiter.total();
        let processors = || std::thread::available_parallelism().map_or(1, |count| count.get());
        total
            .unwrap_or_else(processors)
            .clamp(1, crate::worker::tuning::MAP_WORKERS)
    }
}
