//! Trio for Rust, on smol.

#![deny(unsafe_code)]
#![warn(missing_docs, missing_debug_implementations, unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]

pub mod cancel;
pub mod sync;
pub mod time;
mod tree_var;

pub use cancel::{
    CancelScope, TooSlow, checkpoint, checkpoint_if_cancelled, current_effective_deadline, fail_after, fail_at,
    move_on_after, move_on_at, on_cancel, shield,
};
pub use time::{current_time, sleep, sleep_forever, sleep_until};
pub use tree_var::{TreeVar, TreeVarScope};
