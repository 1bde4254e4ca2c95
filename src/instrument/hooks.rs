//! The trait that instruments implement.

use std::time::Duration;

use crate::task::TaskInfo;
use crate::task::observe::TaskExit;

/// Hooks that a run calls for the events in the life of its tasks.
///
/// Every hook has an empty default. The [module](crate::instrument) describes when each hook is
/// called.
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use seedbed::instrument::{Instrument, TaskExit};
/// use seedbed::nursery::TaskInfo;
/// use seedbed::{RunBuilder, open_nursery};
///
/// #[derive(Default)]
/// struct Exits(Mutex<Vec<(String, TaskExit)>>);
///
/// impl Instrument for Exits {
///     fn task_exited(&self, task: &TaskInfo, how: TaskExit) {
///         self.0.lock().unwrap().push((task.name().to_string(), how));
///     }
/// }
///
/// let exits = Arc::new(Exits::default());
/// RunBuilder::new().instrument(exits.clone()).run(open_nursery(|n| async move {
///     n.named("child").spawn(async {});
/// }));
/// assert_eq!(exits.0.lock().unwrap()[0], ("child".to_string(), TaskExit::Finished));
/// ```
pub trait Instrument: Send + Sync {
    /// Called when the run begins, before any task is spawned.
    fn before_run(&self) {}

    /// Called when the run has ended, and the futures of all tasks are dropped.
    fn after_run(&self) {}

    /// Called when a task was spawned.
    fn task_spawned(&self, task: &TaskInfo) {
        _ = task;
    }

    /// Called when a woken task is about to be polled.
    fn task_scheduled(&self, task: &TaskInfo) {
        _ = task;
    }

    /// Called before the task's future is polled.
    fn before_task_step(&self, task: &TaskInfo) {
        _ = task;
    }

    /// Called after the task's future was polled or has panicked.
    fn after_task_step(&self, task: &TaskInfo) {
        _ = task;
    }

    /// Called when the task has ended, and its future is dropped.
    fn task_exited(&self, task: &TaskInfo, how: TaskExit) {
        _ = (task, how);
    }

    /// Called before the run waits on this thread, for at most `timeout`. `None` if it waits only
    /// for wake-ups.
    fn before_io_wait(&self, timeout: Option<Duration>) {
        _ = timeout;
    }

    /// Called after the run has waited, with the `timeout` of the call of `before_io_wait`.
    fn after_io_wait(&self, timeout: Option<Duration>) {
        _ = timeout;
    }
}
