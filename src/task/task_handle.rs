//! `Task`: a child's result, and the way to end that one child.

// Takes the result out of a child, whose type only this handle knows.
#![allow(unsafe_code)]

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::child::Handle;
use super::info::TaskInfo;
use crate::cancel::position;

/// A child of a nursery, as seen by whoever spawned it. Awaiting it gives the child's result.
///
/// Dropping it changes nothing: the nursery owns the child, and waits for it.
///
/// # Cancellation
///
/// Atomic: if cancelled, nothing has happened, and the child goes on.
///
/// # Panics
///
/// When awaited, if the child is gone without a result (it was cancelled, or it panicked), unless the one who waits is
/// cancelled as well and about to be dropped. Where that can happen, use [`outcome`](Task::outcome).
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
pub struct Task<T> {
    handle: Handle,
    result: PhantomData<T>,
}

impl<T> Task<T> {
    /// # Safety
    ///
    /// The handle was spawned with a future whose output is `T`.
    pub(super) unsafe fn new(handle: Handle) -> Self {
        Task {
            handle,
            result: PhantomData,
        }
    }

    /// Whether the child is gone, with a result or without.
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
        self.handle.is_done()
    }

    /// Returns which task it is: its number, its name, its parent.
    ///
    /// ```
    /// use seedbed::{open_nursery, run};
    ///
    /// run(open_nursery(|n| async move {
    ///     assert_eq!(n.named("reader").spawn(async {}).info().name(), "reader");
    /// }));
    /// ```
    pub fn info(&self) -> TaskInfo {
        self.handle.info()
    }

    /// Waits until the child is gone: its result, or `None` if it was cancelled or panicked.
    ///
    /// # Cancellation
    ///
    /// Atomic: if cancelled, nothing has happened, and the child goes on.
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

    /// Cancels this one child, and waits until it is gone: its result if it had ended before, else `None`.
    ///
    /// The child runs to its first await that has to wait even if it was not polled before, and a shielded section in
    /// it is waited for.
    ///
    /// # Cancellation
    ///
    /// If cancelled, the child is cancelled nonetheless, and the nursery waits for it.
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
        self.handle.request_cancel();
    }

    pub(super) fn poll_outcome(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        // SAFETY: `T` is the output type: promised to `new`.
        unsafe { self.handle.poll_output(cx) }
    }
}

impl<T> Unpin for Task<T> {}

impl<T> Future for Task<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match ready!(self.poll_outcome(cx)) {
            Some(value) => Poll::Ready(value),
            // The end of the one who waits is certain too, so there is nobody to tell.
            None if position::commit_if_cancelled() => Poll::Pending,
            None => panic!(
                "the awaited child of a nursery is gone without a result: it was cancelled, it panicked, or its result \
                 was taken before; use Task::outcome where that can happen"
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
