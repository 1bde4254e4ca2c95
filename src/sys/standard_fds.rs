//! The standard descriptors of a program that has closed some of them.

use std::os::fd::{AsRawFd, IntoRawFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::stdio::{stderr, stdin, stdout};

/// Opens `/dev/null` in place of each standard descriptor that is closed, as the standard library
/// does at the start of a program. Otherwise the next descriptor that this crate or smol's reactor
/// opens would get its number, and would receive what the program prints.
pub(crate) fn open_closed() {
    let (stdin, stdout, stderr) = (stdin(), stdout(), stderr());
    let mut standard = [&stdin, &stdout, &stderr].map(|fd| PollFd::new(fd, PollFlags::empty()));
    // One system call for the usual case. An error leaves all as it is.
    let at_once = Timespec::default();
    if poll(&mut standard, Some(&at_once)).is_err() {
        return;
    }
    let closed = standard
        .iter()
        .filter(|fd| fd.revents().contains(PollFlags::NVAL))
        .count();
    for _ in 0..closed {
        // Inherited by programs that this one executes, as standard descriptors are. The kernel
        // gives it the lowest number.
        match open("/dev/null", OFlags::RDWR, Mode::empty()) {
            Ok(null) if null.as_raw_fd() <= libc::STDERR_FILENO => _ = null.into_raw_fd(),
            // Another thread has opened something else, or there is no such file.
            Ok(_) | Err(_) => return,
        }
    }
}
