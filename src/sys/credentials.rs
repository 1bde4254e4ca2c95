//! The credentials of this process: what the kernel lets it, and the processes that it executes,
//! do. A worker keeps those that this process had when the worker was started.
//!
//! They are those of the main thread: users, groups, capabilities, restrictions (`no_new_privs`,
//! seccomp), the umask, and the root directory. Each change makes a new *generation*.

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
    fn present() -> Self {
        Self {
            status: proc_file::read(STATUS).map_or_else(|_| Vec::new(), |status| excerpt(&status)),
            root: directory::root().ok(),
        }
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

/// Returns the generation of the present credentials. Reads a file of `/proc`, which takes some
/// microseconds.
pub(crate) fn generation() -> u64 {
    let present = Credentials::present();
    let mut last = LAST_SEEN.lock().unwrap_or_else(PoisonError::into_inner);
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
    fn what_changes_all_the_time_is_no_credential() {
        let status = b"Name:\tx\nUmask:\t0022\nVmPeak:\t7 kB\nUid:\t0\t0\t0\t0\n";
        assert_eq!(excerpt(status), b"Umask:\t0022\nUid:\t0\t0\t0\t0\n");
        let own = excerpt(&proc_file::read(STATUS).unwrap());
        let lines = own.split(|&byte| byte == b'\n').count();
        assert!(lines > LINES.len() - 2, "{}", own.escape_ascii());
    }
}
