//! Cancel scopes, timeouts, shields.
//!
//! Cancellation is dropping at an unshielded await. A [`CancelScope`] polls its body; once it is cancelled and the body
//! is pending, it drops the body. A [`shield()`] makes everything around it wait for it first, and [`on_cancel`] is the
//! place for clean-up that awaits. The rules (who is cancelled, who waits, who absorbs) are in [`tree`], which is pure;
//! [`node`] puts it behind a lock and wakes; [`current`] knows where in the tree a thread is polling; the other files
//! are the futures that obey, and groups of scopes ([`group`]), of which the tree knows nothing.

mod checkpoint;
pub(crate) mod current;
mod group;
mod node;
mod reason;
mod scope;
mod shield;
mod timeout;
mod tree;
mod watch;

#[cfg(all(test, loom))]
mod loom_tests;

pub use checkpoint::{
    Checkpoint, CheckpointIfCancelled, checkpoint, checkpoint_if_cancelled,
    current_effective_deadline,
};
pub use group::ScopeGroup;
pub use reason::{CancelReason, CancelSource, current_cancel_reason};
pub use scope::{CancelScope, ScopeRun};
pub use shield::{OnCancel, Shield, on_cancel, shield};
pub use timeout::{Fail, MoveOn, TooSlow, fail_after, fail_at, move_on_after, move_on_at};

pub(crate) use crate::sys::primitives::lock;
pub(crate) use current::Entered;
pub(crate) use node::{Cell, Node, OfRun, Shared};
pub(crate) use scope::Driver;
pub(crate) use tree::{End, Kind, NodeId};
pub(crate) use watch::{CancelView, Watch};
