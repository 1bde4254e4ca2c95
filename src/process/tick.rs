//! Two coarse timers for the whole process: a slow second look at things that normally announce
//! themselves, and a slower one at things that almost never happen.
//!
//! A call to a worker that was just forked usually ends before there is anything to check. But the
//! fork server may be stopped, or the worker may end while a process that its job started keeps the
//! socket open. A timer for each call would cost more than the call, because setting one wakes the
//! reactor. So all waits share a timer, which runs while any task waits and for
//! [`TICKS_BEFORE_STOP`] ticks longer.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use async_io::Timer;

use super::background;
use super::tuning::{SLOW_TICK_INTERVAL, TICK_INTERVAL, TICKS_BEFORE_STOP};
use crate::process::notify::{Listener, Notify};

static TICKER: Ticker = Ticker::new(TICK_INTERVAL);

static SLOW_TICKER: Ticker = Ticker::new(SLOW_TICK_INTERVAL);

/// Listens for the next tick, which may come at once and comes within [`TICK_INTERVAL`].
pub(crate) fn next_tick() -> Listener {
    TICKER.listen()
}

/// Listens for the next slow tick, which may come at once and comes within [`SLOW_TICK_INTERVAL`].
pub(crate) fn next_slow_tick() -> Listener {
    SLOW_TICKER.listen()
}

/// Wakes all tasks that wait for a tick of either timer.
pub(crate) fn tick_now() {
    TICKER.tick.notify_all();
    SLOW_TICKER.tick.notify_all();
}

#[derive(Debug)]
struct Ticker {
    interval: Duration,
    tick: Notify,
    /// The timer's task exists.
    is_running: AtomicBool,
    /// The ticks since a task last began to wait.
    unused_ticks: AtomicU32,
}

impl Ticker {
    const fn new(interval: Duration) -> Self {
        Self {
            interval,
            tick: Notify::new(),
            is_running: AtomicBool::new(false),
            unused_ticks: AtomicU32::new(0),
        }
    }

    fn listen(&'static self) -> Listener {
        let listener = self.tick.listen(); // before the timer is started, so that no tick is missed
        self.unused_ticks.store(0, Ordering::SeqCst);
        if !self.is_running.swap(true, Ordering::SeqCst) {
            background::spawn(self.run()).detach();
        }
        listener
    }

    async fn run(&self) {
        loop {
            Timer::after(self.interval).await;
            self.tick.notify_all();
            let unused = self.unused_ticks.fetch_add(1, Ordering::SeqCst) + 1;
            if unused >= TICKS_BEFORE_STOP && self.try_stop() {
                return;
            }
        }
    }

    /// Stops the timer, unless a new listener relies on it.
    fn try_stop(&self) -> bool {
        self.is_running.store(false, Ordering::SeqCst);
        let is_unused = self.unused_ticks.load(Ordering::SeqCst) >= TICKS_BEFORE_STOP;
        // If the flag is set again, then the new listener has started another timer.
        is_unused || self.is_running.swap(true, Ordering::SeqCst)
    }
}
