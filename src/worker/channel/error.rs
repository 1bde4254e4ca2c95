//! The errors of a channel into or out of a job.

use std::error::Error;
use std::fmt;

use crate::transport::codec_error::CodecError;
use crate::transport::ring::RingError;

/// The reason why a value was not sent; see [`SendError::kind`].
///
/// ```
/// use seedbed::worker::{SendErrorKind, channel};
///
/// fn main() {
///     seedbed::init();
///     let (mut sender, receiver) = channel(1).unwrap();
///     drop(receiver);
///     assert_eq!(sender.try_send(7).unwrap_err().kind(), SendErrorKind::Closed);
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendErrorKind {
    /// The receiver was dropped.
    Closed,
    /// The process that had the receiver was killed or ended, or the receiver was lost on its way
    /// to another process.
    PeerGone,
    /// There is no room for the message now; only from
    /// [`try_send`](crate::worker::Sender::try_send).
    Full,
    /// The value could not be encoded.
    Encode,
    /// This sender was sent to another process.
    Moved,
    /// The memory of the channel was overwritten by something else than this crate.
    Malformed,
    /// The operating system refused, for example because there is no descriptor left.
    Io,
}

/// The reason why no value was received; see [`RecvError::kind`].
///
/// ```
/// use seedbed::worker::{RecvErrorKind, channel};
///
/// fn main() {
///     seedbed::init();
///     let (sender, mut receiver) = channel::<u8>(1).unwrap();
///     assert_eq!(receiver.try_recv().unwrap_err().kind(), RecvErrorKind::Empty);
///     drop(sender);
///     let end = receiver.try_recv().unwrap_err();
///     assert_eq!(end.kind(), RecvErrorKind::EndOfChannel);
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecvErrorKind {
    /// The sender was dropped, and all its values were received: the regular end.
    EndOfChannel,
    /// The process that had the sender was killed or ended, or the sender was lost on its way to
    /// another process. All values before were received.
    PeerGone,
    /// There is no message now; only from [`try_recv`](crate::worker::Receiver::try_recv).
    Empty,
    /// A message arrived that is no such value. The channel goes on with the next one.
    Decode,
    /// This receiver was sent to another process.
    Moved,
    /// The memory of the channel was overwritten by something else than this crate.
    Malformed,
    /// The operating system refused, for example because there is no descriptor left.
    Io,
}

/// A value that was not sent into a channel, and why.
///
/// ```
/// use seedbed::worker::{SendErrorKind, channel};
///
/// fn main() {
///     seedbed::init();
///     let (mut sender, receiver) = channel(1).unwrap();
///     drop(receiver);
///     let error = sender.send_blocking(7).unwrap_err();
///     assert_eq!(error.kind(), SendErrorKind::Closed);
///     assert_eq!(error.into_inner(), 7);
/// }
/// ```
pub struct SendError<T> {
    kind: SendErrorKind,
    text: String,
    value: T,
}

/// No value was received from a channel, and why.
///
/// ```
/// use seedbed::worker::{RecvErrorKind, channel};
///
/// fn main() {
///     seedbed::init();
///     let (sender, mut receiver) = channel::<u8>(1).unwrap();
///     drop(sender);
///     let error = receiver.recv_blocking().unwrap_err();
///     assert_eq!(error.kind(), RecvErrorKind::EndOfChannel);
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecvError {
    kind: RecvErrorKind,
    text: String,
}

impl<T> SendError<T> {
    pub(super) fn encode(error: &CodecError, value: T) -> Self {
        let of = std::any::type_name::<T>();
        Self {
            kind: SendErrorKind::Encode,
            text: format!("a message of type `{of}` could not be encoded: {error}"),
            value,
        }
    }

    pub(super) fn full(value: T) -> Self {
        Self {
            kind: SendErrorKind::Full,
            text: "the channel has no room for the message now".into(),
            value,
        }
    }

