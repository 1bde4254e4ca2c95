//! The tuning constants of the system layer.

use std::time::Duration;

/// How long an arena stays idle, and a worker keeps a mapping that no job uses.
pub(crate) const UNUSED_MAPPING_KEPT_FOR: Duration = Duration::from_secs(1);

/// The number of mappings that a worker keeps. With several calls at once, arenas reach the workers
/// in turn.
pub(super) const MAX_KEPT_MAPPINGS: usize = 4;

/// If the address space is limited, unused mappings take at most one part in this many of it.
pub(super) const UNUSED_MAPPINGS_DIVISOR: u64 = 8;

/// The number of bytes of a `Scratch` that are written before their memory is freed: a few huge
/// pages.
pub(super) const FREED_PIECE_BYTES: usize = 8 << 20;

/// The CPU time between SIGXCPU and SIGKILL.
pub(super) const CPU_TIME_BEFORE_KILL: Duration = Duration::from_secs(1);

/// The time after which descendants are killed even if every scan still finds new ones. A process
/// that may not be signalled, or one that cannot stop itself, could start others forever.
pub(super) const STOP_TIMEOUT: Duration = Duration::from_millis(50);

/// The time after which living descendants are left alive. A process in an uninterruptible system
/// call does not end before the call does.
pub(super) const KILL_TIMEOUT: Duration = Duration::from_secs(1);

/// The pause between two scans for descendants.
pub(crate) const SCAN_INTERVAL: Duration = Duration::from_millis(1);

/// How often the signal mask of another thread is read until it is not one that the C library has
/// set for a moment.
pub(super) const MASK_READS: usize = 1000;

/// An access this near to the stack pointer may belong to the frame there: that of a function whose
/// compiler does not touch each page of a large frame, or that keeps data below the pointer.
pub(super) const STACK_FAULT_DISTANCE_BYTES: usize = 64 << 10;

/// The memory that a process can always have, unless it has none left.
pub(super) const MEMORY_PROBE_BYTES: usize = 64 << 10;

/// The frames of a thread that are searched for a failed allocation. Rust's handlers of it have
/// about ten.
pub(super) const FRAMES_SEARCHED: usize = 64;

/// How often a process acts out a signal that ends it, if a handler is installed each time just
/// before the signal arrives.
pub(super) const ENDS_TRIED: u32 = 100;
