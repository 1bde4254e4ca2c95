//! Reads from a socket into an [`Inbox`], for both sides.

use std::fmt;
use std::io;
use std::os::fd::AsFd;

use rustix::net::RecvFlags;

use super::frame::{Inbox, MalformedFrame};
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
    // Every read takes descriptors: it may go on from the rest of a frame into the next frame, which
    // may bring some.
    let mut fds = Vec::new();
    let room = inbox.read_room();
    let Incoming { bytes, lost } = receive_onto(socket, inbox.buffer(), room, &mut fds, flags)?;
    inbox.add_fds(fds, lost);
    Ok(bytes)
}
