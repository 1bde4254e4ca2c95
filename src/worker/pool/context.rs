//! Worker contexts: a configuration, the workers that came of it, and their common end.
//!
//! A [`WorkerContext`] is a cheap handle. What it leads to is a cache of idle workers and a count of calls in progress,
//! behind one lock that is held for no longer than it takes to move a worker in or out; in particular, never while a
//! process is started, killed or waited for. A context is tied to no run, executor or thread: its workers' descriptors
//! live in smol's process-wide reactor, and what has to go on without a caller runs in the `background`.

// A worker is large, and moves in the box that it came in.
#![allow(clippy::vec_box)]

use std::fmt;
use std::future::poll_fn;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_io::Timer;
use event_listener::Event;
use futures_lite::FutureExt;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::arenas::Arenas;
use super::draining::Leaving;
use super::idle::Cache;
use super::shutdown::Farewell;
use super::statistics::{CallAccount, Calls, Expected, Lives, Outcome, Why, WorkerStatistics};
use crate::cancel::shield;
use crate::process::background;
use crate::sys::arena::Arena;
use crate::sys::copy::is_copy;
use crate::transport::payload::pool::Pool;
use crate::worker::call::RunSync;
use crate::worker::config::WorkerConfig;
use crate::worker::conn::worker::{Dying, Health, LAST_RITES, Worker};
use crate::worker::error::WorkerError;
use crate::worker::spawn::fork_server::ForkServer;

/// A set of cached workers with a configuration of their own, opened by
/// [`open_worker_context`](crate::open_worker_context).
///
/// Cloning gives another handle to the same context. Handles may be used from any thread, task and executor. After the
/// block that opened the context has ended, calls through a handle fail with
/// [`WorkerErrorKind::Closed`](crate::worker::WorkerErrorKind::Closed). Dropping a handle does nothing to the others; with the last
/// one of a context whose block did not end but was dropped from outside, the workers are told to go, in the background.
///
/// # Examples
///
/// ```
/// use seedbed::{WorkerConfig, open_worker_context};
///
/// fn add((a, b): (u32, u32)) -> u32 {
///     a + b
/// }
///
/// fn main() {
///     seedbed::init();
///     let sum = smol::block_on(open_worker_context(WorkerConfig::new(), |workers| async move {
///         workers.run_sync(add, (2, 3)).await.unwrap()
///     }));
///     assert_eq!(sum, 5);
/// }
/// ```
#[derive(Clone)]
pub struct WorkerContext {
    shared: Arc<Shared>,
}

/// What all handles and all calls of a context share.
struct Shared {
    config: WorkerConfig,
    fork_server: ForkServer,
    lives: Arc<Lives>,
    arenas: Arc<Arenas>,
    state: Mutex<State>,
    /// Notified whenever a call ends.
    call_ended: Event,
}

struct State {
    idle: Cache<Box<Worker>>,
    leaving: Leaving,
    /// Calls that are past the limiter and not over.
    running: usize,
    /// What came of the others.
    calls: Calls,
    /// Calls since somebody looked for workers that have left.
    unpruned: u32,
    /// No call may begin any more.
    closed: bool,
}

/// Of so many quick calls, one looks for workers that have left: asking the kernel would take longer than the call.
const PRUNE_EVERY: u32 = 64;

impl State {
    /// Takes out a worker that is on its way out, if they are too many and another one has to be made.
    fn oldest_in_the_way(&mut self) -> Option<Box<Worker>> {
        match self.idle.len() {
            0 => self.leaving.oldest_of_too_many(),
            _ => None,
        }
    }

    /// Whether to look for workers that have left, before a call that is quick because its worker is awake, or is not.
    fn is_time_to_prune(&mut self, is_quick: bool) -> bool {
        let prune = !is_quick || self.unpruned + 1 >= PRUNE_EVERY;
        self.unpruned = if prune { 0 } else { self.unpruned + 1 };
        prune
    }
}

