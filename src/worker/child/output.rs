//! Writes out what a job has printed, before its result is sent: the standard output of Rust, which
//! buffers an unfinished line, and the streams of the C library, which buffer everything that does
//! not go to a terminal.
//!
//! Flushing takes the locks of the streams, which a thread that the job left behind may hold for as
//! long as it likes, and there is no attempt that gives up. The answer must not wait for such a
//! thread. So, if the process has more threads than at its start, another thread flushes, and the
//! answer waits for it no longer than [`FLUSH_TIMEOUT`]. Output that takes longer appears late.
//!
//! The streams of the C library are flushed all together only if there is no other thread: while
//! that call waits for a stream that another thread reads, no thread can open one. Otherwise only
//! its standard output is flushed.
//!
//! Usually there has never been a second thread, which the C library knows; if there was one, a
//! system call of 0.1 us tells. Flushing streams that have nothing to write takes 0.02 us.
//!
//! `unsafe` is needed to flush the streams of the C library.
#![allow(unsafe_code)]

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use super::tuning::FLUSH_TIMEOUT;
use crate::sys::thread;

/// Whether a thread is flushing.
static WAITING: AtomicBool = AtomicBool::new(false);

unsafe extern "C" {
    /// The standard output of the C library.
    static mut stdout: *mut libc::FILE;
}

/// Flushes the standard output and the streams of the C library, unless another thread keeps them
/// locked.
pub(super) fn flush() {
    if thread::was_always_alone() || thread::is_alone() == Some(true) {
        write_out_all();
    } else if thread::count_above_baseline() > 0 {
        write_out_apart();
    } else {
        write_out();
    }
}

/// Flushes the standard output of Rust, and all streams of the C library. This thread is the only
/// one.
pub(super) fn write_out_all() {
    // If either fails, the output of the job failed as well.
    let _ = io::stdout().flush();
    // SAFETY: a null pointer stands for all streams, and the call takes their locks.
    unsafe { libc::fflush(std::ptr::null_mut()) };
}

/// Flushes the standard outputs of Rust and of the C library.
fn write_out() {
    let _ = io::stdout().flush();
    // SAFETY: the C library sets this variable before `main`, and no other code changes it while
    // other threads run. The call takes the stream's lock.
    unsafe { libc::fflush(stdout) };
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
        Ok(writer) => {
            // Finished or timed out, the answer is sent.
            if is_done.recv_timeout(FLUSH_TIMEOUT).is_ok() {
                let _ = writer.join(); // otherwise it might count as a thread that a job has left
            }
        }
        // Without another thread, the output stays in the buffer for now.
        Err(_) => WAITING.store(false, Ordering::Release),
    }
}
