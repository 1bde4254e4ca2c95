//! The record of each worker that came up, and a context's counters of how its workers ended.
//!
//! Workers start and end seldom, and may end after their context is gone. So their counters have a
//! lock of their own, and each worker's record holds a reference to them. The record is dropped
//! with its worker, which counts the end.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::end::{EndHints, WorkerEnd};
use super::error::WorkerError;
use super::trace;
use crate::sys::process::Ended;

/// The counters of a context's workers. Each change is also a `tracing` event.
#[derive(Debug)]
pub(in crate::worker) struct WorkerCounters {
    /// The name of the context.
    name: Option<Arc<str>>,
    counts: Mutex<WorkerCounts>,
}

/// The numbers of workers that came up, and of those that ended in each way.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::worker) struct WorkerCounts {
    pub(in crate::worker) started: u64,
    pub(in crate::worker) failed_starts: u64,
    pub(in crate::worker) living: u64,
    pub(in crate::worker) retired: u64,
    pub(in crate::worker) timed_out: u64,
    pub(in crate::worker) dismissed: u64,
    pub(in crate::worker) killed: u64,
    pub(in crate::worker) crashed: u64,
}

impl WorkerCounters {
    pub(in crate::worker) fn new(name: Option<Arc<str>>) -> Arc<Self> {
        Arc::new(Self {
            name,
            counts: Mutex::default(),
        })
    }

    /// Announces that a worker is about to be started.
    pub(in crate::worker) fn expect(self: Arc<Self>) -> ExpectedWorker {
        ExpectedWorker {
            counters: Some(self),
            since: Instant::now(),
        }
    }

    /// Returns the counts of this moment.
    pub(in crate::worker) fn snapshot(&self) -> WorkerCounts {
        *self.counts()
    }

    fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    fn counts(&self) -> MutexGuard<'_, WorkerCounts> {
        // Code under this lock neither panics nor calls foreign code.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A worker that is being started. Dropping it counts a failed start.
#[derive(Debug)]
pub(in crate::worker) struct ExpectedWorker {
    /// `None` once the start has been counted.
    counters: Option<Arc<WorkerCounters>>,
    since: Instant,
}

impl ExpectedWorker {
    /// Counts a worker that is ready for jobs, and begins its record.
    pub(in crate::worker) fn came_up(mut self, pid: u32, forked: bool) -> WorkerRecord {
        let counters = self.counters.take().expect("each start is counted once");
        let mut counts = counters.counts();
        counts.started += 1;
        counts.living += 1;
        drop(counts);
        let now = Instant::now();
        trace::came_up(counters.name(), pid, forked, now - self.since);
        WorkerRecord {
            counters,
            pid,
            forked,
            since: now,
            jobs: 0,
            hints: EndHints::default(),
            counted: None,
        }
    }

    /// Counts a start that failed with this error.
    pub(in crate::worker) fn failed(mut self, error: &WorkerError) {
        if let Some(counters) = self.counters.take() {
            counters.counts().failed_starts += 1;
            trace::did_not_come_up(counters.name(), error, self.since.elapsed());
        }
    }
}

impl Drop for ExpectedWorker {
    fn drop(&mut self) {
        if let Some(counters) = self.counters.take() {
            counters.counts().failed_starts += 1;
            trace::start_broken_off(counters.name(), self.since.elapsed());
        }
    }
}

/// The record of a worker that came up.
#[derive(Debug)]
pub(in crate::worker) struct WorkerRecord {
    counters: Arc<WorkerCounters>,
    pid: u32,
    forked: bool,
    since: Instant,
    /// The number of jobs that the worker has answered.
    jobs: u64,
    pub(in crate::worker) hints: EndHints,
    /// How the worker ended, once its end has been counted.
    counted: Option<WorkerEnd>,
}

impl WorkerRecord {
    pub(in crate::worker) fn context_name(&self) -> Option<&str> {
        self.counters.name()
    }

    pub(in crate::worker) fn count_job(&mut self) {
        self.jobs += 1;
    }

    /// Records the worker in the `tracing` span of the current call.
    pub(in crate::worker) fn trace_job(&self) {
        trace::given_to(self.counters.name(), self.pid, self.forked);
    }

    /// Counts the end of the worker, unless it has been counted; `None` if its process is about to
    /// be killed.
    pub(in crate::worker) fn count_end(&mut self, ended: Option<Ended>) -> WorkerEnd {
        if let Some(end) = self.counted {
            return end;
        }
        let end = self.hints.classify(ended);
        self.counted = Some(end);
        let mut counts = self.counters.counts();
        counts.living -= 1;
        *match end {
            WorkerEnd::Retired | WorkerEnd::TimersDeleted => &mut counts.retired,
            WorkerEnd::TimedOut => &mut counts.timed_out,
            WorkerEnd::Dismissed => &mut counts.dismissed,
            WorkerEnd::Killed(_) => &mut counts.killed,
            WorkerEnd::Crashed(_) => &mut counts.crashed,
        } += 1;
        end
    }

    /// Counts the end of the worker, and reports it as a `tracing` event.
    pub(in crate::worker) fn end(mut self, ended: Option<Ended>) {
        let end = self.count_end(ended);
        trace::ended(self.counters.name(), self.pid, end, self.jobs, self.since);
    }
}
