//! The setting of a configuration that lets a launcher start the workers.

use super::launcher::Launcher;
use super::worker_config::WorkerConfig;

impl WorkerConfig {
    /// Lets a [`Launcher`] start the workers, on another machine perhaps.
    ///
    /// The workers are executed, so [`ForkServer`](crate::worker::WorkerType::ForkServer) cannot be
    /// combined with it. A call that finds no idle worker lets the launcher start one, as many as
    /// the context's [limiter](Self::limiter) allows.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::worker::Launcher;
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let config = WorkerConfig::new().launcher(Launcher::command(["env"]));
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         assert_eq!(workers.run_sync(i32::abs, -3).await.unwrap(), 3);
    ///     }));
    /// }
    /// ```
    pub fn launcher(mut self, launcher: Launcher) -> Self {
        if launcher.is_empty() {
            self.refuse(
                "launcher(..)".into(),
                "it has no word, so nothing would be executed",
            );
        }
        self.launcher = Some(launcher);
        self
    }

    /// Returns the launcher of the workers, if they have one.
    pub(in crate::worker) fn launcher_of_workers(&self) -> Option<&Launcher> {
        self.launcher.as_ref()
    }
}
