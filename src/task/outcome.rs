//! The value that a block returns: the body's, unless the block is ended early with another one.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::sys::primitives::{Mutex, lock};
use crate::sys::unwind::discard;

/// A block's value, which the block and its handles share.
pub(super) struct Outcome<R> {
    slot: Arc<Mutex<Slot<R>>>,
}

struct Slot<R> {
    value: Value<R>,
    on_late: Option<LateHook<R>>,
    /// The block has ended, so no value can be late any more.
    ended: bool,
}

pub(super) enum Value<R> {
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
                ended: false,
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
        match self.end() {
            Value::Returned(value) | Value::Terminated(value) | Value::Failed(value) => value,
            Value::None | Value::Failing => {
                unreachable!("a block that ends has the value of its body, or another one")
            }
        }
    }

    /// Drops the value of a block that ends with a panic. An error goes to the hook.
    pub(super) fn discard(&self) {
        let value = std::mem::replace(&mut lock(&self.slot).value, Value::None);
        let unreported = match value {
            Value::Failed(error) => self.report_late(error),
            _ => Ok(()),
        };
        self.end();
        if let Err(error) = unreported {
            tracing::warn!(
                target: "seedbed::nursery",
                "the error of a nursery's block is dropped, because a panic came after it"
            );
            drop(error);
        }
    }

    /// Sets the hook for late values, or drops it if the block has ended.
    pub(super) fn set_late_hook(&self, hook: LateHook<R>) {
        let mut slot = lock(&self.slot);
        let unused = if slot.ended {
            Some(hook)
        } else {
            slot.on_late.replace(hook)
        };
        drop(slot);
        // The drop runs when no lock is held.
        drop(unused);
    }

    /// Ends the block: takes its value, and drops the hook for late values. (The hook may have a
    /// handle on the nursery, which would keep the hook.)
    pub(super) fn end(&self) -> Value<R> {
        let mut slot = lock(&self.slot);
        slot.ended = true;
        let hook = slot.on_late.take();
        let value = std::mem::replace(&mut slot.value, Value::None);
        drop(slot);
        if let Some(hook) = hook {
            drop_hook(hook);
        }
        value
    }

    /// Gives a late value to the hook, or back to the caller if there is no hook.
    pub(super) fn report_late(&self, value: R) -> Result<(), R> {
        let Some(mut hook) = lock(&self.slot).on_late.take() else {
            return Err(value);
        };
        // Not under the lock: the hook may use the nursery.
        hook(value);
        let mut slot = lock(&self.slot);
        // The hook may have set another one.
        let unused = if slot.on_late.is_none() && !slot.ended {
            slot.on_late = Some(hook);
            None
        } else {
            Some(hook)
        };
        drop(slot);
        drop(unused);
        Ok(())
    }
}

#[cold]
fn drop_hook<R>(hook: LateHook<R>) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(hook))) {
        tracing::error!(
            target: "seedbed::nursery",
            "the drop of an on_late_error hook has panicked; the panic is dropped"
        );
        discard(payload);
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
