//! The public handle of a worker context.
//!
//! A context is tied to no run, executor or thread: the descriptors of its workers are registered
//! with smol's process-wide reactor, and work that has no caller runs in the
//! [`background`](crate::process::background).

use std::fmt;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use async_io::Timer;
use futures_lite::FutureExt;

use super::shutdown::Shutdown;
use super::statistics::WorkerStatistics;
use super::worker_pool::WorkerPool;
use crate::cancel::{reported, shield};
use crate::sys::fork_detector::is_forked_copy;
use crate::worker::config::WorkerConfig;
use crate::worker::error::WorkerError;

/// A handle to a set of cached workers with a configuration of their own, opened by
/// [`open_worker_context`](crate::open_worker_context).
///
/// Cloning gives another handle to the same context. Handles may be used from any thread, task and
/// executor. After the block that opened the context has ended, calls through a handle fail with
/// [`WorkerErrorKind::Closed`](crate::worker::WorkerErrorKind::Closed). Dropping a handle does not
/// affect the others. If the context's block was dropped from outside, dropping the last handle
/// shuts down the workers in the background.
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
    pool: Arc<WorkerPool>,
}

impl WorkerContext {
    pub(in crate::worker) fn new(config: WorkerConfig) -> Self {
        Self {
            pool: Arc::new(WorkerPool::new(config)),
        }
    }

