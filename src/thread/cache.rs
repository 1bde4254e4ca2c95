//! Threads that are used again: the one that became idle last is taken first, and one that stays
//! idle ends.
//!
//! A thread is idle again *before* it delivers its result, so that a caller who at once has the
//! next job finds the thread that is still warm.

use std::ffi::CString;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::cancel::lock;

/// How long a thread stays without a job.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// What threads are called that have no job, or one without a name.
const NAME: &str = "seedbed-thread";

/// What a thread does.
pub(super) trait Job: Send {
    /// What the thread is called meanwhile.
    fn name(&self) -> Option<&str>;
    /// Does the work, and gives back what was lent for it. Does not panic.
    fn run(&mut self);
    /// Hands the result over.
    fn deliver(self: Box<Self>);
}

/// Where an idle thread waits for a job.
#[derive(Default)]
struct Seat {
    job: Mutex<Option<Box<dyn Job>>>,
    taken: Condvar,
}

/// The idle threads, the warmest last. Whoever takes a seat out of here puts a job on it.
static IDLE: Mutex<Vec<Arc<Seat>>> = Mutex::new(Vec::new());

/// Gives a job to an idle thread, or to a new one. If there can be none, the job is dropped.
pub(super) fn start(job: Box<dyn Job>) -> io::Result<()> {
    let idle = lock(&IDLE).pop();
    match idle {
        Some(seat) => {
            *lock(&seat.job) = Some(job);
            seat.taken.notify_one();
            Ok(())
        }
        None => std::thread::Builder::new()
            .name(NAME.to_string())
            .spawn(move || work(job))
            .map(drop),
    }
}

/// A thread's life.
fn work(first: Box<dyn Job>) {
    let seat = Arc::new(Seat::default());
    let mut next = Some(first);
    while let Some(mut job) = next.take() {
        let named = job.name().map(set_name).is_some();
        job.run();
        if named {
            set_name(NAME);
        }
        lock(&IDLE).push(seat.clone());
        // A result that nobody wants any more is dropped here, and may panic; the panic's message
        // is all that is left.
        drop(catch_unwind(AssertUnwindSafe(|| job.deliver())));
        next = seat.wait(IDLE_TIMEOUT);
    }
}

impl Seat {
    /// Waits for the next job, as long as it may be idle. `None` if none comes, and none will.
    fn wait(self: &Arc<Self>, idle: Duration) -> Option<Box<dyn Job>> {
        let mut job = lock(&self.job);
        loop {
            if let Some(job) = job.take() {
                return Some(job);
            }
            let (woken, timeout) = self
                .taken
                .wait_timeout(job, idle)
                .unwrap_or_else(PoisonError::into_inner);
            job = woken;
            // The other order of locks than in `start` is no danger: there, one is given back
            // before the other.
            if timeout.timed_out() && job.is_none() && self.leave() {
                return None;
            }
        }
    }

    /// Stops being idle; false if somebody has just taken this seat, and is about to put a job on
    /// it.
    fn leave(self: &Arc<Self>) -> bool {
        let mut idle = lock(&IDLE);
        let before = idle.len();
        idle.retain(|seat| !Arc::ptr_eq(seat, self));
        idle.len() < before
    }
}

/// Names this thread, as far as the system has room for it: 15 bytes, none of them zero.
fn set_name(name: &str) {
    let bytes = name.bytes().take_while(|&byte| byte != 0).take(15);
    let name = CString::new(bytes.collect::<Vec<_>>()).expect("cut before the first zero");
    // A name is for people who look; that there is none stops nobody.
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
        let seat = Arc::new(Seat::default());
        lock(&IDLE).push(seat.clone());
        assert!(seat.wait(Duration::ZERO).is_none());
        assert!(!lock(&IDLE).iter().any(|idle| Arc::ptr_eq(idle, &seat)));
    }

    #[test]
    fn a_thread_whose_time_is_up_waits_for_the_job_that_is_on_its_way() {
        let seat = Arc::new(Seat::default());
        // Taken from among the idle ones; the job comes a moment later.
        let giver = seat.clone();
        let gives = std::thread::spawn(move || {
            *lock(&giver.job) = Some(Box::new(Nothing));
            giver.taken.notify_one();
        });
        assert!(seat.wait(Duration::ZERO).is_some());
        gives.join().unwrap();
    }
}
