//! `CancelScope`: a handle with which work is cancelled, given a deadline, or shielded.

use std::borrow::Cow;
use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::position::add_pending_nodes;
use super::reason::CancelReason;
use super::scope_state::ScopeState;

/// A handle with which work can be cancelled, given a deadline, or shielded, from any thread.
///
/// [`run`](CancelScope::run) a future in a new scope, and keep a clone of the scope for the code
/// that may cancel it. Clones are cheap handles on the same scope. A scope runs one future.
///
/// Dropping the handles does nothing. Dropping the future that `run` returned drops the future in
/// the scope.
///
/// ```
/// use seedbed::time::sleep_forever;
/// use seedbed::{CancelScope, run};
///
/// run(async {
///     let scope = CancelScope::new();
///     let handle = scope.clone();
///     let value = scope.run(async move {
///         handle.cancel(); // takes effect at the next await that has to wait
///         sleep_forever().await;
///     });
///     assert_eq!(value.await, None);
/// });
/// ```
#[derive(Clone)]
#[doc(alias = "CancellationToken")]
pub struct CancelScope {
    pub(super) state: Arc<ScopeState>,
}

impl CancelScope {
    /// Makes a scope without a deadline or a shield.
    ///
    /// ```
    /// assert!(!seedbed::CancelScope::new().is_cancelled());
    /// ```
    pub fn new() -> Self {
        CancelScope {
            state: Arc::default(),
        }
    }

    /// Cancels the future in this scope, and everything below it that is not behind a shield. When
    /// this returns, the flags are set and the wakers are woken; each task is dropped when it would
    /// next be polled. Cancelling a scope again, or after its end, has no further effect. May be
    /// called from any thread.
    ///
    /// ```
    /// use seedbed::time::sleep_forever;
    /// use seedbed::{CancelScope, run};
    ///
    /// let scope = CancelScope::new();
    /// let handle = scope.clone();
    /// let thread = std::thread::spawn(move || handle.cancel());
    /// assert_eq!(run(scope.run(sleep_forever())), None);
    /// thread.join().unwrap();
    /// ```
    #[track_caller]
    #[doc(alias = "abort")]
    pub fn cancel(&self) {
        self.cancel_for(CancelReason::explicit(None, Location::caller()));
    }

    /// Cancels the scope like [`cancel`](CancelScope::cancel), with a message for
    /// [`cancel_reason`](CancelScope::cancel_reason), for the handle's `Debug`, and for the
    /// `tracing` event (level DEBUG) that reports the cancellation.
    ///
    /// ```
    /// let scope = seedbed::CancelScope::new();
    /// scope.cancel_because(format!("{} bytes are too many", 5000));
    /// assert_eq!(scope.cancel_reason().unwrap().message(), Some("5000 bytes are too many"));
    /// ```
    #[track_caller]
    pub fn cancel_because(&self, message: impl Into<Cow<'static, str>>) {
        let message = Some(message.into());
        self.cancel_for(CancelReason::explicit(message, Location::caller()));
    }

    pub(crate) fn cancel_for(&self, reason: CancelReason) {
        self.state.cancel(reason);
    }

    /// Returns why this scope is cancelled: by itself or, while it runs, by a scope further out
    /// that no shield keeps off. `None` if it is not cancelled. The first reason stays.
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::cancel::CancelSource;
    /// use seedbed::time::sleep_forever;
    /// use seedbed::{CancelScope, run};
    ///
    /// let scope = CancelScope::new();
    /// assert!(scope.cancel_reason().is_none());
    /// scope.set_timeout(Duration::from_millis(1));
    /// assert_eq!(run(scope.run(sleep_forever())), None);
    /// assert_eq!(scope.cancel_reason().unwrap().source(), CancelSource::Deadline);
    /// ```
    pub fn cancel_reason(&self) -> Option<CancelReason> {
        if !self.state.was_cancelled() && self.state.is_in_first_poll() {
            // The caller is usually the scope's own body. Only a node shows whether a scope further
            // out is cancelled.
            add_pending_nodes();
        }
        self.state.reason()
    }

