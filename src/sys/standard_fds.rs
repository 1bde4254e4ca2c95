//! The standard descriptors of a program that has closed some of them.

use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::stdio::{dup2_stdin, dup2_stdout, stderr, stdin, stdout};

/// Takes the standard input and output for other uses: returns their files under other numbers.
/// From then on the standard input is empty, and what is printed goes to the standard error.
pub(crate) fn take_input_and_output() -> io::Result<(OwnedFd, OwnedFd)> {
    const FIRST: i32 = libc::STDERR_FILENO + 1;
    let input = fcntl_dupfd_cloexec(stdin(), FIRST)?;
    let output = fcntl_dupfd_cloexec(stdout(), FIRST)?;
    dup2_stdin(open(
        "/dev/null",
        OFlags::RDWR | OFlags::CLOEXEC,
        Mode::empty(),
    )?)?;
    dup2_stdout(stderr())?;
    Ok((input, output))
}

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
