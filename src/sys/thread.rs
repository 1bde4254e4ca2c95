//! What threads are to their process.

/// A thread, as the kernel numbers it.
pub(crate) type Id = u32;

/// Returns the calling thread's id.
pub(crate) fn id() -> Id {
    rustix::thread::gettid()
        .as_raw_nonzero()
        .get()
        .cast_unsigned()
}

/// Tells whether this is the thread that `main` runs on.
pub(crate) fn is_main() -> bool {
    rustix::thread::gettid() == rustix::process::getpid()
}

/// Returns the threads of this process, or only the caller if `/proc` is not mounted.
pub(crate) fn all() -> Vec<Id> {
    let Ok(listed) = std::fs::read_dir("/proc/self/task") else {
        return vec![id()];
    };
    listed
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// Returns how many threads this process has.
///
/// # Errors
///
/// If `/proc` is not mounted.
pub(crate) fn count() -> std::io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_finds_itself_among_all_and_a_test_is_not_on_the_main_one() {
        assert!(all().contains(&id()));
        assert!(!is_main());
    }
}
