//! The future of a nursery block: polls the body and the children, and ends when all have ended.

// Says that what it enters for a poll it leaves before the poll is over.
#![allow(unsafe_code)]

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use pin_project_lite::pin_project;

use super::handle::{FromRaw, RawHandle};
use super::outcome::Outcome;
use super::owner::{Ended, Owner};

pin_project! {
    /// A nursery block; made by [`open_nursery`](crate::open_nursery) and its relatives.
    ///
    /// `N` is the type of the block's handle, and with it the lifetime of what its children may borrow.
    #[must_use = "futures do nothing unless awaited"]
    pub struct Block<N, F, Fut: Future> {
        #[pin]
        body: Body<F, Fut>,
        running: Option<Running<Fut::Output>>,
        options: Options<Fut::Output>,
        // The children belong to the block: it is `Send` if the handle is, and `'env` outlives it.
        handle: PhantomData<N>,
    }

    impl<N, F, Fut: Future> PinnedDrop for Block<N, F, Fut> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if let Some(running) = this.running && running.phase == Phase::Open {
                let mut body = this.body.as_mut();
                let panic = running.owner.end_hard(|| body.set(Body::Ended));
                if let Some(payload) = panic && !std::thread::panicking() {
                    resume_unwind(payload);
                }
            }
        }
    }
}

pin_project! {
    #[project = BodyProjection]
    enum Body<F, Fut> {
        New { open: Option<F> },
        Running { #[pin] future: Fut },
        /// The future is gone. If the body returned an error after the block's outcome was decided, the block waits for
        /// the cancellation that comes with that decision.
        Finished,
        Ended,
    }
}

/// How a block differs from one of [`open_nursery`](crate::open_nursery).
struct Options<R> {
    /// The children are shielded while the body lives.
    service: bool,
    /// The children are cancelled when the body has returned.
    daemon: bool,
    /// Checks the body's value: in a block that can fail, an error ends the block.
    check: Option<CheckValue<R>>,
}

/// Gives the body's value back, or `None` if it is an error that comes too late to be the block's.
pub(super) type CheckValue<R> = fn(&RawHandle<R>, R) -> Option<R>;

impl<R> Clone for Options<R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Options<R> {}

/// What exists since the first poll.
struct Running<R> {
    owner: Owner,
    handle: RawHandle<R>,
    body_waker: Waker,
    options: Options<R>,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The body or children live.
    Open,
    /// Waits for being dropped by whoever absorbs the cancellation.
    Doomed,
    Ended,
}

impl<N, R, F, Fut> Block<N, F, Fut>
where
    N: FromRaw<R>,
    F: FnOnce(N) -> Fut,
    Fut: Future<Output = R>,
{
    pub(super) fn new(open: F, check: Option<CheckValue<R>>) -> Self {
        Block {
            body: Body::New { open: Some(open) },
            running: None,
            options: Options {
                service: false,
                daemon: false,
                check,
            },
            handle: PhantomData,
        }
    }

    /// Makes the children serve the body: when the block is cancelled, the body ends first, and its children are
    /// cancelled after that. (tricycle's `open_service_nursery`.)
    ///
    /// So the body can use its children in its clean-up: a connection whose writer still runs can send a last message.
    /// It makes no difference whether a scope around the block is cancelled, [`terminate`](crate::Nursery::terminate) is
    /// called or a child panics. [`Task::cancel`](crate::Task::cancel) still ends one child at any time. When the body
    /// returns by itself, the block waits for the children; with [`daemon`](Block::daemon), it cancels them.
    ///
    /// A child that is being [started](crate::Nursery::start) is cancelled with the task that starts it. The shield covers
    /// the child as soon as it has started.
    ///
    /// # Cancellation
    ///
    /// When a scope around the block is cancelled, the body is dropped where it waits, or as soon as an active shield in
    /// it has ended; then the children in the same way; then that scope drops the block. Dropping the block from outside
    /// drops the body, then the children, at once.
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::sync::channel;
    /// use seedbed::time::sleep_forever;
    /// use seedbed::{move_on_after, on_cancel, open_nursery, run};
    ///
    /// run(async {
    ///     let (send, receive) = channel(0);
    ///     let received = &std::sync::Mutex::new(Vec::new());
    ///     let session = open_nursery(|n| async move {
    ///         let reader = n.spawn(async move {
    ///             while let Ok(word) = receive.recv().await {
    ///                 received.lock().unwrap().push(word);
    ///             }
    ///         });
    ///         send.send("hello").await.unwrap();
    ///         on_cancel(sleep_forever(), async {
    ///             send.send("goodbye").await.unwrap();
    ///             send.close();
    ///             reader.await // the child still runs
    ///         })
    ///         .await;
    ///     });
    ///     assert_eq!(move_on_after(Duration::from_millis(1), session.service()).await, None);
    ///     assert_eq!(*received.lock().unwrap(), ["hello", "goodbye"]);
    /// });
    /// ```
    pub fn service(mut self) -> Self {
        self.options.service = true;
        self
    }

    /// Cancels the children when the body has returned, instead of waiting for them.
    ///
    /// For children that work for the body alone. The block still ends when all children have ended, and returns the
    /// body's value.
    ///
    /// ```
    /// use seedbed::time::sleep_forever;
    /// use seedbed::{open_nursery, run};
    ///
    /// let block = open_nursery(|n| async move {
    ///     n.spawn(sleep_forever());
    ///     "done"
    /// });
    /// assert_eq!(run(block.daemon()), "done");
    /// ```
    pub fn daemon(mut self) -> Self {
        self.options.daemon = true;
        self
    }
}

impl<R> Running<R> {
    fn begin(options: Options<R>) -> Self {
        let owner = Owner::begin(options.service);
        Running {
            handle: RawHandle::new(owner.core.clone(), Outcome::new()),
            body_waker: Waker::from(owner.core.clone()),
            owner,
            options,
            phase: Phase::Open,
        }
    }

    /// Polls the body if it was woken, and drops it if it has to be. True once it has ended.
    fn poll_body<F, Fut: Future<Output = R>>(
        &mut self,
        mut body: Pin<&mut Body<F, Fut>>,
        first: bool,
    ) -> bool {
        if let Body::Ended | Body::New { .. } = *body {
            return true;
        }
        if first || !self.owner.try_drop_body() {
            if !self.owner.core.take_body_woken() {
                return false;
            }
            let (check, handle) = (self.options.check, &self.handle);
            let poll = |cx: &mut Context<'_>| {
                let BodyProjection::Running { future } = body.as_mut().project() else {
                    return Poll::Pending;
                };
                let value = ready!(future.poll(cx));
                let Some(check) = check else {
                    return Poll::Ready(value);
                };
                body.set(Body::Finished);
                check(handle, value).map_or(Poll::Pending, Poll::Ready)
            };
            match self.owner.poll_body(&self.body_waker, poll) {
                Some(Poll::Ready(value)) => {
                    self.handle.outcome.body_returned(value);
                    if self.options.daemon {
                        let why = "the body has returned, and its children go with it";
                        self.owner.core.scope.cancel_because(why);
                    }
                }
                Some(Poll::Pending) if !self.owner.try_drop_body() => return false,
                // It is cancelled, or it panicked.
                Some(Poll::Pending) | None => {}
            }
        }
        self.owner.end_body(|| body.set(Body::Ended));
        true
    }

    /// One round: whoever is cancelled is dropped, whoever is ready is polled.
    fn round<F, Fut: Future<Output = R>>(
        &mut self,
        mut body: Pin<&mut Body<F, Fut>>,
        first: bool,
    ) -> bool {
        // SAFETY: this is the block; dropped when this returns.
        let _place = unsafe { self.owner.enter() };
        self.owner.sweep();
        self.poll_body(body.as_mut(), first);
        let cancelled = self.owner.is_cancelled();
        self.owner.poll_ready();
        if self.owner.is_cancelled() && !cancelled {
            // A child cancelled the block: those that are not ready go at once, too.
            self.owner.sweep();
            return self.poll_body(body, false);
        }
        matches!(*body, Body::Ended)
    }

    fn end(&mut self, ended: Ended) -> Poll<R> {
        self.phase = Phase::Ended;
        self.owner.leave();
        match ended {
            Ended::Normally => Poll::Ready(self.handle.outcome.take()),
            Ended::Panicked(payload) => {
                self.handle.outcome.forsake();
                resume_unwind(payload)
            }
            Ended::Doomed if self.handle.outcome.has_failed() => {
                Poll::Ready(self.handle.outcome.take())
            }
            Ended::Doomed => {
                self.phase = Phase::Doomed;
                Poll::Pending
            }
        }
    }
}

