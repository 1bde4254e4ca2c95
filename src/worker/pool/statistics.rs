//! What a context counts: its calls, and the lives of its workers.
//!
//! A call is counted when it ends, under the lock that its end takes anyway: warm calls pay for some additions and read no
//! clock. One that had to wait for its limiter reads the clock twice. Workers come up and end seldom, and may end when their
//! context is gone; so their counts have a lock of their own, and each worker a handle on it, its [`Life`], which is dropped
//! with the worker and counted then: a worker cannot end uncounted.
//!
//! Invariants, at every moment: what came up is alive or has ended in one of five ways; what was begun is running or has
//! ended in one of three.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::sys::process::Ended;
use crate::worker::error::{WorkerError, WorkerExit};
use crate::worker::trace;

/// What the workers of a context do and have done, since the context was made. (A new
/// [default configuration](crate::worker::configure_default_context) makes a new context.)
///
/// Of workers: `started == living + retired + timed_out + dismissed + killed + crashed`. A worker is counted as ended
/// when its end has been noticed: at once if it is at work or on its way out, and, if it is idle, when it is drawn for
/// a call or looked at, which is done from the longest idle one on, up to the first that lives. A fork server is no
/// worker.
///
/// Of calls: each that is past its limiter counts in `running_workers`, and then in one of `jobs_done`, `jobs_failed` and
/// `jobs_cancelled`.
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
    /// Workers that wait for a job. Some may have left or ended unnoticed.
    pub idle_workers: usize,
    /// Calls in progress: past their limiter and not over, those whose worker is still starting included.
    pub running_workers: usize,
    /// Workers that came up: their `init` closures have run, and they were ready for their first job.
    pub started: u64,
    /// Workers that were wanted and did not come up, for whatever reason: there was no process to be had, it did not get to
    /// the hook, an `init` closure panicked, or the call was cancelled meanwhile. They count nowhere else.
    pub failed_starts: u64,
    /// Workers that came up and are not known to have ended: those that are idle, those that have a job, and those on their
    /// way out.
    pub living: u64,
    /// Workers that left because a [`retire`](crate::WorkerConfig::retire) closure said so.
    pub retired: u64,
    /// Workers that left because they had been idle for the [`idle_timeout`](crate::WorkerConfig::idle_timeout).
    pub timed_out: u64,
    /// Workers that left because they were told to: their context was shut down, or the last run ended.
    pub dismissed: u64,
    /// Workers that this library killed: because their call was cancelled or dropped, because they did not leave in time, or
    /// because there was no talking to them. One that is dropped counts at once, and is reaped in the background.
    pub killed: u64,
    /// Workers that ended in any other way: they exited or were ended by a signal, with a job or idle, or a `retire` closure
    /// panicked.
    pub crashed: u64,
    /// Jobs that returned and whose result arrived, also where nobody waited for it any more or where it could not be
    /// decoded. A job that returns an `Err` of its own is done.
    pub jobs_done: u64,
    /// Calls past their limiter that came to an error, of whatever [kind](crate::worker::WorkerErrorKind) (but
    /// [`DecodeResult`](crate::worker::WorkerErrorKind::DecodeResult), see above), also where nobody waited for it any more.
    pub jobs_failed: u64,
    /// Calls past their limiter that were cancelled or dropped and not finished in the background: their worker was
    /// killed, or none had the job yet.
    pub jobs_cancelled: u64,
    /// Bytes of encoded arguments that were handed to workers; of each call once, however many workers it met.
    pub bytes_sent: u64,
    /// Bytes of encoded results that arrived.
    pub bytes_received: u64,
    /// Calls that had to wait for a token of their limiter, and got it.
    pub queued: u64,
    /// For how long those waited together.
    pub queue_wait_total: Duration,
    /// For how long that one of them waited that waited longest.
    pub queue_wait_max: Duration,
}

/// What is counted of calls.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::worker) struct Calls {
    done: u64,
    failed: u64,
    cancelled: u64,
    sent: u64,
    received: u64,
    queued: u64,
    wait_total: Duration,
    wait_max: Duration,
}

/// What is to be counted of one call when it is over.
#[derive(Debug, Default)]
pub(in crate::worker) struct CallAccount {
    pub(in crate::worker) outcome: Outcome,
    pub(in crate::worker) sent: usize,
    pub(in crate::worker) received: usize,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::worker) enum Outcome {
    /// It was cancelled or dropped, if nothing else is said by then.
    #[default]
    Cancelled,
    Done,
    Failed,
}

impl Calls {
    pub(in crate::worker) fn wait(&mut self, wait: Duration) {
        self.queued += 1;
        self.wait_total = self.wait_total.saturating_add(wait);
        self.wait_max = self.wait_max.max(wait);
    }

