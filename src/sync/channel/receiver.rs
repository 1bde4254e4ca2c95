//! The receiving side of a channel.
//!
//! As a stream, a receiver waits in the queue itself, without a future that can be dropped. Its key
//! is kept between polls in `stream_waiter`. Every other use of the handle first leaves the queue
//! and takes the value that was assigned to the stream, so that no value stays there unseen and the
//! order of values is kept.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use futures_lite::Stream;

use super::core::{Core, Item};
use super::error::{RecvError, TryRecvError};
use super::handle::Handle;
use super::statistics::ChannelStatistics;
use crate::sync::locked::Deferred;
use crate::sync::wait_list::{Removed, WaiterKey};
use crate::sys::primitives::{Mutex, MutexGuard, lock};
use crate::sys::unwind::wake_all;
use crate::wait::{self, Wait};

/// Receives values from a channel; from [`channel`](super::channel).
///
/// A clone is another handle to the same channel, which is closed separately. Each value goes to
/// one receiver.
///
/// It is also a [`Stream`] of the values, which ends when the channel has ended or the handle is
/// closed. A stream that was polled and is pending keeps its position in the queue and the value
/// that is assigned to it, until the handle is polled again, used in another way, closed or
/// dropped. No value is lost, but other receivers do not get that one in the meantime.
///
/// ```
/// use futures_lite::{StreamExt, future::block_on};
///
/// let (sender, receiver) = seedbed::sync::channel(3);
/// for n in [1, 2, 3] {
///     sender.try_send(n).unwrap();
/// }
/// drop(sender);
/// let all: Vec<_> = block_on(receiver.collect());
/// assert_eq!(all, [1, 2, 3]);
/// ```
///
/// # Dropping
///
/// Closes this handle, as [`close`](Self::close) does.
pub struct Receiver<T> {
    handle: Handle<T>,
    /// The stream's key in the queue, if it waits. Never locked while the core is.
    stream_waiter: Mutex<Option<WaiterKey>>,
}

impl<T> Receiver<T> {
    pub(super) fn new(handle: Handle<T>) -> Self {
        Receiver {
            handle,
            stream_waiter: Mutex::new(None),
        }
    }

