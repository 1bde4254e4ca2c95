//! Spins of a run's loop on the mailboxes of its calls, before the loop sleeps.
//!
//! A call that waits for an answer registers its mailbox here, if a run's loop on this thread is
//! polling the call. When no task of the loop is ready, the loop spins on all registered mailboxes
//! for a while. It does not spin if there are more mailboxes than processors, or while it backs off
//! after failed spins. Before it sleeps, it stops watching them in any case, and answers come
//! through the reactor. An answer wakes the call's task, as the reactor does.
//!
//! No call depends on these spins. A task may keep the loop from them, for example by a nested
//! `block_on`; then the worker notices that its answer is not taken, and reports it through the
//! socket.

use std::cell::RefCell;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::Duration;

use atomic_waker::AtomicWaker;
use rustix::thread::sched_getcpu;

use crate::sys::mapping::Mapping;
use crate::transport::backoff::{Backoff, spin_until};
use crate::transport::mailbox::Mailbox;
use crate::worker::tuning::{LOOP_SPIN_INTERVAL, SPIN_BEFORE_SLEEP};

thread_local! {
    static POLLER: RefCell<SpinPoller> = const { RefCell::new(SpinPoller {
        open: false,
        watched: Vec::new(),
        backoff: Backoff::new(),
    }) };
}

struct SpinPoller {
    /// The loop of a run polls tasks on this thread.
    open: bool,
    watched: Vec<Arc<WatchedMailbox>>,
    backoff: Backoff,
}

/// A mailbox, and the waker of the call that waits for an answer there.
#[derive(Debug)]
pub(in crate::worker) struct WatchedMailbox {
    pub(in crate::worker) mailbox: Mapping<Mailbox>,
    caller: AtomicWaker,
    /// The index of this mailbox in a poller's list, if it is there.
    index: AtomicUsize,
}

impl WatchedMailbox {
    pub(in crate::worker) fn new(mailbox: Mapping<Mailbox>) -> Arc<Self> {
        Arc::new(WatchedMailbox {
            mailbox,
            caller: AtomicWaker::new(),
            index: AtomicUsize::new(usize::MAX),
        })
    }

    /// Returns whether the slot or the socket has something for the caller.
    fn is_ready(&self) -> bool {
        let answer = &self.mailbox.answer;
        answer.is_full() || answer.is_signalled()
    }
}

/// A turn of a run's loop on this thread, which ends when this is dropped.
#[must_use]
pub(crate) struct Turn {
    /// A loop was polling tasks already, around this one.
    is_nested: bool,
}

/// Starts a turn of a run's loop.
pub(crate) fn turn() -> Turn {
    let was_open = POLLER.try_with(|poller| std::mem::replace(&mut poller.borrow_mut().open, true));
    Turn {
        is_nested: was_open.unwrap_or(false),
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // A thread that is ending has no poller any more.
        let _ = POLLER.try_with(|poller| poller.borrow_mut().open = self.is_nested);
    }
}

/// Returns whether a loop on this thread will spin.
pub(in crate::worker) fn is_open() -> bool {
    POLLER
        .try_with(|poller| poller.borrow().open)
        .unwrap_or(false)
}

/// Registers a mailbox that is being watched. Returns `false` if no loop will spin on it.
pub(in crate::worker) fn add(watched: &Arc<WatchedMailbox>, caller: &Waker) -> bool {
    if !is_open() {
        return false;
    }
    watched.caller.register(caller); // outside the borrow: a waker may run any code
    wake(SpinPoller::make_room);
    let add = |poller: &RefCell<SpinPoller>| {
        let mut poller = poller.borrow_mut();
        let index = watched.index.load(Ordering::Relaxed);
        let is_same = |entry: &Arc<WatchedMailbox>| Arc::ptr_eq(entry, watched);
        if !poller.watched.get(index).is_some_and(is_same) {
            watched.index.store(poller.watched.len(), Ordering::Relaxed);
            poller.watched.push(watched.clone());
        }
        true
    };
    POLLER.try_with(add).unwrap_or(false)
}

