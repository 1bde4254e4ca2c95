//! The value that a block returns: the body's, unless the block is ended early with another one.

use std::fmt;
use std::sync::Arc;

use crate::sys::primitives::{Mutex, lock};

/// A block's value, which the block and its handles share.
pub(super) struct Outcome<R> {
    slot: Arc<Mutex<Slot<R>>>,
}

struct Slot<R> {
    value: Value<R>,
    on_late: Option<LateHook<R>>,
}

enum Value<R> {
    None,
    /// The body's value. Terminating the block later replaces it.
    Returned(R),
    /// The body has failed, which ends the block early. It returns its error in the same poll.
    Failing,
    /// The value with which the block was first terminated.
    Terminated(R),
    /// The first error in a block that can fail. The block returns it even if a scope around it is
    /// cancelled.
    Failed(R),
}

impl<R> Value<R> {
    /// Tells whether the block was ended early.
    fn is_decided(&self) -> bool {
        match self {
            Value::None | Value::Returned(_) => false,
            Value::Failing | Value::Terminated(_) | Value::Failed(_) => true,
        }
    }
}

/// Receives values that come after the block's value was decided.
pub(super) type LateHook<R> = Box<dyn FnMut(R) + Send>;

impl<R> Outcome<R> {
    pub(super) fn new() -> Self {
        Outcome {
            slot: Arc::new(Mutex::new(Slot {
                value: Value::None,
                on_late: None,
            })),
        }
    }

    /// Stores the body's value, unless the block was ended early.
    pub(super) fn set_body_value(&self, value: R) {
        let mut slot = lock(&self.slot);
        let unused = match slot.value {
            Value::None => {
                slot.value = Value::Returned(value);
                return;
            }
            Value::Failing => {
                slot.value = Value::Failed(value);
                return;
            }
            Value::Returned(_) | Value::Terminated(_) | Value::Failed(_) => value,
        };
        drop(slot);
        // The drop runs when no lock is held.
        drop(unused);
    }

    /// Ends the block early with a value. Gives the value back if the block was ended early before.
    pub(super) fn terminate(&self, value: R) -> Result<(), R> {
        self.decide(value, Value::Terminated)
    }

    /// Ends the block early with an error. Gives the error back if the block was ended early
    /// before.
    pub(super) fn fail(&self, value: R) -> Result<(), R> {
        self.decide(value, Value::Failed)
    }

    fn decide(&self, value: R, how: impl FnOnce(R) -> Value<R>) -> Result<(), R> {
        let mut slot = lock(&self.slot);
        if slot.value.is_decided() {
            return Err(value);
        }
        let replaced = std::mem::replace(&mut slot.value, how(value));
        drop(slot);
        drop(replaced);
        Ok(())
    }

    pub(super) fn has_failed(&self) -> bool {
        matches!(lock(&self.slot).value, Value::Failed(_))
    }

    /// Ends the block early with the value that the body is about to return. False if the block was
    /// ended early before.
    pub(super) fn begin_failure(&self) -> bool {
        let mut slot = lock(&self.slot);
        let first = !slot.value.is_decided();
        if first {
            slot.value = Value::Failing;
        }
        first
    }

    /// Takes the block's value. The body has ended, or the block was ended early.
    pub(super) fn take(&self) -> R {
        match std::mem::replace(&mut lock(&self.slot).value, Value::None) {
            Value::Returned(value) | Value::Terminated(value) | Value::Failed(value) => value,
            Value::None | Value::Failing => {
                unreachable!("a block that ends has the value of its body, or another one")
            }
        }
    }

    /// Drops the value of a block that ends with a panic. An error goes to the hook.
    pub(super) fn discard(&self) {
        let value = std::mem::replace(&mut lock(&self.slot).value, Value::None);
        let Value::Failed(error) = value else { return };
        if let Err(error) = self.report_late(error) {
            tracing::warn!(
                target: "seedbed::nursery",
                "the error of a nursery's block is dropped, because a panic came after it"
            );
            drop(error);
        }
    }

    pub(super) fn set_late_hook(&self, hook: LateHook<R>) {
        let before = lock(&self.slot).on_late.replace(hook);
        drop(before);
    }

    /// Gives a late value to the hook, or back to the caller if there is no hook.
    pub(super) fn report_late(&self, value: R) -> Result<(), R> {
        let Some(mut hook) = lock(&self.slot).on_late.take() else {
            return Err(value);
        };
        // Not under the lock: the hook may use the nursery.
        hook(value);
        lock(&self.slot).on_late.get_or_insert(hook);
        Ok(())
    }
}

impl<R> Clone for Outcome<R> {
    fn clone(&self) -> Self {
        Outcome {
            slot: self.slot.clone(),
        }
    }
}

impl<R> fmt::Debug for Outcome<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outcome").finish_non_exhaustive()
    }
}
