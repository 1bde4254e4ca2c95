//! The timers of one run: its clock, its deadlines, and the tasks that wait for the run to be idle.
//!
//! The run's loop asks for the [next deadline](Timers::arm), waits for it in smol's reactor or lets
//! a virtual clock jump there, and calls [`fire`](Timers::fire). A task may insert a deadline on
//! any thread. If it is earlier than all others, it wakes the loop, which then waits less long.

use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::{Duration, Instant};

use atomic_waker::AtomicWaker;

use super::clock::{Clock, RealClock};
use super::idle::{IdleKey, IdleQueue};
use super::queue::{DeadlineKey, DeadlineQueue};
use crate::sys::primitives::lock;
use crate::sys::unwind::wake_all;

/// One run's clock and deadlines.
#[derive(Debug)]
pub(crate) struct Timers {
    clock: Arc<dyn Clock>,
    /// The clock is the system's.
    real: bool,
    deadlines: Mutex<Deadlines>,
    /// Wakes the run's loop, which calls `fire`.
    pub(crate) run_waker: AtomicWaker,
    idle: Mutex<IdleQueue<Waker>>,
}

#[derive(Debug)]
struct Deadlines {
    queue: DeadlineQueue<Waker>,
    /// The run has ended, so nothing fires any more.
    ended: bool,
    /// The time of the last `fire`. Deadlines up to then are no longer in the queue.
    fired: Option<Instant>,
    next_check: NextCheck,
}

/// When the loop next looks at the deadlines without being woken.
#[derive(Debug)]
enum NextCheck {
    /// Before it waits next: since its last `fire`, the loop has not called `arm`. An insert need
    /// not wake it.
    BeforeWaiting,
    /// At this deadline, or never if there was none. The deadline may have been removed since.
    At(Option<Instant>),
}

/// The state of a deadline that was polled.
#[derive(Debug)]
pub(crate) enum DeadlinePoll {
    Waiting(DeadlineKey),
    Passed,
    /// The run has ended, so the deadline was removed.
    RunEnded,
}

impl Deadlines {
    /// Removes a deadline that is no longer in the queue.
    fn remove_expired(&mut self, key: DeadlineKey) -> DeadlinePoll {
        self.queue.remove(key);
        if self.ended {
            DeadlinePoll::RunEnded
        } else {
            DeadlinePoll::Passed
        }
    }
}

