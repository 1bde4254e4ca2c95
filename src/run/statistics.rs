//! What a run has to do, in numbers.

use std::time::Duration;

use super::handle::{Entrance, current_run};
use crate::cancel::OfRun;
use crate::thread;

/// Says, for one moment, what the current run has to do.
///
/// # Panics
///
/// Outside of a run. With a [`RunHandle`](crate::run::RunHandle), other threads ask too:
/// [`RunHandle::statistics`](crate::run::RunHandle::statistics).
///
/// ```
/// use std::time::Duration;
/// use seedbed::run::current_statistics;
/// use seedbed::{checkpoint, fail_after, run};
///
/// run(async {
///     let body = async {
///         checkpoint().await;
///         current_statistics().time_to_next_deadline
///     };
///     let left = fail_after(Duration::from_secs(5), body).await.unwrap();
///     assert!(left.unwrap() <= Duration::from_secs(5));
///     assert_eq!(current_statistics().time_to_next_deadline, None);
/// });
/// ```
#[track_caller]
pub fn current_statistics() -> RunStatistics {
    current_run().statistics()
}

/// What a run has to do, at one moment; from [`current_statistics`].
///
/// (There is nothing about descriptors that are waited for: smol's reactor, which the whole process shares, does not
/// tell.)
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunStatistics {
    /// Number of system tasks, also of those that [`RunHandle::run`](crate::run::RunHandle::run) made.
    pub system_tasks: usize,
    /// Number of calls that wait for their turn.
    pub run_sync_soon_queue_size: usize,
    /// By the run's clock: until the next deadline that somebody sleeps for or that a scope has whose body has waited.
    /// Zero if it has passed and nobody has noticed yet; `None` if there is none.
    pub time_to_next_deadline: Option<Duration>,
    /// Number of functions that run on threads for this run, as
    /// [`active_thread_count`](crate::thread::active_thread_count) says.
    pub active_threads: usize,
}

impl RunStatistics {
    pub(super) fn new(run: &OfRun, entrance: &Entrance) -> Self {
        let timers = run.timers();
        RunStatistics {
            system_tasks: entrance.system.tasks(),
            run_sync_soon_queue_size: entrance.queue.len(),
            time_to_next_deadline: timers
                .earliest()
                .map(|deadline| deadline.saturating_duration_since(timers.now())),
            active_threads: thread::active_in(run),
        }
    }
}
