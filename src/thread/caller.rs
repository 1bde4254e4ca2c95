//! Calls from a thread back into the task that waits for it.
//!
//! The calling task has a [`Watch`] in the scope tree. The thread reads by one load whether that is
//! cancelled. A future of the thread is polled at the watch, in the calling task's cancel scopes
//! and with its tree variables.

use std::cell::RefCell;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use atomic_waker::AtomicWaker;
use futures_lite::FutureExt;

use crate::cancel::{CancelView, Watch};
use crate::sys::primitives::lock;

/// The task that waits for this thread was cancelled, or no longer waits.
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

/// Returns an error if the task that waits for this thread of
/// [`run_sync`](crate::thread::run_sync()) was cancelled, or no longer waits.
///
/// This costs two loads, so it may be called in a loop. After an `Err`, the result is probably not
/// needed; the function decides how to react. Its return value is still the result of `run_sync`,
/// if that waits.
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
    if with_task_link("check_cancelled", |link| link.view.is_cancelled()) {
        Err(CancelledError)
    } else {
        Ok(())
    }
}

/// Runs a future in the task that waits for this thread of [`run_sync`](crate::thread::run_sync()),
/// in that task's cancel scopes, and blocks the thread until the future has completed.
///
/// `make` is called in the task too, so it may use functions that work only inside a run. This is
/// Trio's `from_thread.run`.
///
/// # Cancellation
///
/// If the waiting task is cancelled, the future is dropped where it waits, after its shields, and
/// the thread gets `Err(CancelledError)`. In a task that is cancelled already, the future runs up
/// to its first await that must wait.
///
/// # Errors
///
/// [`CancelledError`] if the future was cancelled, or the task no longer waits for the thread.
///
/// # Panics
///
/// With the panic of the future; and on a thread that is not running a job of `thread::run_sync`.
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
    send_request("call_async_in_task", |reply| {
        Request::Future(Box::new(move || {
            Box::pin(async move {
                let outcome = AssertUnwindSafe(async move { make().await }).catch_unwind();
                // The thread waits for the reply, so it cannot have exited.
                drop(reply.send(outcome.await));
            })
        }))
    })
}

/// Calls `f` in the task that waits for this thread of [`run_sync`](crate::thread::run_sync()), and
/// blocks the thread until `f` has returned. `f` runs on the run's thread, so it must not block.
/// This is Trio's `from_thread.run_sync`.
///
/// `f` is called also if the task is cancelled but still waits for the thread.
///
/// # Errors
///
/// [`CancelledError`] if the task no longer waits for the thread: `f` was not called.
///
/// # Panics
///
/// With the panic of `f`; and on a thread that is not running a job of `thread::run_sync`.
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
    send_request("call_in_task", |reply| {
        Request::Call(Box::new(move || {
            // The thread waits for the reply, so it cannot have exited.
            drop(reply.send(catch_unwind(AssertUnwindSafe(f))));
        }))
    })
}

/// Sends a request to the calling task and waits for the reply. Dropping the request replies with
/// an error.
fn send_request<T>(
    function: &str,
    request: impl FnOnce(SyncSender<std::thread::Result<T>>) -> Request,
) -> Result<T, CancelledError> {
    let (reply, answer) = sync_channel(1);
    let sent = with_task_link(function, |link| link.requests.send(request(reply)));
    sent?;
    match answer.recv() {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(panic)) => resume_unwind(panic),
        Err(_) => Err(CancelledError),
    }
}

type RequestedFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A request of a thread.
enum Request {
    Future(Box<dyn FnOnce() -> RequestedFuture + Send>),
    Call(Box<dyn FnOnce() + Send>),
    /// The job has ended; its result is stored.
    End,
}

/// The request that the calling task has not taken yet. There is at most one, because the thread
/// waits for the reply.
#[derive(Default)]
struct Requests {
    slot: Mutex<Slot>,
    /// Wakes the calling task. It is woken while nothing is locked, because it may be foreign.
    task: AtomicWaker,
}

#[derive(Default)]
enum Slot {
    #[default]
    Empty,
    Request(Request),
    /// The calling task no longer waits.
    Closed,
}

