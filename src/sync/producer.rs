//! `open_producer`: a block with a task that makes values, each when somebody asks for it.
//!
//! This is what an asynchronous generator is for, as a task: the producer stands in a nursery of its own, so a scope
//! that it opens is its own affair, it can be cancelled and clean up like any task, and it is gone when the block is
//! left.
//!
//! Choice: the values go through a rendezvous channel, but that alone reads ahead by one: the producer would make its
//! next value and then wait for somebody to take it. So it also waits at a *gate*, before it begins and after each
//! value, until somebody waits to receive. Who waits is what the channel itself says; there is no second count that
//! could differ from it, for instance when a receive is cancelled.

use std::fmt;
use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use atomic_waker::AtomicWaker;
use futures_lite::Stream;

use super::channel::{Receiver, RecvError, Sender, channel};
use crate::cancel::CancelScope;
use crate::task::{Nursery, open_nursery, try_open_nursery};

/// Opens a block with a task that makes values: `producer` sends them, `body` receives them.
///
/// The producer runs only while a value is asked for. It does not begin before somebody waits to receive, and
/// [`send`](Producer::send) returns when somebody waits for the next value; so it never works ahead, and never for
/// nothing. When it ends, receivers have reached the end. When the last [`Produced`] handle is closed, it is cancelled
/// at its next `send`. When the body ends, it is cancelled wherever it is, and the block ends when it is gone.
///
/// The producer is a task of its own, in a nursery of this block: a scope or time limit that it opens does not touch
/// who receives, and if a receive is cancelled, it goes on until it has the value, which the next receive then gets at
/// once.
///
/// A stream of values that are at hand needs none of this: [`futures_lite::stream`] has what it takes. And if it should
/// work ahead, use a [`channel`] and a nursery.
///
/// ```
/// use futures_lite::StreamExt;
/// use seedbed::{run, sync::open_producer};
///
/// run(async {
///     let squares = open_producer(
///         async |mut squares| {
///             for n in 1_u32.. {
///                 squares.send(n * n).await;
///             }
///         },
///         async |squares| squares.take(3).collect::<Vec<_>>().await,
///     );
///     assert_eq!(squares.await, [1, 4, 9]);
/// });
/// ```
///
/// # Cancellation
///
/// As [`open_nursery`]: the producer and the body are dropped where they wait, and shields in them are waited for.
///
/// # Panics
///
/// With the panic of the producer or of the body; the other one is cancelled first.
///
/// # Coming from Trio
///
/// This is `as_safe_channel`; the body is what stands in its `async with`. Leaving the block early needs no
/// `GeneratorExit`: the producer is cancelled like any task.
pub async fn open_producer<T, R, M, P, B>(producer: M, body: impl FnOnce(Produced<T>) -> B) -> R
where
    T: Send,
    M: FnOnce(Producer<T>) -> P + Send,
    P: Future<Output = ()> + Send,
    B: Future<Output = R>,
{
    let (values, produced) = open();
    let scope = values.link.scope.clone();
    open_nursery(|n: Nursery<'_, R>| async move {
        n.spawn(values.make(producer));
        let value = body(produced).await;
        scope.cancel();
        value
    })
    .await
}

/// [`open_producer`] for a producer and a body that may fail: the first error cancels the other one and is the block's.
///
/// ```
/// use seedbed::{run, sync::try_open_producer};
///
/// run(async {
///     let result: Result<u32, &str> = try_open_producer(
///         async |mut numbers| {
///             numbers.send(1).await;
///             Err("there is no second number")
///         },
///         async |numbers| {
///             let mut sum = 0;
///             while let Ok(n) = numbers.recv().await {
///                 sum += n;
///             }
///             Ok(sum)
///         },
///     )
///     .await;
///     assert_eq!(result, Err("there is no second number"));
/// });
/// ```
///
/// # Cancellation
///
/// As [`open_producer`].
///
/// # Errors
///
/// The first that the producer or the body returns. One that the other one returns later, from behind a shield, is
/// reported as [`Nursery::on_late_error`] says by default.
///
/// # Panics
///
/// As [`open_producer`].
pub async fn try_open_producer<T, R, E, M, P, B>(
    producer: M,
    body: impl FnOnce(Produced<T>) -> B,
) -> Result<R, E>
where
    T: Send,
    R: Send,
    E: Send,
    M: FnOnce(Producer<T>) -> P + Send,
    P: Future<Output = Result<(), E>> + Send,
    B: Future<Output = Result<R, E>>,
{
    let (values, produced) = open();
    let scope = values.link.scope.clone();
    try_open_nursery(|n: Nursery<'_, Result<R, E>>| async move {
        // A producer that was cancelled has not failed.
        n.try_spawn(async move { values.make(producer).await.unwrap_or(Ok(())) });
        let value = body(produced).await;
        scope.cancel();
        value
    })
    .await
}

