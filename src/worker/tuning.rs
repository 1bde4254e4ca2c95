//! The tuning constants of `worker/`, each with the reason for its value.

use std::time::Duration;

/// A call that finds its worker asleep prunes ended workers anyway. A quick call asks the kernel only once in this many
/// calls, because each question takes as long as the call.
pub(in crate::worker) const CALLS_PER_PRUNE: u32 = 64;

/// The most draining workers that one call inspects, so that a burst of exits does not slow down a single call.
pub(in crate::worker) const REAP_BATCH: usize = 16;

/// With this many draining workers, a call waits for the oldest to be reaped before it starts another process. The process
/// table has room for a few of these contexts.
pub(in crate::worker) const DRAINING_WORKERS_LIMIT: usize = 256;

/// A process gets this long to exit after it has closed its socket or announced its exit. It has nothing left to do then.
pub(in crate::worker) const EXIT_GRACE: Duration = Duration::from_secs(1);

/// The time between two looks at a pending fork whose process is to end. A fork takes less.
pub(in crate::worker) const FORK_POLL_INTERVAL: Duration = Duration::from_millis(1);

/// The time that a process may take to reach the hook. `main` may do much work before it.
pub(in crate::worker) const HOOK_TIMEOUT: Duration = Duration::from_secs(60);

/// The number of fork servers that may end with a request before the request fails.
pub(in crate::worker) const FORK_ATTEMPTS: usize = 3;

/// The time that a fork server may leave requests unanswered before it is killed. A fork takes microseconds.
pub(in crate::worker) const FORK_ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The pause before a request is sent again to a fork server whose socket is full.
pub(in crate::worker) const FORK_RETRY_INTERVAL: Duration = Duration::from_millis(1);
