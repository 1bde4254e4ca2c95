//! A call as its caller described it, before its first poll. Its argument is not part of it.

use std::time::Duration;

use super::cancel_policy::CancelPolicy;
use crate::sync::CapacityLimiter;
use crate::transport::job::code::{Code, JobFn};
use crate::wait::CallWaits;
use crate::worker::pool::context::WorkerContext;

/// A call that has not been polled.
pub(super) struct Request {
    /// `None` if the function lies outside the main executable.
    pub(super) code: Option<Code<JobFn>>,
    /// The job's name, and the waits of its call.
    pub(super) job: &'static CallWaits,
    /// `None` for the context that is current at the first poll.
    pub(super) context: Option<WorkerContext>,
    /// `None` for the default limiter.
    pub(super) limiter: Option<CapacityLimiter>,
    pub(super) cancel_policy: CancelPolicy,
    /// The time that the job may take in its worker.
    pub(super) time_limit: Option<Duration>,
}
