//! How many functions are running on threads, for each run.
//!
//! A job holds an [`Active`] from the moment at which it is handed to a thread until its function
//! has returned and all that it had is gone, also if nobody waits for it any more.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use event_listener::Event;

use crate::ambient;
use crate::ambient::Run;
use crate::variables::RunVar;

/// The jobs of one run.
#[derive(Default)]
struct Jobs {
    active: AtomicUsize,
    /// Told whenever none is left.
    ended: Event,
}

static OF_RUN: RunVar<Arc<Jobs>> = RunVar::new();

/// The jobs of all who are outside of any run.
static OUTSIDE: LazyLock<Arc<Jobs>> = LazyLock::new(Arc::default);

fn jobs_here() -> Arc<Jobs> {
    match ambient::current_run() {
        Some(_) => OF_RUN.get_or_init(Arc::default),
        None => OUTSIDE.clone(),
    }
}

/// One job, until it is dropped.
pub(super) struct Active(Arc<Jobs>);

impl Active {
    /// Counts a job for the run that this is called in.
    pub(super) fn new() -> Self {
        let jobs = jobs_here();
        jobs.active.fetch_add(1, Ordering::SeqCst);
        Active(jobs)
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        if self.0.active.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.ended.notify(usize::MAX);
        }
    }
}

/// Returns the number of functions that run on threads for this run: calls of
/// [`run_sync`](super::run_sync) that have a thread and have not ended, also abandoned ones. Those
/// that wait for the limiter do not count.
///
/// Outside of a run it is about the calls that were made outside of any run, in the whole process.
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
    jobs_here().active.load(Ordering::SeqCst)
}

/// The same for a certain run.
pub(crate) fn active_in(run: &Run) -> usize {
    OF_RUN
        .get_in(run)
        .map_or(0, |jobs| jobs.active.load(Ordering::SeqCst))
}

/// Waits until no function runs on a thread for this run: until [`active_thread_count`] is zero.
///
/// For tests of code that abandons threads. Whatever starts threads again and again makes this wait
/// again and again.
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
    let jobs = jobs_here();
    while jobs.active.load(Ordering::SeqCst) > 0 {
        let ended = jobs.ended.listen();
        // It may have been told before the listener was there.
        if jobs.active.load(Ordering::SeqCst) > 0 {
            ended.await;
        }
    }
}
