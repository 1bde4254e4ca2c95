//! Parts of error messages.

/// The advice for types that need a format which describes itself.
pub(super) const USE_DESCRIBED: &str = "send it as `seedbed::worker::Described(value)`";

/// The error for a value that is nested too deeply.
pub(in crate::transport) const TOO_DEEP: &str = "it is nested too deeply for the stack of this thread; send a flatter type (a list whose items refer \
     to each other by index), or use a larger stack: `WorkerConfig::stack_size` in a worker, `RUST_MIN_STACK` or \
     `std::thread::Builder::stack_size` in this program";
