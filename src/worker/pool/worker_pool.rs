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
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_io::Timer;
use futures_lite::FutureExt;

use super::arenas::Arenas;
use super::draining::DrainingWorkers;
use super::idle::IdleWorkers;
use super::shutdown::{Shutdown, is_failure};
use super::statistics::{CallAccount, CallCounters, WorkerStatistics};
use crate::process::background;
use crate::process::child::EndWatch;
use crate::process::notify::Notify;
use crate::process::tick::tick_now;
use crate::sys::fork_detector::is_forked_copy;
use crate::transport::payload::arena_pool::ArenaPool;
use crate::worker::config::WorkerConfig;
use crate::worker::conn::worker::{Health, Worker};
use crate::worker::end::KillReason;
use crate::worker::error::WorkerError;
use crate::worker::record::WorkerCounters;
use crate::worker::spawn::fork_server::ForkServer;
use crate::worker::tuning::{REAP_INTERVAL, WATCH_DELAY};

/// The state that all handles and calls of a context share.
pub(in crate::worker) struct WorkerPool {
    pub(in crate::worker) config: WorkerConfig,
    pub(in crate::worker) fork_server: ForkServer,
    pub(in crate::worker) counters: Arc<WorkerCounters>,
    pub(in crate::worker) arenas: Arc<Arenas>,
    state: Mutex<PoolState>,
    /// The number of times that all workers were killed. Calls compare it when they are polled.
    kills: AtomicU32,
    /// All jobs are asked to end, because the pool shuts down. Calls read it when they are polled.
    asks_jobs: AtomicBool,
    /// The number of jobs whose workers were killed together with all others.
    killed_jobs: AtomicUsize,
    /// The number of calls that have ended, and have released their tokens after that.
    released: AtomicUsize,
    /// The pool refuses new calls. Set under the lock.
    closed: AtomicBool,
    /// Notified when a call has released its token after the pool was closed, and when workers have
    /// been started.
    call_ended: Notify,
}

