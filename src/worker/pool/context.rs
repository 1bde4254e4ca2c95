//! The public handle of a worker context.
//!
//! A context is tied to no run, executor or thread: the descriptors of its workers are registered
//! with smol's process-wide reactor, and work that has no caller runs in the
//! [`background`](crate::process::background).

use std::fmt;
use std::sync::Arc;

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

    /// Returns the statistics of the context. Idle workers that have exited are not counted as idle,
    /// even if the context has not noticed before. This asks the kernel once for each idle worker,
    /// and works after the end of the context too. While calls are in progress on other
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

    /// Kills all workers of the context that exist now, at once: idle ones, those that are starting,
    /// and those that run a job. A shutdown waits for calls in progress, however long their jobs
    /// run; this ends them.
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
            what.push_str("the shutdown of a worker context");
            if let Some(name) = self.config().context_name() {
                what.push_str(&format!(", `{name}`"));
            }
            let calls = self.pool.statistics().running_workers;
            what.push_str(&format!(
                " (with {calls} calls in progress; its `grace_period` begins when they have ended, and `kill_all` ends them)"
            ));
        })
        .await
    }

    /// Ends the workers that are idle or draining now.
    pub(in crate::worker) async fn end_idle(&self) -> Result<(), WorkerError> {
        let (mut idle, draining, failed) = self.pool.take_all();
        self.pool.arenas.clear();
        idle.extend(self.pool.fork_server.take().await);
        Shutdown::new(idle, draining, self.pool.config.grace())
            .with_failed(failed)
            .wait()
            .await
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
