//! `open_producer`: a block with a task that makes a value whenever one is requested.
//!
//! It replaces an asynchronous generator by a task. The producer runs in a nursery of its own, so
//! its scopes do not affect the receiver, it can be cancelled and clean up like any task, and it
//! has ended when the block is left.
//!
//! Decision: the values go through a rendezvous channel. That alone would read ahead by one: the
//! producer would make its next value and then wait for a receiver. So the producer also waits at a
//! *gate*, before it begins and after each value, until a receiver waits. The channel itself knows
//! the number of waiting receivers. A second count could differ from it, for instance when a
//! receive is cancelled.

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

/// Opens a block with a task that makes values on request: `producer` sends them, `body` receives
/// them.
///
/// The producer runs only while a value is requested. It starts when `body` first waits for a
/// value, and [`send`](Producer::send) returns when `body` waits for the next one. So it never
/// works ahead. When it ends, receivers have reached the end. When the last [`Produced`] handle is
/// closed, it is cancelled at its next `send`. When the body ends, it is cancelled wherever it
/// waits, and the block ends when the producer has ended.
///
/// The producer is a task of its own, in a nursery of this block. A scope or time limit that it
/// opens does not affect the receiver. If a receive is cancelled, the producer continues until it
/// has the value, which the next receive then gets immediately.
///
/// To return a stream of such values from a function, use
/// [`spawn_producer`](crate::sync::spawn_producer). For a stream of values that need no task, use
/// [`futures_lite::stream`]. For a producer that works ahead, use a
/// [`channel`](crate::sync::channel()) and a nursery.
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
/// If cancelled, the producer and the body are dropped where they wait, and the block waits for
/// shields in them.
///
/// # Panics
///
/// With the panic of the producer or the body, after the other one was cancelled.
///
/// # Coming from Trio
///
/// This is `as_safe_channel`; the body is the content of its `async with`. Leaving the block early
/// needs no `GeneratorExit`, because the producer is cancelled like any task.
#[doc(alias = "async_generator")]
#[doc(alias = "as_safe_channel")]
pub async fn open_producer<T, R, M, P, B>(producer: M, body: impl FnOnce(Produced<T>) -> B) -> R
where
    T: Send,
    M: FnOnce(Producer<T>) -> P + Send,
    P: Future<Output = ()> + Send,
    B: Future<Output = R>,
{
    let (values, produced) = new_producer();
    let scope = values.link.scope.clone();
    open_nursery(|n: Nursery<'_, R>| async move {
        n.spawn(values.run_producer(producer));
        let value = body(produced).await;
        scope.cancel();
        value
    })
    .await
}

/// Opens a block with a producer and a body that may fail: the first error cancels the other one
/// and is returned. See [`open_producer`].
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
/// See [`open_producer`].
///
/// # Errors
///
/// Returns the first error of the producer or the body. An error that the other one returns later,
/// from inside a shield, is reported like a late error of a nursery: see
/// [`Nursery::on_late_error`].
///
/// # Panics
///
/// See [`open_producer`].
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
    let (values, produced) = new_producer();
    let scope = values.link.scope.clone();
    try_open_nursery(|n: Nursery<'_, Result<R, E>>| async move {
        // A cancelled producer is not an error.
        n.try_spawn(async move { values.run_producer(producer).await.unwrap_or(Ok(())) });
        let value = body(produced).await;
        scope.cancel();
        value
    })
    .await
}

/// Makes both sides of a producer that has not been spawned.
pub(super) fn new_producer<T>() -> (Producer<T>, Produced<T>) {
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

/// The connection of both sides, besides the channel.
#[derive(Debug)]
struct Link {
    /// The scope around the producer.
    scope: CancelScope,
    /// The waker of a producer that waits for a request. Woken by a request, and when the last
    /// `Produced` handle is closed.
    gate: AtomicWaker,
}

/// Sends values on request; passed to the producer of [`open_producer`].
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
/// Ends the stream of values: receivers have reached the end.
pub struct Producer<T> {
    sender: Sender<T>,
    link: Arc<Link>,
}

impl<T> Producer<T> {
    /// Sends a value to the receiver that requested it, and returns when the next value is
    /// requested.
    ///
    /// If every [`Produced`] handle is closed, it never returns, and the producer is cancelled
    /// here. A [`shield`](crate::shield()) around this call would wait forever; put one around the
    /// code after it.
    ///
    /// ```
    /// use seedbed::{run, sync::open_producer};
    ///
    /// run(open_producer(
    ///     async |mut values| {
    ///         values.send("first").await;
    ///         values.send("second").await;
    ///         unreachable!("no third value is requested");
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
    /// If cancelled, the value may have been received; otherwise it is dropped.
    pub async fn send(&mut self, value: T) {
        if self.sender.send(value).await.is_err() {
            // All receivers are closed; the value is dropped.
            self.link.scope.cancel();
            pending().await
        }
        self.wait_for_request().await;
    }

    /// Waits until a receiver waits; cancels the producer if all receivers are closed.
    async fn wait_for_request(&self) {
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

    /// Runs the producer in its scope, from the first request on; `None` if it was cancelled.
    pub(super) async fn run_producer<P: Future>(
        self,
        producer: impl FnOnce(Self) -> P,
    ) -> Option<P::Output> {
        let scope = self.link.scope.clone();
        let values = async {
            self.wait_for_request().await;
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

/// Receives the values of a producer; passed to the body of [`open_producer`].
///
/// A clone is another handle, which is closed separately; each value goes to one receiver. The
/// handle is also a [`Stream`] of the values, which ends with the producer, or when this handle is
/// closed. A stream that was polled and is pending has requested a value, and gets it when it is
/// polled again.
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
    /// Requests a value and waits for it.
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
    /// [`RecvError::EndOfChannel`] if the producer has ended; [`RecvError::Closed`] if this handle
    /// is closed, before or during the wait.
    ///
    /// # Cancellation
    ///
    /// If cancelled, no value was received, but the producer may have begun to make one; the next
    /// receive gets it.
    pub async fn recv(&self) -> Result<T, RecvError> {
        let mut receiving = self.receiver.recv();
        poll_fn(|cx| {
            let polled = Pin::new(&mut receiving).poll(cx);
            self.request_if_pending(polled)
        })
        .await
    }

    /// Closes this handle; others stay open. A second call has no effect.
    ///
    /// If it was the last one, the producer is cancelled at its next `send`, or immediately if it
    /// waits for a request.
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

    /// Returns whether this handle was closed.
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

    /// Cancels the producer wherever it waits.
    pub(super) fn cancel_producer(&self) {
        self.link.scope.cancel();
    }

    /// Wakes the producer if a receiver waits now.
    fn request_if_pending<V>(&self, polled: Poll<V>) -> Poll<V> {
        if polled.is_pending() {
            self.link.gate.wake();
        }
        polled
    }
}

/// Creates another handle to the same values; a closed one if this one is closed.
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
        self.request_if_pending(polled)
    }
}

impl<T> fmt::Debug for Produced<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Produced")
            .field("receiver", &self.receiver)
            .finish_non_exhaustive()
    }
}
