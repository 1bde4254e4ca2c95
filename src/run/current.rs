//! The run that polls the running code.

use std::future::IntoFuture;

use super::handle::RunHandle;
use super::statistics::RunStatistics;
use crate::ambient;
use crate::cancel::position;
use crate::task::Task;

/// Returns whether a run polls the running code: one of its tasks, or a call that was queued in it.
/// Then there is a [`current_run`], and [`current_time`](crate::time::current_time) is the time of
/// its clock.
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
    ambient::current_run().is_some()
}

/// Returns whether the running code belongs to a task of a run. A [queued
/// call](RunHandle::call_soon) is in a run but in no task.
///
/// ```
/// use seedbed::run::{current_run, in_run, in_task};
/// use seedbed::{checkpoint, run};
///
/// run(async {
///     assert!(in_task());
///     current_run().call_soon(|| assert!(in_run() && !in_task())).unwrap();
///     checkpoint().await;
/// });
/// ```
pub fn in_task() -> bool {
    position::is_in_task_of_run()
}

/// Returns a handle on the run that polls the running code.
///
/// # Panics
///
/// Outside of a run, which [`in_run`] detects. Other threads are outside of a
/// run: give them the handle.
///
/// ```
/// use seedbed::run::current_run;
/// use seedbed::{run, thread};
///
/// run(async {
///     let handle = current_run();
///     let call = thread::run_sync(move || handle.call(|| "in the run").unwrap());
///     assert_eq!(call.await, "in the run");
/// });
/// ```
#[track_caller]
pub fn current_run() -> RunHandle {
    RunHandle::current().unwrap_or_else(|| {
        panic!(
            "there is no current run: this is not polled by seedbed::run; a thread has to be given the RunHandle"
        )
    })
}

/// Returns a snapshot of what the current run has to do.
///
/// # Panics
///
/// Outside of a run. Other threads use
/// [`RunHandle::statistics`](crate::run::RunHandle::statistics).
///
/// ```
/// use std::time::Duration;
/// use seedbed::run::current_statistics;
/// use seedbed::{checkpoint, fail_after, run};
///
/// run(async {
///     let body = async {
///         checkpoint().await;
///         current_statistics().time_to_next_deadline
///     };
///     let left = fail_after(Duration::from_secs(5), body).await.unwrap();
///     assert!(left.unwrap() <= Duration::from_secs(5));
///     assert_eq!(current_statistics().time_to_next_deadline, None);
/// });
/// ```
#[track_caller]
pub fn current_statistics() -> RunStatistics {
    current_run().statistics()
}

/// Spawns a task that belongs to the run: it is no child of the caller, and is cancelled when the
/// main future has ended.
///
/// A system task runs in none of the caller's cancel scopes and sees none of its tree variables. It
/// is for background work on behalf of the whole run, such as watching a shared connection. Work
/// for the caller belongs in a nursery.
///
/// The run waits for its system tasks; a system task in an active shield goes on until the shield
/// has ended. A system task that panics cancels the main future and all other system tasks, and
/// when these have ended, the panic comes out of [`run`](crate::run()). Dropping the [`Task`]
/// changes nothing.
///
/// # Panics
///
/// Outside of a run, and when the main future and all system tasks have ended. That is the case in
/// late [calls](RunHandle::call_soon), which use [`RunHandle::spawn_system_task`] instead.
///
/// ```
/// use seedbed::run::spawn_system_task;
/// use seedbed::sync::Event;
/// use seedbed::time::sleep_forever;
/// use seedbed::run;
///
/// run(async {
///     let ready = Event::new();
///     let said = ready.clone();
///     spawn_system_task(async move {
///         said.set();
///         sleep_forever().await // until the run ends
///     });
///     ready.wait().await;
///     assert_eq!(seedbed::run::current_statistics().system_tasks, 1);
/// });
/// ```
#[track_caller]
pub fn spawn_system_task<F>(future: F) -> Task<F::Output>
where
    F: IntoFuture,
    F::IntoFuture: Send + 'static,
    F::Output: Send + 'static,
{
    match current_run().spawn_system_task(future) {
        Ok(task) => task,
        Err(finished) => panic!("a system task cannot be spawned any more: {finished}"),
    }
}