    pub(super) fn ring(error: &RingError, value: T) -> Self {
        let kind = match error {
            RingError::Closed => SendErrorKind::Closed,
            RingError::PeerGone => SendErrorKind::PeerGone,
            RingError::Malformed => SendErrorKind::Malformed,
            RingError::Moved => SendErrorKind::Moved,
            RingError::Failed(_) => SendErrorKind::Io,
        };
        let text = match error {
            RingError::Closed => "the message was not sent: the receiver was dropped".into(),
            _ => format!("the message was not sent: {error}"),
        };
        Self { kind, text, value }
    }

    /// Returns the reason.
    ///
    /// ```
    /// use seedbed::worker::{SendErrorKind, channel};
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let (mut sender, _receiver) = channel(1).unwrap();
    ///     sender.try_send(1).unwrap();
    ///     assert_eq!(sender.try_send(2).unwrap_err().kind(), SendErrorKind::Full);
    /// }
    /// ```
    pub fn kind(&self) -> SendErrorKind {
        self.kind
    }

    /// Returns the value that was not sent. Sides of channels within it no longer work if it had
    /// been encoded.
    ///
    /// ```
    /// fn main() {
    ///     seedbed::init();
    ///     let (mut sender, receiver) = seedbed::worker::channel("a value".len()).unwrap();
    ///     drop(receiver);
    ///     let error = sender.send_blocking("a value".to_owned()).unwrap_err();
    ///     assert_eq!(error.into_inner(), "a value");
    /// }
    /// ```
    pub fn into_inner(self) -> T {
        self.value
    }
}

impl RecvError {
    pub(super) fn decode<T>(error: &CodecError) -> Self {
        let of = std::any::type_name::<T>();
        Self {
            kind: RecvErrorKind::Decode,
            text: format!("a message of type `{of}` could not be decoded: {error}"),
        }
    }

    pub(super) fn empty() -> Self {
        Self {
            kind: RecvErrorKind::Empty,
            text: "the channel has no message now".into(),
        }
    }

    /// Returns the reason.
    ///
    /// ```
    /// use seedbed::worker::{RecvErrorKind, channel};
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let (_sender, mut receiver) = channel::<u8>(1).unwrap();
    ///     assert_eq!(receiver.try_recv().unwrap_err().kind(), RecvErrorKind::Empty);
    /// }
    /// ```
    pub fn kind(&self) -> RecvErrorKind {
        self.kind
    }

    /// Returns whether this is the regular end: the sender was dropped, and all its values were
    /// received.
    ///
    /// ```
    /// fn main() {
    ///     seedbed::init();
    ///     let (sender, mut receiver) = seedbed::worker::channel::<u8>(1).unwrap();
    ///     drop(sender);
    ///     assert!(receiver.recv_blocking().unwrap_err().is_end());
    /// }
    /// ```
    pub fn is_end(&self) -> bool {
        self.kind == RecvErrorKind::EndOfChannel
    }

    /// Returns whether the channel may bring further values.
    pub(super) fn is_final(&self) -> bool {
        !matches!(self.kind, RecvErrorKind::Decode | RecvErrorKind::Empty)
    }
}

impl From<RingError> for RecvError {
    fn from(error: RingError) -> Self {
        let kind = match error {
            RingError::Closed => RecvErrorKind::EndOfChannel,
            RingError::PeerGone => RecvErrorKind::PeerGone,
            RingError::Malformed => RecvErrorKind::Malformed,
            RingError::Moved => RecvErrorKind::Moved,
            RingError::Failed(_) => RecvErrorKind::Io,
        };
        let text = match error {
            RingError::Closed => "the channel has ended: the sender was dropped".into(),
            _ => format!("nothing was received: {error}"),
        };
        Self { kind, text }
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Shows the reason, never the value.
impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendError")
            .field("kind", &self.kind)
            .field("text", &self.text)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<T> Error for SendError<T> {}
impl Error for RecvError {}
