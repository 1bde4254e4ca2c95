//! `Task`: the handle on one child, which gives its result and can cancel it.

// Takes the result of a child, whose type only this handle knows.
#![allow(unsafe_code)]

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::info::TaskInfo;
use super::raw_task::RawTask;
use crate::cancel::WhileCancelled;
use crate::wait::{Wait, noted};

/// A handle on a child of a nursery. Awaiting it returns the child's result.
///
/// Dropping it has no effect: the nursery owns the child, and waits for it.
///
/// # Cancellation
///
/// Atomic: if the wait is cancelled, nothing has happened, and the child goes on.
///
/// # Panics
///
/// When awaited, if the child was cancelled or has panicked, and so has no result. It does not
/// panic if the awaiting task is cancelled as well; that task is then dropped. Where a child may
/// have no result, use [`outcome`](Task::outcome).
///
/// ```
/// use seedbed::{open_nursery, run};
///
/// run(async {
///     let sum = open_nursery(|n| async move {
///         let (one, two) = (n.spawn(async { 1 }), n.spawn(async { 2 }));
///         one.await + two.await
///     });
///     assert_eq!(sum.await, 3);
/// });
/// ```
#[doc(alias = "JoinHandle")]
pub struct Task<T> {
    raw: RawTask,
    /// The wait of an awaiting task that is cancelled, for a child without a result.
    cancelled: WhileCancelled,
    result: PhantomData<T>,
}

impl<T> Task<T> {
    /// # Safety
    ///
    /// The child was spawned with a future whose output is `T`.
    pub(super) unsafe fn new(raw: RawTask) -> Self {
        Task {
            raw,
            cancelled: WhileCancelled::new(),
            result: PhantomData,
        }
    }

    /// Tells whether the child has ended, with a result or without.
    ///
    /// ```
    /// use seedbed::{checkpoint, open_nursery, run};
    ///
    /// run(open_nursery(|n| async move {
    ///     let task = n.spawn(async {});
    ///     assert!(!task.is_finished());
    ///     checkpoint().await;
    ///     assert!(task.is_finished());
    /// }));
    /// ```
    pub fn is_finished(&self) -> bool {
        self.raw.child().is_done()
    }

    /// Returns the task's number, name and parent.
    ///
    /// ```
    /// use seedbed::{open_nursery, run};
    ///
    /// run(open_nursery(|n| async move {
    ///     assert_eq!(n.named("reader").spawn(async {}).info().name(), "reader");
    /// }));
    /// ```
    pub fn info(&self) -> TaskInfo {
        TaskInfo::of(self.raw.child())
    }

    /// Waits until the child has ended. Returns its result, or `None` if it was cancelled or has
    /// panicked.
    ///
    /// # Cancellation
    ///
    /// Atomic: if the wait is cancelled, nothing has happened, and the child goes on.
    ///
    /// ```
    /// use seedbed::{open_nursery, run};
    ///
    /// run(open_nursery(|n| async move {
    ///     assert_eq!(n.spawn(async { 4 }).outcome().await, Some(4));
    /// }));
    /// ```
    pub async fn outcome(mut self) -> Option<T> {
        std::future::poll_fn(|cx| self.poll_outcome(cx)).await
    }

    /// Cancels this one child, and waits until it has ended. Returns its result if it ended by
    /// itself before that.
    ///
    /// A child that was not polled yet still runs to its first await that has to wait. A shielded
    /// section in the child is finished first.
    ///
    /// # Cancellation
    ///
    /// If the wait is cancelled, the child is cancelled nonetheless, and the nursery waits for it.
    ///
    /// ```
    /// use seedbed::time::sleep_forever;
    /// use seedbed::{open_nursery, run};
    ///
    /// run(open_nursery(|n| async move {
    ///     assert_eq!(n.spawn(sleep_forever()).cancel().await, None);
    /// }));
    /// ```
    pub fn cancel(self) -> impl Future<Output = Option<T>> {
        self.request_cancel();
        self.outcome()
    }

    pub(super) fn request_cancel(&self) {
        self.raw.child().request_cancel();
    }

    pub(crate) fn poll_outcome(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        // SAFETY: `T` is the output type of the child's future, as the caller of `new` promised.
        let polled = unsafe { self.raw.poll_output(cx) };
        noted(polled, &Wait::For("another task"))
    }
}

impl<T> Unpin for Task<T> {}

impl<T> Future for Task<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match ready!(self.poll_outcome(cx)) {
            Some(value) => Poll::Ready(value),
            // The awaiting task is cancelled too, and is dropped instead of a panic.
            None if self.cancelled.poll(cx).is_pending() => Poll::Pending,
            None => panic!(
                "the awaited child of a nursery has no result: it was cancelled, it panicked, or its result was taken \
                 before; use Task::outcome where that can happen"
            ),
        }
    }
}

impl<T> fmt::Debug for Task<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("finished", &self.is_finished())
            .finish_non_exhaustive()
    }
}
