//! The shared part of a worker context: idle and draining workers, and the count of calls in
//! progress.
//!
//! One mutex guards the state. Code holds it only to move workers or to change counters, never
//! while it starts, kills or waits for a process. A warm call locks it twice: to take a worker, and
//! to give it back.

// A worker is large, so it stays in the box that it was created in.
#![allow(clippy::vec_box)]

use std::fmt;
use std::future::poll_fn;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_io::Timer;
use event_listener::Event;
use futures_lite::FutureExt;

use super::arenas::Arenas;
use super::draining::DrainingWorkers;
use super::idle::IdleWorkers;
use super::shutdown::Shutdown;
use super::statistics::{CallAccount, CallCounters, CallOutcome, WorkerStatistics};
use crate::process::background;
use crate::sys::fork_detector::is_forked_copy;
use crate::worker::config::WorkerConfig;
use crate::worker::conn::worker::{Health, Worker};
use crate::worker::end::KillReason;
use crate::worker::error::WorkerError;
use crate::worker::record::WorkerCounters;
use crate::worker::spawn::fork_server::ForkServer;
use crate::worker::tuning::{CALLS_PER_PRUNE, EXIT_GRACE};

/// The state that all handles and calls of a context share.
pub(in crate::worker) struct WorkerPool {
    pub(in crate::worker) config: WorkerConfig,
    pub(in crate::worker) fork_server: ForkServer,
    pub(in crate::worker) counters: Arc<WorkerCounters>,
    pub(in crate::worker) arenas: Arc<Arenas>,
    state: Mutex<PoolState>,
    /// Notified when a call ends after the pool was closed.
    call_ended: Event,
}

#[derive(Default)]
struct PoolState {
    idle: IdleWorkers<Box<Worker>>,
    draining: DrainingWorkers,
    /// Calls that have taken their limiter token and have not ended.
    running: usize,
    calls: CallCounters,
    calls_since_prune: u32,
    /// The pool refuses new calls.
    closed: bool,
}

/// The result of taking a worker out of the pool.
#[derive(Debug)]
pub(in crate::worker) enum Taken {
    /// The worker that was used last. It may have ended since then.
    Idle(Box<Worker>),
    /// No worker is idle, so the call has to start one.
    None,
    /// No worker is idle and too many are draining. The call has to wait until this one has been
    /// reaped.
    Busy(Box<Worker>),
}

