//! What a thread can ask of the run: whether it is cancelled, and to do something there for it.
//!
//! The host is the task that waits for the thread. It stands at a [`Watch`] in the scope tree: the
//! thread sees by one load whether that is cancelled, and what it wants done is polled there, in
//! the host's cancel scopes and with its tree variables.

use std::cell::RefCell;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::task::{Context, Poll, ready};

use async_channel::{Receiver, Sender, unbounded};
use futures_lite::{FutureExt, Stream};

use crate::cancel::{CancelView, Watch};

/// The task that waits for a thread was cancelled, or is gone.
///
/// ```
/// use seedbed::thread::{self, CancelledError};
///
/// fn count() -> Result<u32, CancelledError> {
///     for _ in 0..10 {
///         thread::check_cancelled()?;
///     }
///     Ok(10)
/// }
///
/// assert_eq!(seedbed::run(async { thread::run_sync(count).await }), Ok(10));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CancelledError;

impl fmt::Display for CancelledError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the task that waits for this thread was cancelled")
    }
}

impl Error for CancelledError {}

/// Tells a thread of [`run_sync`](super::run_sync) whether the task that waits for it was
/// cancelled, or is gone.
///
/// This costs two loads, so it may stand in a loop. An `Err` means that the result will hardly be
/// wanted; what to do about that is the function's decision. Whatever it returns is what `run_sync`
/// returns, if that still waits.
///
/// # Errors
///
/// [`CancelledError`], from the moment at which `cancel()` returned.
///
/// # Panics
///
/// On a thread that is not running a job of `thread::run_sync`.
///
/// ```
/// use std::time::Duration;
/// use seedbed::{move_on_after, run, thread};
///
/// run(async {
///     let work = thread::run_sync(|| {
///         while thread::check_cancelled().is_ok() {
///             std::thread::yield_now(); // a little piece of work
///         }
///         "stopped early"
///     });
///     // The call waits for the thread, so the value is there although the time is over.
///     let value = move_on_after(Duration::from_millis(1), work).await;
///     assert_eq!(value, Some("stopped early"));
/// });
/// ```
pub fn check_cancelled() -> Result<(), CancelledError> {
    match with_link("check_cancelled", |link| link.view.is_cancelled()) {
        true => Err(CancelledError),
        false => Ok(()),
    }
}

/// Called on a thread of [`run_sync`](super::run_sync): runs a future in the task that waits for
/// it, in that task's cancel scopes, and blocks the thread until it is done.
///
/// `make` is called there, too, so the future may be about things that exist only in a run.
///
/// # Cancellation
///
/// If the waiting task is cancelled, the future is dropped where it waits (shields in it are
/// honoured), and the thread gets `Err(CancelledError)`. In a task that is cancelled already it
/// still runs up to its first await that has to wait.
///
/// # Errors
///
/// [`CancelledError`] if the future was cancelled, or nobody waits for the thread any more.
///
/// # Panics
///
/// With the future's panic; and on a thread that is not running a job of `thread::run_sync`.
///
/// ```
/// use std::time::Duration;
/// use seedbed::{run, sleep, thread};
///
/// run(async {
///     let value = thread::run_sync(|| {
///         thread::call_async_in_task(|| async {
///             sleep(Duration::from_millis(1)).await;
///             5
///         })
///     });
///     assert_eq!(value.await, Ok(5));
/// });
/// ```
pub fn call_async_in_task<F, Fut>(make: F) -> Result<Fut::Output, CancelledError>
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future + Send + 'static,
    Fut::Output: Send + 'static,
{
    ask("call_async_in_task", |reply| {
        Request::Future(Box::new(move || {
            Box::pin(async move {
                let outcome = AssertUnwindSafe(async move { make().await }).catch_unwind();
                // The thread waits for it, and cannot have stopped.
                drop(reply.send(outcome.await));
            })
        }))
    })
}