impl WorkerContext {
    pub(in crate::worker) fn new(config: WorkerConfig) -> Self {
        let state = State {
            idle: Cache::default(),
            leaving: Leaving::default(),
            running: 0,
            calls: Calls::default(),
            unpruned: 0,
            closed: false,
        };
        Self {
            shared: Arc::new(Shared {
                fork_server: ForkServer::new(config.clone()),
                lives: Lives::new(config.context_name().cloned()),
                config,
                arenas: Arc::default(),
                state: Mutex::new(state),
                call_ended: Event::new(),
            }),
        }
    }

    /// Calls `f(arg)` in a worker process of this context; otherwise like the free function
    /// [`run_sync`](crate::run_sync()).
    ///
    /// # Cancellation
    ///
    /// As [`run_sync`](crate::run_sync()): shielded once the job was handed over, unless it may be killed.
    ///
    /// # Errors
    ///
    /// As [`run_sync`](crate::run_sync()); [`WorkerErrorKind::Closed`](crate::worker::WorkerErrorKind::Closed) if the context was
    /// shut down.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let config = WorkerConfig::new();
    ///     smol::block_on(open_worker_context(config, |workers| async move {
    ///         assert_eq!(workers.run_sync(i32::abs, -3).await.unwrap(), 3);
    ///     }));
    /// }
    /// ```
    pub fn run_sync<F, A, R>(&self, f: F, arg: A) -> RunSync<A, R>
    where
        F: Fn(A) -> R + Copy + Send + Sync + 'static,
        A: Serialize + DeserializeOwned + Send + 'static,
        R: Serialize + DeserializeOwned + Send + 'static,
    {
        RunSync::new(f, arg).inside(self.clone())
    }

    /// Counts the workers, after forgetting those that have left, and tells what has become of others and of calls.
    /// Cheap, and may be asked at any time, also after the end of the context. While calls come and go, the numbers are
    /// those of one moment each for calls and for workers.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     smol::block_on(open_worker_context(WorkerConfig::new(), |workers| async move {
    ///         workers.run_sync(i64::abs, -7).await.unwrap();
    ///         assert_eq!(workers.statistics().idle_workers, 1);
    ///         assert_eq!(workers.statistics().running_workers, 0);
    ///     }));
    /// }
    /// ```
    pub fn statistics(&self) -> WorkerStatistics {
        self.prune(|worker| matches!(worker.certain_health(), Health::Gone));
        let state = self.state();
        WorkerStatistics {
            idle_workers: state.idle.len(),
            running_workers: state.running,
            ..self.shared.lives.statistics(&state.calls)
        }
    }

