//! The part of a nursery's handle that does not depend on its kind, and the ways in which a handle
//! ends the block.

use std::panic::Location;
use std::sync::Arc;

use super::child_ref::NurseryState;
use super::outcome::Outcome;
use crate::cancel::{CancelReason, CancelSource};

/// The content of every handle.
#[derive(Debug)]
pub struct RawHandle<R> {
    pub(super) nursery: Arc<NurseryState>,
    pub(super) outcome: Outcome<R>,
}

impl<R> RawHandle<R> {
    pub(super) fn new(nursery: Arc<NurseryState>, outcome: Outcome<R>) -> Self {
        RawHandle { nursery, outcome }
    }

    /// Ends the block with a value. Gives the value back if the block was ended early before.
    #[track_caller]
    pub(super) fn terminate(&self, value: R) -> Result<(), R> {
        let reason = CancelReason::explicit(None, Location::caller());
        self.end(value, reason, Outcome::terminate)
    }

    /// Ends the block with an error, which the scopes around the block wait for.
    fn fail(&self, error: R) -> Result<(), R> {
        let reason = CancelReason::new(CancelSource::Error);
        self.end(error, reason, |outcome, error| {
            outcome
                .fail(error)
                .inspect(|()| self.nursery.scope.defer_ancestors())
        })
    }

    pub(super) fn end(
        &self,
        value: R,
        reason: CancelReason,
        decide: impl FnOnce(&Outcome<R>, R) -> Result<(), R>,
    ) -> Result<(), R> {
        // The value is stored before the cancellation, so that a block which sees the cancellation
        // finds the value.
        let decided = if self.nursery.children.is_closed() {
            Err(value)
        } else {
            decide(&self.outcome, value)
        };
        self.nursery.scope.cancel_for(reason);
        decided
    }
}

impl<R> Clone for RawHandle<R> {
    fn clone(&self) -> Self {
        RawHandle {
            nursery: self.nursery.clone(),
            outcome: self.outcome.clone(),
        }
    }
}

/// Ends a block with an error of a child, or reports the error if the block's outcome was decided
/// before.
pub(super) fn fail<T, E>(raw: &RawHandle<Result<T, E>>, error: E) {
    if let Err(late) = raw.fail(Err(error)) {
        report_late(&raw.outcome, late);
    }
}

/// Ends a block if its body has returned an error.
///
/// Returns the body's value, which the block returns even if a scope around it is cancelled. `None`
/// if the value is an error and the block's outcome was decided before; then the error is reported.
pub(super) fn check_body<T, E>(
    raw: &RawHandle<Result<T, E>>,
    value: Result<T, E>,
) -> Option<Result<T, E>> {
    if value.is_err() {
        if !raw.outcome.begin_failure() {
            report_late(&raw.outcome, value);
            return None;
        }
        raw.nursery.scope.defer_ancestors();
        let reason = CancelReason::new(CancelSource::Error);
        raw.nursery.scope.cancel_for(reason);
    }
    Some(value)
}

/// Gives an error that came too late to be the block's to the hook, or else logs it.
fn report_late<T, E>(outcome: &Outcome<Result<T, E>>, late: Result<T, E>) {
    if let Err(Err(error)) = outcome.report_late(late) {
        tracing::warn!(
            target: "seedbed::nursery",
            error_type = std::any::type_name::<E>(),
            "a nursery's child failed after the block's outcome was decided; see Nursery::on_late_error"
        );
        drop(error);
    }
}
