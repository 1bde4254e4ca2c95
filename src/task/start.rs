//! Waiting until a child has started.

use std::error::Error;
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Mutex;
use std::task::Poll;

use async_channel::{Sender, bounded};

use super::task_handle::Task;
use crate::cancel::{lock, on_cancel};

/// With this a child that was put in by [`start`](crate::Nursery::start) says that it has started.
///
/// Dropping it says nothing: `start` then waits for the child's end.
///
/// ```
/// use seedbed::{open_nursery, run};
///
/// run(open_nursery(|n| async move {
///     let ready = n.start(|started| async move { started.send("listening") });
///     assert_eq!(ready.await.unwrap(), "listening");
/// }));
/// ```
pub struct Started<V> {
    /// `None` if nobody waits.
    sender: Option<Sender<V>>,
}

impl<V> Started<V> {
    /// Makes one that tells nobody, for a function that may be started or simply awaited.
    ///
    /// ```
    /// use seedbed::nursery::Started;
    /// use seedbed::run;
    ///
    /// async fn serve(started: Started<u16>) -> &'static str {
    ///     started.send(80);
    ///     "served"
    /// }
    ///
    /// assert_eq!(run(serve(Started::ignored())), "served");
    /// ```
    pub fn ignored() -> Self {
        Started { sender: None }
    }

    /// Says that the child has started, and hands `value` to whoever started it.
    ///
    /// If that one was cancelled meanwhile, the value is dropped, and the child is being cancelled too.
    ///
    /// ```
    /// use seedbed::{open_nursery, run};
    ///
    /// run(open_nursery(|n| async move {
    ///     let port = n.start(|started| async move {
    ///         started.send(8080);
    ///         // .. and goes on.
    ///     });
    ///     assert_eq!(port.await, Ok(8080));
    /// }));
    /// ```
    pub fn send(self, value: V) {
        if let Some(sender) = self.sender {
            // Refused if nobody waits any more: documented above.
            drop(sender.try_send(value));
        }
    }
}

impl<V> fmt::Debug for Started<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Started").finish_non_exhaustive()
    }
}

/// Why [`start`](crate::Nursery::start) has nothing to return.
///
/// ```
/// use seedbed::nursery::{StartError, Started};
/// use seedbed::{open_nursery, run};
///
/// run(open_nursery(|n| async move {
///     let failed = n.start(|_: Started<u16>| async { "no port is free" });
///     assert_eq!(failed.await, Err(StartError::Exited("no port is free")));
/// }));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartError<T> {
    /// The child ended with this result, without having called [`Started::send`].
    Exited(T),
    /// The child was cancelled, or it panicked, before it had started.
    Cancelled,
}

impl<T> StartError<Option<T>> {
    /// For a child that keeps its result for whoever waits: it has none only when nobody does.
    pub(super) fn kept(self) -> StartError<T> {
        match self {
            StartError::Exited(result) => {
                StartError::Exited(result.expect(
                    "a child whose result went to the nursery has started, or nobody waits",
                ))
            }
            StartError::Cancelled => StartError::Cancelled,
        }
    }
}

impl<T> fmt::Display for StartError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StartError::Exited(_) => "the child ended without calling Started::send",
            StartError::Cancelled => "the child was cancelled before it called Started::send",
        })
    }
}

impl<T: fmt::Debug> Error for StartError<T> {}

/// With this a child that was put in by `try_start` knows whose its error is.
pub(super) struct Waiting<V> {
    sender: Sender<V>,
}

impl<V> Waiting<V> {
    /// Whether nobody waits any more for the child to start: it has started, or its starter is cancelled or gone.
    pub(super) fn is_over(&self) -> bool {
        self.sender.is_closed() || !self.sender.is_empty()
    }
}

/// A child that has not started: cancelled if nobody waits for that any more.
struct Starting<T> {
    task: Option<Task<T>>,
}

impl<T> Drop for Starting<T> {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.request_cancel();
        }
    }
}

/// Spawns a child, and waits for what it sends.
pub(super) async fn start<V, T>(
    spawn: impl FnOnce(Started<V>, Waiting<V>) -> Task<T>,
) -> Result<V, StartError<T>> {
    let (sender, receiver) = bounded(1);
    let waiting = Waiting {
        sender: sender.clone(),
    };
    let started = Started {
        sender: Some(sender),
    };
    let task = spawn(started, waiting);
    // Shared by the waiting and its clean-up, of which one runs at a time.
    let child = Mutex::new(Starting { task: Some(task) });
    let started = async {
        let mut receive = pin!(receiver.recv());
        poll_fn(|cx| {
            if let Poll::Ready(Ok(value)) = receive.as_mut().poll(cx) {
                lock(&child).task = None;
                return Poll::Ready(Ok(value));
            }
            let mut starting = lock(&child);
            let Some(task) = &mut starting.task else {
                unreachable!("taken only together with the end of this wait");
            };
            let outcome = std::task::ready!(task.poll_outcome(cx));
            starting.task = None;
            // It may have said so with its last breath.
            if let Ok(value) = receiver.try_recv() {
                return Poll::Ready(Ok(value));
            }
            Poll::Ready(Err(
                outcome.map_or(StartError::Cancelled, StartError::Exited)
            ))
        })
        .await
    };
    let gone = async {
        let task = lock(&child).task.take();
        receiver.close();
        if let Some(task) = task {
            // Its result is nobody's: the one who started it is cancelled.
            drop(task.cancel().await);
        }
    };
    on_cancel(started, gone).await
}
