//! The receiving side of a channel.

use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_lite::Stream;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::error::RecvError;
use super::reactor::Reactor;
use crate::transport::codec;
use crate::transport::ring::{Message, RingReceiver};
use crate::transport::tuning::RING_ROUNDS_PER_POLL;
use crate::worker::data::Argument;
use crate::worker::tuning::SPIN_IN_POLL;

/// Receives values from another process; from [`channel`](super::channel()).
///
/// It is a value that serde encodes, within the argument or the result of a job or a message of a
/// channel. Any other encoding is an error.
///
/// In a job that blocks, it is iterated over. In a task, it is a `Stream`. Both bring each value or
/// an error, and end at the end of the channel, and after an error that no value follows.
///
/// ```
/// use futures_lite::StreamExt;
/// use seedbed::worker::{Receiver, channel};
/// use seedbed::{open_nursery, run_sync};
///
/// fn sum(numbers: Receiver<u64>) -> u64 {
///     numbers.into_iter().map(|number| number.unwrap()).sum()
/// }
///
/// #[seedbed::main]
/// async fn main() {
///     let (mut sender, receiver) = channel(4).unwrap();
///     let sum = open_nursery(async |n| {
///         let sum = n.spawn(run_sync(sum, receiver));
///         for number in 1..=10 {
///             sender.send(number).await.unwrap();
///         }
///         drop(sender);
///         sum.await.unwrap()
///     });
///     assert_eq!(sum.await, 55);
///
///     let (mut sender, receiver) = channel(1).unwrap();
///     sender.send('x').await.unwrap();
///     drop(sender);
///     let all: Vec<_> = receiver.map(Result::unwrap).collect().await;
///     assert_eq!(all, ['x']);
/// }
/// ```
///
/// # Dropping
///
/// Discards what was not received, and sending returns an error, unless this receiver was sent to
/// another process.
pub struct Receiver<T> {
    // Dropped before the ring, which closes only if no other owner has its socket.
    reactor: Reactor,
    ring: RingReceiver,
    /// An iteration has come to its end.
    has_ended: bool,
    values: PhantomData<fn() -> T>,
}

impl<T> Receiver<T> {
    pub(super) fn new(ring: RingReceiver) -> Self {
        Receiver {
            reactor: Reactor::default(),
            ring,
            has_ended: false,
            values: PhantomData,
        }
    }
}