    /// Returns the statistics of the context. Idle workers that have exited are not counted as
    /// idle, even if the context has not noticed before. This asks the kernel once for each idle
    /// worker, and works after the end of the context too. While calls are in progress on other
    /// threads, the counters of calls and those of workers may be of slightly different moments.
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
        self.pool.reap_idle();
        self.pool.statistics()
    }

    /// Refuses further calls, waits for those in progress, then ends all workers. The end of the
    /// context's block does this too; call it yourself to get the error. Calling it again has no
    /// further effect.
    ///
    /// # Cancellation
    ///
    /// Not cancellable: runs shielded until all workers are gone. Dropped from outside, it kills
    /// the workers that it was waiting for; calls in progress go on.
    ///
    /// # Errors
    ///
    /// [`WorkerErrorKind::Shutdown`](crate::worker::WorkerErrorKind::Shutdown), if workers had to
    /// be killed after the grace period or ended with an exit code other than zero.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::worker::WorkerErrorKind;
    /// use seedbed::{WorkerConfig, open_worker_context};
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
        shield(self.close()).quiet().await
    }

    /// Shuts the context down like [`shutdown`](Self::shutdown), but limits how long jobs in
    /// progress may take: asks them to end, and kills those that still run after `limit`.
    ///
    /// Every job is asked, whatever its call does when it is cancelled. It finds out by
    /// [`worker::check_cancelled`](crate::worker::check_cancelled). The call of a job that ends in
    /// time returns its result. The call of a job that is killed ends with an error of kind
    /// [`Broken`](crate::worker::WorkerErrorKind::Broken). After that, the workers have their
    /// [`grace_period`](WorkerConfig::grace_period) to exit, but no longer than `limit`.
    ///
    /// # Cancellation
    ///
    /// Not cancellable: runs shielded until all workers are gone. Dropped from outside, it kills no
    /// job, but jobs have been asked.
    ///
    /// # Errors
    ///
    /// [`WorkerErrorKind::Shutdown`](crate::worker::WorkerErrorKind::Shutdown), with the number of
    /// jobs that were killed, and of workers that did not exit in time or exited with a code other
    /// than zero.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::worker::cancelled;
    /// use seedbed::{WorkerConfig, open_nursery, open_worker_context, sleep};
    ///
    /// fn count(_: ()) -> u64 {
    ///     let mut counted = 0;
    ///     while !cancelled() {
    ///         counted += 1;
    ///     }
    ///     counted
    /// }
    ///
    /// fn main() {
    ///     seedbed::run(open_worker_context(WorkerConfig::new(), |workers| async move {
    ///         open_nursery(|n| async move {
    ///             let busy = workers.clone();
    ///             let call = n.spawn(async move { busy.run_sync(count, ()).await });
    ///             sleep(Duration::from_millis(50)).await;
    ///             workers.shutdown_within(Duration::from_secs(60)).await.unwrap();
    ///             assert!(call.await.is_ok());
    ///         })
    ///         .await
    ///     }));
    /// }
    /// ```
    pub async fn shutdown_within(&self, limit: Duration) -> Result<(), WorkerError> {
        shield(self.close_within(limit)).quiet().await
    }

    /// Kills all workers of the context that exist now, at once: idle ones, those that are
    /// starting, and those that run a job. A shutdown waits for calls in progress, however long
    /// their jobs run; this ends them.
    ///
    /// A call whose worker has the job ends with an error of kind
    /// [`Broken`](crate::worker::WorkerErrorKind::Broken), one whose worker is starting with
    /// [`Start`](crate::worker::WorkerErrorKind::Start). A job that runs on in the background after
    /// its call was dropped ends too. Calls that wait for their limiter, and later ones, start new
    /// workers. The fork server stays.
    ///
    /// Returns without waiting: calls in progress and the background reap the processes.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::worker::WorkerErrorKind;
    /// use seedbed::{WorkerConfig, open_nursery, open_worker_context, sleep};
    ///
    /// fn spin(_: ()) {
    ///     loop {
    ///         std::hint::spin_loop()
    ///     }
    /// }
    ///
    /// fn main() {
    ///     seedbed::run(open_worker_context(WorkerConfig::new(), |workers| async move {
    ///         open_nursery(|n| async move {
    ///             let stuck = workers.clone();
    ///             let call = n.spawn(async move { stuck.run_sync(spin, ()).await.unwrap_err() });
    ///             sleep(Duration::from_millis(200)).await; // the time that jobs may take to end
    ///             workers.kill_all();
    ///             assert_eq!(call.await.kind(), WorkerErrorKind::Broken);
    ///         })
    ///         .await
    ///     }));
    /// }
    /// ```
    pub fn kill_all(&self) {
        self.pool.kill_all();
    }

    /// Like [`shutdown`](Self::shutdown), without the shield.
    pub(in crate::worker) async fn close(&self) -> Result<(), WorkerError> {
        if is_forked_copy() {
            return Ok(()); // the calls and workers belong to the original process
        }
        let close = async {
            self.pool.close().await;
            self.end_idle().await
        };
        reported(close, |what| {
            self.describe_shutdown(what);
            what.push_str(
                "; its `grace_period` begins when they have ended, and `kill_all` ends them)",
            );
        })
        .await
    }

    /// Like [`shutdown_within`](Self::shutdown_within), without the shield.
    async fn close_within(&self, limit: Duration) -> Result<(), WorkerError> {
        if is_forked_copy() {
            return Ok(()); // the calls and workers belong to the original process
        }
        let close = async {
            let killed_before = self.pool.killed_jobs();
            self.pool.ask_jobs();
            let kill = async {
                Timer::after(limit).await;
                self.pool.kill_jobs();
                pending().await
            };
            self.pool.close().or(kill).await;
            let killed = self.pool.killed_jobs() - killed_before;
            let grace = self.pool.config.grace();
            let grace = grace.map_or(limit, |grace| grace.min(limit));
            let shutdown = self.begin_to_end_idle(Some(grace)).await;
            shutdown.with_killed_jobs(killed).wait().await
        };
        reported(close, |what| {
            self.describe_shutdown(what);
            what.push_str(&format!(
                ", which are killed {limit:?} after they were asked)"
            ));
        })
        .await
    }

    /// Describes a shutdown for a report that a cancelled scope waits for it.
    fn describe_shutdown(&self, what: &mut String) {
        what.push_str("the shutdown of a worker context");
        if let Some(name) = self.config().context_name() {
            what.push_str(&format!(", `{name}`"));
        }
        let calls = self.pool.statistics().running_workers;
        what.push_str(&format!(" (with {calls} calls in progress"));
    }

    /// Ends the workers that are idle or draining now.
    pub(in crate::worker) async fn end_idle(&self) -> Result<(), WorkerError> {
        let shutdown = self.begin_to_end_idle(self.pool.config.grace()).await;
        shutdown.wait().await
    }

    async fn begin_to_end_idle(&self, grace: Option<Duration>) -> Shutdown {
        let (mut idle, draining, failed) = self.pool.take_all();
        self.pool.arenas.clear();
        idle.extend(self.pool.fork_server.take().await);
        Shutdown::new(idle, draining, grace).with_failed(failed)
    }

    /// Ends the workers that are idle or draining now, in the background.
    pub(in crate::worker) fn end_idle_in_background(&self) {
        self.pool.end_in_background();
    }

    pub(in crate::worker) fn pool(&self) -> &Arc<WorkerPool> {
        &self.pool
    }

    pub(in crate::worker) fn config(&self) -> &WorkerConfig {
        &self.pool.config
    }
}

impl fmt::Debug for WorkerContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerContext")
            .field("config", &self.pool.config)
            .field("statistics", &self.statistics())
            .field("closed", &self.pool.is_closed())
            .finish()
    }
}
