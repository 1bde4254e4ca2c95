//! Immutable memory that processes share: made once, read in place by whoever has it.
//!
//! [`mod@slice`] is what users hold; [`writer`] fills one from a stream; [`encoding`] is how it stands in a message of
//! ours (a number, with the descriptor beside the message or the bytes behind it) and anywhere else (its bytes).
//!
//! What the memory is, a slice does not mind: see [`Memory`](crate::transport::payload::inline::Memory). Why it may be borrowed is
//! in [`crate::sys::memory`] and, for a slice that was a `Vec` in the parent, in [`crate::sys::arena`]. There is no
//! `unsafe` here: slices of values are slices of bytes, cast by `bytemuck`, which checks length and alignment, each
//! time. So nothing that another process says is believed further than that.

mod encoding;
mod slice;
mod writer;

#[cfg(test)]
mod tests;

pub use slice::{SharedBytes, SharedSlice};
pub use writer::SharedBytesWriter;
