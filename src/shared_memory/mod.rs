//! Immutable memory that processes share: made once, read in place by whoever has it.
//!
//! [`mod@slice`] is what users hold; [`writer`] fills one from a stream; [`encoding`] is how it stands in a message of
//! ours (a number, with the descriptor beside the message) and anywhere else (its bytes).
//!
//! The memory itself, and why it may be borrowed as a slice, is in [`crate::sys::memory`]. There is no `unsafe` here: slices
//! of values are slices of bytes, cast by `bytemuck`, which checks length and alignment, each time. So nothing that another
//! process says is believed further than that.

mod encoding;
mod slice;
mod writer;

#[cfg(test)]
mod tests;

pub use slice::{SharedBytes, SharedSlice};
pub use writer::SharedBytesWriter;
