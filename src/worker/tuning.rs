//! The constants of this module.

use std::time::Duration;

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
