//! The constants of the deadline queue.

/// The number of stale entries, and of empty slots, that are kept rather than cleaned up.
pub(super) const STALE_ENTRIES_KEPT: usize = 64;

/// `expire` pops at least this many entries one by one before it sorts the others. Popping accesses
/// memory at random; sorting does not.
pub(super) const POPPED_BEFORE_SORTING: usize = 64;

/// `expire` sorts only once it has popped one in this many entries of the queue, because sorting
/// reads all of them.
pub(super) const ENTRIES_PER_POP: usize = 64;
