//! `spawn_producer`: a producer in a nursery of the caller, and the stream of its values.
//!
//! Decision: the end of the channel is not the end of the stream. When a task is cancelled, its
//! `Producer` is dropped before the task has ended, and a stream that ended then would make a
//! truncated sequence look complete. So the stream ends with the outcome of the task, and says if
//! there is none.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_lite::Stream;

use super::producer::{Produced, Producer, new_producer};
use crate::task::{Spawner, Task};

/// Spawns a task that makes values on request, and returns the stream of its values, which owns the
/// task: dropping the stream cancels it.
///
/// This is [`open_producer`](crate::sync::open_producer) for code that must return a stream, such
/// as the body of a response. As there, the producer runs only while a value is requested, and
/// starts with the first request. It is a child of the nursery, so the nursery waits for it and its
/// clean-up, and it can open blocks, scopes and workers of its own, whatever polls the stream.
///
/// The stream ends when the producer has *ended*, including its clean-up. An `Err` of the producer
/// is the last item. If the producer is cancelled or panics, the last item is
/// [`ProducerError::Cancelled`], so a truncated sequence does not look complete.
///
/// To give the child a name, use [`Spawner::named`].
///
/// ```
/// use futures_lite::StreamExt;
/// use seedbed::nursery::Spawner;
/// use seedbed::sync::{ProducedStream, ProducerError, spawn_producer};
/// use seedbed::{open_nursery, run};
///
/// fn words(spawner: &Spawner<'static>, text: String) -> ProducedStream<String, String> {
///     spawn_producer(spawner, async move |mut words| {
///         for word in text.split(' ') {
///             if word.len() > 5 {
///                 return Err(format!("{word} is too long"));
///             }
///             words.send(word.to_owned()).await;
///         }
///         Ok(())
///     })
/// }
///
/// run(open_nursery(async |n| {
///     let mut words = words(&n.spawner(), "a few monstrous words".to_owned());
///     assert_eq!(words.next().await, Some(Ok("a".to_owned())));
///     assert_eq!(words.next().await, Some(Ok("few".to_owned())));
///     let error = words.next().await.unwrap().unwrap_err();
///     assert_eq!(error, ProducerError::Failed("monstrous is too long".to_owned()));
///     assert_eq!(words.next().await, None);
/// }));
/// ```
///
/// # Cancellation
///
/// The producer is cancelled with its nursery. A stream that is still polled then yields
/// [`ProducerError::Cancelled`], and ends.
///
/// # Panics
///
/// If the block of the nursery has ended. A panic of the producer is a panic of the nursery.
///
/// # Dropping
///
/// A nursery waits for its producers, and a producer waits for a request or for the drop of its
/// stream. So a block whose value is such a stream does not end, unless it is a
/// [`daemon`](crate::nursery::Block::daemon) block, which cancels the producer.
#[doc(alias = "async_stream")]
#[track_caller]
pub fn spawn_producer<'env, T, E, M, P>(
    nursery: &Spawner<'env>,
    producer: M,
) -> ProducedStream<T, E>
where
    T: Send + 'env,
    E: Send + 'env,
    M: FnOnce(Producer<T>) -> P + Send + 'env,
    P: Future<Output = Result<(), E>> + Send + 'env,
{
    let (values, produced) = new_producer();
    ProducedStream {
        producer: Some(nursery.spawn(values.run_producer(producer))),
        produced,
    }
}

/// The values of a producer that is a child of a nursery; returned by [`spawn_producer`].
///
/// ```
/// use futures_lite::StreamExt;
/// use seedbed::sync::{ProducedStream, spawn_producer};
/// use seedbed::{open_nursery, run};
///
/// run(open_nursery(async |n| {
///     let one_and_two: ProducedStream<u32, ()> = spawn_producer(&n.spawner(), async |mut numbers| {
///         numbers.send(1).await;
///         numbers.send(2).await;
///         Ok(())
///     });
///     assert_eq!(one_and_two.collect::<Vec<_>>().await, [Ok(1), Ok(2)]);
/// }));
/// ```
///
/// # Dropping
///
/// Cancels the producer wherever it waits. Its nursery waits for its clean-up.
#[must_use = "the producer begins when a value is requested, and is cancelled when this is dropped"]
pub struct ProducedStream<T, E> {
    produced: Produced<T>,
    /// `None` after the end. The inner `None` stands for a producer that its own scope has
    /// cancelled.
    producer: Option<Task<Option<Result<(), E>>>>,
}

impl<T, E> Stream for ProducedStream<T, E> {
    type Item = Result<T, ProducerError<E>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some(producer) = &mut this.producer else {
            return Poll::Ready(None);
        };
        if let Some(value) = ready!(Pin::new(&mut this.produced).poll_next(cx)) {
            return Poll::Ready(Some(Ok(value)));
        }
        let outcome = ready!(producer.poll_outcome(cx));
        this.producer = None;
        Poll::Ready(match outcome.flatten() {
            Some(Ok(())) => None,
            Some(Err(error)) => Some(Err(ProducerError::Failed(error))),
            None => Some(Err(ProducerError::Cancelled)),
        })
    }
}

impl<T, E> Drop for ProducedStream<T, E> {
    fn drop(&mut self) {
        self.produced.cancel_producer();
    }
}

impl<T, E> fmt::Debug for ProducedStream<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProducedStream")
            .field("produced", &self.produced)
            .field("ended", &self.producer.is_none())
            .finish()
    }
}

/// The last item of a [`ProducedStream`] whose producer did not succeed.
///
/// ```
/// use seedbed::sync::ProducerError;
///
/// let error: ProducerError<&str> = ProducerError::Cancelled;
/// assert!(error.to_string().contains("cancelled"));
/// assert_eq!(ProducerError::Failed("no more data").to_string(), "no more data");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProducerError<E> {
    /// The producer returned this error.
    Failed(E),
    /// The producer was cancelled with its nursery, or panicked. There may have been more values.
    Cancelled,
}

impl<E: fmt::Display> fmt::Display for ProducerError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProducerError::Failed(error) => error.fmt(f),
            ProducerError::Cancelled => f.write_str(
                "the values are incomplete: their producer was cancelled with its nursery, or panicked",
            ),
        }
    }
}

impl<E: Error> Error for ProducerError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            ProducerError::Failed(error) => error.source(),
            ProducerError::Cancelled => None,
        }
    }
}