    pub(in crate::worker) fn end(&mut self, call: &CallAccount) {
        match call.outcome {
            Outcome::Cancelled => self.cancelled += 1,
            Outcome::Done => self.done += 1,
            Outcome::Failed => self.failed += 1,
        }
        self.sent += call.sent as u64;
        self.received += call.received as u64;
    }
}

/// The lives of a context's workers: counted here, and told to `tracing`.
#[derive(Debug)]
pub(in crate::worker) struct Lives {
    /// The context's name.
    name: Option<Arc<str>>,
    counts: Mutex<LifeCounts>,
}

#[derive(Clone, Copy, Debug, Default)]
struct LifeCounts {
    started: u64,
    failed_starts: u64,
    living: u64,
    retired: u64,
    timed_out: u64,
    dismissed: u64,
    killed: u64,
    crashed: u64,
}

impl Lives {
    pub(in crate::worker) fn new(name: Option<Arc<str>>) -> Arc<Self> {
        Arc::new(Self {
            name,
            counts: Mutex::default(),
        })
    }

    /// A worker is about to be started.
    pub(in crate::worker) fn expect(self: Arc<Self>) -> Expected {
        Expected {
            lives: Some(self),
            since: Instant::now(),
        }
    }

    pub(in crate::worker) fn statistics(&self, calls: &Calls) -> WorkerStatistics {
        let lives = *self.counts();
        WorkerStatistics {
            idle_workers: 0,
            running_workers: 0,
            started: lives.started,
            failed_starts: lives.failed_starts,
            living: lives.living,
            retired: lives.retired,
            timed_out: lives.timed_out,
            dismissed: lives.dismissed,
            killed: lives.killed,
            crashed: lives.crashed,
            jobs_done: calls.done,
            jobs_failed: calls.failed,
            jobs_cancelled: calls.cancelled,
            bytes_sent: calls.sent,
            bytes_received: calls.received,
            queued: calls.queued,
            queue_wait_total: calls.wait_total,
            queue_wait_max: calls.wait_max,
        }
    }

    fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    fn counts(&self) -> MutexGuard<'_, LifeCounts> {
        // No code of a user's runs under this lock, and nothing in it panics.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A worker that is being started. Dropped before it came up, it counts as a start that failed.
#[derive(Debug)]
pub(in crate::worker) struct Expected {
    /// `None` once that has been counted.
    lives: Option<Arc<Lives>>,
    since: Instant,
}

impl Expected {
    /// The worker is ready for jobs.
    pub(in crate::worker) fn came_up(mut self, pid: u32, forked: bool) -> Life {
        let lives = self.lives.take().expect("it is taken by what ends this");
        let mut counts = lives.counts();
        counts.started += 1;
        counts.living += 1;
        drop(counts);
        let now = Instant::now();
        trace::came_up(lives.name(), pid, forked, now - self.since);
        Life {
            lives,
            pid,
            forked,
            since: now,
            jobs: 0,
            orders: Orders::default(),
        }
    }

    /// There will be no worker, for this reason.
    pub(in crate::worker) fn failed(mut self, error: &WorkerError) {
        if let Some(lives) = self.lives.take() {
            lives.counts().failed_starts += 1;
            trace::did_not_come_up(lives.name(), error, self.since.elapsed());
        }
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        if let Some(lives) = self.lives.take() {
            lives.counts().failed_starts += 1;
            trace::start_broken_off(lives.name(), self.since.elapsed());
        }
    }
}

/// The life of a worker that came up.
#[derive(Debug)]
pub(in crate::worker) struct Life {
    lives: Arc<Lives>,
    pid: u32,
    forked: bool,
    since: Instant,
    /// How many jobs it has answered.
    jobs: u64,
    pub(in crate::worker) orders: Orders,
}

/// What a worker was told from here, and what it said itself before it ended: of that its end is understood.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::worker) struct Orders {
    pub(in crate::worker) bye: Option<Bye>,
    pub(in crate::worker) dismissed: bool,
    pub(in crate::worker) killed: Option<Why>,
}

/// Why a worker leaves by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worker) enum Bye {
    TimedOut,
    Retired,
}

/// Why a worker is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worker) enum Why {
    /// The call that had it was cancelled.
    Cancelled,
    /// Whoever had it was dropped.
    Dropped,
    /// It cannot be understood, or not be reached.
    Useless,
    /// It lived on after it had closed its socket or said good-bye.
    LivedOn,
    /// It was told to go and is still there when the grace is over.
    GraceOver,
}

/// How a worker's life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worker) enum Fate {
    Retired,
    TimedOut,
    Dismissed,
    Killed(Why),
    Crashed(Ended),
}

impl Life {
    pub(in crate::worker) fn count_job(&mut self) {
        self.jobs += 1;
    }

