//! `run_sync`: a function call that happens on another thread.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{Context, Poll};

use super::active::Active;
use super::cache;
use super::cache::Job;
use super::host::{Host, Link};
use crate::ambient;
use crate::ambient::{TreeValues, WithValues};
use crate::cancel::checkpoint_if_cancelled;
use crate::sync::{CapacityLimiter, Token};
use crate::sys::primitives::lock;
use crate::sys::role::refuse_unless_hooked;

/// Calls `f` on a cached thread and waits for it; meanwhile, everybody else goes on.
///
/// Returned is a builder, to be awaited. `f` sees the tree variables of the caller. From inside it
/// can ask whether the caller is cancelled ([`check_cancelled`](super::check_cancelled)) and have
/// things done in the run ([`call_async_in_task`](super::call_async_in_task)).
///
/// # Cancellation
///
/// If cancelled before the thread has the job, nothing has happened: entry is a cancel point, and
/// so is waiting for the limiter. From then on:
///
/// * by default, not cancellable: runs shielded until `f` has ended, and returns its value;
/// * with [`abandon_on_cancel(true)`](RunSync::abandon_on_cancel) the caller is let go at once. The
///   thread goes on, even after the run; its value or panic is dropped. Whether `f` has done its
///   work is not known.
///
/// Dropped from outside (by a foreign `select!`, for example), the thread goes on in both cases. In
/// any case the limiter's token is held until `f` has really ended.
///
/// # Panics
///
/// With the panic of `f`; and if no thread can be started, with the token given back.
///
/// ```
/// use seedbed::{run, thread};
///
/// run(async {
///     let manifest = thread::run_sync(|| std::fs::read_to_string("Cargo.toml")).await.unwrap();
///     assert!(manifest.contains("[package]"));
/// });
/// ```
pub fn run_sync<F, T>(f: F) -> RunSync<F>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    RunSync {
        f,
        limiter: None,
        abandon_on_cancel: false,
        name: None,
    }
}

/// The limiter of all calls of [`run_sync`] that name no other: 40 tokens, unless changed. It is
/// the process's, shared by all runs. The number is Trio's, and as arbitrary: enough to hide
/// waiting, not enough to drown a machine.
///
/// ```
/// let limiter = seedbed::thread::current_default_thread_limiter();
/// assert_eq!(limiter.total(), Some(40));
/// ```
pub fn current_default_thread_limiter() -> CapacityLimiter {
    static LIMITER: LazyLock<CapacityLimiter> = LazyLock::new(|| CapacityLimiter::new(40));
    LIMITER.clone()
}

/// A call on another thread; made by [`run_sync`], to be awaited.
///
/// ```
/// use seedbed::{CapacityLimiter, run, thread};
///
/// run(async {
///     let one_at_a_time = CapacityLimiter::new(1);
///     let call = thread::run_sync(|| 6 * 7).limiter(&one_at_a_time).name("answer");
///     assert_eq!(call.await, 42);
/// });
/// ```
#[must_use = "a call does nothing unless it is awaited"]
pub struct RunSync<F> {
    f: F,
    limiter: Option<CapacityLimiter>,
    abandon_on_cancel: bool,
    name: Option<String>,
}

impl<F> RunSync<F> {
    /// Sets the limiter of which the call takes a token, instead of the default one.
    ///
    /// ```
    /// use seedbed::{CapacityLimiter, run, thread};
    ///
    /// run(async {
    ///     let disk = CapacityLimiter::new(2);
    ///     let seen = disk.clone();
    ///     assert_eq!(thread::run_sync(move || seen.borrowed()).limiter(&disk).await, 1);
    ///     assert_eq!(disk.borrowed(), 0);
    /// });
    /// ```
    pub fn limiter(mut self, limiter: &CapacityLimiter) -> Self {
        self.limiter = Some(limiter.clone());
        self
    }

    /// Sets whether a cancelled caller leaves the thread to itself, instead of waiting for it.
    ///
    /// ```
    /// use std::sync::mpsc;
    /// use std::time::Duration;
    /// use seedbed::{move_on_after, run, thread};
    ///
    /// let (sender, receiver) = mpsc::channel::<()>();
    /// run(async {
    ///     let stuck = thread::run_sync(move || receiver.recv()).abandon_on_cancel(true);
    ///     assert_eq!(move_on_after(Duration::from_millis(1), stuck).await, None);
    /// });
    /// drop(sender); // lets the thread go
    /// ```
    pub fn abandon_on_cancel(mut self, abandon: bool) -> Self {
        self.abandon_on_cancel = abandon;
        self
    }

