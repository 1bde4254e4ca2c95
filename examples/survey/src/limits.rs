//! Limits that a worker sets for itself before its first job.

use std::env;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Limits the address space of this process, which is a worker. The kernel refuses memory beyond
/// the limit, and Rust then aborts the process: the worker crashes, and no other job is affected.
pub fn cap_memory(bytes: &u64) {
    cap(Resource::As, *bytes);
    // Crashes are expected here, so they must not write core files.
    cap(Resource::Core, 0);
    forbid_backtraces();
}

/// Lowers a limit of this process, unless it is lower already.
fn cap(resource: Resource, limit: u64) {
    let given = getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let limit = Some(limit.min(given));
    let limits = Rlimit {
        current: limit,
        maximum: limit,
    };
    setrlimit(resource, limits).expect("every process may lower its own limits");
}

/// Reduces a crash report to one line. The user may have set `RUST_BACKTRACE`, but a process
/// without memory cannot print a backtrace, and the frames of a parser would hide the line with the
/// reason.
fn forbid_backtraces() {
    // SAFETY: no other thread may read or write the environment at the same time. A worker has one
    // thread, which runs its init closures and its jobs, and no job has run yet that could have
    // started another.
    unsafe { env::remove_var("RUST_BACKTRACE") };
}