    /// Refuses further calls, waits for those in progress, then ends all workers. The end of the context's block does
    /// this too; calling it first tells how it went. A second call waits as well, and finds nothing more to do.
    ///
    /// # Cancellation
    ///
    /// Not cancellable: runs shielded until all workers are gone. Dropped from outside, it kills the workers that it was
    /// waiting for; calls in progress go on.
    ///
    /// # Errors
    ///
    /// [`WorkerErrorKind::Shutdown`](crate::worker::WorkerErrorKind::Shutdown), if workers had to be killed after the grace
    /// period or ended with an exit code other than zero.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::worker::WorkerErrorKind;
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     smol::block_on(open_worker_context(WorkerConfig::new(), |workers| async move {
    ///         workers.run_sync(i64::abs, -7).await.unwrap();
    ///         workers.shutdown().await.unwrap();
    ///         let error = workers.run_sync(i64::abs, -7).await.unwrap_err();
    ///         assert_eq!(error.kind(), WorkerErrorKind::Closed);
    ///     }));
    /// }
    /// ```
    pub async fn shutdown(&self) -> Result<(), WorkerError> {
        shield(self.close()).await
    }

    pub(in crate::worker) async fn close(&self) -> Result<(), WorkerError> {
        if is_copy() {
            return Ok(()); // all that could be waited for is the original's
        }
        self.state().closed = true;
        self.wait_for_calls().await;
        self.end_idle().await
    }

    /// Waits until no call is in progress.
    async fn wait_for_calls(&self) {
        loop {
            let ended = self.shared.call_ended.listen(); // before looking, so that no end goes unseen
            if self.state().running == 0 {
                return;
            }
            ended.await;
        }
    }

    /// Ends the workers that are idle now.
    pub(in crate::worker) async fn end_idle(&self) -> Result<(), WorkerError> {
        let (mut idle, leaving) = self.shared.take_all();
        self.shared.arenas.empty();
        idle.extend(self.shared.fork_server.take().await);
        Farewell::to(idle, leaving, self.shared.config.grace())
            .wait()
            .await
    }

    /// The same, with nobody waiting.
    pub(in crate::worker) fn end_idle_in_background(&self) {
        self.shared.end_in_background();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }

    /// Forgets workers at the cold end that have ended without anything to tell.
    fn prune(&self, mut is_gone: impl FnMut(&mut Worker) -> bool) {
        if is_copy() {
            return; // whether the original's workers live is its business
        }
        self.shared
            .leave(|state| state.idle.prune(|worker| is_gone(worker)));
    }
}

/// For calls.
impl WorkerContext {
    pub(in crate::worker) fn config(&self) -> &WorkerConfig {
        &self.shared.config
    }

    /// Enters a call, which has waited for its limiter, if it had to.
    pub(in crate::worker) fn begin(
        &self,
        waited: Option<Duration>,
    ) -> Result<Running, WorkerError> {
        let mut state = self.state();
        if state.closed {
            return Err(WorkerError::closed());
        }
        state.running += 1;
        if let Some(waited) = waited {
            state.calls.wait(waited);
        }
        drop(state);
        Ok(Running {
            context: self.clone(),
            account: CallAccount::default(),
        })
    }
}

/// A call in progress, counted as such until this is dropped.
#[derive(Debug)]
pub(in crate::worker) struct Running {
    context: WorkerContext,
    account: CallAccount,
}

impl Running {
    pub(in crate::worker) fn config(&self) -> &WorkerConfig {
        self.context.config()
    }

    pub(in crate::worker) fn fork_server(&self) -> ForkServer {
        self.context.shared.fork_server.clone()
    }

    /// What large arguments are written to.
    pub(in crate::worker) fn arenas(&self) -> &Pool {
        self.context.shared.arenas.pool()
    }

    /// Puts back what nobody reads any more.
    pub(in crate::worker) fn put_arena(&self, arena: Arena) {
        self.context.shared.arenas.put(arena);
    }

    /// A worker is to be started.
    pub(in crate::worker) fn expect_worker(&self) -> Expected {
        self.context.shared.lives.clone().expect()
    }

    /// A worker is given an argument of so many bytes.
    pub(in crate::worker) fn sends(&mut self, bytes: usize) {
        self.account.sent = bytes;
    }

    /// The job has come to a result of so many bytes.
    pub(in crate::worker) fn done(&mut self, bytes: usize) {
        self.account.received = bytes;
        self.account.outcome = Outcome::Done;
    }

    /// The call has come to an error.
    pub(in crate::worker) fn failed(&mut self) {
        self.account.outcome = Outcome::Failed;
    }

    /// Waits for a worker that is in the way: it ends soon, or is killed.
    pub(in crate::worker) async fn make_way(&self) {
        let oldest = self.context.state().oldest_in_the_way();
        if let Some(oldest) = oldest {
            let mut dying = Dying::naturally(oldest);
            shield(poll_fn(|cx| dying.poll(cx))).await;
        }
    }

    /// Draws the worker that was used last. It may have ended. The others are looked after now and then.
    pub(in crate::worker) fn draw(&self) -> Option<Box<Worker>> {
        let mut state = self.context.state();
        let worker = state.idle.draw();
        let is_quick = worker.as_ref().is_some_and(|worker| worker.is_awake());
        let prune = state.is_time_to_prune(is_quick) && state.idle.len() > 0;
        drop(state);
        if prune {
            self.context
                .prune(|worker| matches!(worker.health(), Health::Gone));
        }
        worker
    }

    /// Puts back a worker that is ready for the next job.
    pub(in crate::worker) fn put(&self, mut worker: Box<Worker>) {
        worker.settle();
        self.context.state().idle.put(worker);
    }

    /// Lets a worker go that has said good-bye, if it has not gone yet.
    pub(in crate::worker) fn leave(&self, worker: Box<Worker>) {
        self.context.shared.leave(|_| vec![worker]);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.context.state();
        state.running -= 1;
        state.calls.end(&self.account);
        drop(state);
        self.context.shared.call_ended.notify(usize::MAX);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is one step. No code of a user's runs under this lock, but for a waker that `Leaving::attend` replaces.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes out the workers that are idle, and those that are leaving.
    fn take_all(&self) -> (Vec<Box<Worker>>, Vec<Box<Worker>>) {
        let mut state = self.state();
        (state.idle.empty(), state.leaving.empty())
    }

    /// Lets workers go that have said good-bye or ended, and forgets those that have ended by now. All in one step, so that
    /// whoever takes all workers misses none.
    fn leave(self: &Arc<Self>, who: impl FnOnce(&mut State) -> Vec<Box<Worker>>) {
        let mut state = self.state();
        let mut gone = state.leaving.prune();
        for mut worker in who(&mut state) {
            match worker.is_fit() {
                true => state.leaving.put(worker),
                false => gone.push(worker),
            }
        }
        let is_first = !state.leaving.is_empty() && !mem::replace(&mut state.leaving.watched, true);
        drop(state);
        drop(gone); // they have been reaped; this closes their descriptors, outside the lock
        if is_first {
            background::spawn(clear_out(Arc::downgrade(self))).detach();
        }
    }

    fn end_in_background(&self) {
        let (idle, leaving) = self.take_all();
        self.arenas.empty();
        let fork_server = self.fork_server.clone();
        Farewell::to(idle, leaving, self.config.grace()).wait_in_background();
        if is_copy() {
            mem::forget(fork_server); // the original's, which must not even be dropped, and there is no background here
        } else if fork_server.may_exist() {
            let grace = self.config.grace();
            background::spawn(async move {
                let server = fork_server.take().await;
                Farewell::to(Vec::from_iter(server), Vec::new(), grace).wait_in_background();
            })
            .detach();
        }
    }
}

/// Looks after the workers that are leaving, as long as there are any: from time to time, and when they print
/// something.
async fn clear_out(context: Weak<Shared>) {
    loop {
        let mut round = Timer::after(LAST_RITES);
        poll_fn(|cx| {
            if let Some(context) = context.upgrade() {
                context.state().leaving.attend(cx);
            }
            round.poll(cx)
        })
        .await;
        let Some(context) = context.upgrade() else {
            return; // it has taken its workers with it
        };
        let mut state = context.state();
        let mut out = state.leaving.clear_out();
        let goes_on = !state.leaving.is_empty();
        state.leaving.watched = goes_on;
        drop(state);
        for worker in &mut out.overdue {
            worker.kill(Why::LivedOn);
        }
        drop(out);
        if !goes_on {
            return;
        }
    }
}

/// A context that was not shut down, because its block was dropped from outside or its thread panicked: the workers are
/// told to go, and what happens then happens in the background.
impl Drop for Shared {
    fn drop(&mut self) {
        self.end_in_background();
    }
}

impl fmt::Debug for WorkerContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (statistics, closed) = (self.statistics(), self.state().closed);
        f.debug_struct("WorkerContext")
            .field("config", &self.shared.config)
            .field("statistics", &statistics)
            .field("closed", &closed)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::TryLockError;

    use super::*;
    use crate::worker::conn::worker::Launched;

    #[test]
    fn a_worker_that_leaves_its_cache_is_at_no_moment_out_of_its_contexts_sight() {
        let context = WorkerContext::new(WorkerConfig::new());
        let launched = Launched::instead(Command::new("sleep").arg("infinity"));
        context.state().idle.put(Worker::new(launched).unwrap());
        context.shared.leave(|state| {
            let taken = state.idle.empty();
            let look = context.shared.state.try_lock();
            assert!(matches!(look, Err(TryLockError::WouldBlock)));
            taken
        });
        let (idle, leaving) = context.shared.take_all();
        assert_eq!((idle.len(), leaving.len()), (0, 1));
    }

    #[test]
    fn quick_calls_look_for_workers_that_left_once_in_a_while_and_slow_ones_always() {
        let context = WorkerContext::new(WorkerConfig::new());
        let mut state = context.state();
        let quick = (0..3 * PRUNE_EVERY).filter(|_| state.is_time_to_prune(true));
        assert_eq!(quick.count(), 3);
        assert!((0..3).all(|_| state.is_time_to_prune(false)));
    }
}
