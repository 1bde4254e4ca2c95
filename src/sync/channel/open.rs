//! `channel`: passes values from senders to receivers, each to one of them, first come, first served on both sides.
//!
//! The pure `core` decides; [`Sender`] and [`Receiver`] are thin drivers around it: one mutex, held for a few
//! instructions; sending or receiving without waiting is one lock, and allocates only when the buffer grows.
//!
//! Choice: not built on `async-channel`, which keeps some of Trio's promises and cannot keep these: a rendezvous
//! (capacity 0); a value belongs to the longest waiting receiver, and a free place to the longest waiting sender, the
//! moment it is there; closing one handle tells those blocked on it and nobody else; a buffer that is discarded with
//! the last receiver; and how many wait. Its queue is lock-free, so where many threads hammer one channel and none of
//! this matters, it is the better choice, as the docs of [`channel`] say.

use std::sync::Arc;

use super::core::Core;
use super::handle::Handle;
use super::receiver::Receiver;
use super::sender::Sender;
use crate::sync::locked::Locked;

/// Opens a channel that buffers up to `capacity` values; then, senders wait. With capacity 0 they always do, until a
/// receiver takes the value: a rendezvous.
///
/// Both sides can be cloned; each value goes to one receiver. It is fair: values arrive in the order in which they were
/// sent, and go to the receivers in the order in which those began to wait. A value that is sent while somebody waits
/// belongs to the longest waiter at once, and a place that comes free, to the longest waiting sender.
///
/// A small capacity is the right choice nearly always, and 0 a good default: it makes a producer that is too fast wait.
///
/// `async_channel` is faster when many threads use one channel. It has no rendezvous, lets receivers take a value that
/// woke another one, closes all handles at once, keeps the buffer when the last receiver is gone, and does not say how
/// many wait.
///
/// ```
/// use seedbed::sync::channel;
///
/// let (sender, receiver) = channel(0);
/// std::thread::spawn(move || {
///     futures_lite::future::block_on(async {
///         for n in 0..3 {
///             sender.send(n).await.unwrap();
///         }
///     });
/// });
/// futures_lite::future::block_on(async {
///     let mut sum = 0;
///     while let Ok(n) = receiver.recv().await {
///         sum += n;
///     }
///     assert_eq!(sum, 3);
/// });
/// ```
///
/// # Closing
///
/// Each handle is closed when it is dropped, or by its `close` before. When the last sender is closed, receivers get
/// what is in the buffer and then [`EndOfChannel`](crate::sync::RecvError::EndOfChannel). When the last receiver is closed, what
/// is in the buffer is dropped, and senders get [`Broken`](crate::sync::SendError::Broken). Closing one of several handles tells
/// only those that are blocked on that very handle.
///
/// # Coming from Trio
///
/// `open_memory_channel(n)` is `channel(n)`, and with `math.inf`, [`unbounded`]. Dropping a handle closes it. A clone
/// of a closed handle is a closed handle, where Trio raises an error. An operation that need not wait completes at once
/// and is no cancel point. Statistics are the same.
pub fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    open(Some(capacity))
}

/// Opens a channel that buffers any number of values: sending never waits.
///
/// If values come faster than they are received, memory runs out; with [`channel`], the senders would wait.
///
/// ```
/// let (sender, receiver) = seedbed::sync::unbounded();
/// for n in 0..1000 {
///     sender.try_send(n).unwrap();
/// }
/// assert_eq!(receiver.try_recv(), Ok(0));
/// assert_eq!(receiver.statistics().capacity, None);
/// ```
pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    open(None)
}

fn open<T>(capacity: Option<usize>) -> (Sender<T>, Receiver<T>) {
    let mut core = Core::new(capacity);
    let (sender, receiver) = (core.open_sender(), core.open_receiver());
    let core = Arc::new(Locked::new(core));
    let sender = Handle::new(core.clone(), sender, false);
    let receiver = Handle::new(core, receiver, false);
    (Sender::new(sender), Receiver::new(receiver))
}
