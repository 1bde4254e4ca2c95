//! The credentials of this process: what the kernel lets it, and the processes that it executes,
//! do. A worker keeps those that this process had when the worker was started.
//!
//! They are those of the main thread: users, groups, capabilities, restrictions (`no_new_privs`,
//! seccomp), the umask, and the root directory. Each change makes a new *generation*.

use std::io::ErrorKind;
use std::sync::{Mutex, PoisonError};

use super::directory::{self, DirectoryId};
use super::proc_file;

const STATUS: &str = "/proc/self/status";

/// The lines of [`STATUS`] that describe credentials.
const LINES: [&str; 12] = [
    "Umask:",
    "Uid:",
    "Gid:",
    "Groups:",
    "CapInh:",
    "CapPrm:",
    "CapEff:",
    "CapBnd:",
    "CapAmb:",
    "NoNewPrivs:",
    "Seccomp:",
    "Seccomp_filters:",
];

/// The credentials of this process at some moment.
#[derive(Debug, PartialEq, Eq)]
struct Credentials {
    status: Vec<u8>,
    root: Option<DirectoryId>,
}

impl Credentials {
    /// Returns `None` if they cannot be read now, as when the process has no descriptor left.
    fn present() -> Option<Self> {
        let status = match proc_file::read(STATUS) {
            Ok(status) => excerpt(&status),
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(), // there is no `/proc`
            Err(_) => return None,
        };
        Some(Self {
            status,
            root: directory::root().ok(),
        })
    }
}

/// Returns the lines that describe credentials.
fn excerpt(status: &[u8]) -> Vec<u8> {
    let is_one = |line: &&[u8]| LINES.iter().any(|name| line.starts_with(name.as_bytes()));
    let lines = status.split_inclusive(|&byte| byte == b'\n');
    lines.filter(is_one).flatten().copied().collect()
}

/// The credentials that were seen last, and their generation.
static LAST_SEEN: Mutex<Option<(Credentials, u64)>> = Mutex::new(None);

/// Returns the generation of the present credentials, or of those seen last if they cannot be read.
/// Reads a file of `/proc`, which takes some microseconds.
pub(crate) fn generation() -> u64 {
    // Locked before the look, or an older one could be noted after a newer one.
    let mut last = LAST_SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    note(&mut last, Credentials::present())
}

fn note(last: &mut Option<(Credentials, u64)>, present: Option<Credentials>) -> u64 {
    let Some(present) = present else {
        return last.as_ref().map_or(0, |(_, generation)| *generation);
    };
    let generation = match &*last {
        Some((seen, generation)) if *seen == present => *generation,
        Some((_, generation)) => generation + 1,
        None => 1,
    };
    *last = Some((present, generation));
    generation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_that_do_not_change_keep_their_generation() {
        let first = generation();
        assert_eq!(generation(), first);
    }

    #[test]
    fn credentials_that_cannot_be_read_count_as_those_seen_last() {
        let present = |status: &[u8]| {
            Some(Credentials {
                status: status.to_vec(),
                root: None,
            })
        };
        let mut last = None;
        assert_eq!(note(&mut last, None), 0);
        assert_eq!(note(&mut last, present(b"root")), 1);
        assert_eq!(note(&mut last, None), 1);
        assert_eq!(note(&mut last, present(b"root")), 1);
        assert_eq!(note(&mut last, present(b"nobody")), 2);
    }

    #[test]
    fn what_changes_all_the_time_is_no_credential() {
        let status = b"Name:\tx\nUmask:\t0022\nVmPeak:\t7 kB\nUid:\t0\t0\t0\t0\n";
        assert_eq!(excerpt(status), b"Umask:\t0022\nUid:\t0\t0\t0\t0\n");
        let own = excerpt(&proc_file::read(STATUS).unwrap());
        let lines = own.split(|&byte| byte == b'\n').count();
        assert!(lines > LINES.len() - 2, "{}", own.escape_ascii());
    }
}
