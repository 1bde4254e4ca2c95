//! Cancel scopes, timeouts, shields.
//!
//! Cancellation drops a future at an unshielded await. A [`CancelScope`] polls its body; once it is
//! cancelled and the body is pending, it drops the body. A [`shield()`] makes everything around it
//! wait for it first, and [`on_cancel`] is the place for clean-up that awaits.

// The rules (which nodes are cancelled, which wait, which absorb) are in `tree`, which is pure;
// `node` puts the tree behind a lock and wakes; `position` knows which node a thread is polling.
// The other files are the futures that obey, and groups of scopes.

mod cancel_scope;
mod checkpoint;
mod current;
mod group;
mod node;
mod outlived;
pub(crate) mod position;
mod reason;
mod scope;
mod scope_state;
mod shield;
mod timeout;
mod tree;
mod tuning;
mod wait_report;
mod wait_tick;
mod watch;

#[cfg(all(test, loom))]
mod loom_tests;

pub use cancel_scope::CancelScope;
pub use checkpoint::{Checkpoint, CheckpointIfCancelled, checkpoint, checkpoint_if_cancelled};
pub use current::{current_cancel_reason, current_effective_deadline};
pub use group::ScopeGroup;
pub use reason::{CancelReason, CancelSource};
pub use scope::ScopeRun;
pub(crate) use shield::on_cancel_watched;
pub use shield::{OnCancel, Shield, on_cancel, shield};
pub use timeout::{Fail, MoveOn, TooSlowError, fail_after, fail_at, move_on_after, move_on_at};

pub(crate) use node::{Node, NodeState, SharedTree};
pub(crate) use outlived::{WhileCancelled, poll_dead};
pub(crate) use position::Entered;
pub(crate) use scope::ScopeDriver;
pub(crate) use tree::{End, Kind, NodeId};
#[cfg(all(feature = "workers", target_os = "linux"))]
pub(crate) use wait_report::WaitReport;
pub(crate) use wait_report::reported;
pub(crate) use watch::{CancelView, Watch};
