//! On systems without `MADV_WIPEONFORK`, forked copies of the program are not detected.

/// Does nothing.
pub(crate) fn watch_for_forks() {}

/// Returns whether this process is a forked copy, as far as is known: never.
pub(crate) fn is_forked_copy() -> bool {
    false
}

/// Does nothing.
pub(crate) fn refuse_in_forked_copy(_wait: &str) {}

/// A value that each process has for itself, where forked processes are detected.
pub(crate) struct PerProcess<T>(std::sync::OnceLock<T>);

impl<T: Default> PerProcess<T> {
    pub(crate) const fn new() -> Self {
        PerProcess(std::sync::OnceLock::new())
    }

    /// Returns the value, which the first call makes.
    pub(crate) fn get(&self) -> &T {
        self.0.get_or_init(T::default)
    }
}
