//! The parts of `ctrl_c` that exist on systems where a run does not receive Ctrl-C.

/// The payload with which a run that ends after Ctrl-C unwinds its thread, which does not happen
/// here.
pub(crate) struct InterruptedRun;
