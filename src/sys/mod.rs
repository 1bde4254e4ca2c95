//! System calls, shared memory, and the role of this process.
//!
//! No file here uses jobs, frames or the runtime. Calls that rustix has are made through it,
//! without `unsafe`; libc serves for the rest. Each file with `unsafe` says at its head why it
//! needs it.

#[cfg(all(feature = "workers", target_os = "linux"))]
pub(crate) mod answer;
#[cfg(all(feature = "workers", target_os = "linux"))]
pub(crate) mod arena;
#[cfg(all(feature = "workers", target_os = "linux"))]
pub(crate) mod child_setup;
#[cfg(all(feature = "workers", target_os = "linux"))]
pub(crate) mod clock;
#[cfg(all(feature = "workers", target_os = "linux"))]
pub(crate) mod cpu_timer;
#[cfg(all(feature = "workers", target_os = "linux"))]
pub(crate) mod credentials;
#[cfg(target_os = "linux")]
pub(crate) mod ctrl_c;
#[cfg(not(target_os = "linux"))]
#[path = "without_ctrl_c.rs"]
pub(crate) mod ctrl_c;
#[cfg(all(feature = "workers", target_os = "linux"))]
pub(crate) mod data_size;
#[cfg(all(feature = "workers", target_os = "linux"))]
pub(crate) mod descriptors;
#[cfg(all(feature = "workers", target_os = "linux"))]
pub(crate) mod directory;
#[cfg(target_os = "linux")]
pub(crate) mod disposition;
#[cfg(all(feature = "workers", target_os = "linux"))]
pub(crate) mod environment;
#[cfg(all(feature = "workers", target_os = "linux"))]
pub(crate) mod fault;
#[cfg(all(feature = "workers", target_os = "linux"))]
pub(crate) mod fnv;
#[cfg(all(feature = "workers", target_os = "linux"))]
pub(crate) mod fork;
#[cfg(target_os = "linux")]
pub(crate) mod fork_detector;
#[cfg(not(target_os = "linux"))]
#[path = "without_fork_detector.rs"]
pub(crate) mod fork_detector;
#[cfg(all(feature = "workers", target_os = "linux"))]
pub(crate) mod futex;
#[cfg(all(feature = "workers", target_os = "linux"))]
pub(crate) mod image;
#[cfg(all(feature = "workers", target_os = "linux"))]
pub(crate) mod interval_timer;
#[cfg(all(feature = "workers", target_os = "linux"))]
mod kernel_timer;
#[cfg(all(feature = "workers", target_os = "linux"))]
pub(crate) mod kill_timer;
#[cfg(target_os = "linux")]
pub(crate) mod main_thread;
#[cfg(not(target_os = "linux"))]
#[path = "without_main_thread.rs"]
pub(crate) mod main_thread;
#[cfg(all(feature = "workers", target_os = "linux"))]
mod mapped;
#[cfg(all(feature = "workers", target_os = "linux"))]
pub(crate) mod mapping;
#[cfg(all(feature = "workers", target_os = "linux"))]
pub(crate) mod mapping_cache;
#[cfg(all(feature = "workers", target_os = "linux"))]
pub(crate) mod memory;
#[cfg(all(test, loom))]
pub(crate) mod model;
#[cfg(all(feature = "workers", target_os = "linux"))]
pub(crate) mod orphans;
#[cfg(all(feature = "workers", target_os = "linux"))]
pub(crate) mod posix_timer;
pub(crate) mod primitives;
#[cfg(target_os = "linux")]
pub(crate) mod proc_file;
#[cfg(all(feature = "workers", target_os = "linux"))]
pub(crate) mod process;
#[cfg(all(feature = "workers", target_os = "linux"))]
pub(crate) mod process_group;
#[cfg(all(feature = "workers", target_os = "linux"))]
pub(crate) mod process_tree;
#[cfg(all(feature = "workers", target_os = "linux"))]
pub(crate) mod role;
#[cfg(not(all(feature = "workers", target_os = "linux")))]
#[path = "without_role.rs"]
pub(crate) mod role;
#[cfg(all(feature = "workers", target_os = "linux"))]
pub(crate) mod scratch;
#[cfg(all(feature = "workers", target_os = "linux"))]
pub(crate) mod signal;
#[cfg(all(feature = "workers", target_os = "linux"))]
pub(crate) mod signal_number;
#[cfg(target_os = "linux")]
pub(crate) mod socket;
#[cfg(all(feature = "workers", target_os = "linux"))]
pub(crate) mod spawn;
#[cfg(all(feature = "workers", target_os = "linux"))]
pub(crate) mod stack;
#[cfg(target_os = "linux")]
pub(crate) mod standard_fds;
#[cfg(target_os = "linux")]
pub(crate) mod thread;
#[cfg(target_os = "linux")]
pub(crate) mod tuning;
#[cfg(all(feature = "workers", target_os = "linux"))]
mod unshared;
pub(crate) mod unwind;
#[cfg(all(feature = "workers", target_os = "linux"))]
pub(crate) mod usage;