impl Timers {
    /// Makes timers with this clock; without one, with the system's.
    pub(crate) fn new(clock: Option<Arc<dyn Clock>>) -> Arc<Self> {
        Arc::new(Timers {
            real: clock.is_none(),
            clock: clock.unwrap_or_else(|| Arc::new(RealClock)),
            deadlines: Mutex::new(Deadlines {
                queue: DeadlineQueue::new(),
                ended: false,
                fired: None,
                next_check: NextCheck::BeforeWaiting,
            }),
            run_waker: AtomicWaker::new(),
            idle: Mutex::new(IdleQueue::new()),
        })
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    pub(crate) fn shared_clock(&self) -> Arc<dyn Clock> {
        self.clock.clone()
    }

    pub(crate) fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Returns whether the clock is the system's, so the time is the same outside of the run.
    pub(crate) fn are_real(&self) -> bool {
        self.real
    }

    /// Returns the earliest deadline. From now on, inserting an earlier one wakes the loop.
    pub(crate) fn arm(&self) -> Option<Instant> {
        let mut deadlines = lock(&self.deadlines);
        let next = deadlines.queue.next();
        deadlines.next_check = NextCheck::At(next);
        next
    }

    /// Returns the earliest deadline, without an effect on the loop.
    pub(crate) fn earliest(&self) -> Option<Instant> {
        lock(&self.deadlines).queue.next()
    }

    /// Returns whether a deadline has passed that was not fired yet.
    pub(crate) fn is_due(&self) -> bool {
        self.earliest()
            .is_some_and(|deadline| deadline <= self.now())
    }

    /// Wakes the tasks whose deadline has passed. Afterwards the loop calls [`arm`](Timers::arm)
    /// before it waits, or does not wait.
    pub(crate) fn fire(&self) {
        let now = self.now();
        let mut expired = Vec::new();
        let mut deadlines = lock(&self.deadlines);
        deadlines.next_check = NextCheck::BeforeWaiting;
        deadlines.fired = Some(now);
        deadlines.queue.expire(now, |waker| expired.push(waker));
        drop(deadlines);
        // Woken after the lock is released: a waker may be foreign code.
        wake_all(expired);
    }

    /// Has `waker` woken at the deadline. Returns `None` if the deadline is not later than the last
    /// `fire`. This does not read the clock: the next `fire` finds a deadline that has passed
    /// since.
    pub(crate) fn insert(&self, deadline: Instant, waker: &Waker) -> Option<DeadlineKey> {
        // Cloned before the lock is taken.
        let waker = waker.clone();
        let mut deadlines = lock(&self.deadlines);
        if deadlines.fired.is_some_and(|fired| deadline <= fired) {
            drop(deadlines);
            return None;
        }
        let key = deadlines.queue.insert(deadline, waker);
        let wakes_loop = match deadlines.next_check {
            NextCheck::BeforeWaiting => false,
            NextCheck::At(next) => next.is_none_or(|next| deadline < next),
        };
        drop(deadlines);
        if wakes_loop {
            self.run_waker.wake();
        }
        Some(key)
    }

    /// Replaces the waker of a deadline, unless the deadline has passed or the run has ended.
    pub(crate) fn poll(&self, key: DeadlineKey, waker: &Waker) -> DeadlinePoll {
        let mut deadlines = lock(&self.deadlines);
        match deadlines.queue.waiter_mut(&key) {
            Some(current) if current.will_wake(waker) => return DeadlinePoll::Waiting(key),
            Some(_other) => {}
            None => return deadlines.remove_expired(key),
        }
        drop(deadlines);
        // Wakers may be foreign code, so they are cloned and dropped while no lock is held. The old
        // one may be woken in the meantime.
        let mut replaced = waker.clone();
        let mut deadlines = lock(&self.deadlines);
        match deadlines.queue.waiter_mut(&key) {
            Some(current) => std::mem::swap(current, &mut replaced),
            None => return deadlines.remove_expired(key),
        }
        drop(deadlines);
        DeadlinePoll::Waiting(key)
    }

    /// Ends the timers with their run. A future that goes on in another run, or outside of one, is
    /// woken and finds that nothing fires here any more.
    pub(crate) fn end(&self) {
        let mut deadlines = lock(&self.deadlines);
        deadlines.ended = true;
        let mut woken = deadlines.queue.expire_all();
        drop(deadlines);
        // The tasks of a run that has ended are blocked.
        woken.append(&mut lock(&self.idle).take_all());
        wake_all(woken);
    }

    /// Returns whether the run has ended.
    pub(crate) fn has_ended(&self) -> bool {
        lock(&self.deadlines).ended
    }

    pub(crate) fn remove(&self, key: DeadlineKey) {
        let removed = lock(&self.deadlines).queue.remove(key);
        // Dropped after the lock is released.
        drop(removed);
    }

    /// Returns whether it matters that the run is idle: a task waits for that, or the clock jumps
    /// then.
    pub(crate) fn is_idleness_wanted(&self) -> bool {
        self.shortest_cushion().is_some() || self.clock.autojump_threshold().is_some()
    }

    /// Returns the shortest time, in real time, that the run has to be idle until a task is woken;
    /// `None` if no task waits for that.
    pub(crate) fn shortest_cushion(&self) -> Option<Duration> {
        lock(&self.idle).shortest()
    }

    /// Has `waker` woken when the run has been idle for `cushion`.
    pub(crate) fn wait_idle(&self, cushion: Duration, waker: Waker) -> IdleKey {
        let key = lock(&self.idle).insert(cushion, waker);
        // The loop may be parked, because the task that calls this may be polled by another thread.
        self.run_waker.wake();
        key
    }

    /// Replaces the waker of an entry. Returns `false` if the entry has been woken already.
    pub(crate) fn poll_idle(&self, key: IdleKey, waker: &Waker) -> bool {
        let new = waker.clone();
        let mut idle = lock(&self.idle);
        let Some(slot) = idle.get_mut(key) else {
            return false;
        };
        let old = std::mem::replace(slot, new);
        drop(idle);
        // Dropped after the lock is released: dropping a waker may run foreign code.
        drop(old);
        true
    }

    pub(crate) fn remove_idle(&self, key: IdleKey) {
        let removed = lock(&self.idle).remove(key);
        // Dropped after the lock is released.
        drop(removed);
    }

    /// Wakes the tasks that wait with the shortest cushion, because the run has been idle for that
    /// long.
    pub(crate) fn wake_idle(&self) {
        let woken = lock(&self.idle).take_shortest();
        wake_all(woken);
    }
}