    /// Receives a value, and waits while there is none.
    ///
    /// It completes immediately if it can; then it is no cancel point. Its position in the queue is
    /// that of its first poll.
    ///
    /// ```
    /// use seedbed::sync::{RecvError, channel};
    ///
    /// futures_lite::future::block_on(async {
    ///     let (sender, receiver) = channel(1);
    ///     sender.send("a value").await.unwrap();
    ///     drop(sender);
    ///     assert_eq!(receiver.recv().await, Ok("a value"));
    ///     assert_eq!(receiver.recv().await, Err(RecvError::EndOfChannel));
    /// });
    /// ```
    ///
    /// # Errors
    ///
    /// [`RecvError::Closed`] if this handle is closed, before or during the wait;
    /// [`RecvError::EndOfChannel`] if all senders are closed and the buffer is empty.
    ///
    /// # Cancellation
    ///
    /// Atomic: if cancelled, no value was received. A value that had been assigned already goes to
    /// the next receiver, or back to its position in the channel.
    pub fn recv(&self) -> Recv<'_, T> {
        Recv {
            receiver: self,
            state: State::New,
        }
    }

    /// Receives a value if there is one; never waits.
    ///
    /// ```
    /// use seedbed::sync::{TryRecvError, channel};
    ///
    /// let (sender, receiver) = channel(1);
    /// assert_eq!(receiver.try_recv(), Err(TryRecvError::WouldBlock));
    /// sender.try_send("a value").unwrap();
    /// assert_eq!(receiver.try_recv(), Ok("a value"));
    /// ```
    ///
    /// # Errors
    ///
    /// In this order: [`TryRecvError::Closed`] if this handle is closed;
    /// [`TryRecvError::EndOfChannel`] if all senders are closed and the buffer is empty;
    /// [`TryRecvError::WouldBlock`] if the channel is empty now.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        if let Some(value) = self.leave_stream_queue() {
            return Ok(value);
        }
        let (value, woken) = self.attempt(&mut self.handle.core.lock())?;
        Deferred::wake(woken).run();
        Ok(value)
    }

    /// Closes this handle; others stay open. A second call has no effect.
    ///
    /// Receives that wait on this handle return [`RecvError::Closed`]. If it was the last receiver,
    /// the buffer is dropped, and all sends, also waiting ones, return
    /// [`SendError::Broken`](crate::sync::SendError::Broken).
    ///
    /// ```
    /// use seedbed::sync::{SendError, TryRecvError, channel};
    ///
    /// futures_lite::future::block_on(async {
    ///     let (sender, receiver) = channel(1);
    ///     receiver.close();
    ///     assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
    ///     assert_eq!(sender.send(5).await, Err(SendError::Broken(5)));
    /// });
    /// ```
    pub fn close(&self) {
        let waiting = self.stream_waiter().take();
        if let Some(key) = waiting {
            self.give_up(key);
        }
        let mut core = self.handle.core.lock();
        let Some(blocked) = self.handle.mark_closed() else {
            return;
        };
        let (woken, discarded) = core.close_receiver(self.handle.id, blocked);
        drop(core);
        wake_all(woken);
        drop(discarded);
    }

    /// Returns whether this handle was closed.
    ///
    /// ```
    /// let (_sender, receiver) = seedbed::sync::channel::<u8>(1);
    /// assert!(!receiver.is_closed());
    /// receiver.close();
    /// assert!(receiver.is_closed() && receiver.clone().is_closed());
    /// ```
    pub fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    /// Returns the number of values, handles and waiters at this moment.
    ///
    /// ```
    /// let (_sender, receiver) = seedbed::sync::channel::<u8>(1);
    /// assert_eq!(receiver.statistics().open_senders, 1);
    /// ```
    pub fn statistics(&self) -> ChannelStatistics {
        self.handle.core.lock().statistics()
    }

    fn stream_waiter(&self) -> MutexGuard<'_, Option<WaiterKey>> {
        // Never poisoned: no code that can panic runs under this mutex.
        lock(&self.stream_waiter)
    }

    /// Removes the stream from the queue, if it waits; returns the value that was assigned to it.
    fn leave_stream_queue(&self) -> Option<T> {
        let key = self.stream_waiter().take()?;
        let mut core = self.handle.core.lock();
        self.handle.uncount_waiter();
        let removed = core.leave(key);
        drop(core);
        match removed {
            Removed::Granted(Ok(item)) => Some(item.into_value()),
            // The caller tries again and gets the same error.
            Removed::Granted(Err(_reason)) => None,
            Removed::Waiting(_unused_waker) => None,
        }
    }

    /// Receives if that is possible without waiting; returns the waker to wake after unlocking.
    fn attempt(&self, core: &mut Core<T, Waker>) -> Result<(T, Option<Waker>), TryRecvError> {
        if self.handle.is_closed() {
            return Err(TryRecvError::Closed);
        }
        core.try_recv()
    }

    /// The first poll of a receive: its result, or its key in the queue.
    fn begin(&self, waker: &Waker) -> Result<Result<T, RecvError>, WaiterKey> {
        // The common case first: one lock, and no clone of the waker.
        match self.try_recv() {
            Err(TryRecvError::WouldBlock) => (),
            decided => return Ok(decided.map_err(final_error)),
        }
        // Cloned before the mutex is locked, because a clone runs foreign code. An unused clone is
        // dropped after the unlock.
        let waker = waker.clone();
        let mut core = self.handle.core.lock();
        match self.attempt(&mut core) {
            Err(TryRecvError::WouldBlock) => {
                self.handle.count_waiter();
                Err(core.push_receiver(self.handle.id, waker))
            }
            Err(error) => Ok(Err(final_error(error))),
            Ok((value, woken)) => {
                drop(core);
                Deferred::wake(woken).run();
                Ok(Ok(value))
            }
        }
    }

    /// Ready if the result of a receive is known; otherwise stores `waker` as the one to wake.
    fn poll_decided(&self, key: &WaiterKey, waker: &Waker) -> Poll<()> {
        let core = &self.handle.core;
        core.poll_granted(waker, |core| core.receiver_payload_mut(key))
    }

    /// Returns the result of a receive, which must be known.
    fn claim(&self, key: WaiterKey) -> Result<T, RecvError> {
        let mut core = self.handle.core.lock();
        self.handle.uncount_waiter();
        match core.leave(key) {
            Removed::Granted(received) => received.map(Item::into_value),
            Removed::Waiting(_) => unreachable!("only a receive with a result may claim it"),
        }
    }

    fn give_up(&self, key: WaiterKey) {
        let mut core = self.handle.core.lock();
        self.handle.uncount_waiter();
        let (then, discarded) = core.give_up_receiver(key);
        drop(core);
        then.run();
        drop(discarded);
    }
}

