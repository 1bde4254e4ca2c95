//! The current context, the default context, and the blocks that open a context.
//!
//! The current context is that of the innermost [`cache_scope`] around the place where the task's
//! nursery was opened. Outside of any such scope it is the default context, which all runs, threads
//! and executors of the process share.

use std::future::{Future, IntoFuture};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::context::WorkerContext;
use super::shutdown::report;
use super::statistics::WorkerStatistics;
use crate::cancel::{on_cancel, shield};
use crate::sys::role::refuse_unless_hooked;
use crate::variables::TreeVar;
use crate::worker::config::WorkerConfig;
use crate::worker::error::WorkerError;

/// Opens a context with workers of its own, runs `body` with it, and ends the workers.
///
/// Calls that name no limiter share that of the process with all other contexts, so slow jobs in
/// one context keep those in another waiting; see [Time limits and
/// queues](crate::guide::time_limits#limiters).
///
/// At its end, the block waits for calls in progress, then for the workers, within the
/// configuration's [grace period](WorkerConfig::grace_period). If workers had to be killed or
/// failed, the block emits a `tracing` event at WARN and still returns the body's value. Call
/// [`WorkerContext::shutdown`] inside the block to get the error.
///
/// Contexts share the default limiter of calls, unless [`WorkerConfig::limiter`] sets another:
/// calls of one context can keep those of another waiting. [`WorkerContext::kill_all`] ends calls
/// that the end of the block would wait for.
///
/// # Cancellation
///
/// If cancelled, the body is dropped; then the context is shut down, shielded. Dropped from
/// outside, it leaves the shutdown to the background.
///
/// # Examples
///
/// ```
/// use seedbed::{WorkerConfig, open_worker_context};
///
/// fn main() {
///     seedbed::init();
///     let config = WorkerConfig::new().retire_after(100);
///     let absolute = smol::block_on(open_worker_context(config, |workers| async move {
///         workers.run_sync(i32::abs, -3).await.unwrap()
///     }));
///     assert_eq!(absolute, 3); // and the worker is gone
/// }
/// ```
#[doc(alias = "ProcessPoolExecutor")]
#[doc(alias = "multiprocessing")]
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
/// Plain [`run_sync`](crate::run_sync()) uses it in this task and in the tasks of nurseries that
/// are opened inside. Tasks that are spawned into a nursery that was opened outside keep the outer
/// context, because that nursery may outlive this scope. Scopes nest. The context is opened and
/// shut down as by [`open_worker_context`].
///
/// # Cancellation
///
/// If cancelled, `future` is dropped; then the context is shut down, shielded. Dropped from
/// outside, it leaves the shutdown to the background.
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

/// Runs `body`, and shuts down `context` when the body ends or is cancelled.
async fn within<F: IntoFuture>(context: &WorkerContext, body: F) -> F::Output {
    let value = on_cancel(body, async { report(context.close().await) })
        .quiet()
        .await;
    report(context.shutdown().await);
    value
}

static CURRENT: TreeVar<WorkerContext> = TreeVar::new();

/// The default context, created by the first call that needs it.
static DEFAULT: Mutex<Option<WorkerContext>> = Mutex::new(None);

fn default_slot() -> MutexGuard<'static, Option<WorkerContext>> {
    DEFAULT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the context that a plain call uses in the current task.
pub(in crate::worker) fn current() -> WorkerContext {
    CURRENT.get().unwrap_or_else(|| {
        default_slot()
            .get_or_insert_with(|| WorkerContext::new(WorkerConfig::new()))
            .clone()
    })
}

/// Sets the configuration of the default context, the one that plain
/// [`run_sync`](crate::run_sync()) uses outside of any [`cache_scope`], in all runs and threads
/// from now on.
///
/// Call this before the first call if possible. A default context that is in use is replaced: calls
/// in progress finish in the old one, its idle workers exit in the background, and later calls
/// start new workers.
///
/// # Errors
///
/// [`WorkerErrorKind::Config`](crate::worker::WorkerErrorKind::Config), if a setting is invalid on
/// any system; [`EncodeArgument`](crate::worker::WorkerErrorKind::EncodeArgument) or
/// [`ForeignFunction`](crate::worker::WorkerErrorKind::ForeignFunction), if a closure of the
/// configuration, or its data, cannot be sent to a worker. Nothing changes then. A setting that
/// only the kernel can refuse, such as a working directory that does not exist, fails the calls
/// instead.
///
/// # Examples
///
/// ```
/// use seedbed::worker::configure_default_context;
/// use seedbed::{WorkerConfig, run_sync};
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
    refuse_unless_hooked("seedbed::worker::configure_default_context");
    config.check()?;
    let old = default_slot().replace(WorkerContext::new(config));
    if let Some(old) = old {
        old.end_idle_in_background();
    }
    Ok(())
}

/// Returns the statistics of the *current* context: that of the innermost [`cache_scope`], or the
/// default context outside of any. It is the context that a plain [`run_sync`](crate::run_sync())
/// would use here. Other threads may change the numbers at any time. See
/// [`WorkerContext::statistics`].
///
/// ```
/// use seedbed::worker::default_context_statistics;
/// use seedbed::run_sync;
///
/// fn main() {
///     seedbed::init();
///     assert_eq!(default_context_statistics().idle_workers, 0);
///     smol::block_on(async { run_sync(i32::abs, -3).await.unwrap() });
///     assert_eq!(default_context_statistics().idle_workers, 1); // ready for the next call
/// }
/// ```
pub fn default_context_statistics() -> WorkerStatistics {
    refuse_unless_hooked("seedbed::worker::default_context_statistics");
    current().statistics()
}

/// Ends the default context's idle workers, at the end of the last run. The context stays in use:
/// calls in progress on other executors go on, and a later call starts a worker again.
pub(crate) async fn shutdown_default() {
    let context = default_slot().clone();
    if let Some(context) = context {
        report(shield(context.end_idle()).quiet().await);
    }
}
