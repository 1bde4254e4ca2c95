//! Instruments: hooks that a run calls for the events in the life of its tasks, to trace, count or
//! measure them.
//!
//! An [`Instrument`] is passed to [`RunBuilder::instrument`](crate::RunBuilder::instrument), or
//! added and removed during the run by [`add_instrument`] and [`remove_instrument`]. It belongs to
//! that run. All its hooks are called on the run's thread, at the moment of the event, so they
//! should be short. A run without instruments pays for one read of a thread-local per event.
//!
//! # Order of events
//!
//! ```text
//! before_run  task_spawned(root)  ┬ task_scheduled(t)  before_task_step(t)  after_task_step(t) ┬  task_exited(root)  after_run
//!                                 ├ task_spawned(t) .. task_exited(t)                          │
//!                                 └ before_io_wait  after_io_wait ◄────────────────────────────┘
//! ```
//!
//! * A **step** is one poll of a task. A nursery polls its children, and the task that opened the
//!   nursery polls the nursery. So steps nest: each step of a child is within a step of the root
//!   task.
//! * `task_scheduled` is called for woken tasks when their nursery takes them from its queue: for
//!   all of them, in the order of waking, before the first of them has its step. It is not called
//!   at the time of the wake-up, which may happen on any thread and under locks. A task that was
//!   woken twice by then is scheduled once. A task that is cancelled by another one in the queue is
//!   scheduled, and has no step.
//! * `task_spawned` is called before `spawn` returns. For a task that another thread has spawned,
//!   it is called when the nursery first takes the task from its queue. It comes before all other
//!   events of the task, and `task_exited` after them. A task that was never taken from the queue
//!   because its nursery was dropped has no `task_exited`, unless it had a `task_spawned`.
//! * `before_io_wait` is called when the run has nothing to poll, and when it polls the reactor in
//!   between. In the second case the time-out is zero.
//! * In `before_task_step` and `after_task_step`, [`current_task`](crate::nursery::current_task) is
//!   the task of the step. The other hooks of tasks are called in the task that spawned the task or
//!   opened its nursery, and the four hooks of the run in no task.
//!
//! Nothing outside of a run has events: a nursery in `smol::spawn` or in tokio, a child that an
//! executor polls, a thread, a worker process.
//!
//! # Rules for hooks
//!
//! A hook may do anything that does not wait: spawn, cancel, wake, add and remove instruments, also
//! its own. The hooks of an added instrument are called from the next event on, and those of a
//! removed one no more. A hook that spawns a task for every spawned task never ends.
//!
//! If a hook panics, its instrument is removed, and a `tracing` event at ERROR reports the panic.
//! The run and the other instruments go on.
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
mod hooks;
mod tracing_instrument;

pub use crate::task::observe::TaskExit;
pub use active::{NotActiveError, add_instrument, remove_instrument};
pub use hooks::Instrument;
pub use tracing_instrument::TracingInstrument;

pub(crate) use crate::task::RunId;
pub(crate) use crate::task::observe::{current_run, is_observed};
pub(crate) use active::{
    Instruments, Observed, after_io_wait, after_task_step, before_io_wait, before_task_step,
    task_exited, task_scheduled, task_spawned,
};
