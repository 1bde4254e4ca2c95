//! Opens channels.
//!
//! The pure [`core`](super::core) decides; senders and receivers are drivers around it. Sending or
//! receiving without waiting locks one mutex for a few instructions, and allocates only when the
//! buffer grows.
//!
//! Decision: this is not built on `async-channel`, because that cannot guarantee what Trio's
//! channels do: a rendezvous (capacity 0); a value is assigned to the longest waiting receiver, and
//! a free buffer slot to the longest waiting sender, immediately; closing one handle affects only
//! the futures that wait on it; the last receiver discards the buffer; the number of waiters is
//! known.

use std::sync::Arc;

use super::core::Core;
use super::handle::Handle;
use super::receiver::Receiver;
use super::sender::Sender;
use crate::sync::locked::Locked;

/// Opens a channel that buffers up to `capacity` values; then senders wait. With capacity 0, every
/// sender waits until a receiver takes its value: a rendezvous.
///
/// Both sides can be cloned; each value goes to one receiver. The channel is fair: values arrive in
/// the order in which they were sent, and go to receivers in the order in which those began to
/// wait. A value that is sent is assigned to the longest waiting receiver immediately, and a free
/// buffer slot to the longest waiting sender.
///
/// Prefer a small capacity; 0 is a good default. It makes a fast producer wait.
///
/// `async_channel` is faster when many threads use one channel. It has no rendezvous, lets another
/// receiver take a value that has woken one, closes all handles together, keeps the buffer without
/// receivers, and does not report the number of waiters.
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
/// Each handle is closed when it is dropped, or earlier by its `close`. When the last sender is
/// closed, receivers get the rest of the buffer and then
/// [`EndOfChannel`](crate::sync::RecvError::EndOfChannel). When the last receiver is closed, the
/// buffer is dropped, and senders get [`Broken`](crate::sync::SendError::Broken). Closing one of
/// several handles affects only the futures that wait on that handle.
///
/// # Coming from Trio
///
/// `open_memory_channel(n)` is `channel(n)`, and with `math.inf`, [`unbounded`]. `receive` is
/// [`recv`](crate::sync::Receiver::recv). Dropping a handle closes it. A clone of a closed handle
/// is a closed handle, where Trio raises an error. An operation that need not wait completes
/// immediately and is no cancel point. Statistics are the same.
#[doc(alias = "memory_channel")]
#[doc(alias = "open_memory_channel")]
#[doc(alias = "mpsc")]
pub fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    open(Some(capacity))
}

/// Opens a channel that buffers any number of values: sending never waits.
///
/// If values are sent faster than they are received, memory runs out; with [`channel`], the senders
/// would wait.
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
