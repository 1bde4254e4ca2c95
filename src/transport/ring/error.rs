//! The errors of a ring.

use std::fmt;
use std::io;

/// The memory of a ring contains what no peer writes there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// The reason why a ring carries no message.
#[derive(Debug)]
pub(crate) enum RingError {
    /// The peer has closed its side. A receiver has got all messages before.
    Closed,
    /// The process that had the peer's side has ended, or dropped it on its way to another process.
    PeerGone,
    /// The memory, or what came through the socket, does not follow the protocol.
    Malformed,
    /// This side was sent to another process.
    Moved,
    /// The socket failed.
    Failed(io::Error),
}

impl From<Malformed> for RingError {
    fn from(Malformed: Malformed) -> Self {
        Self::Malformed
    }
}

impl From<io::Error> for RingError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Self::PeerGone,
            _ => Self::Failed(error),
        }
    }
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the other side has closed the channel"),
            Self::PeerGone => f.write_str(
                "the other side of the channel is gone: its process was killed or ended, or it was lost on its way to \
                 another process",
            ),
            Self::Malformed => f.write_str(
                "the channel's memory contains what no sender and no receiver writes: a job has overwritten it",
            ),
            Self::Moved => f.write_str(
                "this side of the channel was sent to another process; use it there",
            ),
            Self::Failed(error) => write!(f, "the channel's socket failed: {error}"),
        }
    }
}
