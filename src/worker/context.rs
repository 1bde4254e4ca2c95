//! Worker contexts: a configuration, the workers that came of it, and their common end.
//!
//! A [`WorkerContext`] is a cheap handle. What it leads to is a cache of idle workers and a count of calls in progress,
//! behind one lock that is held for no longer than it takes to move a worker in or out; in particular, never while a
//! process is started, killed or waited for. A context is tied to no run, executor or thread: its workers' descriptors
//! live in smol's process-wide reactor, and what has to go on without a caller runs on smol's global executor.
//!
//! There is always a current context. It is the one of the innermost [`cache_scope`], by where the nursery of the task
//! was opened, else the default one, which the whole process shares.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use event_listener::Event;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::cache::Cache;
use super::call::RunSync;
use super::config::WorkerConfig;
use super::farewell::{Farewell, report};
use super::life::{Health, Worker};
use crate::cancel::{on_cancel, shield};
use crate::error::WorkerError;
use crate::job::role::refuse_unless_hooked;
use crate::tree_var::TreeVar;

/// A set of cached workers with a configuration of their own, opened by [`open_worker_context`].
///
/// Cloning gives another handle to the same context. Handles may be used from any thread, task and executor. After the
/// block that opened the context has ended, calls through a handle fail with
/// [`WorkerErrorKind::Closed`](crate::WorkerErrorKind::Closed).
///
/// # Examples
///
/// ```
/// use seedbed::{WorkerConfig, open_worker_context};
///
/// fn add((a, b): (u32, u32)) -> u32 {
///     a + b
/// }
///
/// fn main() {
///     seedbed::init();
///     let sum = smol::block_on(open_worker_context(WorkerConfig::new(), |workers| async move {
///         workers.run_sync(add, (2, 3)).await.unwrap()
///     }));
///     assert_eq!(sum, 5);
/// }
/// ```
#[derive(Clone)]
pub struct WorkerContext {
    shared: Arc<Shared>,
}

/// What all handles and all calls of a context share.
struct Shared {
    config: WorkerConfig,
    state: Mutex<State>,
    /// Notified whenever a call ends.
    call_ended: Event,
}

struct State {
    idle: Cache<Worker>,
    /// Calls that are past the limiter and not over.
    running: usize,
    /// No call may begin any more.
    closed: bool,
}

/// How many workers a context has, at one moment.
///
/// # Examples
///
/// ```
/// let statistics = seedbed::default_context_statistics();
/// assert_eq!((statistics.idle_workers, statistics.running_workers), (0, 0));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerStatistics {
    /// Workers that wait for a job. Some may have reached their idle timeout unnoticed.
    pub idle_workers: usize,
    /// Calls in progress: past their limiter and not over, those whose worker is still starting included.
    pub running_workers: usize,
}

impl WorkerContext {
    pub(super) fn new(config: WorkerConfig) -> Self {
        let state = State {
            idle: Cache::default(),
            running: 0,
            closed: false,
        };
        Self {
            shared: Arc::new(Shared {
                config,
                state: Mutex::new(state),
                call_ended: Event::new(),
            }),
        }
    }

    /// Calls `f(arg)` in a worker process of this context; otherwise like the free function
    /// [`run_sync`](crate::run_sync()).
    ///
    /// The example of [`WorkerContext`] shows it.
    pub fn run_sync<F, A, R>(&self, f: F, arg: A) -> RunSync<A, R>
    where
        F: Fn(A) -> R + Copy + Send + Sync + 'static,
        A: Serialize + DeserializeOwned + Send + 'static,
        R: Serialize + DeserializeOwned + Send + 'static,
    {
        RunSync::new(f, arg).inside(self.clone())
    }

    /// Counts the workers, after forgetting those that have left.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     smol::block_on(open_worker_context(WorkerConfig::new(), |workers| async move {
    ///         workers.run_sync(i64::abs, -7).await.unwrap();
    ///         assert_eq!(workers.statistics().idle_workers, 1);
    ///         assert_eq!(workers.statistics().running_workers, 0);
    ///     }));
    /// }
    /// ```
    pub fn statistics(&self) -> WorkerStatistics {
        self.prune();
        let state = self.state();
        WorkerStatistics {
            idle_workers: state.idle.len(),
            running_workers: state.running,
        }
    }

