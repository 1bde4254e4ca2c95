//! Values that arrive as they were sent, or not at all.
//!
//! The encoding does not describe itself: it is the encodings of all parts in a row. So a type
//! whose `Serialize` and `Deserialize` disagree would often be decoded as another value. serde's
//! attributes make that easy: a variant or a field that only one direction skips, names that differ
//! between the directions, a conversion on one side. These adapters between a type and its format
//! detect it:
//!
//! * A *variant* is written with a hash of its name, and found by its name.
//! * Both directions compute a [`Shape`] of what they have seen: names of fields and variants,
//!   lengths of tuples, kinds of numbers. It follows the value, unless that is a single number or
//!   text, and must be the same on both sides.
//! * Aliases hide which of the names of a type the encoder uses. In this case a [`Witness`] looks
//!   at what the decoded value is encoded as, and the value is decoded once more.
//! * Both directions compare each nested value with the stack that is left (`sys::stack`).

mod deserializer;
#[cfg(all(test, not(loom)))] // takes half a minute to compile
mod generated_tests;
mod guard;
mod messages;
mod rules;
mod serializer;
mod shape;
#[cfg(test)]
mod tests;
mod witness;

pub(in crate::transport) use deserializer::{Decoded, Expected};
pub(in crate::transport) use messages::TOO_DEEP;
pub(in crate::transport) use rules::{Rules, StackCheck, Watch};
pub(in crate::transport) use serializer::{Outgoing, Strict};
pub(in crate::transport) use shape::{Kind, Names, Shape};
pub(in crate::transport) use witness::Witness;
