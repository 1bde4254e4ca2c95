//! The call of a function in a worker: its identity and its outcome.
//!
//! [`code`] identifies functions by their offset in the executable, and [`image`] identifies the
//! executable. [`mod@panic`] catches panics, which [`panic_report`] sends to the parent. [`status`]
//! is what retire closures learn about a worker.

pub(crate) mod code;
pub(crate) mod image;
pub(crate) mod panic;
pub(crate) mod panic_report;
pub(crate) mod status;
