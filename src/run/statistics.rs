//! What a run has to do, in numbers.

use std::time::Duration;

use super::inbox::RunInbox;
use crate::cancel::SharedTree;
use crate::thread;

/// What a run has to do, at one moment; from [`current_statistics`].
///
/// (There is nothing about descriptors that are waited for: smol's reactor, which the whole process shares, does not
/// tell.)
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunStatistics {
    /// Number of system tasks, also of those that [`RunHandle::call_async`](crate::run::RunHandle::call_async) made.
    pub system_tasks: usize,
    /// Number of calls that wait for their turn.
    pub queued_calls: usize,
    /// By the run's clock: until the next deadline that somebody sleeps for or that a scope has whose body has waited.
    /// Zero if it has passed and nobody has noticed yet; `None` if there is none.
    pub time_to_next_deadline: Option<Duration>,
    /// Number of functions that run on threads for this run, as
    /// [`active_thread_count`](crate::thread::active_thread_count) says.
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
