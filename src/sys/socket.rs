//! The private socket between a parent and one worker: made, recognised, moved out of a job's way, and used once to pass
//! a descriptor.
//!
//! A socketpair rather than pipes: one descriptor on each side, both directions, and it can carry the parent's standard
//! output. Everything here is close-on-exec; only the worker's standard input, onto which `posix_spawn` duplicates the
//! child's end, survives the `exec`.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, fstat};
use rustix::io::{Errno, fcntl_dupfd_cloexec, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, send,
    sendmsg, socketpair,
};

/// Makes a connected pair of stream sockets, close-on-exec. Neither is a standard descriptor, also where this program has
/// closed those: what it prints must not get in between our frames.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (one, other) = socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    Ok((above_standard(one)?, above_standard(other)?))
}

fn above_standard(fd: OwnedFd) -> io::Result<OwnedFd> {
    const FIRST: i32 = 3;
    match fd.as_raw_fd() < FIRST {
        true => Ok(fcntl_dupfd_cloexec(fd, FIRST)?),
        false => Ok(fd),
    }
}

/// Returns the inode of a socket, which names it in the whole system as long as it lives; `None` if `fd` is none.
pub(crate) fn socket_inode(fd: impl AsFd) -> Option<u64> {
    let stat = fstat(fd).ok()?; // a closed descriptor is no socket
    (FileType::from_raw_mode(stat.st_mode) == FileType::Socket).then_some(stat.st_ino)
}

/// Duplicates `fd` to a number that nobody gets by chance, so that a job which closes its low descriptors and opens
/// others does not make them ours.
pub(crate) fn move_out_of_the_way(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const HIGH: [i32; 3] = [1000, 200, 3];
    let mut last = Errno::MFILE;
    for lowest in HIGH {
        match fcntl_dupfd_cloexec(fd, lowest) {
            Ok(moved) => return Ok(moved),
            Err(error) => last = error, // above the process's limit of descriptors: lower then
        }
    }
    Err(last.into())
}

/// Opens `/dev/null` for reading and writing.
pub(crate) fn dev_null() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(
        "/dev/null",
        OFlags::RDWR | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// Sends all of `bytes`, blocking. A peer that is gone is the error `EPIPE`, not a signal.
pub(crate) fn send_all(socket: impl AsFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let sent = retry_on_intr(|| send(&socket, bytes, SendFlags::NOSIGNAL))?;
        bytes = &bytes[sent..];
    }
    Ok(())
}

/// Sends all of `bytes`, a few, with a descriptor beside the first of them.
pub(crate) fn send_with_fd(socket: impl AsFd, bytes: &[u8], fd: BorrowedFd<'_>) -> io::Result<()> {
    let fds = [fd];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fits = ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    debug_assert!(fits, "the space is made for one descriptor");
    let sent = retry_on_intr(|| {
        sendmsg(
            &socket,
            &[IoSlice::new(bytes)],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        )
    })?;
    send_all(socket, &bytes[sent..])
}

/// Receives exactly `bytes.len()` bytes, blocking, with the descriptor that came beside them, if one did.
pub(crate) fn receive_with_fd(socket: impl AsFd, bytes: &mut [u8]) -> io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut received = None;
    let mut filled = 0;
    while filled < bytes.len() {
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let message = match recvmsg(
            &socket,
            &mut [IoSliceMut::new(&mut bytes[filled..])],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        ) {
            Err(Errno::INTR) => continue,
            other => other?,
        };
        if message.flags.contains(ReturnFlags::CTRUNC) {
            return Err(io::Error::other(
                "a descriptor was lost on its way, because this process has too many",
            ));
        }
        if message.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += message.bytes;
        for part in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = part {
                received = fds.last();
            }
        }
    }
    Ok(received)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Read;

    #[test]
    fn the_two_ends_have_different_inodes_and_a_file_has_none() {
        let (a, b) = pair().unwrap();
        assert_ne!(socket_inode(&a), socket_inode(&b));
        assert_eq!(socket_inode(dev_null().unwrap()), None);
    }

    #[test]
    fn a_descriptor_travels_beside_bytes() {
        let (a, b) = pair().unwrap();
        send_with_fd(&a, b"hello", File::open("/proc/self/comm").unwrap().as_fd()).unwrap();
        let mut bytes = [0; 5];
        let fd = receive_with_fd(&b, &mut bytes)
            .unwrap()
            .expect("a descriptor was sent");
        assert_eq!(&bytes, b"hello");
        assert!(File::from(fd).read_to_string(&mut String::new()).unwrap() > 0);
    }

    #[test]
    fn bytes_without_a_descriptor_bring_none_and_a_short_message_is_an_error() {
        let (a, b) = pair().unwrap();
        send_all(&a, b"hello").unwrap();
        drop(a);
        assert!(receive_with_fd(&b, &mut [0; 5]).unwrap().is_none());
        assert_eq!(
            receive_with_fd(&b, &mut [0; 5]).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }

    #[test]
    fn sending_to_a_closed_end_is_an_error_and_no_signal() {
        let (a, b) = pair().unwrap();
        drop(b);
        assert_eq!(
            send_all(&a, b"x").unwrap_err().kind(),
            io::ErrorKind::BrokenPipe
        );
    }
}
