//! Reads from a socket into an [`Inbox`], for both sides.

use std::fmt;
use std::io;
use std::os::fd::AsFd;

use rustix::net::RecvFlags;

use super::frame::{Inbox, MalformedFrame};
use super::tuning::READ_CHUNK;
use crate::sys::socket::{Incoming, receive_onto};

/// The reason why no frame will come.
#[derive(Debug)]
pub(crate) enum RecvError {
    /// The peer has closed its end, or the process has ended.
    Closed,
    /// The peer has closed its end without reading all that was sent to it.
    Reset,
    /// The peer sent bytes that are not a frame.
    Malformed,
    /// The socket failed.
    Failed(io::Error),
}

impl From<MalformedFrame> for RecvError {
    fn from(MalformedFrame: MalformedFrame) -> Self {
        Self::Malformed
    }
}

impl From<io::Error> for RecvError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionReset => Self::Reset,
            _ => Self::Failed(error),
        }
    }
}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed | Self::Reset => f.write_str("the peer has closed the socket"),
            Self::Malformed => MalformedFrame.fmt(f),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

/// Reads once, and returns the number of bytes read; 0 means that the peer has closed its end.
/// Descriptors that arrive are put into the inbox too.
pub(crate) fn receive(socket: impl AsFd, inbox: &mut Inbox, flags: RecvFlags) -> io::Result<usize> {
    // Every read takes descriptors: it may go on from the rest of a frame into the next frame,
    // which may bring some.
    let mut fds = Vec::new();
    // A socket holds less. The bytes asked for are cleared before each read, however few arrive.
    let room = inbox.read_room().min(READ_CHUNK);
    let Incoming { bytes, lost } = receive_onto(socket, inbox.buffer(), room, &mut fds, flags)?;
    inbox.add_fds(fds, lost);
    Ok(bytes)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::sys::socket::{pair, send_all, send_with_fds};
    use crate::transport::frame::{self, Kind};
    use crate::transport::out_message::OutMessage;

    #[test]
    fn a_read_that_ends_one_frame_keeps_the_descriptors_of_the_next() {
        let (sender, receiver) = pair().unwrap();
        let first = frame::of_bytes(Kind::BadResult, 0, b"text");
        let second = OutMessage::build(Kind::Job, 0, |out| {
            out.extend_from_slice(b"payload");
            let file = std::io::pipe().unwrap().0;
            Ok::<_, ()>(vec![Arc::new(file.into())].into())
        });
        let second = second.unwrap();
        let fds: Vec<_> = second.fds().iter().map(AsFd::as_fd).collect();
        let (begin, end) = first.split_at(first.len() - 2);
        let mut inbox = Inbox::default();
        let mut read = || receive(&receiver, &mut inbox, RecvFlags::DONTWAIT);
        send_all(&sender, begin).unwrap();
        assert_eq!(read().unwrap(), begin.len());
        send_all(&sender, end).unwrap();
        send_with_fds(&sender, second.bytes(), &fds).unwrap();
        while read().is_ok() {}
        assert!(inbox.take().unwrap().unwrap().fds.is_empty());
        assert_eq!(inbox.take().unwrap().unwrap().fds.len(), 1);
    }
}
