//! What a job printed, written out before its result is sent.
//!
//! Rust's standard output keeps back what is no whole line yet. To write that out takes its lock, which a thread that
//! the job has left running may keep for as long as it likes; and there is no way to try. A worker must not wait for
//! such a thread: its job has returned, and somebody waits for the answer. So, where there are threads beside those
//! that the worker came up with, a thread of ours does it, and is waited for no longer than [`FLUSH_TIMEOUT`]. What it could
//! not write then comes late.
//!
//! Usually there never were any, which the C library knows; where there were, the kernel tells in a tenth of a microsecond.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use super::tuning::FLUSH_TIMEOUT;
use crate::sys::thread;

/// How many threads this process had before its first job.
static BEFORE: OnceLock<usize> = OnceLock::new();

/// Whether a thread of ours waits for the output.
static WAITING: AtomicBool = AtomicBool::new(false);

/// Notes that no job has left anything yet. A copy of a process that has noted that knows it already.
pub(super) fn no_job_has_run() {
    if BEFORE.get().is_none()
        && let Ok(count) = thread::listed()
    {
        BEFORE.get_or_init(|| count);
    }
}

/// Writes the standard output out, unless somebody keeps it from us.
pub(super) fn flush() {
    match a_job_has_left_threads() {
        false => write_out(),
        true => write_out_apart(),
    }
}

fn a_job_has_left_threads() -> bool {
    if thread::was_always_alone() || thread::is_alone() == Some(true) {
        return false;
    }
    // Where nobody can say, there is nothing that could be done better.
    match (BEFORE.get(), thread::listed()) {
        (Some(&before), Ok(now)) => now > before,
        _ => false,
    }
}

fn write_out() {
    // If that fails, so did the job's own printing.
    let _ = io::stdout().flush();
}

fn write_out_apart() {
    // One thread that waits is enough: it writes what is there by then.
    if WAITING.swap(true, Ordering::AcqRel) {
        return;
    }
    let (done, is_done) = mpsc::channel();
    let writer = std::thread::Builder::new().name("seedbed-output".into());
    let spawned = writer.spawn(move || {
        write_out();
        WAITING.store(false, Ordering::Release);
        // Nobody listens any more if it took too long.
        let _ = done.send(());
    });
    match spawned {
        // Over in time or not, there is nothing else to do.
        Ok(_) => drop(is_done.recv_timeout(FLUSH_TIMEOUT)),
        // No more threads for this process: then the output stays where it is until there are, or until the end.
        Err(_) => WAITING.store(false, Ordering::Release),
    }
}