impl<N, R, F, Fut> Future for Block<N, F, Fut>
where
    N: FromRaw<R>,
    F: FnOnce(N) -> Fut,
    Fut: Future<Output = R>,
{
    type Output = R;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<R> {
        let mut this = self.project();
        let first = this.running.is_none();
        let running = this
            .running
            .get_or_insert_with(|| Running::begin(*this.options));
        match running.phase {
            Phase::Open => {}
            Phase::Doomed => return Poll::Pending,
            Phase::Ended => panic!("a nursery block was polled after it had ended"),
        }
        running.owner.register(cx.waker());
        if let BodyProjection::New { open } = this.body.as_mut().project() {
            let open = open
                .take()
                .expect("a block whose opening panicked is not polled again");
            let handle = running.handle.clone();
            // SAFETY: this is the block; dropped below, or when `open` panics.
            let place = unsafe { running.owner.enter() };
            let future = open(N::from_raw(handle));
            drop(place);
            this.body.set(Body::Running { future });
        }
        if running.round(this.body.as_mut(), first)
            && let Some(ended) = running.owner.try_end()
        {
            return running.end(ended);
        }
        running.owner.rest(cx);
        Poll::Pending
    }
}

impl<N, F, Fut: Future> fmt::Debug for Block<N, F, Fut> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block")
            .field("running", &self.running.as_ref().map(|r| &r.owner))
            .finish_non_exhaustive()
    }
}
