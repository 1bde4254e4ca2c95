//! The private socket between a parent and one worker.
//!
//! It is a socketpair rather than two pipes: one descriptor on each side, both directions, and it
//! can carry descriptors. All descriptors here are close-on-exec. Only the number to which
//! `posix_spawn` duplicates the worker's end survives the `exec`.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, fstat};
use rustix::io::{DupFlags, Errno, dup3, fcntl_dupfd_cloexec, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, send,
    sendmsg, socketpair,
};
use rustix::pipe::PipeFlags;

/// Makes a connected pair of stream sockets. Neither has the number of a standard descriptor, even
/// in a program that has closed those: output of the program must not get between the frames.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    pair_of(SocketType::STREAM)
}

/// Makes a connected pair of sockets that keep the boundaries of packets, each with its
/// descriptors. Neither has the number of a standard descriptor.
pub(crate) fn packet_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    pair_of(SocketType::SEQPACKET)
}

fn pair_of(socket_type: SocketType) -> io::Result<(OwnedFd, OwnedFd)> {
    let (one, other) = socketpair(AddressFamily::UNIX, socket_type, SocketFlags::CLOEXEC, None)?;
    Ok((above_standard(one)?, above_standard(other)?))
}

/// Duplicates `fd` if it has the number of a standard descriptor, which output of the program would
/// use otherwise.
pub(crate) fn above_standard(fd: OwnedFd) -> io::Result<OwnedFd> {
    const FIRST: i32 = 3;
    if fd.as_raw_fd() < FIRST {
        Ok(fcntl_dupfd_cloexec(fd, FIRST)?)
    } else {
        Ok(fd)
    }
}

/// Returns the inode of a socket, which identifies it system-wide while it exists, or `None` if
/// `fd` is no socket.
pub(crate) fn socket_inode(fd: impl AsFd) -> Option<u64> {
    let stat = fstat(fd).ok()?; // fails if the descriptor is closed
    (FileType::from_raw_mode(stat.st_mode) == FileType::Socket).then_some(stat.st_ino)
}

/// Duplicates `fd` to a high number, so that code that closes its low descriptors and opens others
/// does not replace it.
pub(crate) fn move_out_of_the_way(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const HIGH: [i32; 3] = [1000, 200, 3];
    let mut last = Errno::MFILE;
    for lowest in HIGH {
        match fcntl_dupfd_cloexec(fd, lowest) {
            Ok(moved) => return Ok(moved),
            Err(error) => last = error, // above the limit of this process: a lower number
        }
    }
    Err(last.into())
}

/// Makes `place` another name of the file behind `fd`. The former file of `place` is closed.
pub(crate) fn put_in_place_of(place: &mut OwnedFd, fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(dup3(fd, place, DupFlags::CLOEXEC)?)
}

/// Opens `/dev/null` for reading and writing. An error names it.
pub(crate) fn dev_null() -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let null = rustix::fs::open("/dev/null", flags, Mode::empty()).map_err(|error| {
        let error = io::Error::from(error);
        io::Error::new(error.kind(), format!("`/dev/null`: {error}"))
    })?;
    above_standard(null)
}

/// Makes a pipe: its reading end and its writing end.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    Ok((above_standard(reader)?, above_standard(writer)?))
}

/// Returns a file that has nothing to read: `/dev/null`, or a pipe that no process writes to.
pub(crate) fn empty_input() -> io::Result<OwnedFd> {
    dev_null().or_else(|_| Ok(pipe()?.0))
}

/// Sends all of `bytes`, blocking. If the peer has closed its end, the error is `EPIPE`, and no
/// signal is raised.
pub(crate) fn send_all(socket: impl AsFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let sent = retry_on_intr(|| send(&socket, bytes, SendFlags::NOSIGNAL))?;
        bytes = &bytes[sent..];
    }
    Ok(())
}

/// The most descriptors that the kernel accepts with one message.
pub(crate) const MAX_FDS: usize = 253;

/// Sends all of `bytes`, blocking, with descriptors attached to the first byte.
pub(crate) fn send_with_fds(
    socket: impl AsFd,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let sent = match fds {
        [] => 0,
        _ => send_first(&socket, bytes, fds)?,
    };
    send_all(socket, &bytes[sent..])
}

/// Sends some of `bytes`, blocking, with descriptors attached to the first byte. Returns how many
/// bytes were sent; after an error, none.
pub(crate) fn send_first(
    socket: impl AsFd,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    let sent = retry_on_intr(|| send_message(&socket, bytes, fds, SendFlags::empty()))?;
    Ok(sent)
}

