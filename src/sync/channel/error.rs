//! Why a channel did not do what it was asked to; one type per operation, so that each names only what can happen.
//!
//! Trio's four errors are sorted by whose doing it is: *closed* by you, *broken* by them, the regular *end*, and *would
//! block*. What could not be sent is given back.

use std::error::Error;
use std::fmt;

/// A value could not be sent; from [`Sender::send`](super::Sender::send). It is in here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SendError<T> {
    /// This handle was closed, by you: before or during the call.
    Closed(T),
    /// No receiver is open any more, and none will be.
    Broken(T),
}

/// A value could not be sent at once; from [`Sender::try_send`](super::Sender::try_send). It is in here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TrySendError<T> {
    /// This handle was closed, by you.
    Closed(T),
    /// No receiver is open any more, and none will be.
    Broken(T),
    /// There is no room, and nobody waits to receive; or others wait to send.
    WouldBlock(T),
}

/// Nothing was received, and nothing will be; from [`Receiver::recv`](super::Receiver::recv).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecvError {
    /// This handle was closed, by you: before or during the call.
    Closed,
    /// All senders are closed, and everything that they sent was received: the regular end.
    EndOfChannel,
}

/// Nothing was received; from [`Receiver::try_recv`](super::Receiver::try_recv).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryRecvError {
    /// This handle was closed, by you.
    Closed,
    /// All senders are closed, and everything that they sent was received: the regular end.
    EndOfChannel,
    /// Nothing is there now.
    WouldBlock,
}

impl<T> SendError<T> {
    /// The value that was not sent.
    ///
    /// ```
    /// let (sender, receiver) = seedbed::sync::channel(1);
    /// drop(receiver);
    /// let error = futures_lite::future::block_on(sender.send("a value")).unwrap_err();
    /// assert_eq!(error.into_inner(), "a value");
    /// ```
    pub fn into_inner(self) -> T {
        match self {
            SendError::Closed(value) | SendError::Broken(value) => value,
        }
    }
}

impl<T> TrySendError<T> {
    /// The value that was not sent.
    ///
    /// ```
    /// let (sender, _receiver) = seedbed::sync::channel(0);
    /// let error = sender.try_send("a value").unwrap_err();
    /// assert_eq!(error.into_inner(), "a value");
    /// ```
    pub fn into_inner(self) -> T {
        match self {
            TrySendError::Closed(value)
            | TrySendError::Broken(value)
            | TrySendError::WouldBlock(value) => value,
        }
    }
}

const CLOSED_SENDER: &str = "the value was not sent: this sender was closed on this side";
const BROKEN: &str = "the value was not sent: every receiver of the channel is closed";
const CLOSED_RECEIVER: &str = "nothing was received: this receiver was closed on this side";
const END: &str = "nothing was received: every sender of the channel is closed";

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendError::Closed(_) => CLOSED_SENDER,
            SendError::Broken(_) => BROKEN,
        })
    }
}

impl<T> fmt::Display for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TrySendError::Closed(_) => CLOSED_SENDER,
            TrySendError::Broken(_) => BROKEN,
            TrySendError::WouldBlock(_) => {
                "the value was not sent: there is no room for it now, and nobody waits to receive it"
            }
        })
    }
}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RecvError::Closed => CLOSED_RECEIVER,
            RecvError::EndOfChannel => END,
        })
    }
}

impl fmt::Display for TryRecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TryRecvError::Closed => CLOSED_RECEIVER,
            TryRecvError::EndOfChannel => END,
            TryRecvError::WouldBlock => "nothing was received: nothing is there now",
        })
    }
}

/// Shows the reason, never the value.
impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendError::Closed(_) => "Closed(..)",
            SendError::Broken(_) => "Broken(..)",
        })
    }
}

/// Shows the reason, never the value.
impl<T> fmt::Debug for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TrySendError::Closed(_) => "Closed(..)",
            TrySendError::Broken(_) => "Broken(..)",
            TrySendError::WouldBlock(_) => "WouldBlock(..)",
        })
    }
}

impl<T> Error for SendError<T> {}
impl<T> Error for TrySendError<T> {}
impl Error for RecvError {}
impl Error for TryRecvError {}
