//! The future of a nursery block: polls the body and the children, and ends when all have ended.

// Says that what it enters for a poll it leaves before the poll is over.
#![allow(unsafe_code)]

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use pin_project_lite::pin_project;

use super::handle::{FromRaw, RawHandle};
use super::outcome::Outcome;
use super::owner::{Ended, Owner};

pin_project! {
    /// A nursery block; made by [`open_nursery`](crate::open_nursery) and its relatives.
    ///
    /// `N` is the type of the block's handle, and with it the lifetime of what its children may borrow.
    #[must_use = "futures do nothing unless awaited"]
    pub struct Block<N, R, F, Fut> {
        #[pin]
        body: Body<F, Fut>,
        running: Option<Running<R>>,
        style: Style,
        // The children belong to the block: it is `Send` if the handle is, and `'env` outlives it.
        handle: PhantomData<N>,
    }

    impl<N, R, F, Fut> PinnedDrop for Block<N, R, F, Fut> {
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
        Ended,
    }
}

/// In what a block differs from the plain one.
#[derive(Clone, Copy, Default)]
struct Style {
    /// The children are shielded while the body lives.
    service: bool,
    /// The children are cancelled when the body has returned.
    daemon: bool,
}

/// What exists since the first poll.
struct Running<R> {
    owner: Owner,
    outcome: Outcome<R>,
    body_waker: Waker,
    /// See [`Style::daemon`].
    daemon: bool,
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

impl<N, R, F, Fut> Block<N, R, F, Fut>
where
    N: FromRaw<R>,
    F: FnOnce(N) -> Fut,
    Fut: Future<Output = R>,
{
    pub(super) fn new(open: F) -> Self {
        Block {
            body: Body::New { open: Some(open) },
            running: None,
            style: Style::default(),
            handle: PhantomData,
        }
    }

    /// Shields the children from the block's cancellation while the body lives.
    pub(super) fn service(mut self) -> Self {
        self.style.service = true;
        self
    }

    /// Makes the children go with the body: once it has returned, they are cancelled, instead of being waited for.
    ///
    /// For children that work for the body alone. The block still ends when all have ended, and returns the body's value.
    ///
    /// ```
    /// use seedbed::{open_nursery, run, sleep_forever};
    ///
    /// let block = open_nursery(|n| async move {
    ///     n.spawn(sleep_forever());
    ///     "done"
    /// });
    /// assert_eq!(run(block.daemon()), "done");
    /// ```
    pub fn daemon(mut self) -> Self {
        self.style.daemon = true;
        self
    }
}

impl<R> Running<R> {
    fn begin(style: Style) -> Self {
        let owner = Owner::begin(style.service);
        Running {
            outcome: Outcome::new(),
            body_waker: Waker::from(owner.core.clone()),
            owner,
            daemon: style.daemon,
            phase: Phase::Open,
        }
    }

    /// Polls the body if it was woken, and drops it if it has to be. True once it has ended.
    fn poll_body<F, Fut: Future<Output = R>>(
        &mut self,
        mut body: Pin<&mut Body<F, Fut>>,
        first: bool,
    ) -> bool {
        let BodyProjection::Running { future } = body.as_mut().project() else {
            return true;
        };
        if first || !self.owner.try_drop_body() {
            if !self.owner.core.take_body_woken() {
                return false;
            }
            match self.owner.poll_body(&self.body_waker, |cx| future.poll(cx)) {
                Some(Poll::Ready(value)) => {
                    self.outcome.body_returned(value);
                    if self.daemon {
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
            Ended::Normally => Poll::Ready(self.outcome.take()),
            Ended::Panicked(payload) => {
                self.outcome.forsake();
                resume_unwind(payload)
            }
            Ended::Doomed if self.outcome.has_failed() => Poll::Ready(self.outcome.take()),
            Ended::Doomed => {
                self.phase = Phase::Doomed;
                Poll::Pending
            }
        }
    }
}

impl<N, R, F, Fut> Future for Block<N, R, F, Fut>
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
            .get_or_insert_with(|| Running::begin(*this.style));
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
            let handle = RawHandle::new(running.owner.core.clone(), running.outcome.clone());
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

impl<N, R, F, Fut> fmt::Debug for Block<N, R, F, Fut> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block")
            .field("running", &self.running.as_ref().map(|r| &r.owner))
            .finish_non_exhaustive()
    }
}