fn open<T>() -> (Producer<T>, Produced<T>) {
    let (sender, receiver) = channel(0);
    let link = Arc::new(Link {
        scope: CancelScope::new(),
        gate: AtomicWaker::new(),
    });
    let producer = Producer {
        sender,
        link: link.clone(),
    };
    (producer, Produced { receiver, link })
}

/// What both sides know of each other beside the channel.
#[derive(Debug)]
struct Link {
    /// Around the producer.
    scope: CancelScope,
    /// The producer, if it waits to be asked. Woken when somebody asks, and when nobody will ask again.
    gate: AtomicWaker,
}

/// Sends values to whoever asks for them; given to the producer of [`open_producer`].
///
/// ```
/// use seedbed::{run, sync::{Producer, open_producer}};
///
/// async fn count_down(mut numbers: Producer<u32>) {
///     for n in (0..3).rev() {
///         numbers.send(n).await;
///     }
/// }
///
/// let first = run(open_producer(count_down, async |numbers| numbers.recv().await));
/// assert_eq!(first, Ok(2));
/// ```
///
/// # Dropping
///
/// Ends the values: receivers have reached the end.
pub struct Producer<T> {
    sender: Sender<T>,
    link: Arc<Link>,
}

impl<T> Producer<T> {
    /// Hands a value to whoever asked for it, and returns when somebody asks for the next one.
    ///
    /// It never returns if nobody will: if every [`Produced`] handle is closed, the producer is cancelled here. A
    /// [`shield`](crate::shield()) around it would wait for ever; put one around what follows.
    ///
    /// ```
    /// use seedbed::{run, sync::open_producer};
    ///
    /// run(open_producer(
    ///     async |mut values| {
    ///         values.send("first").await;
    ///         values.send("second").await;
    ///         unreachable!("nobody asks for a third value");
    ///     },
    ///     async |values| {
    ///         assert_eq!(values.recv().await, Ok("first"));
    ///         assert_eq!(values.recv().await, Ok("second"));
    ///     },
    /// ));
    /// ```
    ///
    /// # Cancellation
    ///
    /// If cancelled, the value may have been received, and whoever received it knows; if not, it is dropped.
    pub async fn send(&mut self, value: T) {
        if self.sender.send(value).await.is_err() {
            // Nobody receives any more, and the value is dropped.
            self.link.scope.cancel();
            pending().await
        }
        self.asked().await;
    }

    /// Waits until somebody waits to receive; stops the producer if nobody will.
    async fn asked(&self) {
        poll_fn(|cx| {
            self.link.gate.register(cx.waker());
            let statistics = self.sender.statistics();
            if statistics.waiting_receivers > 0 {
                return Poll::Ready(());
            }
            if statistics.open_receivers == 0 {
                self.link.scope.cancel();
            }
            Poll::Pending
        })
        .await;
    }

    /// Runs the producer in its scope, from the moment when somebody asks; `None` if it was cancelled.
    async fn make<P: Future>(self, producer: impl FnOnce(Self) -> P) -> Option<P::Output> {
        let scope = self.link.scope.clone();
        let values = async {
            self.asked().await;
            producer(self).await
        };
        scope.run(values).await
    }
}

impl<T> fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("sender", &self.sender)
            .finish_non_exhaustive()
    }
}

