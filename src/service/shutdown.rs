//! `Shutdown`: the handle on a service that is to end in order.

use std::fmt;
use std::future::{IntoFuture, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use crate::cancel::CancelScope;
use crate::sync::Event;

/// A handle on a service, which [`serve`](super::serve()) gives to it. Clones are handles on the
/// same service, and may be used on any thread.
///
/// A shutdown has two steps: it *begins*, which tells the service to accept nothing new, and later
/// it *cuts*, which cancels what is still there.
///
/// ```
/// use seedbed::service::serve;
///
/// seedbed::run(async {
///     let served = serve(|shutdown| async move {
///         shutdown.begin();
///         assert!(shutdown.has_begun());
///         "the last answer"
///     });
///     assert_eq!(served.await.unwrap(), Some("the last answer"));
/// });
/// ```
///
/// # Dropping
///
/// Dropping handles does nothing.
#[derive(Clone)]
pub struct Shutdown {
    begun: Event,
    pub(super) work: CancelScope,
    drain_for: Duration,
}

impl Shutdown {
    pub(super) fn new(drain_for: Duration) -> Self {
        Shutdown {
            begun: Event::new(),
            work: CancelScope::new(),
            drain_for,
        }
    }

    /// Begins the shutdown, as the first signal does. What is still there after the time that
    /// [`drain_for`](super::Serve::drain_for) sets is cut. A second call has no effect.
    ///
    /// ```
    /// use seedbed::service::serve;
    ///
    /// seedbed::run(async {
    ///     let served = serve(|shutdown| async move {
    ///         shutdown.begin();
    ///         shutdown.begun().await;
    ///     });
    ///     assert_eq!(served.await.unwrap(), Some(()));
    /// });
    /// ```
    pub fn begin(&self) {
        if !self.begun.is_set() {
            self.work.set_timeout(self.drain_for);
            self.begun.set();
        }
    }

    /// Cancels the service now, as the second signal does.
    ///
    /// ```
    /// use seedbed::service::serve;
    /// use seedbed::time::sleep_forever;
    ///
    /// seedbed::run(async {
    ///     let served = serve(|shutdown| async move {
    ///         shutdown.cut();
    ///         sleep_forever().await
    ///     });
    ///     assert_eq!(served.await.unwrap(), None);
    /// });
    /// ```
    pub fn cut(&self) {
        self.begun.set();
        self.work.cancel_because("the service is shut down at once");
    }

    /// Returns whether the shutdown has begun.
    ///
    /// ```
    /// use seedbed::service::serve;
    ///
    /// seedbed::run(async {
    ///     let served = serve(|shutdown| async move { shutdown.has_begun() });
    ///     assert_eq!(served.await.unwrap(), Some(false));
    /// });
    /// ```
    pub fn has_begun(&self) -> bool {
        self.begun.is_set()
    }

    /// Waits until the shutdown begins.
    ///
    /// # Cancellation
    ///
    /// Atomic: if cancelled, nothing has happened.
    ///
    /// ```
    /// use seedbed::service::serve;
    /// use seedbed::{checkpoint, open_nursery};
    ///
    /// seedbed::run(async {
    ///     let served = serve(|shutdown| {
    ///         open_nursery(async move |n| {
    ///             let waiter = n.spawn({
    ///                 let shutdown = shutdown.clone();
    ///                 async move { shutdown.begun().await }
    ///             });
    ///             checkpoint().await;
    ///             shutdown.begin();
    ///             waiter.await;
    ///         })
    ///     });
    ///     assert_eq!(served.await.unwrap(), Some(()));
    /// });
    /// ```
    pub async fn begun(&self) {
        self.begun.wait().await;
    }

    /// Waits for `future`, until the shutdown begins. Returns `None` then, and drops `future`. The
    /// loop of a server accepts with it.
    ///
    /// # Cancellation
    ///
    /// Drops `future`.
    ///
    /// ```
    /// use seedbed::service::serve;
    /// use seedbed::sync::channel;
    ///
    /// seedbed::run(async {
    ///     let (sender, receiver) = channel(2);
    ///     sender.send(1).await.unwrap();
    ///     let served = serve(|shutdown| async move {
    ///         let mut sum = 0;
    ///         while let Some(Ok(number)) = shutdown.until(receiver.recv()).await {
    ///             sum += number;
    ///             shutdown.begin(); // as a signal would
    ///         }
    ///         sum
    ///     });
    ///     assert_eq!(served.await.unwrap(), Some(1));
    ///     drop(sender);
    /// });
    /// ```
    pub async fn until<F: IntoFuture>(&self, future: F) -> Option<F::Output> {
        let mut future = pin!(future.into_future());
        let mut begun = pin!(self.begun.wait());
        // Once the shutdown has begun, `future` is not polled: a connection that it accepted would
        // be lost.
        poll_fn(|cx| match begun.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => future.as_mut().poll(cx).map(Some),
        })
        .await
    }
}

impl fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shutdown")
            .field("has_begun", &self.has_begun())
            .field("drain_for", &self.drain_for)
            .finish_non_exhaustive()
    }
}
