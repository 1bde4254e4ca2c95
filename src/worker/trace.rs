//! The `tracing` output of workers: a span for each call, and an event whenever the state of a
//! worker changes.
//!
//! All of it has the target `seedbed::worker`. It needs no cargo feature and no instrument, because
//! a call belongs to no run. Without a subscriber at that level, each place costs one load and one
//! comparison, and the span is not even a part of the call's future. [The module's docs](super)
//! list the spans and events.

use std::time::{Duration, Instant};

use tracing::field::{Empty, debug};
use tracing::{Level, Metadata, Span};

use super::end::{KillReason, WorkerEnd, describe_crash};
use super::error::WorkerError;

const TARGET: &str = "seedbed::worker";
const CALL: &str = "call";

/// Returns whether a subscriber may be interested in calls.
#[inline]
pub(in crate::worker) fn is_enabled() -> bool {
    tracing::level_enabled!(Level::DEBUG)
}

/// The span of a call. Records the outcome of the call when it is dropped.
pub(in crate::worker) struct CallSpan {
    span: Span,
    begun: Instant,
    outcome: Outcome,
}

impl CallSpan {
    pub(in crate::worker) fn begin(job: &'static str) -> Self {
        let span = tracing::debug_span!(
            target: TARGET,
            CALL,
            job,
            context = Empty,
            worker.pid = Empty,
            worker.forked = Empty,
            outcome = Empty,
            duration = Empty,
        );
        Self {
            span,
            begun: Instant::now(),
            outcome: Outcome::Cancelled,
        }
    }

    pub(in crate::worker) fn span(&self) -> &Span {
        &self.span
    }

    /// Sets the outcome. Without this, the call counts as cancelled.
    pub(in crate::worker) fn set_outcome(&mut self, error: Option<&WorkerError>) {
        self.outcome = match error {
            None => Outcome::Done,
            Some(error) => Outcome::Failed(error.kind()),
        };
    }
}

#[derive(Debug)]
enum Outcome {
    Done,
    Failed(crate::worker::error::WorkerErrorKind),
    Cancelled,
}

impl Drop for CallSpan {
    fn drop(&mut self) {
        match &self.outcome {
            Outcome::Failed(kind) => self.span.record("outcome", debug(kind)),
            outcome => self.span.record("outcome", debug(outcome)),
        };
        self.span.record("duration", debug(self.begun.elapsed()));
    }
}

/// Records in the current call's span which worker has its job.
#[inline]
pub(in crate::worker) fn given_to(context: Option<&str>, pid: u32, forked: bool) {
    if is_enabled() {
        let span = Span::current();
        // The job of a dropped call is finished in the background, where the current span is
        // another one or none.
        if span.metadata().is_some_and(is_call) {
            span.record("context", context)
                .record("worker.pid", pid)
                .record("worker.forked", forked);
        }
    }
}

fn is_call(span: &Metadata<'_>) -> bool {
    span.target() == TARGET && span.name() == CALL
}

pub(in crate::worker) fn came_up(context: Option<&str>, pid: u32, forked: bool, took: Duration) {
    tracing::debug!(target: TARGET, context, pid, forked, ?took, "a worker came up");
}

pub(in crate::worker) fn did_not_come_up(
    context: Option<&str>,
    error: &WorkerError,
    after: Duration,
) {
    tracing::warn!(target: TARGET, context, %error, ?after, "a worker did not come up");
}

pub(in crate::worker) fn start_broken_off(context: Option<&str>, after: Duration) {
    tracing::debug!(target: TARGET, context, ?after, "the start of a worker was broken off");
}

pub(in crate::worker) fn ended(
    context: Option<&str>,
    pid: u32,
    end: WorkerEnd,
    jobs: u64,
    since: Instant,
) {
    let what = describe(end);
    let age = || since.elapsed();
    match end {
        WorkerEnd::Retired
        | WorkerEnd::TimedOut
        | WorkerEnd::TimersDeleted
        | WorkerEnd::Dismissed
        | WorkerEnd::Killed(KillReason::Cancelled | KillReason::TimedOut | KillReason::Dropped) => {
            tracing::debug!(target: TARGET, context, pid, jobs, age = ?age(), "{what}");
        }
        WorkerEnd::Killed(
            KillReason::Unusable
            | KillReason::NoExit
            | KillReason::GraceOver
            | KillReason::KilledAll,
        ) => {
            tracing::warn!(target: TARGET, context, pid, jobs, age = ?age(), "{what}");
        }
        WorkerEnd::Crashed(ended) => {
            let how = describe_crash(pid, ended);
            tracing::warn!(target: TARGET, context, pid, jobs, age = ?age(), %how, "{what}");
        }
    }
}

/// Warns of a killed process that does not end. `job` is the name of its job, if it has one.
pub(in crate::worker) fn outlives_its_kill(
    context: Option<&str>,
    pid: u32,
    job: Option<&str>,
    waited: Duration,
) {
    tracing::warn!(
        target: TARGET, context, pid, job, ?waited,
        "a killed worker process does not end; it is waited for in the background from now on"
    );
}

fn describe(end: WorkerEnd) -> &'static str {
    match end {
        WorkerEnd::Retired => "a worker retired",
        WorkerEnd::TimedOut => "a worker exited after its idle timeout",
        WorkerEnd::TimersDeleted => "a worker exited because a job had deleted its CPU timers",
        WorkerEnd::Dismissed => "a worker exited because it was told to",
        WorkerEnd::Killed(KillReason::Cancelled) => "a worker was killed: its call was cancelled",
        WorkerEnd::Killed(KillReason::TimedOut) => {
            "a worker was killed: its job reached its time limit"
        }
        WorkerEnd::Killed(KillReason::KilledAll) => {
            "a worker was killed: its context was told to kill all workers"
        }
        WorkerEnd::Killed(KillReason::Dropped) => {
            "a worker was killed: its call or context was dropped"
        }
        WorkerEnd::Killed(KillReason::Unusable) => {
            "a worker was killed: it violated the protocol or its socket failed"
        }
        WorkerEnd::Killed(KillReason::NoExit) => {
            "a worker was killed: it did not exit after closing its socket or announcing its exit"
        }
        WorkerEnd::Killed(KillReason::GraceOver) => {
            "a worker was killed: it did not exit within the grace period"
        }
        WorkerEnd::Crashed(_) => "a worker crashed",
    }
}

pub(in crate::worker) fn fork_server_came_up(context: Option<&str>, pid: u32, took: Duration) {
    tracing::debug!(target: TARGET, context, pid, ?took, "a fork server came up");
}

pub(in crate::worker) fn fork_server_died(context: Option<&str>, pid: u32) {
    tracing::warn!(target: TARGET, context, pid, "a fork server died; another one is started when it is needed");
}

pub(in crate::worker) fn fork_server_does_not_answer(context: Option<&str>, pid: u32) {
    tracing::warn!(target: TARGET, context, pid, "a fork server was killed, because it does not answer");
}

pub(in crate::worker) fn fork_server_is_replaced(context: Option<&str>, pid: u32) {
    tracing::debug!(target: TARGET, context, pid, "a fork server is replaced by one that comes by another hook");
}