/// Wakes the calls whose answers have arrived, without spinning. Returns whether there were any.
pub(crate) fn glance() -> bool {
    wake(SpinPoller::take_changed)
}

/// Forgets all mailboxes, since a run has ended. Their answers are reported by the workers
/// themselves.
pub(crate) fn forget() {
    let watched = POLLER.try_with(|poller| std::mem::take(&mut poller.borrow_mut().watched));
    drop(watched); // outside the borrow: this may drop wakers
}

/// Spins for at most `limit`, until an answer arrives or `interrupted` returns true. With more
/// mailboxes than processors, or while backing off, it only checks once. Unless it was interrupted
/// or an answer arrived, it then stops watching all mailboxes. Returns whether any call was woken.
pub(crate) fn look(limit: Duration, interrupted: impl Fn() -> bool) -> bool {
    wake(|poller| poller.spin(limit, interrupted))
}

/// Takes mailboxes out of the poller, and wakes the calls that have something to receive.
fn wake(take: impl FnOnce(&mut SpinPoller) -> Vec<Arc<WatchedMailbox>>) -> bool {
    let taken = POLLER.try_with(|poller| take(&mut poller.borrow_mut()));
    // Outside the borrow, because a waker may run any code when it is woken or dropped.
    let taken = taken.unwrap_or_default().into_iter();
    let callers = taken.filter_map(|entry| entry.is_ready().then(|| entry.caller.take())?);
    callers.map(Waker::wake).count() > 0
}

impl SpinPoller {
    /// If the list is full, takes out the mailboxes whose state has changed. Otherwise the list
    /// would grow while a task that blocks this thread makes many calls.
    fn make_room(&mut self) -> Vec<Arc<WatchedMailbox>> {
        if self.watched.len() < self.watched.capacity() {
            return Vec::new();
        }
        let taken = self.take_changed();
        // Reserves room for as many new registrations as there are entries now, so the next search
        // comes only after at least that many.
        self.watched.reserve(self.watched.len());
        taken
    }

    fn spin(
        &mut self,
        limit: Duration,
        interrupted: impl Fn() -> bool,
    ) -> Vec<Arc<WatchedMailbox>> {
        if self.watched.is_empty() {
            return Vec::new();
        }
        // With more mailboxes than processors, some worker cannot run while this thread spins, so
        // the thread sleeps and the answers come through the socket.
        let spins = self.watched.len() <= processor_count() && self.backoff.next_wait_spins();
        let mut was_interrupted = false;
        if spins {
            let here = sched_getcpu();
            let is_here = |entry: &Arc<WatchedMailbox>| entry.mailbox.job.is_watched_from(here);
            let shares_processor = self.watched.iter().any(is_here);
            spin_until(SPIN_BEFORE_SLEEP.min(limit), shares_processor, || {
                was_interrupted = interrupted();
                was_interrupted
                    || self
                        .watched
                        .iter()
                        .any(|entry| !entry.mailbox.answer.is_waiting())
            });
        }
        let mut taken = self.take_changed();
        if taken.iter().any(|entry| entry.is_ready()) {
            self.backoff.succeeded();
            return taken;
        }
        if was_interrupted {
            return taken;
        }
        if spins {
            self.backoff.failed(LOOP_SPIN_INTERVAL);
        }
        for entry in &self.watched {
            entry.mailbox.answer.stop_watching(); // `wake` finds the frames that arrived just before
        }
        taken.append(&mut self.watched);
        taken
    }

    /// Takes out the mailboxes whose state has changed since they were registered.
    fn take_changed(&mut self) -> Vec<Arc<WatchedMailbox>> {
        let has_changed = |entry: &mut Arc<WatchedMailbox>| !entry.mailbox.answer.is_waiting();
        let changed: Vec<_> = self.watched.extract_if(.., has_changed).collect();
        for (index, entry) in self.watched.iter().enumerate() {
            entry.index.store(index, Ordering::Relaxed);
        }
        changed
    }
}

/// Returns how many processors this program may use, as of the first call.
fn processor_count() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| std::thread::available_parallelism().map_or(1, NonZero::get))
}
