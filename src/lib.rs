//! Trio for Rust, on smol.

#![deny(unsafe_code)]
#![warn(missing_docs, missing_debug_implementations, unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]

pub mod cancel;
pub mod time;
pub mod tree_var;

pub use cancel::*;
pub use time::{current_time, sleep, sleep_forever, sleep_until};
pub use tree_var::TreeVar;
