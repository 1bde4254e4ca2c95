//! The sleepers of one run.
//!
//! The run's loop asks for the [next deadline](Timers::next), waits for it in smol's reactor or lets a virtual clock
//! jump there, and calls [`fire`](Timers::fire). Sleepers may register from any thread; one whose deadline comes before
//! all others wakes the loop, which then waits less long.

use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::Instant;

use atomic_waker::AtomicWaker;

use super::clock::Clock;
use super::queue::{DeadlineQueue, Place};
use crate::cancel::lock;

/// One run's clock and deadlines.
#[derive(Debug)]
pub(crate) struct Timers {
    clock: Arc<dyn Clock>,
    sleepers: Mutex<Sleepers>,
    /// The loop that calls `fire`.
    pub(crate) driver: AtomicWaker,
    idle: Mutex<Idle>,
}

#[derive(Debug)]
struct Sleepers {
    queue: DeadlineQueue<Waker>,
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

/// Who waits for the run to be idle.
#[derive(Debug, Default)]
struct Idle {
    rounds: u64,
    waiting: Vec<Waker>,
}

impl Timers {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Timers {
            clock,
            sleepers: Mutex::new(Sleepers {
                queue: DeadlineQueue::new(),
                driver: Looks::BeforeItWaits,
            }),
            driver: AtomicWaker::new(),
            idle: Mutex::default(),
        })
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    pub(crate) fn now(&self) -> Instant {
        self.clock.now()
    }

    /// The earliest deadline that somebody sleeps for. From now on, one that is earlier wakes the loop.
    pub(crate) fn next(&self) -> Option<Instant> {
        let mut sleepers = lock(&self.sleepers);
        let next = sleepers.queue.next();
        sleepers.driver = Looks::At(next);
        next
    }

    /// Wakes everybody whose deadline has passed. Afterwards the loop asks for the [`next`](Timers::next) deadline
    /// before it waits, or does not wait.
    pub(crate) fn fire(&self) {
        let now = self.now();
        let mut expired = Vec::new();
        let mut sleepers = lock(&self.sleepers);
        sleepers.driver = Looks::BeforeItWaits;
        sleepers.queue.expire(now, |waker| expired.push(waker));
        drop(sleepers);
        // Woken while no lock is held: wakers may be foreign.
        WakeAll(expired.into_iter()).now();
    }

    pub(crate) fn insert(&self, deadline: Instant, waker: Waker) -> Place {
        let mut sleepers = lock(&self.sleepers);
        let place = sleepers.queue.insert(deadline, waker);
        let too_late = match sleepers.driver {
            Looks::BeforeItWaits => false,
            Looks::At(next) => next.is_none_or(|next| deadline < next),
        };
        drop(sleepers);
        if too_late {
            self.driver.wake();
        }
        place
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

    /// How often the run was found idle while somebody waited for that.
    pub(crate) fn idle_rounds(&self) -> u64 {
        lock(&self.idle).rounds
    }

    /// Whether anything hangs on the run being idle: somebody waits for that, or the clock jumps then.
    pub(crate) fn is_idleness_wanted(&self) -> bool {
        !lock(&self.idle).waiting.is_empty() || self.clock.autojump_threshold().is_some()
    }

    pub(crate) fn wake_when_idle(&self, waker: Waker) {
        lock(&self.idle).waiting.push(waker);
    }

    /// The run is idle: wakes those who wait for that. False if nobody does.
    pub(crate) fn wake_idle(&self) -> bool {
        let waiting = {
            let mut idle = lock(&self.idle);
            idle.rounds += u64::from(!idle.waiting.is_empty());
            std::mem::take(&mut idle.waiting)
        };
        let any = !waiting.is_empty();
        waiting.into_iter().for_each(Waker::wake);
        any
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
