//! The errors of a channel; one type for each operation, so that each names only what can happen.
//!
//! The kinds are Trio's: *closed* on this side, *broken* by the other side, the regular *end*, and
//! *would block*. An error of a send contains the value.

use std::error::Error;
use std::fmt;

/// The value was not sent; from [`Sender::send`](crate::sync::Sender::send). The error contains it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SendError<T> {
    /// This handle was closed, before or during the call.
    Closed(T),
    /// All receivers are closed, so none will open.
    Broken(T),
}

/// The value was not sent; from [`Sender::try_send`](crate::sync::Sender::try_send). The error
/// contains it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TrySendError<T> {
    /// This handle was closed.
    Closed(T),
    /// All receivers are closed, so none will open.
    Broken(T),
    /// There is no room and no waiting receiver, or others wait to send.
    WouldBlock(T),
}

/// No value was received, and none will be; from [`Receiver::recv`](crate::sync::Receiver::recv).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecvError {
    /// This handle was closed, before or during the call.
    Closed,
    /// All senders are closed and all their values were received: the regular end.
    EndOfChannel,
}

/// No value was received; from [`Receiver::try_recv`](crate::sync::Receiver::try_recv).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryRecvError {
    /// This handle was closed.
    Closed,
    /// All senders are closed and all their values were received: the regular end.
    EndOfChannel,
    /// The channel is empty now.
    WouldBlock,
}

impl<T> SendError<T> {
    /// Returns the value that was not sent.
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
    /// Returns the value that was not sent.
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
                "the value was not sent: there is no room for it now, and no receiver waits for it"
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
            TryRecvError::WouldBlock => "nothing was received: the channel is empty now",
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
