//! The sleepers of one run.
//!
//! The run's loop asks for the [next deadline](Timers::arm), waits for it in smol's reactor or lets a virtual clock
//! jump there, and calls [`fire`](Timers::fire). Sleepers may register from any thread; one whose deadline comes before
//! all others wakes the loop, which then waits less long.

use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::{Duration, Instant};

use atomic_waker::AtomicWaker;

use super::clock::{Clock, RealClock};
use super::idle::{IdleKey, IdleQueue};
use super::queue::{DeadlineQueue, Place};
use crate::sys::primitives::lock;

/// One run's clock and deadlines.
#[derive(Debug)]
pub(crate) struct Timers {
    clock: Arc<dyn Clock>,
    /// The clock is the system's.
    real: bool,
    sleepers: Mutex<Sleepers>,
    /// The loop that calls `fire`.
    pub(crate) driver: AtomicWaker,
    idle: Mutex<IdleQueue<Waker>>,
}

#[derive(Debug)]
struct Sleepers {
    queue: DeadlineQueue<Waker>,
    /// What had passed by then is no longer in the queue.
    fired: Option<Instant>,
    driver: Looks,
}

/// When the loop looks at the queue again by itself.
#[derive(Debug)]
enum Looks {
    /// Before it waits: it has fired, and not asked for the next deadline since.
    BeforeItWaits,
    /// At this deadline, which it was given; never, if there was none. Who has that deadline may have left.
    At(Option<Instant>),
}

impl Timers {
    /// With the system's clock, or a given one.
    pub(crate) fn new(clock: Option<Arc<dyn Clock>>) -> Arc<Self> {
        Arc::new(Timers {
            real: clock.is_none(),
            clock: clock.unwrap_or_else(|| Arc::new(RealClock)),
            sleepers: Mutex::new(Sleepers {
                queue: DeadlineQueue::new(),
                fired: None,
                driver: Looks::BeforeItWaits,
            }),
            driver: AtomicWaker::new(),
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

    /// Whether the time is the same as outside of the run.
    pub(crate) fn are_real(&self) -> bool {
        self.real
    }

    /// The earliest deadline that somebody sleeps for. From now on, one that is earlier wakes the loop.
    pub(crate) fn arm(&self) -> Option<Instant> {
        let mut sleepers = lock(&self.sleepers);
        let next = sleepers.queue.next();
        sleepers.driver = Looks::At(next);
        next
    }

    /// The same for whoever only wants to know.
    pub(crate) fn earliest(&self) -> Option<Instant> {
        lock(&self.sleepers).queue.next()
    }

    /// Whether a deadline has passed that was not fired yet.
    pub(crate) fn is_due(&self) -> bool {
        self.earliest()
            .is_some_and(|deadline| deadline <= self.now())
    }

    /// Wakes everybody whose deadline has passed. Afterwards the loop asks for the [`arm`](Timers::arm) deadline
    /// before it waits, or does not wait.
    pub(crate) fn fire(&self) {
        let now = self.now();
        let mut expired = Vec::new();
        let mut sleepers = lock(&self.sleepers);
        sleepers.driver = Looks::BeforeItWaits;
        sleepers.fired = Some(now);
        sleepers.queue.expire(now, |waker| expired.push(waker));
        drop(sleepers);
        // Woken while no lock is held: wakers may be foreign.
        WakeAll(expired.into_iter()).now();
    }

    /// Has `waker` woken at the deadline. `None` if that had passed before the loop last fired; one that passed since
    /// is found when it next fires. So nobody has to ask what time it is.
    pub(crate) fn insert(&self, deadline: Instant, waker: &Waker) -> Option<Place> {
        // Cloned while no lock is held.
        let waker = waker.clone();
        let mut sleepers = lock(&self.sleepers);
        if sleepers.fired.is_some_and(|fired| deadline <= fired) {
            drop(sleepers);
            return None;
        }
        let place = sleepers.queue.insert(deadline, waker);
        let too_late = match sleepers.driver {
            Looks::BeforeItWaits => false,
            Looks::At(next) => next.is_none_or(|next| deadline < next),
        };
        drop(sleepers);
        if too_late {
            self.driver.wake();
        }
        Some(place)
    }

    /// Gives the place back if the sleeper still waits there, and makes `waker` the one to wake. `None`: its deadline
    /// has passed.
    pub(crate) fn poll(&self, place: Place, waker: &Waker) -> Option<Place> {
        let mut sleepers = lock(&self.sleepers);
        match sleepers.queue.waiter_mut(&place) {
            Some(known) if known.will_wake(waker) => return Some(place),
            Some(_other) => {}
            None => {
                sleepers.queue.leave(place);
                return None;
            }
        }
        drop(sleepers);
        // Cloned and dropped while no lock is held: wakers may be foreign. Meanwhile, the old one may be woken.
        let mut replaced = waker.clone();
        let mut sleepers = lock(&self.sleepers);
        match sleepers.queue.waiter_mut(&place) {
            Some(known) => std::mem::swap(known, &mut replaced),
            None => {
                sleepers.queue.leave(place);
                return None;
            }
        }
        drop(sleepers);
        Some(place)
    }

    pub(crate) fn leave(&self, place: Place) {
        let left = lock(&self.sleepers).queue.leave(place);
        drop(left);
    }

    /// Whether anything hangs on the run being idle: somebody waits for that, or the clock jumps then.
    pub(crate) fn is_idleness_wanted(&self) -> bool {
        self.shortest_cushion().is_some() || self.clock.autojump_threshold().is_some()
    }

    /// For how long, in real time, the run has to be idle until somebody waits no more; `None` if nobody does.
    pub(crate) fn shortest_cushion(&self) -> Option<Duration> {
        lock(&self.idle).shortest()
    }

    /// Waits until the run has been idle for that long.
    pub(crate) fn wait_idle(&self, cushion: Duration, waker: Waker) -> IdleKey {
        let key = lock(&self.idle).insert(cushion, waker);
        // The loop may be asleep: whoever waits may be polled by another thread.
        self.driver.wake();
        key
    }

    /// Whether the entry is still waiting; if so, `waker` is woken instead of the one before.
    pub(crate) fn is_waiting_idle(&self, key: IdleKey, waker: &Waker) -> bool {
        let new = waker.clone();
        let mut idle = lock(&self.idle);
        let Some(slot) = idle.get_mut(key) else {
            return false;
        };
        let old = std::mem::replace(slot, new);
        drop(idle);
        // Dropping a waker may run code of the user's.
        drop(old);
        true
    }

    pub(crate) fn leave_idle(&self, key: IdleKey) {
        let removed = lock(&self.idle).remove(key);
        drop(removed);
    }

    /// The run has been idle for the shortest cushion: wakes those who have waited for that.
    pub(crate) fn wake_idle(&self) {
        let woken = lock(&self.idle).take_shortest();
        WakeAll(woken.into_iter()).now();
    }
}

/// Wakes all, those that are left also after one has panicked.
struct WakeAll(std::vec::IntoIter<Waker>);

impl WakeAll {
    fn now(mut self) {
        self.0.by_ref().for_each(Waker::wake);
    }
}

impl Drop for WakeAll {
    fn drop(&mut self) {
        self.0.by_ref().for_each(Waker::wake);
    }
}
