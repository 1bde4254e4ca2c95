//! The sending side of a channel.

use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::error::SendError;
use super::reactor::Reactor;
use crate::transport::codec;
use crate::transport::codec_error::CodecError;
use crate::transport::ring::{Progress, RingError, RingSender};
use crate::worker::data::Argument;
use crate::worker::tuning::{MESSAGE_BUFFER_KEPT, SPIN_IN_POLL};

/// Sends values to another process; from [`channel`](super::channel()).
///
/// It is a value that serde encodes, within the argument or the result of a job or a message of a
/// channel. Any other encoding is an error.
///
/// ```
/// use seedbed::run_sync;
/// use seedbed::worker::{Sender, channel};
///
/// fn report(mut progress: Sender<u32>) {
///     for percent in [50, 100] {
///         progress.send_blocking(percent).unwrap();
///     }
/// }
///
/// #[seedbed::main]
/// async fn main() {
///     let (sender, mut progress) = channel(8).unwrap();
///     run_sync(report, sender).await.unwrap();
///     assert_eq!(progress.recv().await.unwrap(), 50);
///     assert_eq!(progress.recv().await.unwrap(), 100);
/// }
/// ```
///
/// # Dropping
///
/// Ends the channel, unless this sender was sent to another process.
pub struct Sender<T> {
    // Dropped before the ring, which closes only if no other owner has its socket.
    reactor: Reactor,
    ring: RingSender,
    /// The encoding of the present message.
    message: Vec<u8>,
    values: PhantomData<fn(T)>,
}

/// A message that is being sent. If it is dropped before that is done, the message is given up.
struct Sending<'a, T> {
    sender: &'a mut Sender<T>,
    fds: &'a [Arc<OwnedFd>],
}

impl<T> Sender<T> {
    pub(super) fn new(ring: RingSender) -> Self {
        Sender {
            reactor: Reactor::default(),
            ring,
            message: Vec::new(),
            values: PhantomData,
        }
    }

    /// Returns whether the receiver was dropped. One that was lost with its process is found when a
    /// send has to wait.
    ///
    /// ```
    /// fn main() {
    ///     seedbed::init();
    ///     let (sender, receiver) = seedbed::worker::channel::<u8>(1).unwrap();
    ///     assert!(!sender.is_closed());
    ///     drop(receiver);
    ///     assert!(sender.is_closed());
    /// }
    /// ```
    pub fn is_closed(&self) -> bool {
        self.ring.is_closed()
    }
}

impl<T: Argument> Sender<T> {
    /// Sends a value, and waits while the channel is full.
    ///
    /// When it returns, the receiver can take the value, also if this process is killed then. It
    /// completes immediately if it can; then it is no cancel point.
    ///
    /// ```
    /// #[seedbed::main]
    /// async fn main() {
    ///     let (mut sender, mut receiver) = seedbed::worker::channel(1).unwrap();
    ///     sender.send("a value".to_owned()).await.unwrap();
    ///     assert_eq!(receiver.recv().await.unwrap(), "a value");
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// A [`SendError`] with the value, if the receiver is gone or the value cannot be encoded.
    ///
    /// # Cancellation
    ///
    /// Atomic: if cancelled, the value was not sent and is dropped. Sides of channels within it are
    /// lost with it.
    ///
    /// # Panics
    ///
    /// In a process forked from one that uses seedbed, if it has to wait.
    pub async fn send(&mut self, value: T) -> Result<(), SendError<T>> {
        poll_fn(|cx| self.reactor.poll_yield(cx)).await;
        let fds = match self.encode(&value) {
            Ok(fds) => fds,
            Err(error) => return Err(SendError::encode(&error, value)),
        };
        let mut sending = Sending {
            sender: self,
            fds: &fds,
        };
        let sent = poll_fn(|cx| sending.poll(cx)).await;
        drop(sending);
        sent.map_err(|error| SendError::ring(&error, value))
    }

    /// Sends a value, and blocks this thread while the channel is full. For jobs and threads; in a
    /// task, use [`send`](Self::send).
    ///
    /// ```
    /// fn main() {
    ///     seedbed::init();
    ///     let (mut sender, mut receiver) = seedbed::worker::channel(1).unwrap();
    ///     let sending = std::thread::spawn(move || {
    ///         for n in 0..3 {
    ///             sender.send_blocking(n).unwrap();
    ///         }
    ///     });
    ///     for n in 0..3 {
    ///         assert_eq!(receiver.recv_blocking().unwrap(), n);
    ///     }
    ///     sending.join().unwrap();
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// A [`SendError`] with the value, if the receiver is gone or the value cannot be encoded.
    pub fn send_blocking(&mut self, value: T) -> Result<(), SendError<T>> {
        let fds = match self.encode(&value) {
            Ok(fds) => fds,
            Err(error) => return Err(SendError::encode(&error, value)),
        };
        let sent = self.ring.send(&self.message, &fds);
        sent.map_err(|error| SendError::ring(&error, value))
    }

    /// Sends a value if that is possible without waiting.
    ///
    /// ```
    /// use seedbed::worker::{SendErrorKind, channel};
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let (mut sender, _receiver) = channel(2).unwrap();
    ///     assert!(sender.try_send(1).is_ok() && sender.try_send(2).is_ok());
    ///     assert_eq!(sender.try_send(3).unwrap_err().kind(), SendErrorKind::Full);
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// A [`SendError`] with the value: [`Full`](super::SendErrorKind::Full) if there is no room
    /// now, or as [`send`](Self::send).
    pub fn try_send(&mut self, value: T) -> Result<(), SendError<T>> {
        let fds = match self.encode(&value) {
            Ok(fds) => fds,
            Err(error) => return Err(SendError::encode(&error, value)),
        };
        let mut progress = self.ring.try_send(&self.message, &fds);
        if matches!(progress, Ok(Progress::Waits)) {
            // A receiver whose process has ended is known by the socket.
            let looked = self.ring.end_park();
            progress = looked.and_then(|()| self.ring.try_send(&self.message, &fds));
        }
        match progress {
            Ok(Progress::Sent) => Ok(()),
            Ok(Progress::Waits) => {
                self.ring.abandon();
                Err(SendError::full(value))
            }
            Err(error) => {
                self.ring.abandon();
                Err(SendError::ring(&error, value))
            }
        }
    }

    /// Encodes a message, and returns the descriptors that go with it.
    fn encode(&mut self, value: &T) -> Result<Vec<Arc<OwnedFd>>, CodecError> {
        self.message.clear();
        self.message.shrink_to(MESSAGE_BUFFER_KEPT);
        let attached = codec::encode_with_attachments(value, &mut self.message)?;
        Ok(attached.fds)
    }
}

impl<T> Sending<'_, T> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), RingError>> {
        let sender = &mut *self.sender;
        let mut may_spin = true;
        loop {
            if let Progress::Sent = sender.ring.try_send(&sender.message, self.fds)? {
                return Poll::Ready(Ok(()));
            }
            if std::mem::take(&mut may_spin) && sender.ring.spin(SPIN_IN_POLL) {
                continue;
            }
            if sender.ring.begin_park() {
                ready!(sender.reactor.poll_readable(sender.ring.socket(), cx))?;
            }
            sender.ring.end_park()?;
        }
    }
}

impl<T> Drop for Sending<'_, T> {
    fn drop(&mut self) {
        self.sender.ring.abandon();
    }
}

impl<T> Serialize for Sender<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.ring.serialize(serializer)
    }
}

impl<'de, T> Deserialize<'de> for Sender<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        RingSender::deserialize(deserializer).map(Self::new)
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender")
            .field("is_closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}
