//! The state of the running code: its effective deadline, and why it is cancelled.

use std::time::Instant;

use super::node::AlreadyCancelledError;
use super::position;
use super::reason::CancelReason;
use crate::time::current_time;

/// Returns the earliest deadline of the scopes around the running code, up to the innermost shield;
/// the present time if the code is cancelled already; `None` if no deadline is set.
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

/// Returns why the running code is cancelled; `None` if it is not. Looks through shields, so
/// shielded clean-up code learns the reason too.
///
/// If several scopes around it are cancelled, returns the reason of the innermost one.
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
