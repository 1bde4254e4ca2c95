//! How long workers may take to start, to be idle, to exit and to end once killed.

use std::time::Duration;

use super::worker_config::WorkerConfig;

impl WorkerConfig {
    /// Sets how long a new worker, or the fork server, may take to reach the hook: ten seconds,
    /// unless this is set. After that it is killed, and the call fails with
    /// [`WorkerErrorKind::Start`](crate::worker::WorkerErrorKind::Start). This is real time,
    /// whatever clock the run has. `preload` and `init` closures, which run after the hook, may
    /// take longer.
    ///
    /// A worker executes `main` again. If `main` waits before the hook for something that this
    /// process holds, such as a lock or a port, the worker waits too.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let config = WorkerConfig::new().start_timeout(Duration::from_secs(60));
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         assert_eq!(workers.run_sync(i32::abs, -3).await.unwrap(), 3);
    ///     }));
    /// }
    /// ```
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.start_timeout = timeout;
        self
    }

    /// Sets how long a worker waits for its next job before it exits. The timeout starts after the
    /// worker's first job. This is real time, whatever clock the run has. A worker whose timeout is
    /// zero exits after each job, unless the next one has arrived by then.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let config = WorkerConfig::new().idle_timeout(Duration::from_millis(1));
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         workers.run_sync(i32::abs, -3).await.unwrap();
    ///         while workers.statistics().idle_workers > 0 {
    ///             smol::Timer::after(Duration::from_millis(1)).await; // the worker is about to exit
    ///         }
    ///         assert_eq!(workers.statistics().idle_workers, 0);
    ///     }));
    /// }
    /// ```
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = Some(timeout);
        self
    }

    /// Lets workers wait for jobs indefinitely, until their context is shut down.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// fn pid(_: ()) -> u32 {
    ///     std::process::id()
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let config = WorkerConfig::new().no_idle_timeout();
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         let first = workers.run_sync(pid, ()).await.unwrap();
    ///         // The worker stays, however long the pause is.
    ///         assert_eq!(workers.run_sync(pid, ()).await.unwrap(), first);
    ///     }));
    /// }
    /// ```
    pub fn no_idle_timeout(mut self) -> Self {
        self.idle_timeout = None;
        self
    }

    /// Sets how long the workers may take to exit when their context is shut down. The remaining
    /// ones are killed then. This is real time, whatever clock the run has.
    ///
    /// The period begins when the calls in progress have ended, and does not bound them: a shutdown
    /// waits for a job however long it runs. [`WorkerContext::kill_all`] ends such calls.
    ///
    /// [`WorkerContext::kill_all`]: crate::WorkerContext::kill_all
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let config = WorkerConfig::new().grace_period(Duration::from_secs(5));
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         workers.run_sync(i32::abs, -3).await.unwrap();
    ///         // No worker had to be killed.
    ///         assert!(workers.shutdown().await.is_ok());
    ///     }));
    /// }
    /// ```
    pub fn grace_period(mut self, grace: Duration) -> Self {
        self.grace_period = Some(grace);
        self
    }

    /// Removes the grace period: a shutdown waits for the workers however long they take to exit.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let config = WorkerConfig::new().no_grace_limit();
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         workers.run_sync(i32::abs, -3).await.unwrap();
    ///         assert!(workers.shutdown().await.is_ok());
    ///     }));
    /// }
    /// ```
    pub fn no_grace_limit(mut self) -> Self {
        self.grace_period = None;
        self
    }

    /// Sets how long this library waits for the end of a process that it has killed, five seconds
    /// by default. This is real time, whatever clock the run has.
    ///
    /// The kernel usually ends a killed process within milliseconds. But a process that is frozen
    /// (a cgroup's freezer) or waits for a device or a network file system does not end, and one
    /// that has another user may not be killed. After the timeout, a `tracing` event at WARN names
    /// the process and its job, the wait ends, and the call releases its limiter token and returns:
    /// as cancelled, or with an error of kind [`Broken`](crate::worker::WorkerErrorKind::Broken) or
    /// [`Start`](crate::worker::WorkerErrorKind::Start). A shutdown counts the process as killed.
    /// The process is reaped in the background whenever it ends.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::{WorkerConfig, move_on_after, open_worker_context};
    ///
    /// fn spin(_: ()) {
    ///     loop {
    ///         std::hint::spin_loop()
    ///     }
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let config = WorkerConfig::new().kill_timeout(Duration::from_secs(60));
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         // This worker can be killed, so the call ends long before that.
    ///         let call = workers.run_sync(spin, ()).kill_on_cancel(true);
    ///         assert!(move_on_after(Duration::from_millis(20), call).await.is_none());
    ///     }));
    /// }
    /// ```
    pub fn kill_timeout(mut self, timeout: Duration) -> Self {
        self.kill_timeout = timeout;
        self
    }
}
