//! Constants of delayed values.

/// The number of nodes that one poll of a delayed value visits before other tasks may run. At 20 to
/// 60 ns for each, a poll takes at most about 0.2 ms.
pub(super) const STEPS_PER_POLL: usize = 4096;
