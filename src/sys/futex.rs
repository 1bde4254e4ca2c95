//! A word in shared memory on which a thread of one process waits for another process.
//!
//! In a model, a lock and a condition variable do what the kernel does: it compares the word and
//! begins to wait under a lock, under which it also looks for a thread to wake.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

#[cfg(not(all(test, loom)))]
use rustix::{thread::futex, time::Timespec};

#[cfg(all(test, loom))]
use super::{model::step, primitives::lock};
#[cfg(all(test, loom))]
use loom::sync::atomic::AtomicU32;
#[cfg(not(all(test, loom)))]
use std::sync::atomic::AtomicU32;

/// Counts wake-ups. An atomic word, of which zero is the initial value.
#[cfg_attr(all(test, loom), derive(Default))]
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Futex {
    wake_ups: AtomicU32,
    #[cfg(all(test, loom))]
    kernel: loom::sync::Mutex<()>,
    #[cfg(all(test, loom))]
    woken: loom::sync::Condvar,
}

impl Futex {
    /// Returns the number of wake-ups so far, for [`wait`](Self::wait). A change
    /// of a condition that the caller checks after this call ends that wait.
    pub(crate) fn wake_ups(&self) -> u32 {
        #[cfg(all(test, loom))]
        step();
        self.wake_ups.load(SeqCst)
    }

    /// Waits for another wake-up than the first `seen`, for about `limit` at most. It may return
    /// early.
    #[cfg(not(all(test, loom)))]
    pub(crate) fn wait(&self, seen: u32, limit: Duration) {
        let limit = Timespec::try_from(limit).ok();
        // Any end of the wait leads to another check by the caller.
        let _ = futex::wait(&self.wake_ups, futex::Flags::empty(), seen, limit.as_ref());
    }

    /// Wakes the thread that waits. A thread that has called [`wake_ups`](Self::wake_ups) before
    /// does not begin to wait.
    #[cfg(not(all(test, loom)))]
    pub(crate) fn wake(&self) {
        self.wake_ups.fetch_add(1, SeqCst);
        // Fails only for an address that is not mapped.
        let _ = futex::wake(&self.wake_ups, futex::Flags::empty(), 1);
    }
}

#[cfg(all(test, loom))]
impl Futex {
    /// A model has no time, so the wait has no limit: a lost wake-up is a deadlock.
    pub(crate) fn wait(&self, seen: u32, _: Duration) {
        step();
        let kernel = lock(&self.kernel);
        if self.wake_ups.load(SeqCst) == seen {
            drop(self.woken.wait(kernel));
        }
    }

    pub(crate) fn wake(&self) {
        self.wake_ups.fetch_add(1, SeqCst);
        let _kernel = lock(&self.kernel);
        self.woken.notify_one();
    }
}
