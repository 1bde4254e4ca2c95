//! Writes out what a job has printed, before its result is sent.
//!
//! Rust's standard output buffers an unfinished line. Flushing takes the lock of the standard
//! output, which a thread that the job left behind may hold for as long as it likes, and std has no
//! `try_lock` for it. The answer must not wait for such a thread. So, if the process has more
//! threads than at its start, another thread flushes, and the answer waits for it no longer than
//! [`FLUSH_TIMEOUT`]. Output that takes longer appears late.
//!
//! Usually there has never been a second thread, which the C library knows; if there was one, a
//! system call of 0.1 us tells.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use super::tuning::FLUSH_TIMEOUT;
use crate::sys::thread;

/// The number of threads before the first job.
static BEFORE: OnceLock<usize> = OnceLock::new();

/// Whether a thread is flushing.
static WAITING: AtomicBool = AtomicBool::new(false);

/// Records the number of threads, unless the fork server of this process has recorded it.
pub(super) fn no_job_has_run() {
    if BEFORE.get().is_none()
        && let Ok(count) = thread::listed()
    {
        BEFORE.get_or_init(|| count);
    }
}

/// Flushes the standard output, unless another thread keeps it locked.
pub(super) fn flush() {
    if !a_job_has_left_threads() {
        write_out()
    } else {
        write_out_apart()
    }
}

fn a_job_has_left_threads() -> bool {
    if thread::was_always_alone() || thread::is_alone() == Some(true) {
        return false;
    }
    // Without an answer from the kernel, flushing directly is the best choice.
    match (BEFORE.get(), thread::listed()) {
        (Some(&before), Ok(now)) => now > before,
        _ => false,
    }
}

fn write_out() {
    // If that fails, the output of the job failed as well.
    let _ = io::stdout().flush();
}

fn write_out_apart() {
    // One waiting thread is enough: it writes everything printed until then.
    if WAITING.swap(true, Ordering::AcqRel) {
        return;
    }
    let (done, is_done) = mpsc::channel();
    let writer = std::thread::Builder::new().name("seedbed-output".into());
    let spawned = writer.spawn(move || {
        write_out();
        WAITING.store(false, Ordering::Release);
        // The receiver is gone if flushing took too long.
        let _ = done.send(());
    });
    match spawned {
        // Finished or timed out, the answer is sent.
        Ok(_) => drop(is_done.recv_timeout(FLUSH_TIMEOUT)),
        // Without another thread, the output stays in the buffer for now.
        Err(_) => WAITING.store(false, Ordering::Release),
    }
}
