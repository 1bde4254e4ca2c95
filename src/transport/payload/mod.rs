//! Payloads: values encoded into a frame, or into memory attached to it.
//!
//! * Sending: [`encoding`] writes a value into its frame or into a `store`, which is a new file in
//!   memory or a reused arena of an [`arena_pool`].
//! * Receiving: [`incoming`] locates the encoding again, by the `payload_ref` at its head.
//! * [`attachments`] carries the shared memory within a value, and [`inline`] the part of it that
//!   is copied. `message_scope` finds the message of a thread, whose memory is an
//!   [`outgoing_memory`] or an [`incoming_memory`].
//! * `shared_slice` and `shared_bytes_writer` are the public types; `shared_serde` encodes them.
//! * `descriptor` is the public type for files and sockets.

pub(crate) mod arena_pool;
#[cfg(all(test, not(loom)))]
mod arena_tests;
pub(crate) mod attachment_error;
pub(crate) mod attachments;
mod descriptor;
pub(crate) mod encoding;
pub(crate) mod incoming;
pub(crate) mod incoming_memory;
pub(crate) mod inline;
mod message_scope;
pub(crate) mod outgoing_memory;
pub(in crate::transport) mod payload_ref;
mod shared_bytes_writer;
mod shared_serde;
mod shared_slice;
#[cfg(test)]
mod shared_tests;
pub(crate) mod store;

pub use descriptor::Descriptor;
pub use shared_bytes_writer::SharedBytesWriter;
pub use shared_slice::{SharedBytes, SharedSlice};
