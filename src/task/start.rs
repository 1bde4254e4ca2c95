//! Waits until a child has started.

use std::error::Error;
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Mutex;
use std::task::Poll;

use async_channel::{Sender, bounded};

use super::child_handle::Task;
use crate::cancel::on_cancel;
use crate::sys::primitives::lock;

/// Reports that a child of [`start`](crate::Nursery::start) has started. (Trio's `task_status`.)
///
/// Dropping it reports nothing: `start` then waits until the child ends.
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
    /// `None` if no task waits for the report.
    sender: Option<Sender<V>>,
}

impl<V> Started<V> {
    /// Makes one without a receiver, for a function that takes a `Started` and is awaited directly.
    /// (Trio's `TASK_STATUS_IGNORED`.)
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

    /// Reports that the child has started, and sends `value` to the task that waits in `start`.
    ///
    /// If that task was cancelled, the value is dropped, and the child is being cancelled too.
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
            // Refused if the waiting task was cancelled, as documented.
            drop(sender.try_send(value));
        }
    }
}

impl<V> fmt::Debug for Started<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Started").finish_non_exhaustive()
    }
}

/// The error of [`start`](crate::Nursery::start), when a child ends before it has started.
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
    /// Unwraps the result of a child of `try_start`, which is `None` only if no task waits for the
    /// start.
    pub(super) fn unwrap_result(self) -> StartError<T> {
        match self {
            StartError::Exited(result) => StartError::Exited(result.expect(
                "a child whose error ended the block has started, or no task waits for it",
            )),
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

/// Tells a child of `try_start` whether its error belongs to the waiting task or to the block.
pub(super) struct Waiting<V> {
    sender: Sender<V>,
}

impl<V> Waiting<V> {
    /// Tells whether no task waits any more: the child has started, or the waiting task was
    /// cancelled or dropped.
    pub(super) fn is_over(&self) -> bool {
        self.sender.is_closed() || !self.sender.is_empty()
    }
}

/// A child that has not started. Dropping this cancels the child.
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

/// Spawns a child, and waits for the value that it sends.
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
    // Used by the wait and by its clean-up, which run one after the other.
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
                unreachable!("the task is taken when this wait ends");
            };
            let outcome = std::task::ready!(task.poll_outcome(cx));
            starting.task = None;
            // The child may have sent the value in the same poll in which it ended.
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
            // The waiting task is cancelled, so the result is dropped.
            drop(task.cancel().await);
        }
    };
    on_cancel(started, gone).quiet().await
}
