//! A tick that all waits of cancelled scopes share, in place of a timer for each of them.
//!
//! smol's reactor keeps a dropped timer for a while, with the waker and so with the memory of a
//! task. Here a wait leaves nothing behind, and the only timer runs while any task waits.

use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Wake, Waker};

use async_io::Timer;
use futures_lite::FutureExt;
use slab::Slab;

use super::tuning::WAIT_TICK_INTERVAL;
use crate::sys::unwind::wake_all;

static TICKER: Mutex<Ticker> = Mutex::new(Ticker {
    is_set: false,
    number: 0,
    timer: None,
    wakers: Slab::new(),
});

/// The waker of the timer.
static TICK_WAKER: LazyLock<Waker> = LazyLock::new(|| Waker::from(Arc::new(TickWaker)));

struct TickWaker;

impl Wake for TickWaker {
    fn wake(self: Arc<Self>) {
        tick();
    }
}

struct Ticker {
    /// A timer is set, or is about to be.
    is_set: bool,
    /// The number of timers so far.
    number: u64,
    /// The timer that was set last, until its tick.
    timer: Option<Timer>,
    /// The waker of each [`WaitTick`] that waits.
    wakers: Slab<Option<Waker>>,
}

/// One task's wait for the next tick.
#[derive(Debug)]
pub(super) struct WaitTick {
    key: usize,
}

/// The lock is never held while a waker is cloned, woken or dropped, because that is foreign code.
/// Nor while a timer is set or dropped: the reactor may then drop wakers of other timers.
fn ticker() -> MutexGuard<'static, Ticker> {
    TICKER.lock().unwrap_or_else(PoisonError::into_inner)
}

impl WaitTick {
    pub(super) fn new() -> Self {
        let key = ticker().wakers.insert(None);
        WaitTick { key }
    }

    /// Wakes the task at the next tick, which comes within [`WAIT_TICK_INTERVAL`].
    pub(super) fn wake_at_next(&self, cx: &mut Context<'_>) {
        let waker = cx.waker().clone();
        let mut ticker = ticker();
        let before = ticker.wakers[self.key].replace(waker);
        let sets_timer = !std::mem::replace(&mut ticker.is_set, true);
        ticker.number += u64::from(sets_timer);
        let number = ticker.number;
        drop(ticker);
        drop(before);
        if sets_timer {
            set_timer(number);
        }
    }
}

impl Drop for WaitTick {
    fn drop(&mut self) {
        let waker = ticker().wakers.remove(self.key);
        drop(waker);
    }
}

/// Sets the timer with this number.
fn set_timer(number: u64) {
    let mut timer = Timer::after(WAIT_TICK_INTERVAL);
    let has_fired = timer.poll(&mut Context::from_waker(&TICK_WAKER)).is_ready();
    if has_fired {
        return tick(); // this thread was stopped for so long
    }
    let mut ticker = ticker();
    // If its tick has come since, the next timer may be set already.
    if ticker.is_set && ticker.number == number {
        ticker.timer = Some(timer);
    }
}

/// Wakes all tasks that wait for the tick.
fn tick() {
    let mut ticker = ticker();
    ticker.is_set = false;
    let timer = ticker.timer.take();
    let wakers = ticker
        .wakers
        .iter_mut()
        .filter_map(|(_, waker)| waker.take());
    let wakers: Vec<_> = wakers.collect();
    drop(ticker);
    drop(timer);
    wake_all(wakers);
}

#[cfg(all(test, not(miri)))] // Miri has no reactor
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use super::*;

    /// Waits for one tick.
    async fn next_tick() {
        let tick = WaitTick::new();
        let mut is_registered = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut is_registered, true) && is_awaited(&tick) {
                return Poll::Ready(());
            }
            tick.wake_at_next(cx);
            Poll::Pending
        })
        .await;
    }

    /// Whether the tick has come since the task was registered.
    fn is_awaited(tick: &WaitTick) -> bool {
        ticker().wakers[tick.key].is_none()
    }

    #[test]
    fn every_wait_ends_with_a_tick_and_later_waits_with_later_ones() {
        async_io::block_on(async {
            futures_lite::future::zip(next_tick(), next_tick()).await;
            next_tick().await;
        });
    }

    #[test]
    fn a_wait_that_is_dropped_leaves_nothing() {
        struct Count;
        impl Wake for Count {
            fn wake(self: Arc<Self>) {}
        }
        let count = Arc::new(Count);
        let waker = Waker::from(count.clone());
        let tick = WaitTick::new();
        tick.wake_at_next(&mut Context::from_waker(&waker));
        drop((tick, waker));
        assert_eq!(Arc::strong_count(&count), 1);
    }
}
