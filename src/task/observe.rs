//! The hooks by which a nursery tells the run's instruments about its children.
//!
//! The module `instrument`, which is above this one, sets the observer of the run on its thread. A
//! nursery without instruments pays for one read of a thread-local at each of these places.

use std::cell::Cell;

use super::child_ref::NurseryState;
use super::ids::RunId;
use super::info::TaskInfo;

/// How a task ended.
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use seedbed::instrument::{Instrument, TaskExit};
/// use seedbed::nursery::TaskInfo;
/// use seedbed::time::sleep_forever;
/// use seedbed::{RunBuilder, open_nursery};
///
/// #[derive(Default)]
/// struct Last(Mutex<Option<TaskExit>>);
///
/// impl Instrument for Last {
///     fn task_exited(&self, task: &TaskInfo, how: TaskExit) {
///         if task.name() == "sleeper" {
///             *self.0.lock().unwrap() = Some(how);
///         }
///     }
/// }
///
/// let last = Arc::new(Last::default());
/// RunBuilder::new().instrument(last.clone()).run(open_nursery(|n| async move {
///     n.named("sleeper").spawn(sleep_forever()).cancel().await;
/// }));
/// assert_eq!(*last.0.lock().unwrap(), Some(TaskExit::Cancelled));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TaskExit {
    /// The task returned a result.
    Finished,
    /// The task's future was dropped where it waited.
    Cancelled,
    /// The task's future panicked, or its drop did.
    Panicked,
}

/// Is called for each event in the life of a task. Must not panic.
pub(crate) trait TaskObserver: Sync {
    fn task_spawned(&self, task: &TaskInfo);
    fn task_scheduled(&self, task: &TaskInfo);
    fn before_task_step(&self, task: &TaskInfo);
    fn after_task_step(&self, task: &TaskInfo);
    fn task_exited(&self, task: &TaskInfo, how: TaskExit);
}

thread_local! {
    /// The run on this thread.
    static RUN: Cell<Option<RunId>> = const { Cell::new(None) };
    /// The run on this thread if it has an observer. The hot paths read only this.
    static OBSERVED_RUN: Cell<Option<RunId>> = const { Cell::new(None) };
    static OBSERVER: Cell<Option<&'static dyn TaskObserver>> = const { Cell::new(None) };
}

/// Returns the run on this thread.
pub(crate) fn current_run() -> Option<RunId> {
    RUN.get()
}

/// Sets the run on this thread, which has no observer yet.
pub(crate) fn set_current_run(run: Option<RunId>) {
    RUN.set(run);
    set_observer(None);
}

/// Sets the observer of the run on this thread.
pub(crate) fn set_observer(observer: Option<&'static dyn TaskObserver>) {
    OBSERVED_RUN.set(RUN.get().filter(|_| observer.is_some()));
    OBSERVER.set(observer);
}

/// Tells whether `run` is the run on this thread and has an observer.
#[inline]
pub(crate) fn is_observed(run: Option<RunId>) -> bool {
    match OBSERVED_RUN.get() {
        None => false,
        observed => observed == run,
    }
}

impl NurseryState {
    /// Tells whether the nursery's run is the one on this thread and has an observer.
    #[inline]
    pub(super) fn is_observed(&self) -> bool {
        is_observed(self.run)
    }
}

/// Calls the observer of the run on this thread.
#[cold]
#[inline(never)]
pub(crate) fn notify(call: impl FnOnce(&'static dyn TaskObserver)) {
    if let Some(observer) = OBSERVER.get() {
        call(observer);
    }
}
