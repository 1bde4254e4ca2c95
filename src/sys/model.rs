//! Tools for writing models that loom checks; see [`primitives`](super::primitives).
//!
//! A model is a small program whose interleavings loom runs, with every value that the memory model
//! allows each load to see. It fails on a race on plain data, on a panic, and on a deadlock. A
//! deadlock is how a lost wake-up shows, as [`block_on`] sleeps until it is woken.
//!
//! loom runs all threads of a model on one thread of the system. So only one thread of a model may
//! poll futures within a scope tree, whose position is a thread-local, and no thread of a model may
//! block in code that loom does not know.

// Hands plain data to several threads: that is the checked property.
#![allow(unsafe_code)]

use std::any::Any;
use std::cell::Cell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize as RealAtomicUsize;
use std::task::{Context, Poll, Wake, Waker};

use loom::sync::Notify;
pub(crate) use loom::thread::{JoinHandle, spawn};
pub(crate) use std::sync::atomic::Ordering::Relaxed;

/// Runs a model in all interleavings with at most two preemptions, or `LOOM_MAX_PREEMPTIONS`.
pub(crate) fn check(model: impl Fn() + Send + Sync + 'static) {
    check_up_to(2, model);
}

/// Runs a model in all interleavings with at most this many preemptions, or `LOOM_MAX_PREEMPTIONS`.
pub(crate) fn check_up_to(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(preemptions);
    builder.max_branches = builder.max_branches.max(20_000);
    builder.check(model);
}

struct Unpark(Notify);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.notify();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.notify();
    }
}

/// Polls whenever it is woken, and sometimes once more, because loom wakes sleepers spuriously.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let unpark = Arc::new(Unpark(Notify::new()));
    let waker = Waker::from(unpark.clone());
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
        unpark.0.wait();
    }
}

loom::thread_local! {
    /// The number of accesses to shared memory after which this thread is killed, if it is.
    static STEPS_LEFT: Cell<Option<usize>> = Cell::new(None);
}

/// The panic payload of a thread that stands for a process, and has ended.
struct Ended;

/// Runs `process` in a thread that stands for a process, and ends it before the access after
/// `steps` accesses to memory that is shared with another one. Returns `None` if it was ended, or
/// ended itself.
pub(crate) fn kill_after<R>(steps: Option<usize>, process: impl FnOnce() -> R) -> Option<R> {
    STEPS_LEFT.with(|left| left.set(steps));
    let outcome: Result<R, Box<dyn Any + Send>> = catch_unwind(AssertUnwindSafe(process));
    STEPS_LEFT.with(|left| left.set(None));
    match outcome {
        Ok(value) => Some(value),
        Err(payload) if payload.is::<Ended>() => None,
        Err(payload) => resume_unwind(payload),
    }
}

/// Counts an access to shared memory. Ends the process that the thread stands for if it is time.
pub(crate) fn step() {
    let is_last = STEPS_LEFT.with(|left| match left.get() {
        None => false,
        Some(0) => true,
        Some(steps) => {
            left.set(Some(steps - 1));
            false
        }
    });
    if is_last {
        end_process();
    }
}

/// Ends the process that this thread stands for.
pub(crate) fn end_process() -> ! {
    // Values that are dropped while this unwinds may access the memory.
    STEPS_LEFT.with(|left| left.set(None));
    resume_unwind(Box::new(Ended))
}

/// Data without protection. loom checks that all uses are ordered.
#[derive(Debug)]
pub(crate) struct Plain(loom::cell::Cell<u32>);

// SAFETY: loom runs one thread at a time, and fails the model if two uses are not ordered.
unsafe impl Sync for Plain {}

impl Plain {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Plain(loom::cell::Cell::new(0)))
    }

    pub(crate) fn get(&self) -> u32 {
        self.0.get()
    }

    pub(crate) fn set(&self, value: u32) {
        self.0.set(value);
    }

    pub(crate) fn add(&self, value: u32) {
        self.set(self.get() + value);
    }
}

/// A value that is accessed when it is used and when it is dropped, and that counts its drops.
#[derive(Debug)]
pub(crate) struct Tracked {
    plain: Arc<Plain>,
    drops: Drops,
}

/// Counts drops. The counter is not part of the model, so it orders nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drops(Arc<RealAtomicUsize>);

impl Drops {
    pub(crate) fn track(&self) -> Tracked {
        Tracked {
            plain: Plain::new(),
            drops: self.clone(),
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(Relaxed)
    }
}

impl Tracked {
    pub(crate) fn touch(&self) {
        self.plain.add(1);
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.touch();
        self.drops.0.fetch_add(1, Relaxed);
    }
}
