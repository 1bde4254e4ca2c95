//! `RunStatistics`: how much a run has to do.

use std::time::Duration;

use super::inbox::RunInbox;
use crate::cancel::SharedTree;
use crate::thread;

/// A snapshot of what a run has to do; from [`current_statistics`](crate::run::current_statistics).
///
/// It does not count descriptors that are waited for: smol's reactor, which the whole process
/// shares, does not report them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunStatistics {
    /// Number of system tasks, including those of
    /// [`RunHandle::call_async`](crate::run::RunHandle::call_async).
    pub system_tasks: usize,
    /// Number of calls that are queued.
    pub queued_calls: usize,
    /// Time, by the run's clock, to the next deadline of a sleep, or of a scope whose body has
    /// waited. Zero if it has passed and was not handled yet; `None` if there is none.
    pub time_to_next_deadline: Option<Duration>,
    /// Number of functions that run on threads for this run. See
    /// [`active_thread_count`](crate::thread::active_thread_count).
    pub active_threads: usize,
}

impl RunStatistics {
    pub(super) fn new(tree: &SharedTree, inbox: &RunInbox) -> Self {
        let next = tree.timers().and_then(|timers| timers.earliest());
        RunStatistics {
            system_tasks: inbox.system.tasks(),
            queued_calls: inbox.calls.len(),
            time_to_next_deadline: next
                .map(|deadline| deadline.saturating_duration_since(tree.now())),
            active_threads: tree.run().map_or(0, |run| thread::active_in(run)),
        }
    }
}
