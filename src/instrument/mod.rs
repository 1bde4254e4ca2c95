//! Instruments: what a run tells about its tasks, to whoever wants to trace, count or measure them.
//!
//! An [`Instrument`] is given to [`RunBuilder::instrument`](crate::RunBuilder::instrument), or added and removed while the
//! run goes on: [`add_instrument`], [`remove_instrument`]. It belongs to that run, and all its hooks are called on that
//! run's thread, each at once when it happens; so they should be short. Without instruments a run pays for one look at a
//! thread-local at each of these places.
//!
//! # What is told when
//!
//! ```text
//! before_run  task_spawned(root)  ┬ task_scheduled(t)  before_task_step(t)  after_task_step(t) ┬  task_exited(root)  after_run
//!                                 ├ task_spawned(t) .. task_exited(t)                          │
//!                                 └ before_io_wait  after_io_wait ◄────────────────────────────┘
//! ```
//!
//! * A **step** is one poll. A task is polled by the nursery that it is in, and that by the task that opened it; so steps
//!   nest: that of the root task lies around all others of the same turn.
//! * Of a task that is woken, `task_scheduled` is told when its nursery takes it from the queue, for all who are in the
//!   queue, in the order of waking, before the first of them has its step. Not when it is woken, because that may be done
//!   on any thread, and under locks of whoever wakes. A task that was woken twice by then was scheduled once; one that is
//!   cancelled by another in the queue was scheduled, and has no step.
//! * `task_spawned` is told before `spawn` returns; of a task that another thread has put in, when its nursery first takes
//!   it from the queue. It precedes everything else that is told of that task, and `task_exited` follows everything: the
//!   task's future is gone then. A task that was never taken from the queue, because its nursery was dropped before, never
//!   exits, unless it was told that it was spawned.
//! * `before_io_wait` is told whenever the run has nothing to poll, or lets the reactor have a turn in between: then its
//!   time-out is zero.
//! * While `before_task_step` and `after_task_step` are called, [`current_task`](crate::nursery::current_task) is the task that they
//!   are about. The other hooks of tasks are called in the task that spawned it or opened its nursery; the four hooks of
//!   the run in no task.
//!
//! What runs outside of a run tells nobody anything: a nursery in `smol::spawn` or in tokio, a child that was put on an
//! executor, a thread, a worker process.
//!
//! # What a hook may do
//!
//! Anything that does not wait: spawn, cancel, wake, add instruments or remove them (itself, too). Instruments that are
//! added by a hook are told from the next event on; those that are removed are told nothing more. A hook that spawns
//! whenever something is spawned will not come to an end.
//!
//! If a hook panics, its instrument is removed, a `tracing` event at ERROR says so, and the run and the other instruments
//! go on.
//!
//! ```
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
//! use seedbed::instrument::Instrument;
//! use seedbed::nursery::TaskInfo;
//! use seedbed::{RunBuilder, checkpoint, open_nursery};
//!
//! /// Counts polls.
//! #[derive(Default)]
//! struct Steps(AtomicUsize);
//!
//! impl Instrument for Steps {
//!     fn after_task_step(&self, task: &TaskInfo) {
//!         if task.name() == "counted" {
//!             self.0.fetch_add(1, Relaxed);
//!         }
//!     }
//! }
//!
//! let steps = Arc::new(Steps::default());
//! RunBuilder::new().instrument(steps.clone()).run(open_nursery(|n| async move {
//!     n.named("counted").spawn(checkpoint());
//! }));
//! assert_eq!(steps.0.load(Relaxed), 2);
//! ```

mod active;
mod spans;

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::task::TaskInfo;

pub use active::{add_instrument, remove_instrument};
pub use spans::TracingInstrument;

pub(crate) use active::{
    Instruments, Observed, RunId, after_io_wait, after_task_step, before_io_wait, before_task_step,
    current_run, is_observing, task_exited, task_scheduled, task_spawned,
};

/// Is told what the tasks of a run do. Every method may be left out. [The module](self) says what is told when.
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
    /// The run begins. Nothing was spawned yet.
    fn before_run(&self) {}

    /// The run has ended: all tasks, and the run's future, are gone.
    fn after_run(&self) {}

    /// There is a new task.
    fn task_spawned(&self, task: &TaskInfo) {
        _ = task;
    }

    /// The task is about to have a step.
    fn task_scheduled(&self, task: &TaskInfo) {
        _ = task;
    }

    /// The task's future is polled next.
    fn before_task_step(&self, task: &TaskInfo) {
        _ = task;
    }

    /// The task's future was polled, or panicked meanwhile.
    fn after_task_step(&self, task: &TaskInfo) {
        _ = task;
    }

    /// The task's future is gone.
    fn task_exited(&self, task: &TaskInfo, how: TaskExit) {
        _ = (task, how);
    }

    /// The run waits, on this thread, for at most `timeout`; `None` if there is nothing but wake-ups to wait for.
    fn before_io_wait(&self, timeout: Option<Duration>) {
        _ = timeout;
    }

    /// The run has waited; `timeout` is what `before_io_wait` was told.
    fn after_io_wait(&self, timeout: Option<Duration>) {
        _ = timeout;
    }
}

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
    /// With a result.
    Finished,
    /// Its future was dropped where it waited.
    Cancelled,
    /// Its future, or the drop of that, panicked.
    Panicked,
}

/// The instrument that was to be removed is not active in this run.
///
/// ```
/// use std::sync::Arc;
/// use seedbed::instrument::{Instrument, NotActiveError, remove_instrument};
/// use seedbed::run;
///
/// struct Silent;
/// impl Instrument for Silent {}
///
/// run(async {
///     assert_eq!(remove_instrument(&Arc::new(Silent)), Err(NotActiveError));
/// });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotActiveError;

impl fmt::Display for NotActiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the instrument is not active in this run: it was never added, or it was removed before")
    }
}

impl Error for NotActiveError {}
