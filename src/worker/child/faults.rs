//! Reports to the parent why a signal is about to end this worker.
//!
//! The report is a frame in the socket, which a signal handler sends. It must not come into the
//! middle of a frame that the worker is sending: then there is no report, and the parent sees the
//! signal only.
//!
//! `unsafe` is needed to send in a signal handler, by the number of the socket.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use super::tuning::FAULT_AWAITED;
use crate::sys::fault;
use crate::sys::fault::Fault;
use crate::transport::frame::{Header, Kind};

/// The socket of this worker; 0 before it is set. Like the flags below and the id of this process,
/// it is zero at first, so that all of them are in the same page: a new process has to copy it.
static SOCKET: AtomicI32 = AtomicI32::new(0);

/// The worker is sending a frame.
static IS_SENDING: AtomicBool = AtomicBool::new(false);

/// A report is about to be sent, or was sent.
static HAS_FAULT: AtomicBool = AtomicBool::new(false);

/// Reports the faults of this process, whose id is `pid`, from now on.
pub(super) fn report_through(socket: BorrowedFd<'_>, pid: u32) {
    SOCKET.store(socket.as_raw_fd(), Ordering::Relaxed);
    fault::watch(report, pid);
}

/// Runs in a signal handler.
fn report(fault: Fault) {
    // The sender of a frame sets its flag first and then reads this one, so at least one side sees
    // the flag of the other: no report is sent into the middle of a frame.
    HAS_FAULT.store(true, Ordering::SeqCst);
    if IS_SENDING.load(Ordering::SeqCst) {
        return;
    }
    let number = match fault {
        Fault::StackOverflow => 1,
        Fault::OutOfMemory => 2,
    };
    let frame = Header {
        kind: Kind::Fault,
        fds: 0,
        call: 0,
        number,
        length: 0,
    };
    let frame = frame.to_bytes();
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    let socket = SOCKET.load(Ordering::Relaxed);
    // SAFETY: the pointer and the length are those of a local array. `send` is safe in a signal
    // handler. The number is that of the worker's socket, which is open as long as the process
    // lives; if a job has closed it, this is an error, or harms what has taken its place, which is
    // forbidden to jobs.
    unsafe { libc::send(socket, frame.as_ptr().cast(), frame.len(), flags) };
}

/// Keeps reports out of the frame that is being sent. If another thread is reporting a fault, waits
/// for the end of the process. A handler of the program's may have saved it: then the frame is sent
/// after all.
pub(super) fn while_sending<T>(send: impl FnOnce() -> T) -> T {
    IS_SENDING.store(true, Ordering::SeqCst);
    if HAS_FAULT.load(Ordering::SeqCst) {
        std::thread::sleep(FAULT_AWAITED);
        HAS_FAULT.store(false, Ordering::SeqCst);
    }
    let sent = send();
    IS_SENDING.store(false, Ordering::SeqCst);
    sent
}
