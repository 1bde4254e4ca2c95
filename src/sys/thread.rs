//! Threads: their ids, and how many this process has.
//!
//! `unsafe` is needed for a system call and a variable of the C library that no crate wraps; see
//! [`is_alone`] and [`was_always_alone`].
#![allow(unsafe_code)]

use std::sync::OnceLock;

use super::proc_file;

/// The id of a thread in the kernel.
pub(crate) type Id = u32;

/// Returns the calling thread's id.
pub(crate) fn id() -> Id {
    rustix::thread::gettid()
        .as_raw_nonzero()
        .get()
        .cast_unsigned()
}

/// Returns whether this is the thread on which `main` runs.
pub(crate) fn is_main() -> bool {
    rustix::thread::gettid() == rustix::process::getpid()
}

/// Returns the threads of this process, or only the caller if `/proc` is not mounted.
pub(crate) fn all() -> Vec<Id> {
    if is_alone() == Some(true) {
        return vec![id()]; // the list costs twenty times as much as this check
    }
    let Ok(listed) = std::fs::read_dir("/proc/self/task") else {
        return vec![id()];
    };
    listed
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// Returns how many threads of this process may still run its code. The kernel lists a joined
/// thread for a moment longer; such a thread does not count.
///
/// # Errors
///
/// Fails if `/proc` is not mounted.
pub(crate) fn count() -> std::io::Result<usize> {
    let listed = std::fs::read_dir("/proc/self/task")?;
    let lives = |entry: std::io::Result<std::fs::DirEntry>| {
        // An unreadable thread has ended; one in an unknown format counts.
        let stat = proc_file::read(entry.ok()?.path().join("stat")).ok()?;
        (!is_exiting(&stat).unwrap_or(false)).then_some(())
    };
    Ok(listed.filter_map(lives).count())
}

/// Returns whether the C library reports that this process has never had another thread. Costs a
/// load.
pub(crate) fn was_always_alone() -> bool {
    static VARIABLE: OnceLock<usize> = OnceLock::new();
    // SAFETY: the name is a C string, and the handle stands for all loaded objects.
    let find = || unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__libc_single_threaded".as_ptr()) };
    match *VARIABLE.get_or_init(|| find().expose_provenance()) {
        0 => false,
        // SAFETY: this is glibc's documented variable of that name, a `char` that exists as long as
        // the library, which is never unloaded. It is written when the first thread is made, when
        // no other thread could access it.
        place => unsafe { std::ptr::with_exposed_provenance::<u8>(place).read_volatile() != 0 },
    }
}

/// Returns whether the caller is the only thread of this process, or `None` if the kernel does not
/// answer because the call is forbidden. Costs as much as an empty system call.
///
/// The call asks to separate this thread from the others of its process, which the kernel refuses
/// unless there are none; then it does nothing.
pub(crate) fn is_alone() -> Option<bool> {
    // SAFETY: with this flag alone, the call changes nothing. It fails if there are other threads.
    match unsafe { libc::unshare(libc::CLONE_THREAD) } {
        0 => Some(true),
        _ => match std::io::Error::last_os_error().raw_os_error() {
            Some(libc::EINVAL) => Some(false),
            _ => None,
        },
    }
}

/// The threads of this process before the first job.
static BASELINE: OnceLock<Baseline> = OnceLock::new();

#[derive(Debug)]
struct Baseline {
    listed: usize,
    /// `None` if no descriptor was free to count them.
    count: Option<usize>,
}

/// Records how many threads this worker has before its first job, unless its fork server has
/// recorded that.
pub(crate) fn record_baseline() {
    if BASELINE.get().is_none()
        && let Ok(listed) = listed()
    {
        let count = match is_alone() {
            Some(true) => Some(1), // counting takes ten times as long as this check
            _ => count().ok(),
        };
        BASELINE.get_or_init(|| Baseline { listed, count });
    }
}

/// Returns how many threads this worker has in addition to those before its first job; 0 if that is
/// unknown. Costs a load if there has never been another thread.
pub(crate) fn count_above_baseline() -> usize {
    if was_always_alone() || is_alone() == Some(true) {
        return 0;
    }
    let Some(baseline) = BASELINE.get() else {
        return 0;
    };
    let listed = listed().map_or(0, |listed| listed.saturating_sub(baseline.listed));
    // Counting takes ten times as long, and leaves out threads that are ending.
    match (listed, baseline.count, count) {
        (0, ..) => 0,
        (_, Some(before), count) => count().map_or(listed, |count| count.saturating_sub(before)),
        (_, None, _) => listed,
    }
}

/// Returns a number that grows by one with each thread of this process, including threads that are
/// ending. Costs a tenth of [`count`].
///
/// # Errors
///
/// Fails if `/proc` is not mounted.
pub(crate) fn listed() -> std::io::Result<usize> {
    let entries = rustix::fs::stat("/proc/self/task")?.st_nlink;
    usize::try_from(entries).map_err(std::io::Error::other)
}

/// Returns whether the kernel's flag for an ending thread is set, which happens before a joining
/// thread is woken. `stat` is a number, a name in parentheses, which may hold anything, and then
/// words.
fn is_exiting(stat: &[u8]) -> Option<bool> {
    const PF_EXITING: u32 = 4;
    const FLAGS: usize = 6; // index among the words behind the name
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
    fn a_test_has_other_threads_and_is_listed_with_the_main_thread() {
        assert_eq!(is_alone(), Some(false));
        assert!(!was_always_alone());
        assert!(
            listed().unwrap() >= 2 + 2,
            "a folder has two entries of its own"
        );
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
