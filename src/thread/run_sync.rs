//! `run_sync`: calls a function on another thread.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use super::active::ActiveJob;
use super::cache;
use super::cache::Job;
use super::caller::{CallingTask, TaskLink};
use super::tuning::DEFAULT_THREAD_LIMIT;
use crate::ambient;
use crate::ambient::{TreeValues, WithValues};
use crate::cancel::{checkpoint_if_cancelled, reported};
use crate::sync::{CapacityLimiter, Token};
use crate::sys::ctrl_c::InterruptedRun;
use crate::sys::fork_detector;
use crate::sys::fork_detector::PerProcess;
use crate::sys::primitives::lock;
use crate::sys::role::refuse_unless_hooked;
use crate::wait::CallWaits;

/// Calls `f` on a cached thread and waits for it, while other tasks run.
///
/// Returns a builder, which is awaited. `f` sees the tree variables of the caller. It can ask
/// whether the caller is cancelled ([`check_cancelled`](crate::thread::check_cancelled)) and call
/// back into the calling task ([`call_in_task`](crate::thread::call_in_task),
/// [`call_async_in_task`](crate::thread::call_async_in_task)).
///
/// # Cancellation
///
/// If cancelled before a thread has the job, nothing has happened: the entry is a cancel point, and
/// so is the wait for the limiter. From then on:
///
/// * by default, the call is not cancellable: it is shielded until `f` has ended, and returns its
///   value. If a cancelled scope has waited for it for two seconds, a `tracing` event at WARN names
///   `f`, once; after Ctrl-C, so does a line on standard error;
/// * with [`abandon_on_cancel(true)`](RunSync::abandon_on_cancel), the caller is cancelled
///   immediately. The thread continues, even after the run; its value or panic is dropped. The
///   caller cannot know whether `f` completes.
///
/// If the future is dropped (by a `select!` of another crate, for example), the thread continues in
/// both cases. The limiter's token is always held until `f` has ended.
///
/// # Threads
///
/// A thread is started when no idle one is left, with the CPU affinity, the scheduling policy, the
/// niceness, the I/O priority and the signal mask that the process's *main* thread has at that
/// moment, whichever thread makes the call. (A process without the right to lower niceness keeps
/// the caller's, if that is higher.) An idle thread exits after 10 s. If a job changes the
/// properties of its thread, they stay changed for later jobs.
///
/// Calls within calls can use up the limiter and deadlock: see [`current_default_thread_limiter`].
///
/// In a forked process, calls work: they get new threads.
///
/// # Panics
///
/// With the panic of `f`; and if no thread can be started, after the token is returned.
///
/// ```
/// use seedbed::{run, thread};
///
/// run(async {
///     let manifest = thread::run_sync(|| std::fs::read_to_string("Cargo.toml")).await.unwrap();
///     assert!(manifest.contains("[package]"));
/// });
/// ```
#[doc(alias = "spawn_blocking")]
#[doc(alias = "to_thread")]
#[doc(alias = "unblock")]
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

/// The default limiter. Threads that hold its tokens do not exist in a forked process.
static LIMITER: PerProcess<DefaultLimiter> = PerProcess::new();

struct DefaultLimiter(CapacityLimiter);

impl Default for DefaultLimiter {
    fn default() -> Self {
        DefaultLimiter(CapacityLimiter::new(DEFAULT_THREAD_LIMIT))
    }
}

/// Returns the limiter of all calls of [`run_sync`] without one of their own: 40 tokens, unless
/// changed with [`set_total`](CapacityLimiter::set_total). It is shared by all runs of the process.
/// (Trio has one for each run.) A forked process has a new one.
///
/// As many calls as it has tokens deadlock if each waits for another call that uses it, such as
/// `thread::run_sync(|| run(async { thread::run_sync(..).await }))`. Give the inner calls a
/// [limiter](RunSync::limiter) of their own.
///
/// ```
/// let limiter = seedbed::thread::current_default_thread_limiter();
/// assert_eq!(limiter.total(), Some(40));
/// ```
pub fn current_default_thread_limiter() -> CapacityLimiter {
    LIMITER.get().0.clone()
}

