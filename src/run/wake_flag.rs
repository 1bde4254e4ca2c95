//! `WakeFlag`: the waker of one of the things that the run's loop polls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

use atomic_waker::AtomicWaker;

/// Remembers that it was woken, and wakes the loop, so that the loop polls only what was woken.
pub(super) struct WakeFlag {
    woken: AtomicBool,
    run: AtomicWaker,
}

impl WakeFlag {
    /// Makes a flag that is set, because everything is polled a first time.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(WakeFlag {
            woken: AtomicBool::new(true),
            run: AtomicWaker::new(),
        })
    }

    /// Registers the waker of the loop.
    pub(super) fn register(&self, waker: &Waker) {
        self.run.register(waker);
    }

    /// Clears the flag, and returns whether it was set.
    pub(super) fn take(&self) -> bool {
        self.woken.swap(false, Ordering::AcqRel)
    }

    pub(super) fn is_woken(&self) -> bool {
        self.woken.load(Ordering::Acquire)
    }
}

impl Wake for WakeFlag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.run.wake();
    }
}
