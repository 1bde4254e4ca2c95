//! The limits that a worker sets for itself before its first job.

use std::env;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Caps the address space of this process, which is a worker. The kernel refuses larger
/// allocations, and Rust aborts a process that is refused memory: only the worker crashes.
pub fn cap_memory(bytes: &u64) {
    cap(Resource::As, *bytes);
    // Crashes are normal here, and must not fill the disk with core files.
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

/// Makes Rust abort with a one-line message. The user may have set `RUST_BACKTRACE`, but a process
/// without memory cannot print a backtrace, and the message would be lost among thousands of frames
/// of a parser.
fn forbid_backtraces() {
    // SAFETY: no other thread may read or write the environment during the call. A worker has one
    // thread, the one that runs its init closures and its jobs, and no job has been here before to
    // start another.
    unsafe { env::remove_var("RUST_BACKTRACE") };
}
