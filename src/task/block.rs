//! The future of a nursery block: polls the body and the children, and ends when all of them have
//! ended.

use std::fmt;
use std::future::Future;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use pin_project_lite::pin_project;

use super::current::in_block;
use super::driver::{BlockDriver, Ended};
use super::outcome::Outcome;
use super::polling::PollGuard;
use super::raw_handle::RawHandle;
use crate::wait::Noted;

pin_project! {
    /// A nursery block. Returned by [`open_nursery`](crate::open_nursery) and the other functions
    /// that open a nursery.
    ///
    /// `N` is the type of the block's handle, and with it the lifetime of everything that the
    /// children may borrow.
    #[must_use = "futures do nothing unless awaited"]
    pub struct Block<N, F, Fut: Future> {
        #[pin]
        body: Body<F, Fut>,
        running: Option<Running<Fut::Output>>,
        options: Options,
        // The children belong to the block. So it is `Send` only if the handle is, and `'env`
        // outlives it.
        kind: Kind<N, Fut::Output>,
    }

    impl<N, F, Fut: Future> PinnedDrop for Block<N, F, Fut> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if let Some(running) = this.running && running.phase == Phase::Open {
                let mut body = this.body.as_mut();
                let panic = in_block(&running.handle.nursery, |guard| {
                    running.driver.abort(guard, || body.set(Body::Ended))
                });
                running.handle.outcome.end();
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
        /// The future is gone. If the body returned an error after the block's outcome was decided,
        /// the block waits for the cancellation that comes with that decision.
        Finished,
        Ended,
    }
}

#[derive(Clone, Copy)]
struct Options {
    /// The children are shielded while the body lives.
    service: bool,
    /// The children are cancelled when the body has returned.
    daemon: bool,
}

/// The properties of a kind of block: its handle, and whether it can fail.
struct Kind<N, R> {
    wrap: fn(RawHandle<R>) -> N,
    check: Option<CheckBody<R>>,
    handle: std::marker::PhantomData<N>,
}

/// Checks the body's value in a block that can fail: ends the block if it is an error. `None` if
/// that error came too late.
pub(super) type CheckBody<R> = fn(&RawHandle<R>, R) -> Option<R>;

/// The state that exists since the first poll.
struct Running<R> {
    driver: BlockDriver,
    handle: RawHandle<R>,
    body_waker: Waker,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The body or children live.
    Open,
    /// Everything has ended because of a cancellation that an outer scope absorbs. The block waits
    /// until that scope drops it, unless that scope has it by reference.
    Cancelled,
    Ended,
}

impl<N, R, F, Fut> Block<N, F, Fut>
where
    F: FnOnce(N) -> Fut,
    Fut: Future<Output = R>,
{
    pub(super) fn new(open: F, wrap: fn(RawHandle<R>) -> N, check: Option<CheckBody<R>>) -> Self {
        Block {
            body: Body::New { open: Some(open) },
            running: None,
            options: Options {
                service: false,
                daemon: false,
            },
            kind: Kind {
                wrap,
                check,
                handle: std::marker::PhantomData,
            },
        }
    }

    /// Makes the children serve the body: when the block is cancelled, the body ends first, and its
    /// children are cancelled after that. (tricycle's `open_service_nursery`.)
    ///
    /// So the body can use its children in its clean-up: a connection whose writer still runs can
    /// send a last message. It makes no difference whether a scope around the block is cancelled,
    /// [`terminate`](crate::Nursery::terminate) is called or a child panics.
    /// [`Task::cancel`](crate::Task::cancel) still ends one child at any time. When the body
    /// returns by itself, the block waits for the children; with [`daemon`](Block::daemon), it
    /// cancels them.
    ///
    /// A child that is being [started](crate::Nursery::start) is cancelled with the task that
    /// starts it. The shield covers the child as soon as it has started.
    ///
    /// # Cancellation
    ///
    /// When a scope around the block is cancelled, the body is dropped where it waits, or as soon
    /// as an active shield in it has ended; then the children in the same way; then that scope
    /// drops the block. Dropping the block from outside drops the body, then the children, at once.
    ///
    /// ```
    /// use seedbed::sync::channel;
    /// use seedbed::time::sleep_forever;
    /// use seedbed::{CancelScope, on_cancel, open_nursery, run};
    ///
    /// run(async {
    ///     let (send, receive) = channel(0);
    ///     let (scope, received) = (&CancelScope::new(), &std::sync::Mutex::new(Vec::new()));
    ///     let session = open_nursery(|n| async move {
    ///         let reader = n.spawn(async move {
    ///             while let Ok(word) = receive.recv().await {
    ///                 received.lock().unwrap().push(word);
    ///             }
    ///         });
    ///         send.send("hello").await.unwrap();
    ///         scope.cancel();
    ///         on_cancel(sleep_forever(), async {
    ///             send.send("goodbye").await.unwrap();
    ///             send.close();
    ///             reader.await // the child still runs
    ///         })
    ///         .await;
    ///     });
    ///     assert_eq!(scope.run(session.service()).await, None);
    ///     assert_eq!(*received.lock().unwrap(), ["hello", "goodbye"]);
    /// });
    /// ```
    pub fn service(mut self) -> Self {
        self.options.service = true;
        self
    }

    /// Cancels the children when the body has returned, instead of waiting for them.
    ///
    /// For children that work for the body alone. The block still ends when all children have
    /// ended, and returns the body's value.
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
    fn begin(service: bool) -> Self {
        let driver = BlockDriver::begin(service);
        Running {
            handle: RawHandle::new(driver.nursery.clone(), Outcome::new()),
            body_waker: Waker::from(driver.nursery.clone()),
            driver,
            phase: Phase::Open,
        }
    }

    fn end(&mut self, ended: Ended, cx: &mut Context<'_>) -> Poll<R> {
        if let Ended::Cancelled = ended
            && !self.handle.outcome.has_failed()
        {
            self.phase = Phase::Cancelled;
            self.handle.outcome.end();
            self.driver.die();
            return self.driver.poll_dead(cx);
        }
        self.phase = Phase::Ended;
        self.driver.leave();
        match ended {
            Ended::Normally => Poll::Ready(self.handle.outcome.take()),
            Ended::Panicked(payload) => {
                self.handle.outcome.discard();
                resume_unwind(payload)
            }
            // An error comes out even so.
            Ended::Cancelled => Poll::Ready(self.handle.outcome.take()),
        }
    }
}

