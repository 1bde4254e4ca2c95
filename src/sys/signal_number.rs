//! Sends a signal that the program names by its number.
//!
//! rustix's `Signal` covers the named signals only. `unsafe` is needed for the system call with the
//! others.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

use super::process::Pidfd;

/// Sends a signal to a process. Does nothing if it has ended.
///
/// # Errors
///
/// If there is no such signal, or if the C library uses it itself, or if the kernel refuses.
pub(crate) fn send(process: &Pidfd, number: i32) -> io::Result<()> {
    // The numbers between are those that the C library uses itself, to cancel threads for example.
    let is_signal =
        (1..32).contains(&number) || (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&number);
    if !is_signal {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let descriptor = process.as_fd().as_raw_fd();
    let no_info = ptr::null_mut::<libc::siginfo_t>();
    // SAFETY: the descriptor is open while `process` is borrowed, the null pointer lets the kernel
    // fill in who sends the signal, and no flag is set.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            descriptor,
            number,
            no_info,
            0_u32,
        )
    };
    match sent {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            error => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::ChildStatus;
    use std::process::Command;

    #[test]
    fn only_numbers_of_signals_are_sent() {
        let process = Pidfd::of(Command::new("sleep").arg("1000").spawn().unwrap()).unwrap();
        for number in [i32::MIN, -1, 0, 32, libc::SIGRTMAX() + 1, i32::MAX] {
            let refused = send(&process, number).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{number}");
        }
        send(&process, libc::SIGRTMAX()).unwrap();
        while process.try_reap(false).unwrap() == ChildStatus::Running {
            std::thread::yield_now();
        }
        send(&process, libc::SIGRTMIN()).unwrap(); // it has ended
    }
}