impl WorkerPool {
    pub(in crate::worker) fn new(config: WorkerConfig) -> Self {
        Self {
            fork_server: ForkServer::new(config.clone()),
            counters: WorkerCounters::new(config.context_name().cloned()),
            config,
            arenas: Arc::default(),
            state: Mutex::default(),
            call_ended: Event::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, PoolState> {
        // A panic cannot leave the state half changed. The only foreign code that runs under this
        // lock is the clone and the drop of a waker in `DrainingWorkers::poll_stderr`.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a new call, which waited this long for its limiter, and takes a worker for it.
    ///
    /// The second value tells whether the caller should prune the idle workers.
    pub(in crate::worker) fn begin_call(
        &self,
        waited: Option<Duration>,
    ) -> Result<(Taken, bool), WorkerError> {
        let mut state = self.state();
        if state.closed {
            return Err(WorkerError::closed());
        }
        state.running += 1;
        if let Some(waited) = waited {
            state.calls.wait(waited);
        }
        let taken = state.take();
        let prune = state.count_call_for_prune();
        Ok((taken, prune))
    }

    /// Counts a call whose argument could not be encoded, and returns the error that it ends with.
    pub(in crate::worker) fn count_unsent_call(
        &self,
        waited: Option<Duration>,
        error: WorkerError,
    ) -> WorkerError {
        let mut state = self.state();
        if state.closed {
            return WorkerError::closed();
        }
        if let Some(waited) = waited {
            state.calls.wait(waited);
        }
        state.calls.end(&CallAccount {
            outcome: CallOutcome::Failed,
            ..CallAccount::default()
        });
        error
    }

    /// Counts a call that was cancelled after it had waited for its token.
    pub(in crate::worker) fn count_cancelled_call(&self, waited: Duration) {
        let mut state = self.state();
        if !state.closed {
            state.calls.wait(waited);
            state.calls.end(&CallAccount::default());
        }
    }

    /// Takes a worker for the next attempt of a call.
    pub(in crate::worker) fn take(&self) -> Taken {
        self.state().take()
    }

    /// Takes the idle worker that was used last.
    pub(in crate::worker) fn take_idle(&self) -> Option<Box<Worker>> {
        self.state().idle.take_latest()
    }

    /// Counts the end of a call, and puts back its worker if that is ready for the next job.
    pub(in crate::worker) fn end_call(&self, account: &CallAccount, worker: Option<Box<Worker>>) {
        let mut state = self.state();
        if let Some(worker) = worker {
            state.idle.put(worker);
        }
        state.running -= 1;
        state.calls.end(account);
        let closed = state.closed;
        drop(state);
        // `close` sets the flag before it listens and looks at `running` afterwards, so it misses
        // no end.
        if closed {
            self.call_ended.notify(usize::MAX);
        }
    }

    /// Refuses further calls, and waits until none is in progress.
    pub(in crate::worker) async fn close(&self) {
        self.state().closed = true;
        loop {
            let ended = self.call_ended.listen(); // before the check, so that no notification is lost
            if self.state().running == 0 {
                return;
            }
            ended.await;
        }
    }

    pub(in crate::worker) fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// Counts workers and calls.
    pub(in crate::worker) fn statistics(&self) -> WorkerStatistics {
        let state = self.state();
        WorkerStatistics {
            idle_workers: state.idle.len(),
            running_workers: state.running,
            ..WorkerStatistics::new(&self.counters.snapshot(), &state.calls)
        }
    }

    /// Takes out all workers, first the idle ones, then the draining ones.
    pub(in crate::worker) fn take_all(&self) -> (Vec<Box<Worker>>, Vec<Box<Worker>>) {
        let mut state = self.state();
        (state.idle.drain(), state.draining.drain())
    }

    /// Removes the longest idle workers that have ended, up to the first that lives.
    pub(in crate::worker) fn prune(self: &Arc<Self>, mut is_gone: impl FnMut(&mut Worker) -> bool) {
        if is_forked_copy() {
            return; // the workers are children of the original process
        }
        self.drain(|state| state.idle.prune(|worker| is_gone(worker)));
    }

    /// Removes idle workers that have ended. Workers that look for a job right now count as alive.
    pub(in crate::worker) fn prune_sleeping(self: &Arc<Self>) {
        self.prune(|worker| matches!(worker.check_health_quickly(), Health::Exited));
    }

    /// Lets a worker exit that has announced its exit or has ended.
    pub(in crate::worker) fn drain_worker(self: &Arc<Self>, worker: Box<Worker>) {
        self.drain(|_| vec![worker]);
    }

    /// Moves the chosen workers to the draining ones, and reaps those that have ended by now. All
    /// this happens under one lock, so that [`take_all`](Self::take_all) misses none.
    fn drain(self: &Arc<Self>, choose: impl FnOnce(&mut PoolState) -> Vec<Box<Worker>>) {
        let mut state = self.state();
        let mut ended = state.draining.reap_oldest();
        let mut reaper = None;
        for mut worker in choose(&mut state) {
            if worker.try_reap().is_none() {
                reaper = state.draining.put(worker).or(reaper);
            } else {
                ended.push(worker);
            }
        }
        let is_first =
            !state.draining.is_empty() && !mem::replace(&mut state.draining.has_reaper, true);
        drop(state);
        if let Some(reaper) = reaper {
            reaper.wake();
        }
        drop(ended); // closes their descriptors, outside the lock
        if is_first {
            background::spawn(reap(Arc::downgrade(self))).detach();
        }
    }

    /// Shuts down all workers and the fork server in the background.
    pub(in crate::worker) fn end_in_background(&self) {
        let (idle, draining) = self.take_all();
        self.arenas.clear();
        let fork_server = self.fork_server.clone();
        Shutdown::new(idle, draining, self.config.grace()).wait_in_background();
        if is_forked_copy() {
            // It belongs to the original process. There is no background thread here, and a drop
            // would kill it.
            mem::forget(fork_server);
        } else if fork_server.may_exist() {
            let grace = self.config.grace();
            background::spawn(async move {
                let server = fork_server.take().await;
                Shutdown::new(Vec::from_iter(server), Vec::new(), grace).wait_in_background();
            })
            .detach();
        }
    }
}

impl PoolState {
    fn take(&mut self) -> Taken {
        match self.idle.take_latest() {
            Some(worker) => Taken::Idle(worker),
            None => match self.draining.take_oldest_if_full() {
                Some(oldest) => Taken::Busy(oldest),
                None => Taken::None,
            },
        }
    }

    /// Counts a call, and tells whether it should prune the idle workers.
    fn count_call_for_prune(&mut self) -> bool {
        self.calls_since_prune += 1;
        let prune = self.calls_since_prune >= CALLS_PER_PRUNE;
        if prune {
            self.calls_since_prune = 0;
        }
        prune && self.idle.len() > 0
    }
}

/// Reaps draining workers as long as there are any: regularly, and when one of them writes to its
/// standard error.
async fn reap(pool: Weak<WorkerPool>) {
    loop {
        let mut tick = Timer::after(EXIT_GRACE);
        poll_fn(|cx| {
            if let Some(pool) = pool.upgrade() {
                pool.state().draining.poll_stderr(cx);
            }
            tick.poll(cx)
        })
        .await;
        let Some(pool) = pool.upgrade() else {
            return; // the pool has shut down its workers
        };
        let mut state = pool.state();
        let mut reaped = state.draining.reap();
        let goes_on = !state.draining.is_empty();
        state.draining.has_reaper = goes_on;
        drop(state);
        for worker in &mut reaped.overdue {
            worker.kill(KillReason::NoExit);
        }
        drop(reaped);
        if !goes_on {
            return;
        }
    }
}

/// A pool that was not shut down, because its block was dropped from outside or a panic unwound it,
/// shuts down its workers in the background.
impl Drop for WorkerPool {
    fn drop(&mut self) {
        self.end_in_background();
    }
}

impl fmt::Debug for WorkerPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerPool")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::TryLockError;

    use super::*;
    use crate::worker::conn::worker::Launched;

    fn pool() -> Arc<WorkerPool> {
        Arc::new(WorkerPool::new(WorkerConfig::new()))
    }

    #[test]
    fn a_worker_that_is_drained_is_at_every_moment_in_the_pool() {
        let pool = pool();
        let launched = Launched::instead(Command::new("sleep").arg("infinity"));
        pool.state().idle.put(Worker::new(launched).unwrap());
        pool.drain(|state| {
            let taken = state.idle.drain();
            let second_lock = pool.state.try_lock();
            assert!(matches!(second_lock, Err(TryLockError::WouldBlock)));
            taken
        });
        let (idle, draining) = pool.take_all();
        assert_eq!((idle.len(), draining.len()), (0, 1));
    }

    #[test]
    fn only_one_in_many_calls_prunes_the_idle_workers() {
        let pool = pool();
        let launched = Launched::instead(Command::new("sleep").arg("infinity"));
        pool.state().idle.put(Worker::new(launched).unwrap());
        let mut state = pool.state();
        let prunes = (0..3 * CALLS_PER_PRUNE).filter(|_| state.count_call_for_prune());
        assert_eq!(prunes.count(), 3);
        state.idle.drain();
        assert!((0..2 * CALLS_PER_PRUNE).all(|_| !state.count_call_for_prune()));
    }
}
