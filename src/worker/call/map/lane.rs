//! A lane: one limiter token and one worker at a time, which runs sessions and single calls.
//!
//! A lane is a state machine in poll form, as an [`Attempt`] is, which it drives. It knows nothing
//! of the types of items and results.

use std::collections::VecDeque;
use std::future::Future;
use std::mem;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::{Duration, Instant};

use atomic_waker::AtomicWaker;

use super::chunk::{Chunk, Ledger};
use crate::sync::{Acquire, CapacityLimiter, Token};
use crate::sys::clock::monotonic_time;
use crate::sys::fork_detector;
use crate::transport::frame::Frame;
use crate::transport::map::feeder::{Feeder, ForgedProgress};
use crate::transport::out_message::OutMessage;
use crate::worker::call::attempt::{Attempt, AttemptOutcome};
use crate::worker::call::cancel_policy::CancelPolicy;
use crate::worker::call::time_limit::TimeLimit;
use crate::worker::conn::ending::EndingWorker;
use crate::worker::conn::worker::Worker;
use crate::worker::error::WorkerError;
use crate::worker::pool::call_guard::CallGuard;
use crate::worker::pool::worker_pool::Taken;
use crate::worker::tuning::{MAP_LANE_ROUNDS_PER_POLL, MAP_LIMIT_INTERVAL};

/// One worker of a map.
#[derive(Debug)]
pub(super) struct Lane {
    state: State,
    /// Set when something has happened to the worker or the limiter.
    events: Arc<Events>,
    killable: bool,
    /// The time limit of each item.
    limit: Option<Duration>,
    /// The map has ended, so nothing begins any more.
    is_stopping: bool,
}

#[derive(Debug)]
enum State {
    Idle,
    /// Waits for a token of the limiter, since then if it has to wait.
    Queued(Acquire, Option<Instant>),
    /// Too many workers are draining: waits for the end of one.
    Draining {
        ending: EndingWorker,
        job: OutMessage,
        guard: CallGuard,
        work: Work,
    },
    Running {
        attempt: Box<Attempt>,
        work: Work,
    },
}

/// The work of a worker.
#[derive(Debug)]
pub(super) enum Work {
    Session(Box<Session>),
    Single(Single),
}

/// A session in progress.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) feeder: Feeder,
    pub(super) memory: Arc<OwnedFd>,
    pub(super) ledger: Ledger,
    pub(super) is_closing: bool,
    /// The numbers that were measured when they were last read.
    pub(super) measured: (Duration, u64),
    /// When an item last ended, as far as this process knows.
    pub(super) last_end: Option<Instant>,
    limit: Option<TimeLimit>,
}

/// An item that is a call of its own.
#[derive(Debug)]
pub(super) struct Single {
    pub(super) index: usize,
    pub(super) strikes: u32,
    /// The frame and its descriptors, if the item may be run again.
    pub(super) kept: Option<(Vec<u8>, Vec<Arc<OwnedFd>>)>,
}

/// The event for which a lane has waited.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It has a token, for which it waited this long.
    Token(Token, Option<Duration>),
    /// The worker has answered.
    Done(Work, Frame),
    /// The call of the worker has ended with an error.
    Failed(Work, WorkerError),
    /// The work was given up before any worker had it.
    GivenUp(Work),
}

/// Notes that something has happened, and wakes the task of the map.
#[derive(Debug, Default)]
struct Events {
    have_come: AtomicBool,
    map: AtomicWaker,
}

impl Wake for Events {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.have_come.store(true, Ordering::SeqCst);
        self.map.wake();
    }
}

impl Session {
    pub(super) fn new(feeder: Feeder, memory: Arc<OwnedFd>, limit: Option<Duration>) -> Self {
        Self {
            feeder,
            memory,
            ledger: Ledger::default(),
            is_closing: false,
            measured: (Duration::ZERO, 0),
            last_end: None,
            limit: limit.map(TimeLimit::new),
        }
    }

    /// Returns whether the worker, whose other items were withdrawn, is in an item or about to
    /// begin one. True for a worker that violates the protocol.
    fn may_be_in_item(&self) -> bool {
        let handed = self.feeder.handed();
        self.feeder
            .progress()
            .map_or(true, |progress| progress.ended < handed)
    }

    /// Returns whether items have ended whose results have not been taken.
    pub(super) fn has_results(&self) -> bool {
        // A violation of the protocol is found where results are taken.
        let progress = self.feeder.progress();
        progress.is_ok_and(|progress| progress.ended > self.ledger.ended())
    }

    /// Gives a chunk to the worker, for which there must be room.
    pub(super) fn give(&mut self, chunk: Chunk) {
        chunk.items().for_each(|item| self.feeder.put(item));
        self.ledger.hand(chunk);
        self.feeder.publish();
    }

