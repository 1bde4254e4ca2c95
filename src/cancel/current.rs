//! Questions about the running code: whether and why it is cancelled, and when it will be.

use std::time::Instant;

use super::node::AlreadyCancelledError;
use super::position;
use super::reason::CancelReason;
use crate::time::current_time;

/// Returns the earliest deadline of the scopes around the running code, up to the innermost shield; the present time,
/// if the code is cancelled already; `None` if no deadline is set.
///
/// ```
/// use std::time::Duration;
/// use seedbed::cancel::{current_effective_deadline, move_on_at};
/// use seedbed::time::current_time;
/// use seedbed::{run, shield};
///
/// run(async {
///     assert_eq!(current_effective_deadline(), None);
///     let deadline = current_time() + Duration::from_secs(5);
///     let seen = move_on_at(deadline, async {
///         let shielded = shield(async { current_effective_deadline() }).await;
///         (current_effective_deadline(), shielded)
///     });
///     assert_eq!(seen.await, Some((Some(deadline), None)));
/// });
/// ```
pub fn current_effective_deadline() -> Option<Instant> {
    match position::effective_deadline() {
        Ok(deadline) => deadline,
        Err(AlreadyCancelledError) => Some(current_time()),
    }
}

/// Why the code that is running is cancelled; `None` if it is not. A shield around that code keeps the cancellation off
/// it, but not the answer: so clean-up can say what it is for.
///
/// With several scopes around that are cancelled, the innermost one's reason.
///
/// ```
/// use seedbed::cancel::current_cancel_reason;
/// use seedbed::time::sleep_forever;
/// use seedbed::{CancelScope, on_cancel, run};
///
/// run(async {
///     let scope = CancelScope::new();
///     scope.cancel_because("out of patience");
///     let work = on_cancel(sleep_forever(), async {
///         let reason = current_cancel_reason().unwrap();
///         assert_eq!(reason.message(), Some("out of patience"));
///     });
///     assert_eq!(scope.run(work).await, None);
///     assert!(current_cancel_reason().is_none());
/// });
/// ```
pub fn current_cancel_reason() -> Option<CancelReason> {
    position::cancel_reason()
}
