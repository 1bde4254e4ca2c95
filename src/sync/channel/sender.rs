//! The sending side of a channel.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::core::{Core, Sent};
use super::error::{SendError, TrySendError};
use super::handle::Handle;
use super::statistics::ChannelStatistics;
use crate::sync::locked::Deferred;
use crate::sync::wait_list::WaiterKey;
use crate::sys::unwind::wake_all;
use crate::wait::{self, Wait};

/// Sends values into a channel; from [`channel`](super::channel).
///
/// A clone is another handle to the same channel, which is closed separately.
///
/// ```
/// let (sender, receiver) = seedbed::sync::channel(2);
/// let other = sender.clone();
/// sender.try_send(1).unwrap();
/// other.try_send(2).unwrap();
/// assert_eq!((receiver.try_recv(), receiver.try_recv()), (Ok(1), Ok(2)));
/// ```
///
/// # Dropping
///
/// Closes this handle, as [`close`](Self::close) does.
pub struct Sender<T> {
    handle: Handle<T>,
}

impl<T> Sender<T> {
    pub(super) fn new(handle: Handle<T>) -> Self {
        Sender { handle }
    }

    /// Sends a value, and waits while there is neither room nor a waiting receiver, or while others
    /// wait to send.
    ///
    /// The value is sent when it is in the buffer or assigned to a receiver. With capacity 0, that
    /// is when a receiver has taken it. It completes immediately if it can; then it is no cancel
    /// point. Its position in the queue is that of its first poll.
    ///
    /// ```
    /// futures_lite::future::block_on(async {
    ///     let (sender, receiver) = seedbed::sync::channel(1);
    ///     sender.send("a value").await.unwrap();
    ///     assert_eq!(receiver.recv().await, Ok("a value"));
    /// });
    /// ```
    ///
    /// # Errors
    ///
    /// [`SendError::Closed`] if this handle is closed, before or during the wait;
    /// [`SendError::Broken`] if all receivers are closed. The error contains the value.
    ///
    /// # Cancellation
    ///
    /// Atomic: if cancelled, the value was not sent and is dropped, unless it was sent after the
    /// last poll of the future.
    pub fn send(&self, value: T) -> Send<'_, T> {
        Send {
            sender: self,
            state: State::New(value),
        }
    }

    /// Sends a value if that is possible without waiting.
    ///
    /// ```
    /// use seedbed::sync::{TrySendError, channel};
    ///
    /// let (sender, _receiver) = channel(1);
    /// assert_eq!(sender.try_send(1), Ok(()));
    /// assert_eq!(sender.try_send(2), Err(TrySendError::WouldBlock(2)));
    /// ```
    ///
    /// # Errors
    ///
    /// In this order: [`TrySendError::Closed`] if this handle is closed; [`TrySendError::Broken`]
    /// if all receivers are closed; [`TrySendError::WouldBlock`] if there is neither room nor a
    /// waiting receiver. The error contains the value.
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        let sent = self.attempt(&mut self.handle.core.lock(), value);
        Deferred::wake(sent?).run();
        Ok(())
    }

    /// Closes this handle; others stay open. A second call has no effect.
    ///
    /// Sends that wait on this handle return [`SendError::Closed`]. If it was the last sender,
    /// waiting receivers have reached the end; the buffer can still be received.
    ///
    /// ```
    /// use seedbed::sync::{RecvError, channel};
    ///
    /// futures_lite::future::block_on(async {
    ///     let (sender, receiver) = channel(1);
    ///     sender.send("the last").await.unwrap();
    ///     sender.close();
    ///     assert_eq!(receiver.recv().await, Ok("the last"));
    ///     assert_eq!(receiver.recv().await, Err(RecvError::EndOfChannel));
    /// });
    /// ```
    pub fn close(&self) {
        let mut core = self.handle.core.lock();
        let Some(blocked) = self.handle.mark_closed() else {
            return;
        };
        let woken = core.close_sender(self.handle.id, blocked);
        drop(core);
        wake_all(woken);
    }

    /// Returns whether this handle was closed.
    ///
    /// ```
    /// let (sender, _receiver) = seedbed::sync::channel::<u8>(1);
    /// assert!(!sender.is_closed());
    /// sender.close();
    /// assert!(sender.is_closed() && sender.clone().is_closed());
    /// ```
    pub fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    /// Returns the number of values, handles and waiters at this moment.
    ///
    /// ```
    /// let (sender, _receiver) = seedbed::sync::channel(1);
    /// sender.try_send("a value").unwrap();
    /// assert_eq!(sender.statistics().buffered, 1);
    /// ```
    pub fn statistics(&self) -> ChannelStatistics {
        self.handle.core.lock().statistics()
    }

    /// Sends if that is possible without waiting; returns the waker to wake after unlocking.
    fn attempt(
        &self,
        core: &mut Core<T, Waker>,
        value: T,
    ) -> Result<Option<Waker>, TrySendError<T>> {
        if self.handle.is_closed() {
            return Err(TrySendError::Closed(value));
        }
        core.try_send(value)
    }

    /// The first poll of a send: its result, or its key in the queue.
    fn begin(&self, value: T, waker: &Waker) -> Result<Sent<T>, WaiterKey> {
        // The common case first: one lock, and no clone of the waker.
        let value = match self.try_send(value) {
            Err(TrySendError::WouldBlock(value)) => value,
            decided => return Ok(decided.map_err(final_error)),
        };
        // Cloned before the mutex is locked, because a clone runs foreign code. An unused clone is
        // dropped after the unlock.
        let waker = waker.clone();
        let mut core = self.handle.core.lock();
        match self.attempt(&mut core, value) {
            Err(TrySendError::WouldBlock(value)) => {
                self.handle.count_waiter();
                Err(core.push_sender(self.handle.id, value, waker))
            }
            Err(error) => Ok(Err(final_error(error))),
            Ok(woken) => {
                drop(core);
                Deferred::wake(woken).run();
                Ok(Ok(()))
            }
        }
    }

    /// Ready if the result of a send is known; otherwise stores `waker` as the one to wake.
    fn poll_decided(&self, key: &WaiterKey, waker: &Waker) -> Poll<()> {
        let core = &self.handle.core;
        core.poll_granted(waker, |core| core.sender_payload_mut(key))
    }

    fn claim(&self, key: WaiterKey) -> Sent<T> {
        let mut core = self.handle.core.lock();
        self.handle.uncount_waiter();
        core.claim_sent(key)
    }

    fn give_up(&self, key: WaiterKey) {
        let mut core = self.handle.core.lock();
        self.handle.uncount_waiter();
        let unused = core.give_up_sender(key);
        drop(core);
        drop(unused);
    }
}