    /// Returns how many items the worker has not begun.
    pub(super) fn unbegun(&self) -> u64 {
        let begun = self
            .feeder
            .progress()
            .map(|progress| progress.ended + u64::from(progress.is_in_item));
        begun.map_or(0, |begun| self.feeder.handed() - begun)
    }

    /// Takes back the last items, at most this many, as far as they have not begun.
    pub(super) fn withdraw_last(&mut self, count: u64) -> Result<VecDeque<Chunk>, ForgedProgress> {
        let kept = self.feeder.withdraw(self.feeder.handed() - count)?;
        // Results that have not been taken are of items before those.
        let withdrawn = self.ledger.withdraw(kept.max(self.ledger.ended()));
        let words = withdrawn.iter().map(Chunk::words).sum();
        self.feeder.take_back(words);
        Ok(withdrawn)
    }

    pub(super) fn close(&mut self) {
        if !mem::replace(&mut self.is_closing, true) {
            self.feeder.close();
        }
    }

    /// Waits until the item in progress has exceeded its time, and condemns it. Returns how long it
    /// has run.
    fn poll_limit(&mut self, cx: &mut Context<'_>) -> Poll<(Duration, Duration)> {
        loop {
            let Some(timer) = &mut self.limit else {
                return Poll::Pending;
            };
            let limit = timer.limit();
            ready!(timer.poll(cx));
            // A violation of the protocol is found elsewhere.
            let Ok(progress) = self.feeder.progress() else {
                return Poll::Pending;
            };
            let mut left = limit;
            if progress.is_in_item {
                let ran_for = monotonic_time().saturating_sub(self.feeder.began());
                left = limit.saturating_sub(ran_for);
                if left.is_zero() {
                    if self.feeder.condemn(progress.ended) {
                        return Poll::Ready((limit, ran_for));
                    }
                    left = limit;
                }
            }
            // A limit of nothing would make this loop spin between two items.
            timer.restart(left.max(MAP_LIMIT_INTERVAL));
        }
    }
}

impl Lane {
    pub(super) fn new(killable: bool, limit: Option<Duration>) -> Self {
        Self {
            state: State::Idle,
            events: Arc::default(),
            killable,
            limit,
            is_stopping: false,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    /// Returns whether the lane waits for a token.
    pub(super) fn is_queued(&self) -> bool {
        matches!(self.state, State::Queued(..))
    }

    /// Returns the session that a worker has, or is about to have.
    pub(super) fn session(&mut self) -> Option<&mut Session> {
        match &mut self.state {
            State::Running { work, .. } | State::Draining { work, .. } => match work {
                Work::Session(session) => Some(session),
                Work::Single(_) => None,
            },
            State::Idle | State::Queued(..) => None,
        }
    }

    /// Returns the process that has the work, once it is known.
    pub(super) fn pid(&self) -> Option<u32> {
        match &self.state {
            State::Running { attempt, .. } => attempt.pid(),
            _ => None,
        }
    }

    /// Begins to wait for a token.
    pub(super) fn queue(&mut self, limiter: &CapacityLimiter) {
        self.set(State::Queued(limiter.acquire(), None));
    }

    /// Begins the work, in the worker that was taken or in a new one.
    pub(super) fn begin(
        &mut self,
        job: OutMessage,
        guard: CallGuard,
        taken: Taken,
        work: Work,
    ) -> Result<(), (Work, WorkerError)> {
        let worker = match taken {
            Taken::Idle(worker) => Some(worker),
            Taken::None => None,
            Taken::Busy(oldest) => {
                let ending = EndingWorker::exiting(oldest);
                self.set(State::Draining {
                    ending,
                    job,
                    guard,
                    work,
                });
                return Ok(());
            }
        };
        self.attempt(job, guard, worker, work)
    }

    fn attempt(
        &mut self,
        job: OutMessage,
        guard: CallGuard,
        worker: Option<Box<Worker>>,
        work: Work,
    ) -> Result<(), (Work, WorkerError)> {
        let policy = if self.killable {
            CancelPolicy::Kill
        } else {
            CancelPolicy::Wait
        };
        match Attempt::new(job, worker, policy, guard) {
            Ok(mut attempt) => {
                if let (Work::Single(_), Some(limit)) = (&work, self.limit) {
                    attempt.set_time_limit(limit);
                }
                let attempt = Box::new(attempt);
                self.set(State::Running { attempt, work });
                Ok(())
            }
            Err(error) => Err((work, error)),
        }
    }

    /// Sets a state that has not been polled.
    fn set(&mut self, state: State) {
        self.state = state;
        self.events.have_come.store(true, Ordering::SeqCst);
    }

    /// Ends the work because the worker has violated the protocol.
    pub(super) fn kill_for_protocol(&mut self, what: &'static str) {
        if let State::Running { attempt, .. } = &mut self.state {
            attempt.kill_for_protocol(what);
            self.events.have_come.store(true, Ordering::SeqCst);
        }
    }

    /// Polls what the lane waits for, if something has happened to it.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        self.events.map.register(cx.waker());
        if let State::Running { attempt, work } = &mut self.state
            && let Work::Session(session) = work
            && attempt.pid().is_some()
            && let Poll::Ready((limit, ran_for)) = session.poll_limit(cx)
        {
            attempt.kill_at_time_limit(limit, ran_for);
            self.events.have_come.store(true, Ordering::SeqCst);
        }
        for _ in 0..MAP_LANE_ROUNDS_PER_POLL {
            if !self.events.have_come.swap(false, Ordering::SeqCst) {
                return Poll::Pending;
            }
            let waker = Waker::from(self.events.clone());
            let outcome = self.advance(&mut Context::from_waker(&waker));
            if outcome.is_ready() {
                return outcome;
            }
        }
        // A worker that writes without end, for example. Other tasks have their turn.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        match &mut self.state {
            State::Idle => Poll::Pending,
            State::Queued(acquire, since) => {
                let Poll::Ready(token) = Pin::new(acquire).poll(cx) else {
                    since.get_or_insert_with(Instant::now);
                    return Poll::Pending;
                };
                let waited = since.map(|since| since.elapsed());
                self.state = State::Idle;
                Poll::Ready(Outcome::Token(token, waited))
            }
            State::Draining { ending, .. } => {
                let _ = ready!(ending.poll(cx));
                let State::Draining {
                    job, guard, work, ..
                } = mem::replace(&mut self.state, State::Idle)
                else {
                    unreachable!("the state was matched above")
                };
                let worker = guard.take_worker();
                match self.attempt(job, guard, worker, work) {
                    Ok(()) => Poll::Pending,
                    Err((work, error)) => Poll::Ready(Outcome::Failed(work, error)),
                }
            }
            State::Running { attempt, .. } => {
                let outcome = ready!(attempt.poll(cx));
                let State::Running { work, .. } = mem::replace(&mut self.state, State::Idle) else {
                    unreachable!("the state was matched above")
                };
                match outcome {
                    AttemptOutcome::Done(frame) => Poll::Ready(Outcome::Done(work, frame)),
                    AttemptOutcome::Failed(error) | AttemptOutcome::Cancelled(error) => {
                        Poll::Ready(Outcome::Failed(work, error))
                    }
                    AttemptOutcome::Retry(job, guard) => {
                        let gives_up = match &work {
                            Work::Session(session) => session.is_closing,
                            Work::Single(_) => self.is_stopping,
                        };
                        if gives_up {
                            return Poll::Ready(Outcome::GivenUp(work));
                        }
                        let taken = guard.take();
                        match self.begin(job, guard, taken, work) {
                            Ok(()) => Poll::Pending,
                            Err((work, error)) => Poll::Ready(Outcome::Failed(work, error)),
                        }
                    }
                }
            }
        }
    }

