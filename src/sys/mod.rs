//! System calls, shared memory, and the role of this process.
//!
//! No file here uses jobs, frames or the runtime. Calls that rustix has are made through it,
//! without `unsafe`; libc serves for the rest. Each file with `unsafe` says at its head why it
//! needs it.

pub(crate) mod arena;
pub(crate) mod child_setup;
pub(crate) mod cpu_timer;
pub(crate) mod ctrl_c;
pub(crate) mod disposition;
pub(crate) mod fork;
pub(crate) mod fork_detector;
pub(crate) mod image;
pub(crate) mod mapping;
pub(crate) mod memory;
#[cfg(all(test, loom))]
pub(crate) mod model;
pub(crate) mod primitives;
pub(crate) mod process;
pub(crate) mod process_tree;
pub(crate) mod role;
pub(crate) mod signal;
pub(crate) mod signal_number;
pub(crate) mod socket;
pub(crate) mod thread;
pub(crate) mod tuning;
