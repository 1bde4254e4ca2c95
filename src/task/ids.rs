//! Numbers of tasks and of runs.

use std::cell::Cell;
use std::fmt;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};

use super::tuning::TASK_IDS_PER_RESERVATION;

/// The number of a task. No two tasks of a process have the same number.
///
/// Tasks that were spawned on the same thread are numbered in the order of spawning.
///
/// ```
/// use seedbed::{open_nursery, run};
///
/// run(open_nursery(|n| async move {
///     let (one, two) = (n.spawn(async {}), n.spawn(async {}));
///     assert!(one.info().id() < two.info().id());
/// }));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(NonZeroU64);

impl TaskId {
    /// Returns a new number.
    #[inline]
    pub(super) fn next() -> Self {
        static RESERVATIONS: AtomicU64 = AtomicU64::new(0);
        thread_local! {
            /// The last number that this thread used.
            static LAST: Cell<u64> = const { Cell::new(0) };
        }
        let mut last = LAST.get();
        if last.is_multiple_of(TASK_IDS_PER_RESERVATION) {
            last = RESERVATIONS.fetch_add(1, Ordering::Relaxed) * TASK_IDS_PER_RESERVATION;
        }
        LAST.set(last + 1);
        TaskId(NonZeroU64::MIN.saturating_add(last))
    }

    /// Returns the number as an integer.
    ///
    /// ```
    /// use seedbed::nursery::current_task;
    /// use seedbed::run;
    ///
    /// let id = run(async { current_task().unwrap().id() });
    /// assert!(id.get() > 0);
    /// ```
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a run. No two runs of a process have the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RunId(NonZeroU64);

impl RunId {
    /// Returns a new number.
    pub(crate) fn next() -> Self {
        static RUNS: AtomicU64 = AtomicU64::new(0);
        RunId(NonZeroU64::MIN.saturating_add(RUNS.fetch_add(1, Ordering::Relaxed)))
    }
}
