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
use crate::transport::frame::{Frame, Kind};
use crate::transport::map::feeder::{Feeder, ForgedProgress};
use crate::transport::out_message::OutMessage;
use crate::transport::tuning::MAP_RING_WORDS;
use crate::worker::call::time_limit::TimeLimit;
use crate::worker::call::value::{Argument, JobResult};
use crate::worker::error::{WorkerError, WorkerErrorKind};
use crate::worker::pool::call_guard::CallGuard;
use crate::worker::tuning::{
    MAP_CHUNKS_PER_WORKER, MAP_FRUITLESS_WORKERS, MAP_PAUSE, MAP_QUICK_ITEM, MAP_ROUNDS_PER_POLL,
};

const FORGED: &str = "a progress of its items that is not possible";

/// A map in progress.
pub(super) struct Driver<'a, A, R, O: MapOrder> {
    plan: Plan,
    /// `None` if the function lies outside the main executable; then there is a refusal.
    code: Option<MapCode>,
    /// The error of all items, if no worker can run any.
    refusal: Option<fn(&'static str) -> WorkerError>,
    /// `None` once it has ended.
    source: Option<MapSource<'a, A>>,
    /// Number of items that were pulled.
    pulled: usize,
    /// Items that no worker has, by index.
    queue: VecDeque<Chunk>,
    /// Items that are calls of their own, and that no worker has.
    singles: VecDeque<(Single, OutMessage)>,
    delivery: Delivery<R, O>,
    lanes: Vec<Lane>,
    sizer: ChunkSizer,
    /// The memory of sessions that have ended.
    spare: Vec<(Feeder, Arc<OwnedFd>)>,
    /// `None` if each item is a call of its own.
    parking: Option<Parking>,
    /// A pause in which results gather, without a wake-up for each.
    pause: Option<TimeLimit>,
    /// Such a pause has brought no results.
    has_paused: bool,
    /// Workers in a row that have ended without beginning an item.
    fruitless: u32,
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
            self.lanes.push(Lane::new(self.plan.kill_on_cancel));
            self.lanes.len() - 1
        });
        self.lanes[at].queue(&self.plan.limiter);
        true
    }

    /// Returns whether workers should be given back soon: other calls wait for a token, or the context
    /// is being shut down.
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

    /// Pulls items until there is a chunk or a single one that no worker has. Returns whether there
    /// is.
    fn fetch(&mut self, cx: &mut Context<'_>) -> bool {
        let workers = self.plan.workers();
        while self.queue.is_empty() && self.singles.is_empty() {
            let Some(source) = &mut self.source else {
                return false;
            };
            let size = self.sizer.next(source.left(), workers);
            let window = self.sizer.window(workers);
            let under_way = self.pulled - self.delivery.taken();
            let Some(room @ 1..) = window.checked_sub(under_way) else {
                // In time for the workers not to run out of items, and not for each single item.
                let wanted = self.pulled - window + window.div_ceil(4);
                self.delivery.block_until(wanted);
                return false;
            };
            let mut chunk = Chunk::new(self.pulled);
            for _ in 0..size.min(room) {
                let item = match source.poll_next(cx) {
                    Poll::Ready(Some(item)) => item,
                    Poll::Ready(None) => {
                        self.source = None;
                        break;
                    }
                    Poll::Pending if chunk.is_empty() => return false,
                    Poll::Pending => break,
                };
                let index = self.pulled;
                self.pulled += 1;
                if let Some(refusal) = self.refusal {
                    self.fail(index, refusal(self.plan.job_name));
                    break;
                }
                let encoded = chunk.push(|out| codec::encode_record(&item, out));
                match encoded {
                    Ok(true) if chunk.words() < MAP_RING_WORDS as u64 / 4 => continue,
                    Ok(true) => {}
                    Ok(false) => match self.encode_single(index, item) {
                        Ok(single) => self.singles.push_back(single),
                        Err(error) => self.fail(index, error),
                    },
                    Err(_) => {
                        codec::drop_encoded(item, &encoded);
                        if let Err(error) = encoded {
                            self.fail(index, WorkerError::encode_argument(error));
                        }
                    }
                }
                break;
            }
            if !chunk.is_empty() {
                self.queue.push_back(chunk);
            }
        }
        true
    }

    fn code(&self) -> MapCode {
        self.code.expect("without code, no item is encoded")
    }

    /// Makes a call of an item that does not fit into a ring.
    fn encode_single(&self, index: usize, item: A) -> Result<(Single, OutMessage), WorkerError> {
        let pool = self.plan.context.pool();
        let message = OutMessage::build(Kind::Job, self.code().single.offset(), |out| {
            if pool.config.limits_open_files() {
                codec::encode_in_frame(&item, out)
            } else if self.plan.retries > 0 {
                codec::encode_with_attachments(&item, out)
            } else {
                codec::encode_for_worker(&item, out, pool.arenas.pool())
            }
        });
        codec::drop_encoded(item, &message);
        let message = message.map_err(WorkerError::encode_argument)?;
        let kept = self.plan.retries > 0;
        let kept = kept.then(|| (message.bytes().to_vec(), message.fds().to_vec()));
        let single = Single {
            index,
            strikes: 0,
            kept,
        };
        Ok((single, message))
    }

    /// Takes the next item that is to be a call of its own: any, if there are no sessions.
    fn next_single(&mut self) -> Option<(Single, OutMessage)> {
        if let Some(single) = self.singles.pop_front() {
            return Some(single);
        }
        if self.parking.is_some() {
            return None;
        }
        let offset = self.code().single.offset();
        let chunk = self.queue.front_mut()?;
        let record = chunk
            .items()
            .next()
            .expect("a chunk in the queue has items");
        let Ok(message) = OutMessage::build(Kind::Job, offset, |out| {
            codec::copy_record(record, out);
            Ok::<_, std::convert::Infallible>(Vec::new().into())
        });
        let kept = (self.plan.retries > 0).then(|| (message.bytes().to_vec(), Vec::new()));
        let single = Single {
            index: chunk.first(),
            strikes: chunk.strikes(),
            kept,
        };
        chunk.pop();
        if chunk.is_empty() {
            self.queue.pop_front();
        }
        Some((single, message))
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
        let limit = match &work {
            Work::Single(_) => self.plan.time_limit,
            Work::Session(_) => None,
        };
        match self.lanes[at].begin(message, guard, taken, work) {
            Ok(()) => {
                if let Some(limit) = limit {
                    self.lanes[at].set_time_limit(limit);
                }
            }
            Err((work, error)) => self.handle(at, Outcome::Failed(work, error), cx),
        }
    }

    /// Makes a single call or a session of the items that are next.
    fn next_work(&mut self) -> Result<(OutMessage, Work), WorkerError> {
        if let Some((single, message)) = self.next_single() {
            return Ok((message, Work::Single(single)));
        }
        let memory = self.spare.pop().map_or_else(
            || Feeder::new().map(|(feeder, file)| (feeder, Arc::new(file))),
            Ok,
        );
        let (feeder, memory) =
            memory.map_err(|error| WorkerError::start("the shared memory of its items", error))?;
        let Some(parking) = &self.parking else {
            unreachable!("without it, all items are single calls")
        };
        let fds = [memory.clone(), parking.file()];
        let mut session = Session::new(feeder, memory, self.plan.time_limit);
        let is_timed = self.plan.time_limit.is_some();
        let message = OutMessage::build(Kind::Job, self.code().session.offset(), |out| {
            codec::encode_in_frame(&is_timed, out).map(|mut attached| {
                attached.fds.extend(fds);
                attached
            })
        });
        let message = message.map_err(WorkerError::encode_argument)?;
        let chunk = self.queue.pop_front().expect("an item was fetched");
        session.give(chunk);
        Ok((message, Work::Session(Box::new(session))))
    }

    /// The worker has ended a session by itself.
    fn session_done(&mut self, mut session: Session, mut frame: Frame) {
        let fds = std::mem::take(&mut frame.fds);
        let large = codec::decode_received::<Option<R>>(frame.payload(), fds);
        let in_item = self.settle(&mut session);
        match (in_item, large) {
            (Some(index), large) => {
                session.ledger.end_next();
                match large {
                    Ok(Some(result)) => self.delivery.push(index, Ok(result)),
                    Ok(None) => self.fail(index, WorkerError::protocol(FORGED)),
                    Err(error) => self.fail(index, WorkerError::decode_result(error)),
                }
            }
            (None, _) => {
                session.feeder.restart();
                self.spare.push((session.feeder, session.memory));
                return;
            }
        }
        session.feeder.restart();
        self.spare.push((session.feeder, session.memory));
    }

    /// The call of a session has ended with an error: its worker ended, or it did not begin.
    fn session_failed(&mut self, mut session: Session, error: WorkerError) {
        let in_item = self.settle(&mut session);
        let is_end_of_worker = is_end_of_worker(&error);
        if let Some(index) = in_item {
            let error = match session.last_end {
                Some(since) if error.kind() == WorkerErrorKind::Broken => {
                    error.having_run(since.elapsed())
                }
                _ => error,
            };
            let struck = session
                .ledger
                .take_struck()
                .expect("an item is in progress");
            if is_end_of_worker && struck.strikes() <= self.plan.retries {
                self.queue.push_front(struck);
            } else {
                self.fail(index, error);
            }
            return;
        }
        if session.ledger.ended() == 0 {
            self.fruitless += 1;
            if !is_end_of_worker || self.fruitless >= MAP_FRUITLESS_WORKERS {
                self.fruitless = 0;
                self.charge(error);
            }
        }
    }

    /// Delivers the results of a session that has ended, and puts the items that have not begun back
    /// into the queue. Returns the index of the item in which the worker has ended.
    fn settle(&mut self, session: &mut Session) -> Option<usize> {
        let kept = session.feeder.withdraw(0);
        let taken = self.delivery.take_results(session, &self.plan);
        observe(&mut self.sizer, session);
        let (Ok(kept), Ok(_)) = (kept, taken) else {
            // It is not known which items have run, so none may run again.
            while let Some((index, _)) = session.ledger.next() {
                session.ledger.end_next();
                self.fail(index, WorkerError::protocol(FORGED));
            }
            return None;
        };
        let kept = kept.max(session.ledger.ended());
        for chunk in session.ledger.withdraw(kept).into_iter().rev() {
            self.queue.push_front(chunk);
        }
        session.ledger.next().map(|(index, _)| index)
    }

    fn single_failed(&mut self, mut single: Single, error: WorkerError) {
        match single.kept.take() {
            Some((frame, fds))
                if is_end_of_worker(&error) && single.strikes < self.plan.retries =>
            {
                single.strikes += 1;
                let message = OutMessage::new(frame.clone(), fds.clone());
                single.kept = Some((frame, fds));
                self.singles.push_front((single, message));
            }
            _ => self.fail(single.index, error),
        }
    }

    /// Makes an error that concerns no single item that of the next one, so that the map goes on.
    fn charge(&mut self, error: WorkerError) {
        if let Some((single, _)) = self.singles.pop_front() {
            self.fail(single.index, error);
        } else if let Some(chunk) = self.queue.front_mut() {
            let index = chunk.pop();
            if chunk.is_empty() {
                self.queue.pop_front();
            }
            self.fail(index, error);
        }
    }

    fn fail(&mut self, index: usize, error: WorkerError) {
        let error = self.plan.named(error, index);
        self.delivery.push(index, Err(error));
    }
}

/// Returns whether an error means that the worker ended while it had the item.
fn is_end_of_worker(error: &WorkerError) -> bool {
    matches!(
        error.kind(),
        WorkerErrorKind::Broken | WorkerErrorKind::TimedOut
    )
}

/// Lets the size of chunks follow what a worker has measured.
fn observe(sizer: &mut ChunkSizer, session: &mut Session) {
    session.last_end = Some(Instant::now());
    let now = session.feeder.measured();
    let (busy, items) = std::mem::replace(&mut session.measured, now);
    sizer.observe(now.1.saturating_sub(items), now.0.saturating_sub(busy));
}
