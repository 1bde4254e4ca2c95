//! On systems without `MADV_WIPEONFORK`, forked copies of the program are not detected.

/// Does nothing.
pub(crate) fn watch_for_forks() {}

/// Returns whether this process is a forked copy, as far as is known: never.
pub(crate) fn is_forked_copy() -> bool {
    false
}