    /// Sets what the system calls the thread during the call (in `top -H`, or a debugger); cut to
    /// 15 bytes, which is what Linux has room for. [`std::thread::Thread::name`] does not change.
    ///
    /// ```
    /// seedbed::run(async {
    ///     let name = || std::fs::read_to_string("/proc/thread-self/comm").unwrap();
    ///     assert_eq!(seedbed::thread::run_sync(name).name("loader").await, "loader\n");
    /// });
    /// ```
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }
}

impl<F> fmt::Debug for RunSync<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunSync")
            .field("abandon_on_cancel", &self.abandon_on_cancel)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl<F, T> IntoFuture for RunSync<F>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    type Output = T;
    type IntoFuture = RunSyncFuture<T>;

    fn into_future(self) -> RunSyncFuture<T> {
        RunSyncFuture {
            future: Box::pin(call(self)),
        }
    }
}

/// Waits for a call on another thread; made by awaiting [`RunSync`].
///
/// # Dropping
///
/// The thread, if it has the job, goes on; its result is dropped, and its token given back when it
/// has ended.
#[must_use = "futures do nothing unless awaited"]
pub struct RunSyncFuture<T> {
    future: Pin<Box<dyn Future<Output = T> + Send>>,
}

impl<T> Future for RunSyncFuture<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        self.future.as_mut().poll(cx)
    }
}

impl<T> fmt::Debug for RunSyncFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunSyncFuture").finish_non_exhaustive()
    }
}

/// Nothing waits between the limiter and the place that holds off cancellation.
async fn call<F, T>(call: RunSync<F>) -> T
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    refuse_unless_hooked("thread::run_sync");
    checkpoint_if_cancelled().await;
    let limiter = call.limiter.unwrap_or_else(current_default_thread_limiter);
    let token = limiter.acquire().await;
    let (host, link) = Host::new(!call.abandon_on_cancel);
    let outcome = Arc::new(Mutex::new(None));
    let job = Box::new(ThreadJob {
        name: call.name,
        values: ambient::tree_values(),
        stage: Stage::New {
            f: call.f,
            link,
            token,
            active: Active::new(),
        },
        outcome: outcome.clone(),
    });
    if let Err(error) = cache::start(job) {
        panic!(
            "thread::run_sync could not start a thread: {error}; lower the limiter's total, or raise the system's limit"
        );
    }
    host.await;
    let outcome = lock(&outcome).take();
    match outcome.expect("there before the host is told") {
        Ok(value) => value,
        Err(panic) => resume_unwind(panic),
    }
}

type Outcome<T> = Arc<Mutex<Option<std::thread::Result<T>>>>;

struct ThreadJob<F, T> {
    name: Option<String>,
    values: Option<TreeValues>,
    stage: Stage<F>,
    /// Kept by the caller, too, as long as that waits.
    outcome: Outcome<T>,
}

enum Stage<F> {
    New {
        f: F,
        link: Link,
        token: Token,
        active: Active,
    },
    Ended {
        link: Link,
    },
    /// Never seen from outside.
    Running,
}

impl<F, T> Job for ThreadJob<F, T>
where
    F: FnOnce() -> T + Send,
    T: Send,
{
    fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    fn run(&mut self) {
        let new = std::mem::replace(&mut self.stage, Stage::Running);
        let Stage::New {
            f,
            link,
            token,
            active,
        } = new
        else {
            unreachable!("a job is run once");
        };
        let _values = WithValues::new(self.values.take());
        let (outcome, link) = link.during(|| catch_unwind(AssertUnwindSafe(f)));
        *lock(&self.outcome) = Some(outcome);
        // All that the function had is gone, so somebody else may begin.
        drop((token, active));
        self.stage = Stage::Ended { link };
    }

    fn deliver(self: Box<Self>) {
        if let Stage::Ended { link } = self.stage {
            link.end();
        }
    }
}