    /// Who has the job, for the span of its call.
    pub(in crate::worker) fn has_a_job(&self) {
        trace::given_to(self.lives.name(), self.pid, self.forked);
    }

    /// Counts the end; `None` if the process lives and is killed next.
    pub(in crate::worker) fn end(self, ended: Option<Ended>) {
        let fate = fate(self.orders, ended);
        let mut counts = self.lives.counts();
        counts.living -= 1;
        *match fate {
            Fate::Retired => &mut counts.retired,
            Fate::TimedOut => &mut counts.timed_out,
            Fate::Dismissed => &mut counts.dismissed,
            Fate::Killed(_) => &mut counts.killed,
            Fate::Crashed(_) => &mut counts.crashed,
        } += 1;
        drop(counts);
        trace::ended(self.lives.name(), self.pid, fate, self.jobs, self.since);
    }
}

/// Understands an end. What the process did counts for more than what it was told: a signal or an order may come too late.
fn fate(orders: Orders, ended: Option<Ended>) -> Fate {
    let left = matches!(ended, Some(Ended::Exited(0) | Ended::Unknown));
    let by_kill = matches!(
        ended,
        Some(
            Ended::Signalled {
                signal: libc::SIGKILL,
                ..
            } | Ended::Unknown
        )
    );
    match (orders, ended) {
        (Orders { killed, .. }, None) => Fate::Killed(killed.unwrap_or(Why::Dropped)),
        (Orders { bye: Some(bye), .. }, _) if left => match bye {
            Bye::TimedOut => Fate::TimedOut,
            Bye::Retired => Fate::Retired,
        },
        (
            Orders {
                killed: Some(why), ..
            },
            _,
        ) if by_kill => Fate::Killed(why),
        (
            Orders {
                dismissed: true, ..
            },
            _,
        ) if left => Fate::Dismissed,
        (_, Some(ended)) => Fate::Crashed(ended),
    }
}

impl Fate {
    /// The end of a process that nobody here had asked for, in words.
    pub(in crate::worker) fn of_crash(pid: u32, ended: Ended) -> impl std::fmt::Display {
        WorkerExit::new(pid, ended, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KILLED: Ended = Ended::Signalled {
        signal: libc::SIGKILL,
        core: false,
    };

    #[test]
    fn an_end_is_what_the_process_did_and_then_what_it_was_told() {
        let nothing = Orders::default();
        let dismissed = Orders {
            dismissed: true,
            ..nothing
        };
        let killed = Orders {
            killed: Some(Why::GraceOver),
            ..dismissed
        };
        let retired = Orders {
            bye: Some(Bye::Retired),
            ..killed
        };
        let timed_out = Orders {
            bye: Some(Bye::TimedOut),
            ..nothing
        };
        let by_us = Fate::Killed(Why::GraceOver);
        let crashed = Fate::Crashed;
        for (orders, ended, expected) in [
            (nothing, Ended::Exited(0), crashed(Ended::Exited(0))),
            (nothing, Ended::Exited(3), crashed(Ended::Exited(3))),
            (nothing, KILLED, crashed(KILLED)),
            (nothing, Ended::Unknown, crashed(Ended::Unknown)),
            (dismissed, Ended::Exited(0), Fate::Dismissed),
            (dismissed, Ended::Unknown, Fate::Dismissed),
            (dismissed, Ended::Exited(1), crashed(Ended::Exited(1))),
            (dismissed, KILLED, crashed(KILLED)),
            (killed, KILLED, by_us),
            (killed, Ended::Unknown, by_us),
            (killed, Ended::Exited(0), Fate::Dismissed), // the signal came too late
            (killed, Ended::Exited(1), crashed(Ended::Exited(1))),
            (retired, Ended::Exited(0), Fate::Retired),
            (retired, Ended::Unknown, Fate::Retired),
            (retired, KILLED, by_us), // it said good-bye and stayed
            (timed_out, Ended::Exited(0), Fate::TimedOut),
            (timed_out, Ended::Exited(1), crashed(Ended::Exited(1))),
        ] {
            assert_eq!(fate(orders, Some(ended)), expected, "{orders:?} {ended:?}");
        }
        assert_eq!(fate(nothing, None), Fate::Killed(Why::Dropped));
        assert_eq!(fate(killed, None), by_us);
        assert_eq!(fate(retired, None), by_us);
    }

    #[test]
    fn waits_are_counted_summed_up_and_the_longest_is_kept() {
        let mut calls = Calls::default();
        for seconds in [3, 5, 1] {
            calls.wait(Duration::from_secs(seconds));
        }
        let statistics = Lives::new(None).statistics(&calls);
        assert_eq!(statistics.queued, 3);
        assert_eq!(statistics.queue_wait_total, Duration::from_secs(9));
        assert_eq!(statistics.queue_wait_max, Duration::from_secs(5));
    }
}
