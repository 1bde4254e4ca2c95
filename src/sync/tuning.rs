//! The constants of the primitives.

/// The number of free slots that an empty wait list keeps for its next waiters; the rest is freed.
pub(super) const WAIT_LIST_SLOTS_KEPT: usize = 64;