impl<T: Argument> Receiver<T> {
    /// Receives the next value, and waits until there is one.
    ///
    /// It completes immediately if it can; then it is no cancel point.
    ///
    /// ```
    /// #[seedbed::main]
    /// async fn main() {
    ///     let (mut sender, mut receiver) = seedbed::worker::channel(1).unwrap();
    ///     sender.send('x').await.unwrap();
    ///     assert_eq!(receiver.recv().await.unwrap(), 'x');
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`EndOfChannel`](super::RecvErrorKind::EndOfChannel) after the last value of a sender that
    /// was dropped; [`PeerGone`](super::RecvErrorKind::PeerGone) after the last value of one that
    /// was lost with its process. After [`Decode`](super::RecvErrorKind::Decode), the next value
    /// can be received.
    ///
    /// # Cancellation
    ///
    /// Atomic: if cancelled, no value was taken.
    ///
    /// # Panics
    ///
    /// In a process forked from one that uses seedbed, if it has to wait.
    pub async fn recv(&mut self) -> Result<T, RecvError> {
        poll_fn(|cx| self.reactor.poll_yield(cx)).await;
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// Receives the next value, and blocks this thread until there is one. For jobs and threads; in
    /// a task, use [`recv`](Self::recv).
    ///
    /// ```
    /// fn main() {
    ///     seedbed::init();
    ///     let (mut sender, mut receiver) = seedbed::worker::channel(1).unwrap();
    ///     sender.send_blocking('x').unwrap();
    ///     assert_eq!(receiver.recv_blocking().unwrap(), 'x');
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv): [`EndOfChannel`](super::RecvErrorKind::EndOfChannel),
    /// [`PeerGone`](super::RecvErrorKind::PeerGone), [`Decode`](super::RecvErrorKind::Decode).
    pub fn recv_blocking(&mut self) -> Result<T, RecvError> {
        decode(self.ring.recv()?)
    }

    /// Receives a value if there is one.
    ///
    /// ```
    /// use seedbed::worker::{RecvErrorKind, channel};
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let (mut sender, mut receiver) = channel(1).unwrap();
    ///     assert_eq!(receiver.try_recv().unwrap_err().kind(), RecvErrorKind::Empty);
    ///     sender.try_send('x').unwrap();
    ///     assert_eq!(receiver.try_recv().unwrap(), 'x');
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Empty`](super::RecvErrorKind::Empty) if there is no value now, or as [`recv`](Self::recv).
    pub fn try_recv(&mut self) -> Result<T, RecvError> {
        if let Some(message) = self.ring.try_recv()? {
            return decode(message);
        }
        self.ring.end_park()?; // a sender that is gone is known by its socket
        match self.ring.try_recv()? {
            Some(message) => decode(message),
            None => Err(RecvError::empty()),
        }
    }

    /// Returns an iterator over the values, which blocks this thread until there is one, and ends
    /// with the channel and after an error that no value follows. For jobs and threads; in a task,
    /// use the receiver as a `Stream`.
    ///
    /// # Errors
    ///
    /// Its items are those of [`recv_blocking`](Self::recv_blocking), except that the regular end
    /// is no item.
    ///
    /// ```
    /// fn main() {
    ///     seedbed::init();
    ///     let (mut sender, mut receiver) = seedbed::worker::channel(2).unwrap();
    ///     sender.send_blocking('x').unwrap();
    ///     drop(sender);
    ///     assert_eq!(receiver.iter().map(Result::unwrap).collect::<String>(), "x");
    /// }
    /// ```
    pub fn iter(&mut self) -> impl Iterator<Item = Result<T, RecvError>> {
        std::iter::from_fn(|| self.next_blocking())
    }

    fn next_blocking(&mut self) -> Option<Result<T, RecvError>> {
        if self.has_ended {
            return None;
        }
        let received = self.recv_blocking();
        self.noted(received)
    }

    /// Ends an iteration at the end of the channel, and after an error that no value follows.
    fn noted(&mut self, received: Result<T, RecvError>) -> Option<Result<T, RecvError>> {
        self.has_ended = matches!(&received, Err(error) if error.is_final());
        match received {
            Err(error) if error.is_end() => None,
            received => Some(received),
        }
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, RecvError>> {
        let mut may_spin = true;
        for _ in 0..RING_ROUNDS_PER_POLL {
            if let Some(message) = self.ring.try_recv()? {
                return Poll::Ready(decode(message));
            }
            if std::mem::take(&mut may_spin) && self.ring.spin(SPIN_IN_POLL) {
                continue;
            }
            if self.ring.begin_park() {
                ready!(self.reactor.poll_readable(self.ring.socket(), cx))?;
            }
            self.ring.end_park()?;
        }
        // A long message, or a sender that wakes this side without one. Other tasks have their
        // turn.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

fn decode<T: Argument>(message: Message<'_>) -> Result<T, RecvError> {
    codec::decode_received(message.bytes, message.fds)
        .map_err(|error| RecvError::decode::<T>(&error))
}

/// Iterates over the values of a [`Receiver`], which it owns. Each step blocks this thread until
/// there is a value.
///
/// ```
/// fn main() {
///     seedbed::init();
///     let (mut sender, receiver) = seedbed::worker::channel(1).unwrap();
///     sender.send_blocking('x').unwrap();
///     drop(sender);
///     let mut values = receiver.into_iter();
///     assert_eq!(values.next().unwrap().unwrap(), 'x');
///     assert!(values.next().is_none());
/// }
/// ```
///
/// # Dropping
///
/// Drops the receiver.
pub struct ReceiverIter<T>(Receiver<T>);

impl<T: Argument> Iterator for ReceiverIter<T> {
    type Item = Result<T, RecvError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next_blocking()
    }
}

impl<T: Argument> IntoIterator for Receiver<T> {
    type Item = Result<T, RecvError>;
    type IntoIter = ReceiverIter<T>;

    fn into_iter(self) -> ReceiverIter<T> {
        ReceiverIter(self)
    }
}

impl<T: Argument> Stream for Receiver<T> {
    type Item = Result<T, RecvError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        ready!(self.reactor.poll_yield(cx));
        let received = ready!(self.poll_recv(cx));
        Poll::Ready(self.noted(received))
    }
}

impl<T> Serialize for Receiver<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.ring.serialize(serializer)
    }
}

impl<'de, T> Deserialize<'de> for Receiver<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        RingReceiver::deserialize(deserializer).map(Self::new)
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for ReceiverIter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiverIter").finish_non_exhaustive()
    }
}