    /// Refuses further calls, waits for those in progress, then ends all workers. The end of the context's block does
    /// this too; calling it first tells how it went. A second call waits as well, and finds nothing more to do.
    ///
    /// # Cancellation
    ///
    /// Not cancellable: runs shielded until all workers are gone. Dropped from outside, it kills the workers that it was
    /// waiting for; calls in progress go on.
    ///
    /// # Errors
    ///
    /// [`WorkerErrorKind::Shutdown`](crate::WorkerErrorKind::Shutdown), if workers had to be killed after the grace
    /// period or ended with an exit code other than zero.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::{WorkerConfig, WorkerErrorKind, open_worker_context};
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     smol::block_on(open_worker_context(WorkerConfig::new(), |workers| async move {
    ///         workers.run_sync(i64::abs, -7).await.unwrap();
    ///         workers.shutdown().await.unwrap();
    ///         let error = workers.run_sync(i64::abs, -7).await.unwrap_err();
    ///         assert_eq!(error.kind(), WorkerErrorKind::Closed);
    ///     }));
    /// }
    /// ```
    pub async fn shutdown(&self) -> Result<(), WorkerError> {
        shield(self.close()).await
    }

    async fn close(&self) -> Result<(), WorkerError> {
        self.state().closed = true;
        self.wait_for_calls().await;
        self.end_idle().await
    }

    /// Waits until no call is in progress.
    async fn wait_for_calls(&self) {
        loop {
            let ended = self.shared.call_ended.listen(); // before looking, so that no end goes unseen
            if self.state().running == 0 {
                return;
            }
            ended.await;
        }
    }

    /// Ends the workers that are idle now.
    async fn end_idle(&self) -> Result<(), WorkerError> {
        let idle = self.state().idle.empty();
        Farewell::to(idle, self.shared.config.grace()).wait().await
    }

    /// The same, with nobody waiting.
    fn end_idle_in_background(&self) {
        let idle = self.state().idle.empty();
        Farewell::to(idle, self.shared.config.grace()).wait_in_background();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }

    /// Forgets workers at the cold end that have ended without anything to tell.
    fn prune(&self) {
        let gone = self
            .state()
            .idle
            .prune(|worker| matches!(worker.health(), Health::Gone));
        drop(gone); // they have been reaped; this closes their descriptors, outside the lock
    }
}

/// For calls.
impl WorkerContext {
    pub(super) fn config(&self) -> &WorkerConfig {
        &self.shared.config
    }

    /// Enters a call.
    pub(super) fn begin(&self) -> Result<Running, WorkerError> {
        self.prune();
        let mut state = self.state();
        if state.closed {
            return Err(WorkerError::closed());
        }
        state.running += 1;
        drop(state);
        Ok(Running {
            context: self.clone(),
        })
    }
}

/// A call in progress, counted as such until this is dropped.
#[derive(Debug)]
pub(super) struct Running {
    context: WorkerContext,
}

impl Running {
    pub(super) fn config(&self) -> &WorkerConfig {
        self.context.config()
    }

    /// Draws the worker that was used last. It may have ended.
    pub(super) fn draw(&self) -> Option<Worker> {
        self.context.state().idle.draw()
    }

    /// Puts back a worker that is ready for the next job.
    pub(super) fn put(&self, worker: Worker) {
        self.context.state().idle.put(worker);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.context.state().running -= 1;
        self.context.shared.call_ended.notify(usize::MAX);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // No code of a user's runs under this lock, and each change is one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A context that was not shut down, because its block was dropped from outside or its thread panicked: the workers are
/// told to go, and what happens then happens in the background.
impl Drop for Shared {
    fn drop(&mut self) {
        let idle = self.state().idle.empty();
        Farewell::to(idle, self.config.grace()).wait_in_background();
    }
}

impl fmt::Debug for WorkerContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let State {
            idle,
            running,
            closed,
        } = &*self.state();
        f.debug_struct("WorkerContext")
            .field("config", &self.shared.config)
            .field("idle_workers", &idle.len())
            .field("running_workers", running)
            .field("closed", closed)
            .finish()
    }
}

/// Opens a context with workers of its own, runs `body` with it, and ends the workers.
///
/// When the block is over, it waits for calls in progress, then for the workers, within the configuration's
/// [grace period](WorkerConfig::grace_period). If that was not graceful a `tracing` event at WARN says so, and the block's
/// value is returned all the same; call [`WorkerContext::shutdown`] inside the block to get the error.
///
/// # Cancellation
///
/// If cancelled, the body is dropped; then the context is shut down, shielded. Dropped from outside, it leaves the
/// shutdown to the background.
///
/// The example of [`WorkerContext`] shows it.
pub async fn open_worker_context<F, Fut>(config: WorkerConfig, body: F) -> Fut::Output
where
    F: FnOnce(WorkerContext) -> Fut,
    Fut: Future,
{
    refuse_unless_hooked("seedbed::open_worker_context");
    let context = WorkerContext::new(config);
    within(&context, body(context.clone())).await
}

/// Runs `future` with a context of its own as the current one, and ends that context's workers.
///
/// Plain [`run_sync`](crate::run_sync()) uses it in this task and in the tasks of nurseries that are opened inside. Tasks that are
/// spawned from inside into a nursery that was opened outside keep the outer one, as that nursery may outlive this
/// scope. Scopes nest. Otherwise like [`open_worker_context`], its ways of ending included.
///
/// # Cancellation
///
/// If cancelled, `future` is dropped; then the context is shut down, shielded. Dropped from outside, it leaves the
/// shutdown to the background.
///
/// # Examples
///
/// ```
/// use seedbed::{WorkerConfig, cache_scope, run_sync};
///
/// fn pid(_: ()) -> u32 {
///     std::process::id()
/// }
///
/// fn main() {
///     seedbed::init();
///     smol::block_on(async {
///         let outside = run_sync(pid, ()).await.unwrap();
///         let inside = cache_scope(WorkerConfig::new(), run_sync(pid, ())).await.unwrap();
///         assert_ne!(outside, inside);
///         assert_eq!(run_sync(pid, ()).await.unwrap(), outside);
///     });
/// }
/// ```
pub async fn cache_scope<F: IntoFuture>(config: WorkerConfig, future: F) -> F::Output {
    refuse_unless_hooked("seedbed::cache_scope");
    let context = WorkerContext::new(config);
    within(&context, CURRENT.scope(context.clone(), future)).await
}

/// Runs `body`, and shuts `context` down whether it ends or is cancelled.
async fn within<F: IntoFuture>(context: &WorkerContext, body: F) -> F::Output {
    let value = on_cancel(body, async { report(context.close().await) }).await;
    report(context.shutdown().await);
    value
}

static CURRENT: TreeVar<WorkerContext> = TreeVar::new();

/// The default context, made by the first call that needs it.
static DEFAULT: Mutex<Option<WorkerContext>> = Mutex::new(None);

fn default_slot() -> MutexGuard<'static, Option<WorkerContext>> {
    DEFAULT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the context that a plain call uses here.
pub(super) fn current() -> WorkerContext {
    CURRENT.get().unwrap_or_else(|| {
        default_slot()
            .get_or_insert_with(|| WorkerContext::new(WorkerConfig::new()))
            .clone()
    })
}

/// Sets the configuration of the default context, the one that plain [`run_sync`](crate::run_sync()) uses outside of any
/// [`cache_scope`], in all runs and threads from now on.
///
/// Best called before the first call. A default context that is in use is replaced: calls in progress end in it, its idle
/// workers are told to go, in the background, and calls from now on start new ones.
///
/// # Errors
///
/// [`WorkerErrorKind::EncodeArgument`](crate::WorkerErrorKind::EncodeArgument) or
/// [`ForeignFunction`](crate::WorkerErrorKind::ForeignFunction), if a closure of the configuration, or its data, cannot
/// be sent to a worker. Nothing is changed then.
///
/// # Examples
///
/// ```
/// use seedbed::{WorkerConfig, configure_default_context, run_sync};
///
/// fn pid(_: ()) -> u32 {
///     std::process::id()
/// }
///
/// fn main() {
///     seedbed::init();
///     configure_default_context(WorkerConfig::new().single_use()).unwrap();
///     smol::block_on(async {
///         assert_ne!(run_sync(pid, ()).await.unwrap(), run_sync(pid, ()).await.unwrap());
///     });
/// }
/// ```
pub fn configure_default_context(config: WorkerConfig) -> Result<(), WorkerError> {
    refuse_unless_hooked("seedbed::configure_default_context");
    config.check()?;
    let old = default_slot().replace(WorkerContext::new(config));
    if let Some(old) = old {
        old.end_idle_in_background();
    }
    Ok(())
}

/// Counts the workers of the current context: that of the innermost [`cache_scope`], or the default one. Other threads
/// may be changing the numbers at this moment.
///
/// The example of [`WorkerStatistics`] shows it.
pub fn default_context_statistics() -> WorkerStatistics {
    current().statistics()
}

/// Ends the default context's idle workers. It stays in use: a call in progress elsewhere is not disturbed, and a later
/// one starts a worker again. For the end of the last run.
pub(crate) async fn shutdown_default() {
    let context = default_slot().clone();
    if let Some(context) = context {
        report(shield(context.end_idle()).await);
    }
}
