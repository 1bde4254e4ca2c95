//! A call whose argument and result have types that only its maker knows.

use std::time::Duration;

use super::cancel_policy::CancelPolicy;
use super::encode_argument::EncodeArgument;
use super::future::{Answer, RunSyncFuture, Typed};
use super::request::Request;
use crate::sync::CapacityLimiter;
use crate::transport::job::code::{Code, JobFn};
use crate::wait::CallWaits;
use crate::worker::error::WorkerError;
use crate::worker::pool::context::WorkerContext;

/// A call that nothing has polled.
pub(crate) struct UntypedCall {
    /// `None` if the function lies outside the main executable.
    pub(crate) code: Option<Code<JobFn>>,
    /// The job's name, and the waits of its call.
    pub(crate) job: &'static CallWaits,
    pub(crate) argument: Box<dyn EncodeArgument>,
    /// `None` for the context that is current at the first poll.
    pub(crate) context: Option<WorkerContext>,
    /// `None` for the default limiter.
    pub(crate) limiter: Option<CapacityLimiter>,
    /// Whether cancellation kills the worker. It waits for the job otherwise.
    pub(crate) kill_on_cancel: bool,
    pub(crate) time_limit: Option<Duration>,
}

impl UntypedCall {
    /// Makes the call, like [`run_sync`](crate::run_sync()), and returns its encoded result.
    pub(crate) async fn run(self) -> Result<Answer, WorkerError> {
        let request = Request {
            code: self.code,
            job: self.job,
            context: self.context,
            limiter: self.limiter,
            cancel_policy: if self.kill_on_cancel {
                CancelPolicy::Kill
            } else {
                CancelPolicy::Wait
            },
            time_limit: self.time_limit,
        };
        RunSyncFuture::new(request, self.argument, Typed::UNTYPED).await
    }
}
