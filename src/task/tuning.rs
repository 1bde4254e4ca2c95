//! The constants of this module.

use std::time::Duration;

/// How many task numbers a thread reserves at a time, so that threads seldom share a cache line for
/// them.
pub(super) const TASK_IDS_PER_RESERVATION: u64 = 1024;

/// How long a thread that asks for a nursery's children sleeps between attempts while another
/// thread polls the nursery.
pub(super) const POLL_LOCK_RETRY: Duration = Duration::from_micros(100);

/// Into how many parts the list of open blocks is divided, so that threads seldom wait for its
/// locks.
pub(super) const BLOCK_REGISTRY_SHARDS: usize = 16;