/// One poll of a block.
struct Round<'a, R> {
    driver: &'a mut BlockDriver,
    handle: &'a RawHandle<R>,
    body_waker: &'a Waker,
    check: Option<CheckBody<R>>,
    daemon: bool,
}

impl<R> Round<'_, R> {
    /// Drops everything that is cancelled, and polls everything that is ready. True if the body has
    /// ended.
    ///
    /// In the `first` poll, the body runs to its first await that has to wait, however early it was
    /// cancelled.
    fn run<F, Fut: Future<Output = R>>(
        &mut self,
        guard: &PollGuard<'_>,
        mut body: Pin<&mut Body<F, Fut>>,
        first: bool,
    ) -> bool {
        self.driver.drop_cancelled(guard);
        self.poll_body(body.as_mut(), first);
        let cancelled = self.driver.is_cancelled();
        self.driver.poll_ready(guard);
        if self.driver.is_cancelled() && !cancelled {
            // A child has cancelled the block: the children that are not ready are dropped in this
            // poll, too.
            self.driver.drop_cancelled(guard);
            return self.poll_body(body, false);
        }
        matches!(*body, Body::Ended)
    }

    /// Polls the body if it was woken, and drops it if it is cancelled. True if it has ended.
    fn poll_body<F, Fut: Future<Output = R>>(
        &mut self,
        mut body: Pin<&mut Body<F, Fut>>,
        first: bool,
    ) -> bool {
        if let Body::Ended | Body::New { .. } = *body {
            return true;
        }
        if first || !self.driver.try_drop_body() {
            if !self.handle.nursery.take_body_woken() {
                return false;
            }
            let (check, handle) = (self.check, self.handle);
            let poll = |cx: &mut Context<'_>| {
                let BodyProjection::Running { future } = body.as_mut().project() else {
                    return Poll::Pending;
                };
                let value = ready!(handle.nursery.body_wait.during(|| future.poll(cx)));
                let Some(check) = check else {
                    return Poll::Ready(value);
                };
                body.set(Body::Finished);
                check(handle, value).map_or(Poll::Pending, Poll::Ready)
            };
            match self.driver.poll_body(self.body_waker, poll) {
                Some(Poll::Ready(value)) => {
                    self.handle.outcome.set_body_value(value);
                    if self.daemon {
                        let why = "the body has returned, and its children go with it";
                        self.handle.nursery.scope.cancel_because(why);
                    }
                }
                Some(Poll::Pending) if !self.driver.try_drop_body() => return false,
                // The body is cancelled, or has panicked.
                Some(Poll::Pending) | None => {}
            }
        }
        self.driver.end_body(|| body.set(Body::Ended));
        true
    }
}

impl<N, R, F, Fut> Future for Block<N, F, Fut>
where
    F: FnOnce(N) -> Fut,
    Fut: Future<Output = R>,
{
    type Output = R;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<R> {
        let mut this = self.project();
        let first = this.running.is_none();
        let running = this
            .running
            .get_or_insert_with(|| Running::begin(this.options.service));
        match running.phase {
            Phase::Open => {}
            Phase::Cancelled => return running.driver.poll_dead(cx),
            Phase::Ended => panic!("a nursery block was polled after it had ended"),
        }
        running.driver.follow();
        running.driver.register(cx.waker());
        let noted = Noted::take();
        let position = running.driver.enter();
        let mut round = Round {
            driver: &mut running.driver,
            handle: &running.handle,
            body_waker: &running.body_waker,
            check: this.kind.check,
            daemon: this.options.daemon,
        };
        let ended = in_block(&running.handle.nursery, |guard| {
            if let BodyProjection::New { open } = this.body.as_mut().project() {
                let open = open
                    .take()
                    .expect("a block whose opening panicked is not polled again");
                let future = open((this.kind.wrap)(round.handle.clone()));
                this.body.set(Body::Running { future });
            }
            if round.run(guard, this.body.as_mut(), first) {
                round.driver.try_end(guard)
            } else {
                None
            }
        });
        drop((position, noted));
        if let Some(ended) = ended {
            return running.end(ended, cx);
        }
        running.driver.wait(cx);
        Poll::Pending
    }
}

impl<N, F, Fut: Future> fmt::Debug for Block<N, F, Fut> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block")
            .field("running", &self.running.as_ref().map(|r| &r.driver))
            .finish_non_exhaustive()
    }
}