    /// Returns whether this scope was cancelled, or its deadline passed before it ended. Never
    /// returns to `false`.
    ///
    /// ```
    /// let scope = seedbed::CancelScope::new();
    /// scope.cancel();
    /// assert!(scope.is_cancelled());
    /// ```
    pub fn is_cancelled(&self) -> bool {
        // A deadline that has passed is recorded, because a later `set_deadline` does not take it
        // back.
        let passed = |deadline| deadline <= self.state.now();
        if self.deadline().is_some_and(passed) && !self.state.has_ended() {
            self.state.expire();
        }
        self.state.was_cancelled()
    }

    /// Sets the time at which the scope is cancelled; `None` for never. If the deadline has passed,
    /// the scope is cancelled at the next await that has to wait. A new deadline does not undo a
    /// cancellation.
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::time::{current_time, sleep_forever};
    /// use seedbed::{CancelScope, run};
    ///
    /// run(async {
    ///     let scope = CancelScope::new();
    ///     scope.set_deadline(Some(current_time() + Duration::from_millis(1)));
    ///     assert_eq!(scope.run(sleep_forever()).await, None);
    /// });
    /// ```
    pub fn set_deadline(&self, deadline: Option<Instant>) {
        self.state.set_deadline(deadline);
    }

    /// Sets the deadline to `timeout` from now or, if the scope does not run yet, from its first
    /// poll.
    ///
    /// A timeout too long to be represented means no deadline.
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::time::sleep_forever;
    /// use seedbed::{CancelScope, run};
    ///
    /// run(async {
    ///     let scope = CancelScope::new();
    ///     scope.set_timeout(Duration::from_millis(1));
    ///     assert_eq!(scope.run(sleep_forever()).await, None);
    /// });
    /// ```
    pub fn set_timeout(&self, timeout: Duration) {
        self.state.set_timeout(timeout);
    }

    /// Returns the time at which the scope is cancelled. `None` if it has no deadline, or a timeout
    /// that counts from a first poll that has not happened.
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::time::current_time;
    /// use seedbed::CancelScope;
    ///
    /// let scope = CancelScope::new();
    /// assert_eq!(scope.deadline(), None);
    /// let deadline = current_time() + Duration::from_secs(5);
    /// scope.set_deadline(Some(deadline));
    /// assert_eq!(scope.deadline(), Some(deadline));
    /// ```
    pub fn deadline(&self) -> Option<Instant> {
        self.state.node.deadline()
    }

    /// Puts up or takes down a shield around this scope. While it is up, the code in the scope is
    /// not cancelled by scopes further out, and they wait for it. The scope itself can still be
    /// cancelled.
    ///
    /// Takes effect at once, also while the scope runs. A shield that is not taken down stays until
    /// the scope ends.
    ///
    /// ```
    /// use seedbed::{CancelScope, checkpoint, run};
    ///
    /// run(async {
    ///     let (outer, inner) = (CancelScope::new(), CancelScope::new());
    ///     inner.set_shield(true);
    ///     outer.cancel();
    ///     let value = outer.run(async move { inner.run(async { checkpoint().await; 7 }).await });
    ///     assert_eq!(value.await, Some(Some(7)));
    /// });
    /// ```
    pub fn set_shield(&self, shield: bool) {
        self.state.set_shielded(shield);
    }

    /// Returns whether the scope can be forgotten: it has ended, or this is its last handle and it
    /// does not run.
    pub(super) fn is_over(&self) -> bool {
        Arc::strong_count(&self.state) == 1 || self.state.has_ended()
    }

    /// Makes the scopes around wait for the end of this one.
    pub(crate) fn defer_ancestors(&self) {
        self.state.defer_ancestors();
    }

    /// Wakes the task that polls the scope.
    pub(crate) fn wake(&self) {
        self.state.node.waker.wake();
    }
}

impl Default for CancelScope {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for CancelScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut scope = f.debug_struct("CancelScope");
        scope.field("phase", &self.state.phase_name());
        match self.cancel_reason() {
            Some(reason) => scope.field("cancelled", &format_args!("{reason}")),
            None => scope.field("cancelled", &false),
        };
        if let Some(deadline) = self.deadline() {
            match deadline.checked_duration_since(self.state.now()) {
                Some(left) => scope.field("deadline", &format_args!("in {left:?}")),
                None => scope.field("deadline", &format_args!("passed")),
            };
        }
        scope.finish_non_exhaustive()
    }
}
