//! The sleepers of one run.
//!
//! The run's loop asks for the [next deadline](Timers::next), waits for it in smol's reactor or lets a virtual clock
//! jump there, and calls [`fire`](Timers::fire). Sleepers may register from any thread; one whose deadline comes before
//! all others wakes the loop, which then waits less long.

use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::{Duration, Instant};

use atomic_waker::AtomicWaker;

use super::clock::Clock;
use super::idle::{IdleKey, IdleQueue};
use super::queue::{DeadlineQueue, Key};
use crate::cancel::lock;

/// One run's clock and deadlines.
#[derive(Debug)]
pub(crate) struct Timers {
    clock: Arc<dyn Clock>,
    queue: Mutex<DeadlineQueue<Waker>>,
    /// The loop that calls `fire`.
    pub(crate) driver: AtomicWaker,
    idle: Mutex<IdleQueue<Waker>>,
}

impl Timers {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Timers {
            clock,
            queue: Mutex::new(DeadlineQueue::new()),
            driver: AtomicWaker::new(),
            idle: Mutex::new(IdleQueue::new()),
        })
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    pub(crate) fn now(&self) -> Instant {
        self.clock.now()
    }

    /// The earliest deadline that somebody sleeps for.
    pub(crate) fn next(&self) -> Option<Instant> {
        lock(&self.queue).next()
    }

    /// Whether a deadline has passed that was not fired yet.
    pub(crate) fn is_due(&self) -> bool {
        self.next().is_some_and(|deadline| deadline <= self.now())
    }

    /// Wakes everybody whose deadline has passed.
    pub(crate) fn fire(&self) {
        let now = self.now();
        loop {
            let expired = lock(&self.queue).pop_expired(now);
            match expired {
                Some(waker) => waker.wake(),
                None => return,
            }
        }
    }

    pub(crate) fn insert(&self, deadline: Instant, waker: Waker) -> Key {
        let mut queue = lock(&self.queue);
        let earliest = queue.next().is_none_or(|next| deadline < next);
        let key = queue.insert(deadline, waker);
        drop(queue);
        if earliest {
            self.driver.wake();
        }
        key
    }

    /// Whether the entry is still waiting; if so, `waker` is woken instead of the one before.
    pub(crate) fn is_waiting(&self, key: Key, waker: &Waker) -> bool {
        let mut queue = lock(&self.queue);
        let Some(slot) = queue.get_mut(key) else {
            return false;
        };
        if slot.will_wake(waker) {
            return true;
        }
        let old = std::mem::replace(slot, waker.clone());
        drop(queue);
        // Dropping a waker may run code of the user's.
        drop(old);
        true
    }

    pub(crate) fn remove(&self, key: Key) {
        let removed = lock(&self.queue).remove(key);
        drop(removed);
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
        woken.into_iter().for_each(Waker::wake);
    }
}