    /// Ends what the lane does: lets the item in progress end, or kills its worker if it may be
    /// killed. The results are lost. Returns `Ready` when no process works for this lane.
    pub(super) fn poll_stop(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.is_stopping = true;
        loop {
            match &mut self.state {
                State::Idle => return Poll::Ready(()),
                State::Queued(..) => self.state = State::Idle,
                State::Draining { ending, .. } => {
                    self.events.map.register(cx.waker());
                    let _ = ready!(ending.poll(cx));
                    self.state = State::Idle;
                }
                State::Running { attempt, work } => {
                    let is_running = match work {
                        Work::Session(session) => {
                            session.stop();
                            attempt.pid().is_none() || session.may_be_in_item()
                        }
                        Work::Single(_) => true,
                    };
                    if self.killable && is_running {
                        ready!(attempt.poll_kill(cx));
                        self.state = State::Idle;
                        return Poll::Ready(());
                    }
                    match ready!(self.poll(cx)) {
                        Outcome::Token(..)
                        | Outcome::Done(..)
                        | Outcome::Failed(..)
                        | Outcome::GivenUp(_) => {}
                    }
                }
            }
        }
    }
}

impl Session {
    /// Takes back the items that have not begun, and lets the session end.
    fn stop(&mut self) {
        if !self.is_closing {
            // A forged progress is of no importance any more.
            let _ = self.withdraw_last(self.feeder.handed());
        }
        self.is_closing = true;
        self.feeder.abandon();
    }
}

/// Leaves a worker that has work to the attempt, which kills it or lets it end in the background.
impl Drop for Lane {
    fn drop(&mut self) {
        if fork_detector::is_forked_copy() {
            // The worker and the shared memory belong to the original process.
            mem::forget(mem::replace(&mut self.state, State::Idle));
            return;
        }
        if let Some(session) = self.session() {
            session.stop();
        }
        // At most one item is left, so its limit is that of the attempt.
        if let State::Running { attempt, work } = &mut self.state
            && let (Work::Session(_), Some(limit)) = (work, self.limit)
        {
            attempt.set_time_limit(limit);
        }
    }
}
