//! Waits until a child has started.

use std::error::Error;
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use atomic_waker::AtomicWaker;

use super::child_handle::Task;
use crate::cancel::{NodeState, on_cancel_watched};
use crate::sys::primitives::lock;
use crate::wait::{Wait, noted};

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
    report: Option<Arc<Report<V>>>,
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
        Started { report: None }
    }

    /// Reports that the child has started, and sends `value` to the task that waits in `start`.
    /// From this moment the child belongs to the nursery alone.
    ///
    /// If that task was cancelled or dropped before, the value is dropped, and the child is being
    /// cancelled too.
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
        if let Some(report) = self.report {
            // Refused if the waiting task was cancelled, as documented.
            drop(report.send(value));
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

/// The report of a child, which it shares with the task that waits for it.
struct Report<V> {
    stage: Mutex<Stage<V>>,
    /// Wakes the waiting task.
    waker: AtomicWaker,
    /// The state of the waiting task's node in the scope tree.
    starter: Arc<NodeState>,
}

enum Stage<V> {
    Waiting,
    Sent(V),
    /// The child has started, and the value is gone.
    Taken,
    /// The waiting task was cancelled or dropped before the child has started.
    Abandoned,
}

impl<V> Report<V> {
    /// Gives the value back if the waiting task is cancelled or gone.
    fn send(&self, value: V) -> Result<(), V> {
        let mut stage = lock(&self.stage);
        if !matches!(*stage, Stage::Waiting) || self.starter.is_effective() {
            return Err(value);
        }
        *stage = Stage::Sent(value);
        drop(stage);
        self.waker.wake();
        Ok(())
    }

    /// Takes the value if there is one.
    fn take(&self) -> Option<V> {
        let mut stage = lock(&self.stage);
        if !matches!(*stage, Stage::Sent(_)) {
            return None;
        }
        match std::mem::replace(&mut *stage, Stage::Taken) {
            Stage::Sent(value) => Some(value),
            _ => unreachable!("checked above, under the same lock"),
        }
    }

    /// Refuses later values. Returns whether the child has started.
    fn abandon(&self) -> bool {
        // Dropped when the lock is released.
        let _value = self.take();
        let mut stage = lock(&self.stage);
        if let Stage::Waiting = *stage {
            *stage = Stage::Abandoned;
        }
        matches!(*stage, Stage::Taken)
    }
}

/// Tells a child of `try_start` whether its error belongs to the waiting task or to the block.
pub(super) struct Waiting<V> {
    report: Arc<Report<V>>,
}

impl<V> Waiting<V> {
    /// Tells whether no task waits any more: the child has started, or the waiting task was
    /// cancelled or dropped.
    pub(super) fn is_over(&self) -> bool {
        let report = &self.report;
        report.starter.is_effective() || !matches!(*lock(&report.stage), Stage::Waiting)
    }
}

/// A child that may not have started. Dropping this cancels the child in that case.
struct Starting<V, T> {
    report: Arc<Report<V>>,
    /// `None` once the child has started or ended.
    task: Option<Task<T>>,
}

impl<V, T> Starting<V, T> {
    /// Waits until the child has started or ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<V, StartError<T>>> {
        self.report.waker.register(cx.waker());
        if let Some(value) = self.report.take() {
            self.task = None;
            return Poll::Ready(Ok(value));
        }
        let Some(task) = &mut self.task else {
            unreachable!("the task is taken when this wait ends");
        };
        let outcome = ready!(noted(task.poll_outcome(cx), &Wait::For("a child to start")));
        self.task = None;
        // The child may have sent the value in the same poll in which it ended.
        Poll::Ready(match self.report.take() {
            Some(value) => Ok(value),
            None => Err(outcome.map_or(StartError::Cancelled, StartError::Exited)),
        })
    }

    /// Stops waiting. Returns the task of the child if it has not started or ended.
    fn abandon(&mut self) -> Option<Task<T>> {
        let task = self.task.take()?;
        (!self.report.abandon()).then_some(task)
    }
}

impl<V, T> Drop for Starting<V, T> {
    fn drop(&mut self) {
        if let Some(task) = self.abandon() {
            task.request_cancel();
        }
    }
}

/// Spawns a child, and waits for the value that it sends.
pub(super) async fn start<V, T>(
    spawn: impl FnOnce(Started<V>, Waiting<V>) -> Task<T>,
) -> Result<V, StartError<T>> {
    let starter = Arc::<NodeState>::default();
    let report = Arc::new(Report {
        stage: Mutex::new(Stage::Waiting),
        waker: AtomicWaker::new(),
        starter: starter.clone(),
    });
    let waiting = Waiting {
        report: report.clone(),
    };
    let started = Started {
        report: Some(report.clone()),
    };
    let task = Some(spawn(started, waiting));
    // Used by the wait and by its clean-up, which run one after the other.
    let child = Mutex::new(Starting { report, task });
    let started = poll_fn(|cx| lock(&child).poll(cx));
    let gone = async {
        let task = lock(&child).abandon();
        if let Some(task) = task {
            // The waiting task is cancelled, so the result is dropped.
            drop(task.cancel().await);
        }
    };
    on_cancel_watched(starter, started, gone).await
}
