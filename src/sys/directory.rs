//! Directories by descriptor, which stay the same when they are renamed or when the process changes
//! its directory.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, fstat, open, stat};
use rustix::io::{Errno, fcntl_dupfd_cloexec};

use super::socket::above_standard;

/// Identifies a directory while it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DirectoryId {
    device: u64,
    inode: u64,
}

/// Returns the working directory of this process.
pub(crate) fn present() -> io::Result<DirectoryId> {
    Ok(id_of(&stat(".")?))
}

/// Returns the root directory of this process.
pub(crate) fn root() -> io::Result<DirectoryId> {
    Ok(id_of(&stat("/")?))
}

fn id_of(stat: &rustix::fs::Stat) -> DirectoryId {
    DirectoryId {
        device: stat.st_dev,
        inode: stat.st_ino,
    }
}

/// The working directory of this process at some moment.
#[derive(Debug)]
pub(crate) struct WorkingDirectory {
    fd: OwnedFd,
    pub(crate) id: DirectoryId,
}

impl WorkingDirectory {
    /// Returns the present working directory.
    pub(crate) fn present() -> io::Result<Self> {
        Self::at(Path::new("."))
    }

    /// Returns the directory at this path.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = above_standard(open(path, flags, Mode::empty())?)?;
        let id = id_of(&fstat(&fd)?);
        Ok(Self { fd, id })
    }

    /// Opens the same directory once more.
    ///
    /// # Errors
    ///
    /// Fails if the program has closed the descriptor, which then may be another file.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        let fd = fcntl_dupfd_cloexec(&self.fd, 3)?;
        if id_of(&fstat(&fd)?) != self.id {
            return Err(Errno::BADF.into());
        }
        Ok(Self { fd, id: self.id })
    }
}

impl AsFd for WorkingDirectory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_recognised_by_another_descriptor() {
        let one = WorkingDirectory::present().unwrap();
        let other = WorkingDirectory::present().unwrap();
        assert_eq!(one.id, other.id);
        assert_eq!(one.try_clone().unwrap().id, one.id);
        assert_ne!(one.id, root().unwrap());
    }
}
