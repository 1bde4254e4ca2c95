//! The open descriptors of this process.
//!
//! `unsafe` is needed to close descriptors by number; see [`close_inherited`].
#![allow(unsafe_code)]

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::path::Path;

use rustix::io::{FdFlags, fcntl_getfd};

/// The standard descriptors have the numbers below this one.
const FIRST_OTHER: RawFd = 3;

/// Returns the numbers of the open descriptors, in ascending order.
pub(crate) fn list() -> io::Result<Vec<RawFd>> {
    let names = std::fs::read_dir("/proc/self/fd")?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<io::Result<Vec<_>>>()?;
    // The descriptor of the listing itself was in the list, and is closed by now.
    let is_open = |name: &OsString| Path::new("/proc/self/fd").join(name).is_symlink();
    let open = names.into_iter().filter(is_open);
    let mut numbers: Vec<RawFd> = open
        .filter_map(|name| name.to_str()?.parse().ok())
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Closes the descriptors without close-on-exec, except the standard ones and `kept`: those that
/// this process inherited when it was executed, and those that code since then has opened in this
/// way, which Rust does not.
pub(crate) fn close_inherited(kept: BorrowedFd<'_>) -> io::Result<()> {
    for number in list()? {
        if number < FIRST_OTHER || number == kept.as_raw_fd() {
            continue;
        }
        // SAFETY: the descriptor was open a moment ago. If another thread has closed it, the call
        // fails, and it does nothing else.
        let flags = fcntl_getfd(unsafe { BorrowedFd::borrow_raw(number) });
        if flags.is_ok_and(|flags| !flags.contains(FdFlags::CLOEXEC)) {
            // SAFETY: the user has asked for this: no code that runs later in this process may use
            // a descriptor that is not close-on-exec. This crate has none but the standard ones.
            unsafe { rustix::io::close(number) };
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptors_that_are_open_are_listed() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(list().unwrap().contains(&file.as_raw_fd()));
    }
}
