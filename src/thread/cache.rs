//! A cache of threads: the thread that became idle last gets the next job, and a thread that stays
//! idle exits.
//!
//! A thread becomes idle *before* it delivers its result, so a caller that starts its next job
//! immediately finds this thread, whose cache is warm.

#[cfg(target_os = "linux")]
use std::ffi::CString;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::tuning::IDLE_THREAD_TIMEOUT;
use crate::sys::fork_detector::PerProcess;
use crate::sys::main_thread::spawn_like_main;
use crate::sys::primitives::lock;
use crate::sys::unwind::discard;

/// The name of a thread without a job, or with a job without a name.
const THREAD_NAME: &str = "seedbed-thread";

/// A job for a thread.
pub(super) trait Job: Send {
    /// The name of the thread during the job.
    fn name(&self) -> Option<&str>;
    /// Runs the function and drops its resources. Does not panic.
    fn run(&mut self);
    /// Delivers the result.
    fn deliver(self: Box<Self>);
}

/// An idle thread's slot for its next job.
#[derive(Default)]
struct IdleThread {
    job: Mutex<Option<Box<dyn Job>>>,
    job_added: Condvar,
}

/// The idle threads, the latest one last. A thread that is removed from here is given a job. A
/// forked process has none.
static IDLE_THREADS: PerProcess<Mutex<Vec<Arc<IdleThread>>>> = PerProcess::new();

/// Gives a job to an idle thread or a new one. If no thread can be started, the job is dropped.
pub(super) fn start(job: Box<dyn Job>) -> io::Result<()> {
    let idle = lock(IDLE_THREADS.get()).pop();
    match idle {
        Some(thread) => {
            *lock(&thread.job) = Some(job);
            thread.job_added.notify_one();
            Ok(())
        }
        None => spawn_like_main(THREAD_NAME, move || run_jobs(job)),
    }
}

/// The main function of a thread.
fn run_jobs(first: Box<dyn Job>) {
    let thread = Arc::new(IdleThread::default());
    let mut next = Some(first);
    while let Some(mut job) = next.take() {
        let named = job.name().map(set_name).is_some();
        job.run();
        if named {
            set_name(THREAD_NAME);
        }
        lock(IDLE_THREADS.get()).push(thread.clone());
        // The result of an abandoned call is dropped here. If that panics, the panic's message has
        // been printed, and the thread continues. It is idle already, and may have its next job.
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| job.deliver())) {
            discard(payload);
        }
        next = thread.wait(IDLE_THREAD_TIMEOUT);
    }
}

impl IdleThread {
    /// Waits for the next job, up to the time `idle`. `None` if no job has come and the thread is
    /// no longer in the cache.
    fn wait(self: &Arc<Self>, idle: Duration) -> Option<Box<dyn Job>> {
        let mut job = lock(&self.job);
        loop {
            if let Some(job) = job.take() {
                return Some(job);
            }
            let (woken, timeout) = self
                .job_added
                .wait_timeout(job, idle)
                .unwrap_or_else(PoisonError::into_inner);
            job = woken;
            // No deadlock with `start`, which locks in the other order: it unlocks the first mutex
            // before the second.
            if timeout.timed_out() && job.is_none() && self.remove_from_idle() {
                return None;
            }
        }
    }

    /// Removes the thread from the cache; false if `start` has removed it already and is about to
    /// give it a job.
    fn remove_from_idle(self: &Arc<Self>) -> bool {
        let mut idle = lock(IDLE_THREADS.get());
        let before = idle.len();
        idle.retain(|thread| !Arc::ptr_eq(thread, self));
        idle.len() < before
    }
}

/// Names this thread; cut to 15 bytes, Linux's limit, and at the first zero byte. Other systems
/// show the name with which the thread was started.
#[cfg_attr(not(target_os = "linux"), allow(unused_variables))]
fn set_name(name: &str) {
    #[cfg(target_os = "linux")]
    set_name_in_kernel(name);
}

#[cfg(target_os = "linux")]
fn set_name_in_kernel(name: &str) {
    let bytes = name.bytes().take_while(|&byte| byte != 0).take(15);
    let name = CString::new(bytes.collect::<Vec<_>>()).expect("cut before the first zero");
    // The name is only informative, so an error is ignored.
    _ = rustix::thread::set_name(&name);
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    impl Job for Nothing {
        fn name(&self) -> Option<&str> {
            None
        }

        fn run(&mut self) {}

        fn deliver(self: Box<Self>) {}
    }

    #[test]
    fn a_thread_that_stays_idle_ends_and_is_not_offered_a_job_any_more() {
        let thread = Arc::new(IdleThread::default());
        lock(IDLE_THREADS.get()).push(thread.clone());
        assert!(thread.wait(Duration::ZERO).is_none());
        assert!(
            !lock(IDLE_THREADS.get())
                .iter()
                .any(|idle| Arc::ptr_eq(idle, &thread))
        );
    }

    #[test]
    fn a_thread_whose_time_is_up_waits_for_the_job_that_is_on_its_way() {
        let thread = Arc::new(IdleThread::default());
        // As if `start` had removed it from the cache and were about to give it a job.
        let giver = thread.clone();
        let giver_thread = std::thread::spawn(move || {
            *lock(&giver.job) = Some(Box::new(Nothing));
            giver.job_added.notify_one();
        });
        assert!(thread.wait(Duration::ZERO).is_some());
        giver_thread.join().unwrap();
    }
}
