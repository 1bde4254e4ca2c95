//! `RunInbox`: how other threads reach a run: the queue of calls, and the system tasks.
//!
//! The run's loop owns it, and every [`RunHandle`](super::handle::RunHandle) shares it.

use std::sync::Arc;
use std::task::Wake;
use std::thread::ThreadId;

use super::entry::EntryQueue;
use super::system_nursery::SystemNursery;
use crate::cancel::CancelScope;
use crate::time::Timers;

pub(super) struct RunInbox {
    pub(super) calls: EntryQueue<Call>,
    pub(super) system: SystemNursery,
    /// The scope of the main future.
    pub(super) main_scope: CancelScope,
    timers: Arc<Timers>,
    /// The thread that polls the run.
    pub(super) thread: ThreadId,
}

impl RunInbox {
    /// Makes the inbox of a run that this thread polls.
    pub(super) fn new(timers: Arc<Timers>, main_scope: CancelScope) -> Arc<Self> {
        Arc::new(RunInbox {
            calls: EntryQueue::new(),
            system: SystemNursery::new(),
            main_scope,
            timers,
            thread: std::thread::current().id(),
        })
    }

    /// Wakes the run's loop.
    pub(super) fn wake_loop(&self) {
        self.timers.run_waker.wake();
    }
}

/// As a waker, it wakes the system tasks.
impl Wake for RunInbox {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.system.mark_woken();
        self.wake_loop();
    }
}

/// A function that is to be called in the run.
pub(super) enum Call {
    Once(Box<dyn FnOnce() + Send>),
    Shared(Arc<dyn Fn() + Send + Sync>),
}

impl Call {
    pub(super) fn run(self) {
        match self {
            Call::Once(call) => call(),
            Call::Shared(call) => call(),
        }
    }
}