impl Requests {
    fn send(&self, request: Request) -> Result<(), CancelledError> {
        {
            let mut slot = lock(&self.slot);
            if let Slot::Closed = *slot {
                return Err(CancelledError);
            }
            *slot = Slot::Request(request);
        }
        self.task.wake();
        Ok(())
    }

    fn take(&self) -> Option<Request> {
        let mut slot = lock(&self.slot);
        if !matches!(*slot, Slot::Request(_)) {
            return None;
        }
        match std::mem::take(&mut *slot) {
            Slot::Request(request) => Some(request),
            Slot::Empty | Slot::Closed => unreachable!("checked above, under the same lock"),
        }
    }
}

/// The thread's end of the connection with the calling task.
pub(super) struct TaskLink {
    view: CancelView,
    requests: Arc<Requests>,
}

thread_local! {
    /// The link of the job that this thread is running.
    static TASK_LINK: RefCell<Option<TaskLink>> = const { RefCell::new(None) };
}

fn with_task_link<T>(function: &str, read: impl FnOnce(&TaskLink) -> T) -> T {
    TASK_LINK.with_borrow(|link| match link {
        Some(link) => read(link),
        None => panic!(
            "thread::{function} was called on a thread that is not running a job of seedbed::thread::run_sync"
        ),
    })
}

/// Returns whether this thread is running a job.
pub(crate) fn is_in_job() -> bool {
    TASK_LINK.try_with(|link| link.borrow().is_some()) == Ok(true)
}

impl TaskLink {
    /// Runs a job while this is the thread's link, and returns the link.
    pub(super) fn during<T>(self, job: impl FnOnce() -> T) -> (T, Self) {
        TASK_LINK.set(Some(self));
        let value = job();
        (value, TASK_LINK.take().expect("taken here only"))
    }

    /// Notifies the calling task that the job has ended.
    pub(super) fn end(self) {
        // An error if the task no longer waits.
        _ = self.requests.send(Request::End);
    }
}

/// Waits, in the calling task, for the end of a thread's job, and serves the thread's requests.
pub(super) struct CallingTask {
    /// At most one, because the thread waits for it. Dropped before `watch`, at which it is polled.
    requested: Option<RequestedFuture>,
    requests: Arc<Requests>,
    watch: Watch,
}

impl CallingTask {
    /// Creates both ends. If `shielded`, all scopes around the task wait for it.
    pub(super) fn new(shielded: bool) -> (Self, TaskLink) {
        let requests = Arc::<Requests>::default();
        let watch = Watch::new(shielded);
        let link = TaskLink {
            view: watch.view(),
            requests: requests.clone(),
        };
        let host = CallingTask {
            requested: None,
            requests,
            watch,
        };
        (host, link)
    }

    /// Polls the requested future, if there is one; pending until it has ended.
    fn poll_requested(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(requested) = &mut self.requested else {
            return Poll::Ready(());
        };
        let polled = self.watch.poll_inside(cx, |cx| requested.as_mut().poll(cx));
        if polled.is_pending() && !self.watch.must_drop_inside() {
            return Poll::Pending;
        }
        self.requested = None;
        Poll::Ready(())
    }
}

/// Drops a request that was not taken, which replies to it. The thread keeps the request alive, so
/// it would wait forever otherwise.
impl Drop for CallingTask {
    fn drop(&mut self) {
        let left = std::mem::replace(&mut *lock(&self.requests.slot), Slot::Closed);
        // Dropped after the lock is released.
        drop(left);
    }
}

impl Future for CallingTask {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            ready!(this.poll_requested(cx));
            let requests = &this.requests;
            let request = this.watch.poll_inside(cx, |cx| {
                requests.task.register(cx.waker());
                requests.take()
            });
            match request {
                Some(Request::Future(make)) => this.requested = Some(make()),
                Some(Request::Call(call)) => this.watch.poll_inside(cx, |_| call()),
                Some(Request::End) => return Poll::Ready(()),
                None => return Poll::Pending,
            }
        }
    }
}