/// Receives what a producer makes; given to the body of [`open_producer`].
///
/// A clone is another handle, to be closed on its own; each value goes to one of those who ask. It is also a [`Stream`]
/// of the values, which ends with the producer, or when this handle is closed. A stream that was polled and is pending
/// has asked for a value, and gets it when it is polled again.
///
/// ```
/// use futures_lite::StreamExt;
/// use seedbed::{run, sync::{Produced, open_producer}};
///
/// async fn add_up(mut numbers: Produced<u32>) -> u32 {
///     let mut sum = 0;
///     while let Some(n) = numbers.next().await {
///         sum += n;
///     }
///     sum
/// }
///
/// let one_and_two = async |mut numbers: seedbed::sync::Producer<u32>| {
///     numbers.send(1).await;
///     numbers.send(2).await;
/// };
/// assert_eq!(run(open_producer(one_and_two, add_up)), 3);
/// ```
///
/// # Dropping
///
/// Closes this handle, as [`close`](Self::close) does.
pub struct Produced<T> {
    receiver: Receiver<T>,
    link: Arc<Link>,
}

impl<T> Produced<T> {
    /// Asks for a value and waits for it.
    ///
    /// ```
    /// use seedbed::{run, sync::{RecvError, open_producer}};
    ///
    /// run(open_producer(
    ///     async |mut values| values.send(1).await,
    ///     async |values| {
    ///         assert_eq!(values.recv().await, Ok(1));
    ///         assert_eq!(values.recv().await, Err(RecvError::EndOfChannel));
    ///     },
    /// ));
    /// ```
    ///
    /// # Errors
    ///
    /// [`RecvError::EndOfChannel`] if the producer has ended; [`RecvError::Closed`] if this handle is closed,
    /// before or while it waits.
    ///
    /// # Cancellation
    ///
    /// If cancelled, nothing was received, but the producer may have begun to make the value; whoever asks next gets
    /// that.
    pub async fn recv(&self) -> Result<T, RecvError> {
        let mut receiving = self.receiver.recv();
        poll_fn(|cx| {
            let polled = Pin::new(&mut receiving).poll(cx);
            self.ask_if_pending(polled)
        })
        .await
    }

    /// Closes this handle; others stay open. Doing so again changes nothing.
    ///
    /// If it was the last one, the producer is cancelled when it next sends, or at once if it waits to be asked.
    ///
    /// ```
    /// use seedbed::run;
    /// use seedbed::sync::{RecvError, open_producer};
    /// use seedbed::time::sleep_forever;
    ///
    /// run(open_producer(
    ///     async |mut values| loop { values.send("again").await },
    ///     async |values| {
    ///         assert_eq!(values.recv().await, Ok("again"));
    ///         values.close();
    ///         assert_eq!(values.recv().await, Err(RecvError::Closed));
    ///     },
    /// ));
    /// ```
    pub fn close(&self) {
        self.receiver.close();
        self.link.gate.wake();
    }

    /// Whether this handle was closed.
    ///
    /// ```
    /// use seedbed::{run, sync::{Producer, open_producer}};
    ///
    /// run(open_producer(
    ///     async |_: Producer<u8>| (),
    ///     async |values| {
    ///         values.close();
    ///         assert!(values.is_closed());
    ///     },
    /// ));
    /// ```
    pub fn is_closed(&self) -> bool {
        self.receiver.is_closed()
    }

    /// Lets the producer know that there is somebody who waits.
    fn ask_if_pending<V>(&self, polled: Poll<V>) -> Poll<V> {
        if polled.is_pending() {
            self.link.gate.wake();
        }
        polled
    }
}

/// Another handle to the same values; closed if this one is.
impl<T> Clone for Produced<T> {
    fn clone(&self) -> Self {
        Produced {
            receiver: self.receiver.clone(),
            link: self.link.clone(),
        }
    }
}

impl<T> Drop for Produced<T> {
    fn drop(&mut self) {
        self.close();
    }
}

/// The values, until the producer has ended or this handle is closed.
impl<T> Stream for Produced<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let polled = Pin::new(&mut self.receiver).poll_next(cx);
        self.ask_if_pending(polled)
    }
}

impl<T> fmt::Debug for Produced<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Produced")
            .field("receiver", &self.receiver)
            .finish_non_exhaustive()
    }
}
