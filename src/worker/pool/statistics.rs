//! The statistics of a context, and the counters of its calls.
//!
//! A call is counted when it ends, under the lock that it takes anyway to give back its worker. A
//! warm call reads no clock; one that waited for its limiter reads it twice.
//!
//! Invariants: each worker that came up is alive or has ended in exactly one of five ways; each
//! call that began is running or has ended in exactly one of three.

use std::time::Duration;

use crate::worker::record::WorkerCounts;

/// The numbers of workers and calls of a context since it was opened. (A new [default
/// configuration](crate::worker::configure_default_context) opens a new context.)
///
/// For workers, `started == living + retired + timed_out + dismissed + killed + crashed`. The end
/// of a worker is counted at once, also while it is idle. A fork server does not count as a worker.
///
/// Each call that has its limiter token counts in `running_workers`, and afterwards in one of
/// `jobs_done`, `jobs_failed` and `jobs_cancelled`.
///
/// # Examples
///
/// ```
/// use seedbed::{WorkerConfig, open_worker_context};
///
/// fn divide((a, b): (u32, u32)) -> u32 {
///     a / b
/// }
///
/// fn main() {
///     seedbed::init();
///     smol::block_on(open_worker_context(WorkerConfig::new(), |workers| async move {
///         workers.run_sync(divide, (6, 3)).await.unwrap();
///         workers.run_sync(divide, (6, 0)).await.unwrap_err();
///         let statistics = workers.statistics();
///         assert_eq!((statistics.jobs_done, statistics.jobs_failed), (1, 1));
///         assert_eq!((statistics.started, statistics.idle_workers), (1, 1));
///
///         workers.shutdown().await.unwrap();
///         let statistics = workers.statistics();
///         assert_eq!((statistics.living, statistics.dismissed), (0, 1));
///     }));
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerStatistics {
    /// Workers that wait for a job. None of them had ended when the statistics were taken.
    pub idle_workers: usize,
    /// Calls in progress: they have their limiter token and have not ended. Their worker may still
    /// be starting.
    pub running_workers: usize,
    /// Workers that came up: their `init` closures have run, and they were ready for their first
    /// job.
    pub started: u64,
    /// Starts of workers that failed: the kernel refused a process, it did not reach the hook, an
    /// `init` closure panicked, or the call was cancelled during the start. They count nowhere
    /// else.
    pub failed_starts: u64,
    /// Workers that came up and are not known to have ended: idle, working or exiting.
    pub living: u64,
    /// Workers that exited because a [`retire`](crate::WorkerConfig::retire) closure returned true,
    /// because they had run their last job, or because a job had deleted the timers of their
    /// [`cpu_limit`](crate::WorkerConfig::cpu_limit).
    pub retired: u64,
    /// Workers that exited because they had been idle for the
    /// [`idle_timeout`](crate::WorkerConfig::idle_timeout).
    pub timed_out: u64,
    /// Workers that exited because they were told to: their context was shut down, or the last run
    /// ended.
    pub dismissed: u64,
    /// Workers that this library killed: their call was cancelled or dropped, their job reached its
    /// time limit, they did not exit in time, or they violated the protocol. A killed worker counts
    /// at once, and may be reaped later, in the background.
    pub killed: u64,
    /// Workers that ended in any other way: they exited or were killed by a signal, with a job or
    /// idle, or a `retire` closure panicked.
    pub crashed: u64,
    /// Jobs that returned and whose result arrived. This includes results that could not be
    /// decoded, results of dropped calls, and jobs whose value is an `Err`.
    pub jobs_done: u64,
    /// Calls that had their limiter token and ended with an error, also after their caller was
    /// dropped. Errors of the kind [`DecodeResult`](crate::worker::WorkerErrorKind::DecodeResult)
    /// count as `jobs_done`.
    pub jobs_failed: u64,
    /// Calls among `jobs_failed` whose job reached its
    /// [time limit](crate::worker::RunSync::time_limit).
    pub jobs_timed_out: u64,
    /// Calls that had their limiter token and were cancelled or dropped, and were not finished in
    /// the background: their worker was killed, or no worker had the job yet.
    pub jobs_cancelled: u64,
    /// Bytes of encoded arguments that were handed to workers. Each call counts once, even if
    /// several workers were tried.
    pub bytes_sent: u64,
    /// Bytes of encoded results that arrived.
    pub bytes_received: u64,
    /// Calls that had to wait for a token of their limiter, and got it.
    pub queued: u64,
    /// The total time that calls have waited for their limiter.
    pub queue_wait_total: Duration,
    /// The longest time that a single call waited for its limiter.
    pub queue_wait_max: Duration,
}

/// The counters of a context's calls.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::worker) struct CallCounters {
    done: u64,
    failed: u64,
    timed_out: u64,
    cancelled: u64,
    sent: u64,
    received: u64,
    queued: u64,
    wait_total: Duration,
    wait_max: Duration,
}

/// The entry of one call, which is added to the counters when the call ends.
#[derive(Debug, Default)]
pub(in crate::worker) struct CallAccount {
    pub(in crate::worker) outcome: CallOutcome,
    pub(in crate::worker) timed_out: bool,
    pub(in crate::worker) sent: usize,
    pub(in crate::worker) received: usize,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::worker) enum CallOutcome {
    /// The call was cancelled or dropped. Every call begins with this outcome.
    #[default]
    Cancelled,
    Done,
    Failed,
}

impl CallAccount {
    /// The entry of a call that failed before a worker was tried.
    pub(in crate::worker) fn failed() -> Self {
        Self {
            outcome: CallOutcome::Failed,
            ..Self::default()
        }
    }
}

impl CallCounters {
    pub(in crate::worker) fn wait(&mut self, wait: Duration) {
        self.queued += 1;
        self.wait_total = self.wait_total.saturating_add(wait);
        self.wait_max = self.wait_max.max(wait);
    }

    pub(in crate::worker) fn end(&mut self, call: &CallAccount) {
        match call.outcome {
            CallOutcome::Cancelled => self.cancelled += 1,
            CallOutcome::Done => self.done += 1,
            CallOutcome::Failed => self.failed += 1,
        }
        self.timed_out += u64::from(call.timed_out);
        self.sent += call.sent as u64;
        self.received += call.received as u64;
    }
}

impl WorkerStatistics {
    pub(in crate::worker) fn new(workers: &WorkerCounts, calls: &CallCounters) -> Self {
        Self {
            idle_workers: 0,
            running_workers: 0,
            started: workers.started,
            failed_starts: workers.failed_starts,
            living: workers.living,
            retired: workers.retired,
            timed_out: workers.timed_out,
            dismissed: workers.dismissed,
            killed: workers.killed,
            crashed: workers.crashed,
            jobs_done: calls.done,
            jobs_failed: calls.failed,
            jobs_timed_out: calls.timed_out,
            jobs_cancelled: calls.cancelled,
            bytes_sent: calls.sent,
            bytes_received: calls.received,
            queued: calls.queued,
            queue_wait_total: calls.wait_total,
            queue_wait_max: calls.wait_max,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_counted_and_summed_and_the_longest_is_kept() {
        let mut calls = CallCounters::default();
        for seconds in [3, 5, 1] {
            calls.wait(Duration::from_secs(seconds));
        }
        let statistics = WorkerStatistics::new(&WorkerCounts::default(), &calls);
        assert_eq!(statistics.queued, 3);
        assert_eq!(statistics.queue_wait_total, Duration::from_secs(9));
        assert_eq!(statistics.queue_wait_max, Duration::from_secs(5));
    }
}