/// A call on another thread; made by [`run_sync`] and awaited.
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
    /// Sets the limiter that the call takes a token of, instead of the default one.
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

    /// Sets whether a cancelled caller abandons the thread instead of waiting for it.
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

    /// Sets the system's name of the thread during the call (shown by `top -H` and debuggers), cut
    /// to 15 bytes, Linux's limit. [`std::thread::Thread::name`] does not change.
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
            waits: Waits::<F>::WAITS,
        }
    }
}

/// Waits for a call on another thread; made by awaiting [`RunSync`].
///
/// # Dropping
///
/// A thread that has the job continues. Its result is dropped, and its token is returned when the
/// function has ended.
#[must_use = "futures do nothing unless awaited"]
pub struct RunSyncFuture<T> {
    future: Pin<Box<dyn Future<Output = T> + Send>>,
    waits: &'static CallWaits,
}

/// The waits of a call of a function of type `F`.
struct Waits<F>(PhantomData<F>);

impl<F> Waits<F> {
    const WAITS: &'static CallWaits = &CallWaits::new::<F>("a thread that calls");
}

impl<T> Future for RunSyncFuture<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        self.waits.during(|| self.future.as_mut().poll(cx))
    }
}

impl<T> fmt::Debug for RunSyncFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunSyncFuture").finish_non_exhaustive()
    }
}

/// No await between the limiter and `CallingTask::new`, which defers cancellation.
async fn call<F, T>(call: RunSync<F>) -> T
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    refuse_unless_hooked("thread::run_sync");
    fork_detector::watch_for_forks();
    checkpoint_if_cancelled().await;
    let limiter = call.limiter.unwrap_or_else(current_default_thread_limiter);
    let token = limiter.acquire().await;
    let (calling_task, link) = CallingTask::new(!call.abandon_on_cancel);
    let outcome = Arc::new(Mutex::new(None));
    let job = Box::new(ThreadJob {
        name: call.name,
        values: ambient::tree_values(),
        stage: Stage::New {
            f: call.f,
            link,
            token,
            active: ActiveJob::new(),
        },
        outcome: outcome.clone(),
    });
    if let Err(error) = cache::start(job) {
        panic!(
            "thread::run_sync could not start a thread: {error}; lower the limiter's total, or raise the system's limit"
        );
    }
    if call.abandon_on_cancel {
        calling_task.await;
    } else {
        let describe = |what: &mut String| {
            let function = std::any::type_name::<F>();
            what.push_str(&format!(
                "the call of `{function}` in a thread, which cannot be killed (`abandon_on_cancel(true)` would leave it \
                 behind, and `check_cancelled` lets it end early)"
            ));
        };
        reported(calling_task, describe).await;
    }
    let outcome = lock(&outcome).take();
    match outcome.expect("the result is stored before the task is notified") {
        Ok(value) => value,
        Err(panic) => {
            if panic.is::<InterruptedRun>() {
                // A run on the thread has ended by Ctrl-C. This task is cancelled for the same
                // reason, unless it is shielded or in no run.
                checkpoint_if_cancelled().await;
            }
            resume_unwind(panic)
        }
    }
}

type Outcome<T> = Arc<Mutex<Option<std::thread::Result<T>>>>;

struct ThreadJob<F, T> {
    name: Option<String>,
    values: Option<TreeValues>,
    stage: Stage<F>,
    /// Shared with the caller while that waits.
    outcome: Outcome<T>,
}

enum Stage<F> {
    New {
        f: F,
        link: TaskLink,
        token: Token,
        active: ActiveJob,
    },
    Ended {
        link: TaskLink,
    },
    /// Only inside `run`.
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
        // The function's captured values are dropped, so the next call may begin.
        drop((token, active));
        self.stage = Stage::Ended { link };
    }

    fn deliver(self: Box<Self>) {
        if let Stage::Ended { link } = self.stage {
            link.end();
        }
    }
}
