//! The number of functions that run on threads, for each run.
//!
//! A job holds an [`ActiveJob`] from the moment at which a thread gets it until its function has
//! returned and dropped its captured values, also if the call was abandoned.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use crate::ambient;
use crate::ambient::Run;
use crate::sync::Event;
use crate::sys::primitives::lock;
use crate::variables::RunVar;

/// The number of jobs of one run.
#[derive(Default)]
struct RunJobs {
    active: AtomicUsize,
    /// Set when the number next becomes 0, and then replaced.
    ended: Mutex<Event>,
}

static RUN_JOBS: RunVar<Arc<RunJobs>> = RunVar::new();

/// The jobs of all calls that were made outside of any run.
static JOBS_OUTSIDE_RUNS: LazyLock<Arc<RunJobs>> = LazyLock::new(Arc::default);

fn current_jobs() -> Arc<RunJobs> {
    match ambient::current_run() {
        Some(_) => RUN_JOBS.get_or_init(Arc::default),
        None => JOBS_OUTSIDE_RUNS.clone(),
    }
}

/// Counts one job until it is dropped.
pub(super) struct ActiveJob(Arc<RunJobs>);

impl ActiveJob {
    /// Counts a job for the current run.
    pub(super) fn new() -> Self {
        let jobs = current_jobs();
        jobs.active.fetch_add(1, Ordering::SeqCst);
        ActiveJob(jobs)
    }
}

impl Drop for ActiveJob {
    fn drop(&mut self) {
        if self.0.active.fetch_sub(1, Ordering::SeqCst) == 1 {
            let ended = std::mem::take(&mut *lock(&self.0.ended));
            ended.set();
        }
    }
}

/// Returns the number of functions that run on threads for this run: calls of
/// [`run_sync`](crate::thread::run_sync()) that have a thread and have not ended, also abandoned
/// ones. Calls that wait for the limiter do not count.
///
/// Outside of a run, it counts the calls of the whole process that were made outside of any run.
/// Mainly for programs that are ported from Trio, and for tests.
///
/// ```
/// use seedbed::{run, thread};
///
/// run(async {
///     let call = thread::run_sync(|| thread::call_in_task(thread::active_thread_count));
///     assert_eq!(call.await, Ok(1));
///     assert_eq!(thread::active_thread_count(), 0);
/// });
/// ```
pub fn active_thread_count() -> usize {
    current_jobs().active.load(Ordering::SeqCst)
}

/// Returns the number of functions that run on threads for `run`.
pub(crate) fn active_in(run: &Run) -> usize {
    RUN_JOBS
        .get_in(run)
        .map_or(0, |jobs| jobs.active.load(Ordering::SeqCst))
}

/// Waits until no function runs on a thread for this run: until [`active_thread_count`] is 0.
///
/// For tests of code that abandons threads. It waits for calls that begin during the wait, too.
///
/// # Cancellation
///
/// Atomic: if cancelled, nothing has happened.
///
/// ```
/// use std::sync::mpsc;
/// use std::time::Duration;
/// use seedbed::{move_on_after, run, thread};
///
/// run(async {
///     let (let_go, go) = mpsc::channel::<()>();
///     let stuck = thread::run_sync(move || go.recv()).abandon_on_cancel(true);
///     move_on_after(Duration::from_millis(1), stuck).await;
///     assert_eq!(thread::active_thread_count(), 1);
///     drop(let_go);
///     thread::wait_all_threads_completed().await;
///     assert_eq!(thread::active_thread_count(), 0);
/// });
/// ```
pub async fn wait_all_threads_completed() {
    let jobs = current_jobs();
    while jobs.active.load(Ordering::SeqCst) > 0 {
        let ended = lock(&jobs.ended).clone();
        // The number may have become 0 before the event was cloned.
        if jobs.active.load(Ordering::SeqCst) > 0 {
            ended.wait().await;
        }
    }
}
