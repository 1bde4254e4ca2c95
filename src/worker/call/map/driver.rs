//! Drives a map: pulls items, hands them to lanes, and delivers what becomes of them.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use super::chunk::Chunk;
use super::delivery::Delivery;
use super::lane::{Lane, Outcome, Session, Single, Work};
use super::order::MapOrder;
use super::parking::Parking;
use super::plan::{MapCode, Plan};
use super::results::Outlet;
use super::sizer::ChunkSizer;
use super::source::MapSource;
use crate::sync::Token;
use crate::transport::codec;
use crate::transport::map::feeder::{Feeder, ForgedProgress};
use crate::transport::out_message::OutMessage;
use crate::worker::call::time_limit::TimeLimit;
use crate::worker::data::{Argument, JobResult};
use crate::worker::error::WorkerError;
use crate::worker::pool::call_guard::CallGuard;
use crate::worker::tuning::{
    MAP_CHUNKS_PER_WORKER, MAP_PAUSE, MAP_QUICK_ITEM, MAP_ROUNDS_PER_POLL,
};

pub(super) const FORGED: &str = "a progress of its items that is not possible";

/// A map in progress.
pub(super) struct Driver<'a, A, R, O: MapOrder> {
    pub(super) plan: Plan,
    /// `None` if the function lies outside the main executable; then there is a refusal.
    pub(super) code: Option<MapCode>,
    /// The error of all items, if no worker can run any.
    pub(super) refusal: Option<fn(&'static str) -> WorkerError>,
    /// `None` once it has ended.
    pub(super) source: Option<MapSource<'a, A>>,
    /// Number of items that were pulled.
    pub(super) pulled: usize,
    /// Items that no worker has, by index.
    pub(super) queue: VecDeque<Chunk>,
    /// Items that are calls of their own, and that no worker has.
    pub(super) singles: VecDeque<(Single, OutMessage)>,
    pub(super) delivery: Delivery<R, O>,
    lanes: Vec<Lane>,
    pub(super) sizer: ChunkSizer,
    /// The memory of sessions that have ended.
    pub(super) spare: Vec<(Feeder, Arc<OwnedFd>)>,
    /// `None` if each item is a call of its own.
    pub(super) parking: Option<Parking>,
    /// A pause in which results gather, without a wake-up for each.
    pause: Option<TimeLimit>,
    /// Such a pause has brought no results.
    has_paused: bool,
    /// Workers in a row that have ended without beginning an item.
    pub(super) fruitless: u32,
}