#[derive(Default)]
struct PoolState {
    idle: IdleWorkers<Box<Worker>>,
    draining: DrainingWorkers,
    /// Calls that have taken their limiter token and have not ended.
    running: usize,
    /// Calls that have ended. Soon after that, each releases its token.
    ended: usize,
    /// Starts of workers ahead of calls that have not ended.
    starts: usize,
    calls: CallCounters,
    /// Panics of retire closures in workers that have been reaped since. Each fails one call.
    retire_panics: Vec<WorkerError>,
    /// The number of idle workers that have crashed and been reaped since the last call. No call
    /// has found that out, so a shutdown reports them.
    crashes: usize,
    /// The generation of this process's credentials that idle workers have.
    credentials: u64,
    /// A background task will soon watch the idle workers that are not watched.
    watch_is_due: bool,
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
            kills: AtomicU32::new(0),
            asks_jobs: AtomicBool::new(false),
            killed_jobs: AtomicUsize::new(0),
            released: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            call_ended: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, PoolState> {
        // A panic cannot leave the state half changed. The only foreign code that runs under this
        // lock is the clone and the drop of a waker in `DrainingWorkers::poll_stderr`.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the arenas in which large arguments are sent, if workers may receive descriptors.
    pub(in crate::worker) fn arenas_of_arguments(&self) -> Option<&ArenaPool> {
        (!self.config.sends_in_frames()).then(|| self.arenas.pool())
    }

    /// Counts a new call, which waited this long for its limiter, and takes a worker for it.
    pub(in crate::worker) fn begin_call(
        &self,
        waited: Option<Duration>,
    ) -> Result<Taken, WorkerError> {
        let mut state = self.state();
        if self.is_closed() {
            return Err(WorkerError::closed());
        }
        if let Some(waited) = waited {
            state.calls.wait(waited);
        }
        if let Some(error) = state.retire_panics.pop() {
            state.calls.end(&CallAccount::failed());
            return Err(error);
        }
        state.running += 1;
        state.crashes = 0;
        Ok(state.take())
    }

    /// Counts a call whose argument could not be encoded, and returns the error that it ends with.
    pub(in crate::worker) fn count_unsent_call(
        &self,
        waited: Option<Duration>,
        error: WorkerError,
    ) -> WorkerError {
        let mut state = self.state();
        if self.is_closed() {
            return WorkerError::closed();
        }
        if let Some(waited) = waited {
            state.calls.wait(waited);
        }
        state.calls.end(&CallAccount::failed());
        error
    }

    /// Counts a call that was cancelled after it had waited for its token.
    pub(in crate::worker) fn count_cancelled_call(&self, waited: Duration) {
        let mut state = self.state();
        if !self.is_closed() {
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
    pub(in crate::worker) fn end_call(
        self: &Arc<Self>,
        account: &CallAccount,
        worker: Option<Box<Worker>>,
    ) {
        let mut state = self.state();
        let (mut outdated, mut needs_watch) = (None, false);
        match worker {
            Some(worker) if worker.credentials() < state.credentials => outdated = Some(worker),
            Some(worker) => needs_watch = state.put(worker),
            None => {}
        }
        state.running -= 1;
        state.ended += 1;
        state.calls.end(account);
        drop(state);
        if let Some(worker) = outdated {
            self.retire(vec![worker]);
        }
        if needs_watch {
            self.watch_idle_soon();
        }
    }

    /// Notes that a call has released its token, after its [end](Self::end_call).
    pub(in crate::worker) fn note_release(&self) {
        self.released.fetch_add(1, Ordering::SeqCst);
        // `close` sets the flag before it listens, and looks at the number afterwards, so it misses
        // no release.
        if self.is_closed() {
            self.call_ended.notify_all();
        }
    }

    /// Tells idle workers to exit that have other credentials than this process has now.
    pub(in crate::worker) fn note_credentials(&self, generation: u64) {
        let mut state = self.state();
        if state.credentials >= generation {
            return;
        }
        state.credentials = generation;
        let outdated = state.idle.drain();
        drop(state);
        self.retire(outdated);
    }

    /// Tells workers to exit, and waits for them in the background.
    fn retire(&self, workers: Vec<Box<Worker>>) {
        Shutdown::new(workers, Vec::new(), self.config.grace()).wait_in_background();
    }

    /// Counts a start of workers ahead of calls. Returns the number of idle workers.
    pub(in crate::worker) fn begin_starts(&self) -> Result<usize, WorkerError> {
        let mut state = self.state();
        if self.is_closed() {
            return Err(WorkerError::closed());
        }
        state.starts += 1;
        Ok(state.idle.len())
    }

    /// Counts the end of a start of workers.
    pub(in crate::worker) fn end_starts(&self) {
        self.state().starts -= 1;
        self.call_ended.notify_all();
    }

    /// Adds a worker to the idle ones.
    pub(in crate::worker) fn put(self: &Arc<Self>, worker: Box<Worker>) {
        let needs_watch = self.state().put(worker);
        if needs_watch {
            self.watch_idle_soon();
        }
    }

    fn refuse_calls(&self) {
        let _state = self.state(); // a call that finds the pool open is counted before
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Returns whether calls are in progress or have not released their tokens, or workers are
    /// being started ahead of calls.
    fn is_busy(&self) -> bool {
        let state = self.state();
        state.running > 0 || state.starts > 0 || self.released.load(Ordering::SeqCst) != state.ended
    }

    /// Refuses further calls, and waits until none is in progress and all tokens are released.
    pub(in crate::worker) async fn close(&self) {
        self.refuse_calls();
        loop {
            let ended = self.call_ended.listen(); // before the check, so that no notification is lost
            if !self.is_busy() {
                return;
            }
            ended.await;
        }
    }

    pub(in crate::worker) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
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

    /// Takes out all workers, first the idle ones, then the draining ones, and forgets the idle
    /// ones that have failed and of which no call was told. Returns the number of these.
    pub(in crate::worker) fn take_all(&self) -> (Vec<Box<Worker>>, Vec<Box<Worker>>, usize) {
        let mut state = self.state();
        let panics = mem::take(&mut state.retire_panics).len();
        let failed = panics + mem::take(&mut state.crashes);
        (state.idle.drain(), state.draining.drain(), failed)
    }

    pub(in crate::worker) fn kills(&self) -> u32 {
        self.kills.load(Ordering::SeqCst)
    }

    /// Kills all workers. Those with a job, or on their way to one, are killed by their calls,
    /// which are woken for that.
    pub(in crate::worker) fn kill_all(&self) {
        if is_forked_copy() {
            return; // the workers are children of the original process
        }
        self.kill_jobs();
        let mut state = self.state();
        let workers = [state.idle.drain(), state.draining.drain()];
        drop(state);
        for mut worker in workers.into_iter().flatten() {
            worker.kill(KillReason::KilledAll);
        }
    }

    /// Kills the workers that have a job, or are on their way to one: wakes their calls, which do
    /// that.
    pub(in crate::worker) fn kill_jobs(&self) {
        self.kills.fetch_add(1, Ordering::SeqCst);
        tick_now();
    }

    /// Counts a job whose worker is killed together with all others.
    pub(in crate::worker) fn count_killed_job(&self) {
        self.killed_jobs.fetch_add(1, Ordering::SeqCst);
    }

    /// Returns the number of jobs whose workers were killed together with all others.
    pub(in crate::worker) fn killed_jobs(&self) -> usize {
        self.killed_jobs.load(Ordering::SeqCst)
    }

    /// Refuses further calls, and asks all jobs to end: wakes their calls, which do that.
    pub(in crate::worker) fn ask_jobs(&self) {
        self.refuse_calls();
        self.asks_jobs.store(true, Ordering::SeqCst);
        tick_now();
    }

    /// Whether all jobs are asked to end.
    pub(in crate::worker) fn asks_jobs(&self) -> bool {
        self.asks_jobs.load(Ordering::SeqCst)
    }

    /// Lets a background task reap workers that end while they are idle. The task begins after a
    /// while, because to watch a worker costs as much as a fork does: a worker that is used up
    /// before is never watched.
    fn watch_idle_soon(self: &Arc<Self>) {
        background::spawn(watch_idle(Arc::downgrade(self))).detach();
    }

    /// Removes and reaps idle workers that have ended or announced their exit.
    pub(in crate::worker) fn reap_idle(self: &Arc<Self>) {
        if is_forked_copy() {
            return; // the workers are children of the original process
        }
        self.drain(|state| state.take_exited(|_| true));
    }

    /// Removes and reaps the worker with this process, if it is idle or draining.
    fn reap_ended(self: &Arc<Self>, pid: u32) {
        let drained = self.state().draining.take_ended(pid);
        drop(drained); // closes its descriptors, outside the lock
        self.drain(|state| state.take_exited(|worker| worker.pid() == pid));
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
                worker.count_end(); // under the lock, so that the statistics never show it as living
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
        let (idle, draining, failed) = self.take_all();
        self.arenas.clear();
        let fork_server = self.fork_server.clone();
        Shutdown::new(idle, draining, self.config.grace())
            .with_failed(failed)
            .wait_in_background();
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
    /// Adds a worker to the idle ones. Returns whether a task must be started that watches it.
    #[must_use]
    fn put(&mut self, worker: Box<Worker>) -> bool {
        let needs_watch = !worker.is_watched() && !mem::replace(&mut self.watch_is_due, true);
        self.idle.put(worker);
        needs_watch
    }

    fn take(&mut self) -> Taken {
        match self.idle.take_latest() {
            Some(worker) => Taken::Idle(worker),
            None => match self.draining.take_oldest_if_full() {
                Some(oldest) => Taken::Busy(oldest),
                None => Taken::None,
            },
        }
    }

    /// Takes out those of the chosen idle workers that have ended or announced their exit, and
    /// keeps what a retire closure of theirs reported.
    fn take_exited(&mut self, is_chosen: impl Fn(&Worker) -> bool) -> Vec<Box<Worker>> {
        let (panics, crashes) = (&mut self.retire_panics, &mut self.crashes);
        self.idle.take_if(|worker| {
            is_chosen(worker)
                && match worker.check_health() {
                    Health::Fit => false,
                    Health::Exited => {
                        *crashes += usize::from(worker.try_reap().is_some_and(is_failure));
                        true
                    }
                    Health::RetirePanicked(error) => {
                        panics.push(error);
                        true
                    }
                }
        })
    }
}

/// Starts to watch all idle workers that are not watched yet. A worker that is busy now is watched
/// by a later task.
async fn watch_idle(pool: Weak<WorkerPool>) {
    Timer::after(WATCH_DELAY).await;
    let Some(pool) = pool.upgrade() else {
        return; // the pool has shut down its workers
    };
    let mut state = pool.state();
    state.watch_is_due = false;
    let watches: Vec<_> = state
        .idle
        .iter_mut()
        .filter_map(|worker| Some((worker.pid(), worker.first_watch()?)))
        .collect();
    drop(state);
    for (pid, watch) in watches {
        background::spawn(reap_when_ended(Arc::downgrade(&pool), pid, watch)).detach();
    }
}

/// Reaps a worker that ends while it is idle, as soon as it ends. A worker that ends while it has a
/// job is reaped by its call, unless it answered and was put back just before.
async fn reap_when_ended(pool: Weak<WorkerPool>, pid: u32, mut watch: EndWatch) {
    while watch.wait().await {
        let Some(pool) = pool.upgrade() else {
            return; // the pool has shut down its workers
        };
        pool.reap_ended(pid);
    }
}

/// Reaps draining workers as long as there are any: regularly, and when one of them writes to its
/// standard error.
async fn reap(pool: Weak<WorkerPool>) {
    loop {
        let mut tick = Timer::after(REAP_INTERVAL);
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
        let (idle, draining, _) = pool.take_all();
        assert_eq!((idle.len(), draining.len()), (0, 1));
    }
}