/// Converts an error that waiting cannot change.
fn final_error<T>(error: TrySendError<T>) -> SendError<T> {
    match error {
        TrySendError::Closed(value) => SendError::Closed(value),
        TrySendError::Broken(value) => SendError::Broken(value),
        TrySendError::WouldBlock(_) => unreachable!("the future waits then"),
    }
}

/// Creates another handle to the same channel; a closed one if this one is closed.
impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Sender::new(self.handle.another(Core::open_sender))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.close();
    }
}

/// Shows whether it is closed and the [`statistics`](Sender::statistics), never a value.
impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender")
            .field("closed", &self.is_closed())
            .field("channel", &self.statistics())
            .finish()
    }
}

/// Sends a value; from [`Sender::send`].
///
/// It may be polled at any time and with changing wakers; the newest one is woken.
///
/// ```
/// use seedbed::sync::{Send, channel};
///
/// let (sender, receiver) = channel(1);
/// let sending: Send<'_, &str> = sender.send("a value");
/// assert_eq!(receiver.statistics().buffered, 0, "futures do nothing until polled");
/// futures_lite::future::block_on(sending).unwrap();
/// assert_eq!(receiver.statistics().buffered, 1);
/// ```
///
/// # Cancellation
///
/// Atomic: if cancelled, the value was not sent, unless it was sent after the last poll.
///
/// # Dropping
///
/// Leaves the queue immediately and drops the value; the order of the others is unchanged. If a
/// receiver or the buffer has taken the value already, it is sent. A future that is *forgotten*
/// ([`std::mem::forget`]) keeps its position, and its value is sent when it reaches the front.
///
/// # Panics
///
/// When polled again after it has completed.
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct Send<'a, T> {
    sender: &'a Sender<T>,
    state: State<T>,
}

/// The state of a [`Send`].
enum State<T> {
    /// Not polled yet; contains the value.
    New(T),
    /// In the queue with its value, or with a result and not polled since.
    Queued(WaiterKey),
    /// Completed.
    Done,
}

/// No field is pinned.
impl<T> Unpin for Send<'_, T> {}

impl<T> Future for Send<'_, T> {
    type Output = Result<(), SendError<T>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let sender = self.sender;
        let begun = match mem::replace(&mut self.state, State::Done) {
            State::New(value) => sender.begin(value, cx.waker()),
            State::Queued(key) if sender.poll_decided(&key, cx.waker()).is_ready() => {
                Ok(sender.claim(key))
            }
            State::Queued(key) => Err(key),
            State::Done => panic!("a `Send` was polled after it had completed"),
        };
        match begun {
            Ok(sent) => Poll::Ready(sent),
            Err(key) => {
                self.state = State::Queued(key);
                wait::pending(&Wait::For("room in a channel"))
            }
        }
    }
}

impl<T> Drop for Send<'_, T> {
    fn drop(&mut self) {
        if let State::Queued(key) = mem::replace(&mut self.state, State::Done) {
            self.sender.give_up(key);
        }
    }
}

impl<T> fmt::Debug for Send<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::New(_) => "not polled yet",
            State::Queued(_) => "queued",
            State::Done => "done",
        };
        f.debug_struct("Send").field("state", &state).finish()
    }
}
