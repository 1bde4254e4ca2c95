//! Entering: `run`, which drives everything else, and the hook at which worker processes begin.
//!
//! [`builder`] sets a run up, and [`driver`] is its loop. What belongs to a run beside its main future: the way in for
//! threads ([`handle`], whose queue is [`entry`]), the [`system`] tasks, and [`statistics`]. (Its clock is in `time`,
//! its variables are in `run_var`, as all layers use them.)

mod builder;
mod driver;
mod entry;
mod error;
mod handle;
mod interrupt;
mod macros;
mod statistics;
mod system;

use std::future::IntoFuture;

use crate::cancel::current;

pub use builder::{CtrlC, RunBuilder};
pub use error::{EnterError, RunFinished};
pub use handle::{RunHandle, current_run, spawn_system_task};
pub use statistics::{RunStatistics, current_statistics};

pub use crate::run_var::{RunVar, RunVarToken};

/// Runs a future, and everything that it opens, to the end, on this thread; drives smol's reactor meanwhile.
///
/// This is `RunBuilder::new().run(future)`: real time, and Ctrl-C cancels (see [`CtrlC`]). When it returns, every task
/// and system task, every shielded section and (with the last run) every idle worker process has ended, and every call
/// that was [accepted](RunHandle::run_sync_soon) has happened.
///
/// In a worker process this is the hook: it serves jobs, and never returns. So everything *before* it in `main` runs
/// again, with the same arguments and environment: in each worker, or once for all that are
/// [forked](crate::worker::WorkerType).
///
/// # Panics
///
/// With `future`'s panic, or that of a [system task](spawn_system_task) or a [call](RunHandle::run_sync_soon), which
/// cancels everybody else; and if called inside of another run on the same thread.
///
/// ```
/// let five = seedbed::run(async { 5 });
/// assert_eq!(five, 5);
/// ```
pub fn run<F: IntoFuture>(future: F) -> F::Output {
    RunBuilder::new().run(future)
}

/// Whether a run polls the running code: its tasks, and the calls that were put into it. Then there is a
/// [`current_run`], and [`current_time`](crate::time::current_time) is by its clock.
///
/// ```
/// use seedbed::run::in_run;
/// use seedbed::{run, thread};
///
/// assert!(!in_run());
/// run(async {
///     assert!(in_run());
///     assert!(!thread::run_sync(in_run).await);
///     assert_eq!(thread::run_sync(|| thread::call_in_task(in_run)).await, Ok(true));
/// });
/// ```
pub fn in_run() -> bool {
    current::tree_of_run().is_some()
}

/// Whether a task of a run is the running code. In a [call that was put in](RunHandle::run_sync_soon), there is a run
/// but no task.
///
/// ```
/// use seedbed::run::{current_run, in_run, in_task};
/// use seedbed::{checkpoint, run};
///
/// run(async {
///     assert!(in_task());
///     current_run().run_sync_soon(|| assert!(in_run() && !in_task())).unwrap();
///     checkpoint().await;
/// });
/// ```
pub fn in_task() -> bool {
    current::in_task_of_run()
}
