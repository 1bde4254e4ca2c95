//! The policy of a call for its cancellation.

use std::time::Duration;

/// The action of a call that is cancelled while a worker has its job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::worker) enum CancelPolicy {
    /// It waits for the job.
    #[default]
    Wait,
    /// It kills the worker.
    Kill,
    /// It asks the job to end, and kills the worker if that takes longer than this.
    Ask(Duration),
    /// It asks the job to end, and kills the worker if that takes longer than the context's grace
    /// period.
    AskWithinGrace,
}

impl CancelPolicy {
    /// Puts the context's grace period in.
    pub(super) fn with_grace(self, grace: Option<Duration>) -> Self {
        match self {
            Self::AskWithinGrace => Self::Ask(grace.unwrap_or(Duration::MAX)),
            _ => self,
        }
    }

    /// Returns how long a job that is asked to end may take, if it is asked.
    pub(super) fn patience(self) -> Option<Duration> {
        match self {
            Self::Ask(patience) => Some(patience),
            Self::Wait | Self::Kill | Self::AskWithinGrace => None,
        }
    }
}