/// Sends a few bytes with descriptors, if that is possible at once and as a whole.
pub(crate) fn try_send_with_fds(
    socket: impl AsFd,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    match retry_on_intr(|| send_message(&socket, bytes, fds, SendFlags::DONTWAIT))? {
        sent if sent == bytes.len() => Ok(()),
        _ => Err(io::Error::other("the kernel cut a small message in two")),
    }
}

/// Sends some of `bytes`, with descriptors attached to the first byte.
pub(crate) fn send_message(
    socket: impl AsFd,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> rustix::io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fits = ancillary.push(SendAncillaryMessage::ScmRights(fds));
    debug_assert!(fits, "the space is made for as many");
    sendmsg(
        &socket,
        &[IoSlice::new(bytes)],
        &mut ancillary,
        flags | SendFlags::NOSIGNAL,
    )
}

/// Receives exactly `bytes.len()` bytes, blocking, and the descriptors attached to them.
pub(crate) fn receive_with_fds(socket: impl AsFd, bytes: &mut [u8]) -> io::Result<Vec<OwnedFd>> {
    let mut received = Vec::new();
    let mut filled = 0;
    while filled < bytes.len() {
        match receive_message(
            &socket,
            &mut bytes[filled..],
            &mut received,
            RecvFlags::empty(),
        ) {
            Ok(Incoming { bytes: 0, .. }) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(Incoming { lost: true, .. }) => {
                return Err(io::Error::other(
                    "a descriptor was lost on its way, because this process has too many",
                ));
            }
            Ok(Incoming { bytes, .. }) => filled += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(received)
}

/// Appends at most `room` received bytes to `buffer`, and the attached descriptors to `fds`.
pub(crate) fn receive_onto(
    socket: impl AsFd,
    buffer: &mut Vec<u8>,
    room: usize,
    fds: &mut Vec<OwnedFd>,
    flags: RecvFlags,
) -> io::Result<Incoming> {
    let before = buffer.len();
    buffer.resize(before + room, 0);
    let arrived = receive_message(socket, &mut buffer[before..], fds, flags);
    let bytes = arrived.as_ref().map_or(0, |arrived| arrived.bytes);
    buffer.truncate(before + bytes);
    arrived
}

/// The result of one receive operation.
pub(crate) struct Incoming {
    pub(crate) bytes: usize,
    /// A descriptor was lost, because this process may not have more.
    pub(crate) lost: bool,
}

/// Receives at most `bytes.len()` bytes, and appends the attached descriptors to `fds`.
pub(crate) fn receive_message(
    socket: impl AsFd,
    bytes: &mut [u8],
    fds: &mut Vec<OwnedFd>,
    flags: RecvFlags,
) -> io::Result<Incoming> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let message = recvmsg(
        &socket,
        &mut [IoSliceMut::new(bytes)],
        &mut ancillary,
        flags | RecvFlags::CMSG_CLOEXEC,
    )?;
    for part in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(arrived) = part {
            fds.extend(arrived);
        }
    }
    Ok(Incoming {
        bytes: message.bytes,
        lost: message.flags.contains(ReturnFlags::CTRUNC),
    })
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
    fn an_empty_input_ends_at_once() {
        let (reader, writer) = pipe().unwrap();
        drop(writer);
        for empty in [empty_input().unwrap(), reader] {
            assert_eq!(File::from(empty).read(&mut [0]).unwrap(), 0);
        }
    }

    #[test]
    fn a_descriptor_travels_with_bytes() {
        let (a, b) = pair().unwrap();
        let file = File::open("/proc/self/comm").unwrap();
        send_with_fds(&a, b"hello", &[file.as_fd()]).unwrap();
        let mut bytes = [0; 5];
        let mut fds = receive_with_fds(&b, &mut bytes).unwrap();
        let fd = fds.pop().expect("a descriptor was sent");
        assert_eq!(&bytes, b"hello");
        assert!(File::from(fd).read_to_string(&mut String::new()).unwrap() > 0);
    }

    #[test]
    fn bytes_without_a_descriptor_bring_none_and_a_short_message_is_an_error() {
        let (a, b) = pair().unwrap();
        send_all(&a, b"hello").unwrap();
        drop(a);
        assert!(receive_with_fds(&b, &mut [0; 5]).unwrap().is_empty());
        assert_eq!(
            receive_with_fds(&b, &mut [0; 5]).unwrap_err().kind(),
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
