//! What a worker does to itself before its first job, so that no file can take more than its share.

use std::env;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Caps the address space of this process, which is a worker. The kernel refuses what goes beyond, and Rust aborts a
/// process that is refused memory: the worker crashes, and nobody else notices.
pub fn cap_memory(bytes: &u64) {
    cap(Resource::As, *bytes);
    // Crashes are this program's daily bread. They shall not fill the disk with core files.
    cap(Resource::Core, 0);
    forbid_backtraces();
}

/// Lowers a limit of this process, which may have been given a lower one already.
fn cap(resource: Resource, limit: u64) {
    let given = getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let limit = Some(limit.min(given));
    let limits = Rlimit {
        current: limit,
        maximum: limit,
    };
    setrlimit(resource, limits).expect("every process may lower its own limits");
}

/// Makes Rust die with one line. The user may have set `RUST_BACKTRACE`, but a process that is out of memory has none
/// to print a backtrace with, and the line that says so would be lost among thousands of frames of a parser.
fn forbid_backtraces() {
    // SAFETY: no other thread may read or write the environment meanwhile. A worker has one thread, the one that runs
    // its init closures and its jobs, and no job has been here before to start another.
    unsafe { env::remove_var("RUST_BACKTRACE") };
}
