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

/// Returns how many threads this process has that may still run code of it. One that has been joined is in the kernel's
/// list for a moment more, on its way out.
///
/// # Errors
///
/// If `/proc` is not mounted.
pub(crate) fn count() -> std::io::Result<usize> {
    let listed = std::fs::read_dir("/proc/self/task")?;
    let lives = |entry: std::io::Result<std::fs::DirEntry>| {
        // What cannot be read is gone, and what cannot be understood is taken to live.
        let stat = std::fs::read(entry.ok()?.path().join("stat")).ok()?;
        (!is_exiting(&stat).unwrap_or(false)).then_some(())
    };
    Ok(listed.filter_map(lives).count())
}

/// Looks for the flag that the kernel sets when a thread begins to end, before anybody who joins it is woken. `stat` is a
/// number, a name in parentheses, which may hold anything, and then words.
fn is_exiting(stat: &[u8]) -> Option<bool> {
    const PF_EXITING: u32 = 4;
    const FLAGS: usize = 6; // counted from behind the name
    let after_name = stat.iter().rposition(|&byte| byte == b')')? + 1;
    let words = std::str::from_utf8(&stat[after_name..]).ok()?;
    let flags: u32 = words.split_ascii_whitespace().nth(FLAGS)?.parse().ok()?;
    Some(flags & PF_EXITING != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_finds_itself_among_all_and_a_test_is_not_on_the_main_one() {
        assert!(all().contains(&id()));
        assert!(!is_main());
    }

    #[test]
    fn a_thread_that_runs_is_not_exiting_and_one_with_the_kernels_flag_is() {
        let stat = std::fs::read(format!("/proc/self/task/{}/stat", id())).unwrap();
        assert_eq!(is_exiting(&stat), Some(false));
        assert_eq!(
            is_exiting(b"7 (a ) b) R 1 1 1 0 -1 4194372 0 0"),
            Some(true)
        );
        assert_eq!(is_exiting(b"7 (a) R"), None);
    }
}
