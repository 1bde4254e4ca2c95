//! What workers tell to `tracing`: a span for each call, and an event at each turn of a worker's life.
//!
//! All of it has the target `seedbed::worker`. It needs no cargo feature and no instrument, because a call belongs to
//! no run: where nobody listens at that level, a place like these costs one load and one comparison, and the span is
//! not even a part of the call's future. [The module's docs](super) list what is told.

use std::future::Future;
use std::time::{Duration, Instant};

use tracing::field::{Empty, debug};
use tracing::{Instrument, Level, Metadata, Span};

use super::error::WorkerError;
use super::pool::statistics::{Fate, Why};

const TARGET: &str = "seedbed::worker";
const CALL: &str = "call";

/// Whether somebody may listen to calls.
#[inline]
pub(in crate::worker) fn listens() -> bool {
    tracing::level_enabled!(Level::DEBUG)
}

/// Lets a call have its span.
pub(in crate::worker) async fn spanned<R>(
    job: &'static str,
    call: impl Future<Output = Result<R, WorkerError>>,
) -> Result<R, WorkerError> {
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
    // Dropped after the call is.
    let mut end = End {
        span: span.clone(),
        begun: Instant::now(),
        outcome: Outcome::Cancelled,
    };
    let result = call.instrument(span).await;
    end.outcome = match &result {
        Ok(_) => Outcome::Done,
        Err(error) => Outcome::Failed(error.kind()),
    };
    result
}

/// Writes into a call's span how it ended.
struct End {
    span: Span,
    begun: Instant,
    outcome: Outcome,
}

#[derive(Debug)]
enum Outcome {
    Done,
    Failed(crate::worker::error::WorkerErrorKind),
    Cancelled,
}

impl Drop for End {
    fn drop(&mut self) {
        match &self.outcome {
            Outcome::Failed(kind) => self.span.record("outcome", debug(kind)),
            outcome => self.span.record("outcome", debug(outcome)),
        };
        self.span.record("duration", debug(self.begun.elapsed()));
    }
}

/// Writes into the span of the call that is polled which worker has its job.
#[inline]
pub(in crate::worker) fn given_to(context: Option<&str>, pid: u32, forked: bool) {
    if listens() {
        let span = Span::current();
        // A job that nobody waits for any more is finished in no call's span, but perhaps in another one.
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
    fate: Fate,
    jobs: u64,
    since: Instant,
) {
    let what = words_for(fate);
    // Only where it is told: whoever reads the clock pays for it.
    let age = || since.elapsed();
    match fate {
        Fate::Retired
        | Fate::TimedOut
        | Fate::Dismissed
        | Fate::Killed(Why::Cancelled | Why::Dropped) => {
            tracing::debug!(target: TARGET, context, pid, jobs, age = ?age(), "{what}");
        }
        Fate::Killed(Why::Useless | Why::LivedOn | Why::GraceOver) => {
            tracing::warn!(target: TARGET, context, pid, jobs, age = ?age(), "{what}");
        }
        Fate::Crashed(ended) => {
            let how = Fate::of_crash(pid, ended);
            tracing::warn!(target: TARGET, context, pid, jobs, age = ?age(), %how, "{what}");
        }
    }
}

fn words_for(fate: Fate) -> &'static str {
    match fate {
        Fate::Retired => "a worker retired",
        Fate::TimedOut => "a worker left that had been idle for too long",
        Fate::Dismissed => "a worker left as it was told to",
        Fate::Killed(Why::Cancelled) => "a worker was killed: its call was cancelled",
        Fate::Killed(Why::Dropped) => "a worker was killed: its call or context was dropped",
        Fate::Killed(Why::Useless) => "a worker was killed: there was no talking to it",
        Fate::Killed(Why::LivedOn) => {
            "a worker was killed: it had closed its socket or said good-bye, and lived on"
        }
        Fate::Killed(Why::GraceOver) => "a worker was killed: it did not leave in time",
        Fate::Crashed(_) => "a worker crashed",
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
