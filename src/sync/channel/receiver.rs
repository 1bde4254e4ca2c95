//! The receiving side of a channel.
//!
//! As a stream, a receiver waits in the queue by itself, not by a future that can be dropped. Its `place` there is kept
//! between polls. Every other use of the handle first fetches what has arrived there and leaves it, so that nothing
//! lies in a place that nobody looks at, and the order of values is kept.

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

/// Receives values from a channel; from [`channel`](super::channel).
///
/// A clone is another handle to the same channel, to be closed on its own; each value goes to one receiver.
///
/// It is also a [`Stream`] of the values, which ends when the channel has ended or the handle is closed. A stream that
/// was polled and is pending keeps its place in the queue, and the value that reaches it there, until it is polled
/// again, used in any other way, closed or dropped; nothing is lost, but other receivers do not get that value
/// meanwhile.
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
    /// The stream's place in the queue, if it has one. Locked only by one call of this handle at a time, and never
    /// while the core is.
    stream_waiter: Mutex<Option<WaiterKey>>,
}

impl<T> Receiver<T> {
    pub(super) fn new(handle: Handle<T>) -> Self {
        Receiver {
            handle,
            stream_waiter: Mutex::new(None),
        }
    }

    /// Receives a value, waiting for one as long as there is none.
    ///
    /// It completes at once if it can, and is then no cancel point. Its place in the queue is that of its first poll.
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
    /// [`RecvError::Closed`] if this handle is closed, before or while it waits; [`RecvError::EndOfChannel`] if
    /// all senders are, and nothing is left.
    ///
    /// # Cancellation
    ///
    /// Atomic: if cancelled, nothing was received. A value that had reached the future goes to the next receiver, or
    /// back to where it was in the channel.
    pub fn recv(&self) -> Recv<'_, T> {
        Recv {
            receiver: self,
            state: State::New,
        }
    }

    /// Receives a value if one is there; never waits.
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
    /// In this order: [`TryRecvError::Closed`] if this handle is closed; [`TryRecvError::EndOfChannel`] if all
    /// senders are, and nothing is left; [`TryRecvError::WouldBlock`] if nothing is there now.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        if let Some(value) = self.leave_stream_queue() {
            return Ok(value);
        }
        let (value, woken) = self.attempt(&mut self.handle.core.lock())?;
        Deferred::wake(woken).run();
        Ok(value)
    }

    /// Closes this handle; others stay open. Doing so again changes nothing.
    ///
    /// Receives that are blocked on this handle give [`RecvError::Closed`]. If it was the last receiver, what is in
    /// the buffer is dropped, and sends give [`SendError::Broken`](super::SendError::Broken), those that wait included.
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
        woken.into_iter().for_each(Waker::wake);
        drop(discarded);
    }

    /// Whether this handle was closed.
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

    /// Says, for one moment, how the channel is used.
    ///
    /// ```
    /// let (_sender, receiver) = seedbed::sync::channel::<u8>(1);
    /// assert_eq!(receiver.statistics().open_senders, 1);
    /// ```
    pub fn statistics(&self) -> ChannelStatistics {
        self.handle.core.lock().statistics()
    }

    fn stream_waiter(&self) -> MutexGuard<'_, Option<WaiterKey>> {
        // Nothing that can panic runs under it.
        lock(&self.stream_waiter)
    }

    /// Leaves the stream's place in the queue, if it has one, with the value that has arrived there, if one has.
    fn leave_stream_queue(&self) -> Option<T> {
        let key = self.stream_waiter().take()?;
        let mut core = self.handle.core.lock();
        self.handle.uncount_waiter();
        let removed = core.leave(key);
        drop(core);
        match removed {
            Removed::Granted(Ok(item)) => Some(item.into_value()),
            // The caller asks again, and finds out the same.
            Removed::Granted(Err(_reason)) => None,
            Removed::Waiting(_unused_waker) => None,
        }
    }

    /// Receives if that is possible at once; whom to wake after unlocking.
    fn attempt(&self, core: &mut Core<T, Waker>) -> Result<(T, Option<Waker>), TryRecvError> {
        if self.handle.is_closed() {
            return Err(TryRecvError::Closed);
        }
        core.try_recv()
    }

    /// The first poll of a receive: what became of it, or its place in the queue.
    fn begin(&self, waker: &Waker) -> Result<Result<T, RecvError>, WaiterKey> {
        // The common case comes first: one lock, and nothing to clone.
        match self.try_recv() {
            Err(TryRecvError::WouldBlock) => (),
            decided => return Ok(decided.map_err(final_error)),
        }
        // Cloned before the lock is taken; an unused one is dropped after it was given back.
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

    /// Whether it is decided what becomes of a receive; if not, makes `waker` the one to wake.
    fn poll_decided(&self, key: &WaiterKey, waker: &Waker) -> Poll<()> {
        let core = &self.handle.core;
        core.poll_granted(waker, |core| core.receiver_payload_mut(key))
    }

    /// What became of a receive that is decided.
    fn claim(&self, key: WaiterKey) -> Result<T, RecvError> {
        let mut core = self.handle.core.lock();
        self.handle.uncount_waiter();
        match core.leave(key) {
            Removed::Granted(received) => received.map(Item::into_value),
            Removed::Waiting(_) => unreachable!("only who is decided may claim"),
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

/// An error that waiting does not help against.
fn final_error(error: TryRecvError) -> RecvError {
    match error {
        TryRecvError::Closed => RecvError::Closed,
        TryRecvError::EndOfChannel => RecvError::EndOfChannel,
        TryRecvError::WouldBlock => unreachable!("whoever would block waits"),
    }
}

/// Another handle to the same channel; closed if this one is.
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
/// Dropping what polls the stream loses nothing: a value that arrives then is the next one that this handle gives, or
/// goes to other receivers when it is closed or dropped.
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
/// Atomic: if cancelled, nothing was received.
///
/// # Dropping
///
/// Leaves the queue at once; the order of the others is unchanged. A value that had reached it goes to the next
/// receiver, or back to where it was in the channel; if no receiver is open any more, it is dropped. One that is
/// *forgotten* ([`std::mem::forget`]) keeps its place until its handle is closed, and the value that reaches it there
/// is lost.
///
/// # Panics
///
/// When polled again after it has completed.
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct Recv<'a, T> {
    receiver: &'a Receiver<T>,
    state: State,
}

/// Where a [`Recv`] stands.
enum State {
    /// Not polled yet; not in the queue.
    New,
    /// In the queue, or decided and not yet aware of it.
    Queued(WaiterKey),
    /// It has completed.
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
                Poll::Pending
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
