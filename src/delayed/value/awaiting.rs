//! Awaiting a delayed value.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::awaiter::AWAITER;
use super::evaluation::Evaluation;
use super::handle::Delayed;
use super::node::Graph;
use super::sources;
use crate::delayed::error::JobError;

/// Computes a delayed value and waits for it; made by awaiting [`Delayed`].
///
/// # Cancellation
///
/// Dropping this future has no effect on the value or the jobs below it.
#[must_use = "futures do nothing unless awaited"]
pub struct DelayedFuture<T: 'static> {
    /// `None` after the result was returned.
    value: Option<Delayed<T>>,
    evaluation: Evaluation,
}

impl<T: 'static> DelayedFuture<T> {
    fn new(value: Delayed<T>) -> Self {
        Self {
            value: Some(value),
            evaluation: Evaluation::New,
        }
    }

    /// Returns the handle of the value once it is there.
    fn poll_value(&mut self, cx: &mut Context<'_>) -> Poll<Result<Delayed<T>, JobError>> {
        let Some(value) = &self.value else {
            panic!("a delayed value was polled after it was returned");
        };
        let mut evaluated = Ok(());
        if !value.is_done() {
            let root: Arc<dyn Graph> = value.0.clone();
            evaluated = ready!(self.evaluation.poll(&root, cx));
        }
        note_sources(&*value.0);
        // It may hold handles and the record of a wait: another evaluation has overtaken it, or it
        // has failed.
        self.evaluation = Evaluation::New;
        if let Err(error) = evaluated {
            self.value = None;
            return Poll::Ready(Err(error));
        }
        Poll::Ready(
            self.value
                .take()
                .map_or_else(|| unreachable!("seen above"), Ok),
        )
    }
}

/// Tells the job that awaits a node which jobs its result comes from, if a trace is written.
fn note_sources(node: &dyn Graph) {
    if sources::are_kept()
        && let Some(awaiter) = AWAITER.get()
        && let Some(sources) = node.sources()
    {
        awaiter.received(sources.jobs());
    }
}

// Nothing in here is pinned in place.
impl<T> Unpin for DelayedFuture<T> {}

impl<T: Clone> Future for DelayedFuture<T> {
    type Output = Result<T, JobError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_value(cx).map(|value| {
            let result = value.and_then(Delayed::into_result);
            result.map_err(JobError::delivered)
        })
    }
}

impl<T> fmt::Debug for DelayedFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DelayedFuture")
            .field("value", &self.value)
            .finish_non_exhaustive()
    }
}

impl<T: Clone> IntoFuture for Delayed<T> {
    type Output = Result<T, JobError>;
    type IntoFuture = DelayedFuture<T>;

    fn into_future(self) -> DelayedFuture<T> {
        DelayedFuture::new(self)
    }
}

impl<T: Clone> IntoFuture for &Delayed<T> {
    type Output = Result<T, JobError>;
    type IntoFuture = DelayedFuture<T>;

    fn into_future(self) -> DelayedFuture<T> {
        DelayedFuture::new(self.clone())
    }
}

/// A computed value that is shared with other handles of it; returned by [`Delayed::shared`].
pub struct Shared<T: 'static>(Delayed<T>);

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self.0.get() {
            Ok(value) => value,
            Err(_) => unreachable!("it is made of a value that is there"),
        }
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: fmt::Debug> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: 'static> Delayed<T> {
    /// Waits for the value on behalf of another one, so that its error does not count as returned
    /// by an await. Returns its handle.
    pub(in crate::delayed) async fn computed(self) -> Result<Self, JobError> {
        let mut future = DelayedFuture::new(self);
        std::future::poll_fn(|cx| future.poll_value(cx)).await
    }

    /// Waits for the value and returns a reference that owns it, so it is not cloned.
    ///
    /// # Cancellation
    ///
    /// Cancelling this has no effect on the value.
    ///
    /// # Errors
    ///
    /// The error of the value.
    ///
    /// ```
    /// use seedbed::delayed::delayed_val;
    ///
    /// let words = delayed_val(vec!["a", "few", "words"]);
    /// let shared = smol::block_on(words.shared()).unwrap();
    /// assert_eq!(shared.len(), 3);
    /// ```
    pub fn shared(&self) -> impl Future<Output = Result<Shared<T>, JobError>> + Send + use<T> {
        let mut future = DelayedFuture::new(self.clone());
        std::future::poll_fn(move |cx| {
            future.poll_value(cx).map(|value| {
                let value = value.map_err(JobError::delivered)?;
                match value.get() {
                    Ok(_) => Ok(Shared(value)),
                    Err(error) => Err(error.delivered()),
                }
            })
        })
    }
}
