//! Raw calls: with `job::code` and `worker::child`, the only files that contain `unsafe`, and each file says why it does.
//!
//! Nothing here knows of jobs, frames or workers. What rustix offers is used through it, without `unsafe`; libc serves
//! for the rest.

pub(crate) mod arena;
pub(crate) mod copy;
pub(crate) mod cpu_timer;
pub(crate) mod disposition;
pub(crate) mod fork;
pub(crate) mod image;
pub(crate) mod mapping;
pub(crate) mod memory;
#[cfg(all(test, loom))]
pub(crate) mod model;
pub(crate) mod original;
pub(crate) mod primitives;
pub(crate) mod process;
pub(crate) mod process_tree;
pub(crate) mod role;
pub(crate) mod signal;
pub(crate) mod socket;
pub(crate) mod thread;