impl<'a, A: Argument, R: JobResult, O: MapOrder> Driver<'a, A, R, O> {
    pub(super) fn new(
        plan: Plan,
        code: Option<MapCode>,
        refusal: Option<fn(&'static str) -> WorkerError>,
        source: MapSource<'a, A>,
        outlet: Arc<Outlet<O::Delivered<Result<R, WorkerError>>>>,
    ) -> Self {
        // Without a descriptor for it, each item is a call.
        let parking = if refusal.is_some() || plan.context.config().counts_jobs() {
            None
        } else {
            Parking::new().ok()
        };
        Self {
            code,
            refusal,
            source: Some(source),
            pulled: 0,
            queue: VecDeque::new(),
            singles: VecDeque::new(),
            delivery: Delivery::new(outlet),
            lanes: Vec::new(),
            sizer: ChunkSizer::new(plan.chunk),
            spare: Vec::new(),
            parking,
            pause: None,
            has_paused: false,
            fruitless: 0,
            plan,
        }
    }

    /// Goes on with the map. Returns `Ready` when all results are delivered.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(parking) = &mut self.parking {
            parking.leave(&mut self.lanes);
        }
        for _ in 0..MAP_ROUNDS_PER_POLL {
            let mut goes_on = false;
            for at in 0..self.lanes.len() {
                goes_on |= self.take_results(at);
                if let Poll::Ready(outcome) = self.lanes[at].poll(cx) {
                    self.handle(at, outcome, cx);
                    goes_on = true;
                }
            }
            goes_on |= self.distribute(cx);
            self.delivery.flush();
            if self.source.is_none() && self.delivery.count() == self.pulled {
                self.delivery.end();
                return Poll::Ready(());
            }
            if goes_on {
                self.has_paused = false;
                continue;
            }
            if !self.has_paused && self.expects_many_results() {
                ready!(
                    self.pause
                        .get_or_insert_with(|| TimeLimit::new(MAP_PAUSE))
                        .poll(cx)
                );
                self.pause = None;
                self.has_paused = true;
                continue; // and park if there is still no result
            }
            let Some(parking) = &mut self.parking else {
                return Poll::Pending;
            };
            ready!(parking.poll_event(cx, &mut self.lanes));
            parking.leave(&mut self.lanes);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Returns whether so many results are about to come that the first of them need not wake the
    /// map.
    fn expects_many_results(&self) -> bool {
        let items = self.pulled - self.delivery.count();
        self.parking.is_some()
            && self
                .sizer
                .time_of(items / self.lanes.len().max(1))
                .is_some_and(|time| time >= 2 * MAP_PAUSE)
            && self
                .sizer
                .time_of(1)
                .is_some_and(|time| time <= MAP_QUICK_ITEM)
    }

    /// Lets nothing begin any more, and waits for the items in progress, or kills their workers.
    pub(super) fn poll_stop(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.source = None;
        self.queue.clear();
        self.singles.clear();
        // Every lane must be polled.
        let are_left = self
            .lanes
            .iter_mut()
            .filter_map(|lane| lane.poll_stop(cx).is_pending().then_some(()))
            .count();
        if are_left > 0 {
            return Poll::Pending;
        }
        self.lanes.clear();
        self.delivery.clear();
        Poll::Ready(())
    }

    /// Describes the map for a report that a cancelled scope waits for it.
    pub(super) fn describe(&self, what: &mut String) {
        what.push_str(&format!("a map of job `{}`", self.plan.job_name));
        let pids: Vec<_> = self.lanes.iter().filter_map(Lane::pid).collect();
        what.push_str(&format!(", in processes {pids:?}"));
        if !self.plan.kill_on_cancel {
            what.push_str(" (`kill_on_cancel(true)` would kill them)");
        }
    }

    /// Delivers the results that a worker has made. Returns whether there were any.
    fn take_results(&mut self, at: usize) -> bool {
        let Some(session) = self.lanes[at].session() else {
            return false;
        };
        match self.delivery.take_results(session, &self.plan) {
            Ok(0) => false,
            Ok(_) => {
                self.fruitless = 0;
                observe(&mut self.sizer, session);
                true
            }
            Err(ForgedProgress) => {
                self.lanes[at].kill_for_protocol(FORGED);
                false
            }
        }
    }

    /// Hands out items. Returns whether it did.
    fn distribute(&mut self, cx: &mut Context<'_>) -> bool {
        if self.start_lane(cx) {
            return true;
        }
        let gives_way = self.gives_way();
        let mut has_handed = false;
        // Workers that have nothing come first.
        for chunks in 0..MAP_CHUNKS_PER_WORKER {
            for at in 0..self.lanes.len() {
                has_handed |= self.fill(at, chunks, gives_way, cx);
            }
        }
        has_handed
    }

    /// Lets another lane wait for a token, if there are items for it. Returns whether one does.
    fn start_lane(&mut self, cx: &mut Context<'_>) -> bool {
        let idle = self.lanes.iter().position(Lane::is_idle);
        if idle.is_none() && self.lanes.len() >= self.plan.workers()
            || self.lanes.iter().any(Lane::is_queued)
            || !self.fetch(cx)
        {
            return false;
        }
        let at = idle.unwrap_or_else(|| {
            self.lanes
                .push(Lane::new(self.plan.kill_on_cancel, self.plan.time_limit));
            self.lanes.len() - 1
        });
        self.lanes[at].queue(&self.plan.limiter);
        true
    }

    /// Returns whether workers should be given back soon: other calls wait for a token, or the
    /// context is being shut down.
    fn gives_way(&self) -> bool {
        let own = self.lanes.iter().filter(|lane| lane.is_queued()).count();
        self.plan.limiter.statistics().waiting > own || self.plan.context.pool().is_closed()
    }

    /// Gives another chunk to a worker that has this many. Returns whether it got one.
    fn fill(&mut self, at: usize, chunks: usize, gives_way: bool, cx: &mut Context<'_>) -> bool {
        let Some(session) = self.lanes[at].session() else {
            return false;
        };
        if session.is_closing || session.ledger.chunks() != chunks {
            return false;
        }
        let goes_on = !gives_way
            && self.parking.is_some()
            && (self.fetch(cx) || chunks == 0 && self.steal_for(at))
            && self.singles.is_empty();
        let Some(session) = self.lanes[at].session() else {
            unreachable!("it has a session, and nothing was polled")
        };
        if !goes_on {
            if chunks == 0 {
                session.close();
                return true;
            }
            return false;
        }
        match self.queue.front() {
            Some(chunk) if chunk.words() <= session.feeder.room() => {}
            _ => return false,
        }
        let chunk = self.queue.pop_front().expect("it was just looked at");
        session.give(chunk);
        true
    }

    /// Takes items that have not begun from another worker, for one that has none. Returns whether
    /// it found any.
    fn steal_for(&mut self, at: usize) -> bool {
        if self.plan.chunk.is_some() {
            return false;
        }
        let others = self.lanes.iter_mut().enumerate();
        let others = others.filter_map(|(other, lane)| {
            let session = lane.session().filter(|_| other != at)?;
            Some((session.unbegun(), session))
        });
        let Some((unbegun, session)) = others.max_by_key(|(unbegun, _)| *unbegun) else {
            return false;
        };
        if unbegun == 0 {
            return false;
        }
        // A violation of the protocol is found elsewhere.
        let stolen = session.withdraw_last(unbegun.div_ceil(2));
        let Ok(stolen) = stolen else { return false };
        self.queue.extend(stolen);
        !self.queue.is_empty()
    }

    fn handle(&mut self, at: usize, outcome: Outcome, cx: &mut Context<'_>) {
        match outcome {
            Outcome::Token(token, waited) => self.start(at, token, waited, cx),
            Outcome::Done(Work::Session(session), frame) => self.session_done(*session, frame),
            Outcome::Failed(Work::Session(session), error) => self.session_failed(*session, error),
            Outcome::GivenUp(Work::Session(mut session)) => {
                self.settle(&mut session);
            }
            Outcome::Done(Work::Single(single), mut frame) => {
                let fds = std::mem::take(&mut frame.fds);
                match codec::decode_received(frame.payload(), fds) {
                    Ok(result) => self.delivery.push(single.index, Ok(result)),
                    Err(error) => self.fail(single.index, WorkerError::decode_result(error)),
                }
            }
            Outcome::Failed(Work::Single(single), error) => self.single_failed(single, error),
            Outcome::GivenUp(Work::Single(single)) => {
                self.fail(single.index, WorkerError::closed());
            }
        }
    }

    /// Begins to work with a token.
    fn start(&mut self, at: usize, token: Token, waited: Option<Duration>, cx: &mut Context<'_>) {
        if !self.fetch(cx) {
            return; // other workers have taken the items
        }
        let pool = self.plan.context.pool().clone();
        let (guard, taken) = match CallGuard::begin(pool, self.plan.job_name, token, waited) {
            Ok(begun) => begun,
            Err(error) => return self.charge(error),
        };
        let (message, work) = match self.next_work() {
            Ok(next) => next,
            Err(error) => return self.charge(error),
        };
        if let Err((work, error)) = self.lanes[at].begin(message, guard, taken, work) {
            self.handle(at, Outcome::Failed(work, error), cx);
        }
    }
}

/// Lets the size of chunks follow what a worker has measured.
pub(super) fn observe(sizer: &mut ChunkSizer, session: &mut Session) {
    session.last_end = Some(Instant::now());
    let now = session.feeder.measured();
    let (busy, items) = std::mem::replace(&mut session.measured, now);
    sizer.observe(now.1.saturating_sub(items), now.0.saturating_sub(busy));
}
