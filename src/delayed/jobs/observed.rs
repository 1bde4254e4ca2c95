//! The view that an observer has of a block.

use super::statistics::Statistics;
use crate::sync::Wait;

/// The change of a block since the last item of a stream.
pub(super) enum Observed {
    Changed(Statistics, u64),
    Unchanged(Wait),
    /// The block has ended.
    Ended,
}
