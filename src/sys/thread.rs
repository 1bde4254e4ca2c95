//! What a thread is to its process.

/// Tells whether this is the thread that `main` runs on.
pub(crate) fn is_main() -> bool {
    rustix::thread::gettid() == rustix::process::getpid()
}