/// Called on a thread of [`run_sync`](super::run_sync): calls `f` in the task that waits for it,
/// and blocks the thread until it has returned. As it is called on the run's thread, `f` must not
/// block.
///
/// It is called also if the task is cancelled, as long as that waits for the thread.
///
/// # Errors
///
/// [`CancelledError`] if nobody waits for the thread any more: `f` was not called.
///
/// # Panics
///
/// With `f`'s panic; and on a thread that is not running a job of `thread::run_sync`.
///
/// ```
/// use seedbed::{run, thread};
///
/// run(async {
///     let here = std::thread::current().id();
///     let there = thread::run_sync(|| thread::call_in_task(|| std::thread::current().id()));
///     assert_eq!(there.await, Ok(here));
/// });
/// ```
pub fn call_in_task<T: Send + 'static>(
    f: impl FnOnce() -> T + Send + 'static,
) -> Result<T, CancelledError> {
    ask("call_in_task", |reply| {
        Request::Call(Box::new(move || {
            // The thread waits for it, and cannot have stopped.
            drop(reply.send(catch_unwind(AssertUnwindSafe(f))));
        }))
    })
}

/// Sends a request to the host, and waits for the answer. Whoever drops the request answers that it
/// is cancelled.
fn ask<T>(
    what: &str,
    request: impl FnOnce(SyncSender<std::thread::Result<T>>) -> Request,
) -> Result<T, CancelledError> {
    let (reply, answer) = sync_channel(1);
    let sent = with_link(what, |link| link.requests.try_send(request(reply)));
    sent.map_err(|_| CancelledError)?;
    match answer.recv() {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(panic)) => resume_unwind(panic),
        Err(_) => Err(CancelledError),
    }
}

type Asked = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a thread wants of its host.
enum Request {
    Future(Box<dyn FnOnce() -> Asked + Send>),
    Call(Box<dyn FnOnce() + Send>),
    /// Nothing any more: the result is there.
    End,
}

/// The thread's end of the connection with its host.
pub(super) struct Link {
    view: CancelView,
    requests: Sender<Request>,
}

thread_local! {
    /// The host of the job that this thread is running.
    static LINK: RefCell<Option<Link>> = const { RefCell::new(None) };
}

fn with_link<T>(what: &str, look: impl FnOnce(&Link) -> T) -> T {
    LINK.with_borrow(|link| match link {
        Some(link) => look(link),
        None => panic!(
            "thread::{what} was called on a thread that is not running a job of seedbed::thread::run_sync"
        ),
    })
}

impl Link {
    /// Runs a job in connection with its host, and returns the connection.
    pub(super) fn during<T>(self, job: impl FnOnce() -> T) -> (T, Self) {
        LINK.set(Some(self));
        let value = job();
        (value, LINK.take().expect("taken here only"))
    }

    /// Tells the host that the result is there.
    pub(super) fn end(self) {
        // Refused if nobody waits any more.
        drop(self.requests.try_send(Request::End));
    }
}

/// Waits, in the host, for the end of a thread's job, and does what the thread asks for.
pub(super) struct Host {
    /// At most one, as the thread waits for it. Dropped before the place at which it is polled.
    asked: Option<Asked>,
    requests: Pin<Box<Receiver<Request>>>,
    watch: Watch,
}

impl Host {
    /// Makes both ends. With `stay`, all scopes around the host wait for it.
    pub(super) fn new(stay: bool) -> (Self, Link) {
        let (sender, receiver) = unbounded();
        let watch = Watch::new(stay);
        let link = Link {
            view: watch.view(),
            requests: sender,
        };
        let host = Host {
            asked: None,
            requests: Box::pin(receiver),
            watch,
        };
        (host, link)
    }

    /// Polls what the thread has asked for. Pending if that is not done.
    fn poll_asked(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(asked) = &mut self.asked else {
            return Poll::Ready(());
        };
        let polled = self.watch.poll_inside(cx, |cx| asked.as_mut().poll(cx));
        if polled.is_pending() && !self.watch.must_drop_inside() {
            return Poll::Pending;
        }
        self.asked = None;
        Poll::Ready(())
    }
}

/// Answers what is still asked for: the queue belongs to the thread as well, which would wait for
/// ever.
impl Drop for Host {
    fn drop(&mut self) {
        self.requests.close();
        while self.requests.try_recv().is_ok() {}
    }
}

impl Future for Host {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            ready!(this.poll_asked(cx));
            let requests = &mut this.requests;
            let request = this
                .watch
                .poll_inside(cx, |cx| requests.as_mut().poll_next(cx));
            match ready!(request) {
                Some(Request::Future(make)) => this.asked = Some(make()),
                Some(Request::Call(call)) => this.watch.poll_inside(cx, |_| call()),
                Some(Request::End) => return Poll::Ready(()),
                None => unreachable!("a job says that it has ended before it hangs up"),
            }
        }
    }
}
