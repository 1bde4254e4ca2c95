//! Who decides what a block returns: the body, unless somebody ends the block early.

use std::fmt;
use std::sync::Arc;

use crate::sys::primitives::{Mutex, lock};

/// The place for a block's value, shared by the block and its handles.
pub(super) struct Outcome<R> {
    slot: Arc<Mutex<Slot<R>>>,
}

struct Slot<R> {
    value: Value<R>,
    on_late: Option<LateHook<R>>,
}

enum Value<R> {
    None,
    /// The body's; whoever terminates the block later replaces it.
    Returned(R),
    /// The body has failed, which ends the block early, and returns its error in the same poll.
    Failing,
    /// Given by whoever ended the block early, first.
    Terminated(R),
    /// The first error of a block that may fail. It comes out although a scope around may be cancelled.
    Failed(R),
}

impl<R> Value<R> {
    /// Whether somebody has ended the block early.
    fn is_decided(&self) -> bool {
        match self {
            Value::None | Value::Returned(_) => false,
            Value::Failing | Value::Terminated(_) | Value::Failed(_) => true,
        }
    }
}

/// Told of values that come after the block's value was decided.
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

    /// The body's value, which counts unless the block was terminated.
    pub(super) fn body_returned(&self, value: R) {
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
        // Dropped here, where no lock is held.
        drop(unused);
    }

    /// Decides the block's value. Gives the value back if that was already decided by somebody else.
    pub(super) fn terminate(&self, value: R) -> Result<(), R> {
        self.decide(value, Value::Terminated)
    }

    /// The same with an error.
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

    /// Reserves the decision for the value that the body is about to return. False if it was decided by somebody else.
    pub(super) fn begin_failure(&self) -> bool {
        let mut slot = lock(&self.slot);
        let first = !slot.value.is_decided();
        if first {
            slot.value = Value::Failing;
        }
        first
    }

    /// Takes the block's value, which somebody must have given.
    pub(super) fn take(&self) -> R {
        match std::mem::replace(&mut lock(&self.slot).value, Value::None) {
            Value::Returned(value) | Value::Terminated(value) | Value::Failed(value) => value,
            Value::None | Value::Failing => {
                unreachable!("a block ends by its body, or by somebody who gives its value")
            }
        }
    }

    /// The block ends with a panic, so its value is nobody's. An error is told to the hook all the same.
    pub(super) fn forsake(&self) {
        let value = std::mem::replace(&mut lock(&self.slot).value, Value::None);
        let Value::Failed(error) = value else { return };
        if let Err(error) = self.tell_late(error) {
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

    /// Tells the hook. Gives the value back if there is none.
    pub(super) fn tell_late(&self, value: R) -> Result<(), R> {
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