/// Converts an error that waiting cannot change.
fn final_error(error: TryRecvError) -> RecvError {
    match error {
        TryRecvError::Closed => RecvError::Closed,
        TryRecvError::EndOfChannel => RecvError::EndOfChannel,
        TryRecvError::WouldBlock => unreachable!("the future waits then"),
    }
}

/// Creates another handle to the same channel; a closed one if this one is closed.
impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Receiver::new(self.handle.another(Core::open_receiver))
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.close();
    }
}

/// The values, until all senders are closed and nothing is left, or this handle is closed.
///
/// # Cancellation
///
/// Dropping a future that polls the stream loses no value: one that is assigned to the stream is
/// the next one that this handle returns, or goes to other receivers when this handle is closed or
/// dropped.
impl<T> Stream for Receiver<T> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let waiting = self.stream_waiter().take();
        let begun = match waiting {
            None => self.begin(cx.waker()),
            Some(key) if self.poll_decided(&key, cx.waker()).is_ready() => Ok(self.claim(key)),
            Some(key) => Err(key),
        };
        match begun {
            // Both errors are the end of the stream.
            Ok(received) => Poll::Ready(received.ok()),
            Err(key) => {
                *self.stream_waiter() = Some(key);
                Poll::Pending
            }
        }
    }
}

/// Shows whether it is closed and the [`statistics`](Receiver::statistics), never a value.
impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver")
            .field("closed", &self.is_closed())
            .field("channel", &self.statistics())
            .finish()
    }
}

/// Receives a value; from [`Receiver::recv`].
///
/// It may be polled at any time and with changing wakers; the newest one is woken.
///
/// ```
/// use seedbed::sync::{Recv, channel};
///
/// let (sender, receiver) = channel(1);
/// sender.try_send("a value").unwrap();
/// let receiving: Recv<'_, &str> = receiver.recv();
/// assert_eq!(sender.statistics().buffered, 1, "futures do nothing until polled");
/// assert_eq!(futures_lite::future::block_on(receiving), Ok("a value"));
/// ```
///
/// # Cancellation
///
/// Atomic: if cancelled, no value was received.
///
/// # Dropping
///
/// Leaves the queue immediately; the order of the others is unchanged. A value that had been
/// assigned to it goes to the next receiver, or back to its position in the channel; if no receiver
/// is open, the value is dropped. A future that is *forgotten* ([`std::mem::forget`]) keeps its
/// position until its handle is closed, and a value that is assigned to it is lost.
///
/// # Panics
///
/// When polled again after it has completed.
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct Recv<'a, T> {
    receiver: &'a Receiver<T>,
    state: State,
}

/// The state of a [`Recv`].
enum State {
    /// Not polled yet, so not in the queue.
    New,
    /// In the queue, or with a result and not polled since.
    Queued(WaiterKey),
    /// Completed.
    Done,
}

impl<T> Future for Recv<'_, T> {
    type Output = Result<T, RecvError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let receiver = self.receiver;
        let begun = match mem::replace(&mut self.state, State::Done) {
            State::New => receiver.begin(cx.waker()),
            State::Queued(key) if receiver.poll_decided(&key, cx.waker()).is_ready() => {
                Ok(receiver.claim(key))
            }
            State::Queued(key) => Err(key),
            State::Done => panic!("a `Recv` was polled after it had completed"),
        };
        match begun {
            Ok(received) => Poll::Ready(received),
            Err(key) => {
                self.state = State::Queued(key);
                wait::pending(&Wait::For("a value in a channel"))
            }
        }
    }
}

impl<T> Drop for Recv<'_, T> {
    fn drop(&mut self) {
        if let State::Queued(key) = mem::replace(&mut self.state, State::Done) {
            self.receiver.give_up(key);
        }
    }
}

impl<T> fmt::Debug for Recv<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::New => "not polled yet",
            State::Queued(_) => "queued",
            State::Done => "done",
        };
        f.debug_struct("Recv").field("state", &state).finish()
    }
}
