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
use super::queue::{DeadlineQueue, Key};
use crate::cancel::lock;

/// One run's clock and deadlines.
#[derive(Debug)]
pub(crate) struct Timers {
    clock: Arc<dyn Clock>,
    queue: Mutex<DeadlineQueue<Waker>>,
    /// The loop that calls `fire`.
    pub(crate) driver: AtomicWaker,
    idle: Mutex<Idle>,
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
            queue: Mutex::new(DeadlineQueue::new()),
            driver: AtomicWaker::new(),
            idle: Mutex::default(),
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

    /// The earliest deadline that somebody sleeps for.
    pub(crate) fn next(&self) -> Option<Instant> {
        lock(&self.queue).next()
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
