//! What crosses the border of a process when a function is called in a worker: its identity, and what becomes of it.
//!
//! [`code`] names functions by where they lie in the executable; [`mod@panic`] catches what they panic with; [`status`] is
//! what a worker knows of itself; [`image`] says which executable this is.

pub(crate) mod code;
pub(crate) mod image;
pub(crate) mod panic;
pub(crate) mod panic_report;
pub(crate) mod status;
