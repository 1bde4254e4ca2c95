//! `Event`: happens once, and wakes all waiters.
//!
//! A flag and a list of waiters, shared by all clones of the handle. The flag cannot be cleared, so
//! reading it without a lock is safe. (Trio's documentation explains why an event that can be
//! cleared always leads to a race.)
//!
//! Invariant: the flag is set before the waiters are taken from the list, and checked under the
//! list's mutex before a waiter is added. So no waiter misses the event.
//!
//! `event-listener` would serve as well, but wakes while its lock is held. A foreign waker that
//! polls, drops or inspects in `wake` would deadlock.

use std::fmt;
use std::future::Future;
use std::iter;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use super::locked::Locked;
use super::wait_list::{WaitList, WaiterKey};
use crate::sys::primitives::AtomicBool;
use crate::sys::unwind::wake_all;
use crate::wait;

/// An event that happens once: tasks wait for it, and a task or a thread sets it.
///
/// The handle is cheap to clone; all clones are handles of the same event. There is no `clear`: for
/// something that happens again, make a new event each time.
///
/// ```
/// use seedbed::sync::Event;
///
/// let ready = Event::new();
/// let teller = ready.clone();
/// std::thread::spawn(move || teller.set());
/// futures_lite::future::block_on(ready.wait());
/// assert!(ready.is_set());
/// ```
///
/// # Dropping
///
/// Dropping a handle does not affect others. If the last handle is dropped, the remaining waiters
/// wait forever.
#[derive(Clone, Default)]
#[doc(alias = "Notify")]
pub struct Event {
    shared: Arc<Shared>,
}

struct Shared {
    set: AtomicBool,
    waiters: Locked<WaitList<Waker>>,
}

impl Default for Shared {
    fn default() -> Self {
        Shared {
            set: AtomicBool::new(false),
            waiters: Locked::new(WaitList::new()),
        }
    }
}

impl Event {
    /// Creates an event that is not set.
    ///
    /// ```
    /// assert!(!seedbed::sync::Event::new().is_set());
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the event and wakes all waiters, the longest waiter first. A second call has no effect.
    ///
    /// Writes before `set` are visible to a task that has seen the event set.
    ///
    /// ```
    /// let event = seedbed::sync::Event::new();
    /// event.set();
    /// event.set();
    /// assert!(event.is_set());
    /// ```
    pub fn set(&self) {
        if !self.shared.set.swap(true, Ordering::SeqCst) {
            let mut waiters = self.shared.waiters.lock();
            let wakers: Vec<_> = iter::from_fn(|| waiters.grant_first()).collect();
            drop(waiters);
            wake_all(wakers);
        }
    }

    /// Returns whether the event is set.
    ///
    /// ```
    /// let event = seedbed::sync::Event::new();
    /// assert!(!event.is_set());
    /// event.clone().set();
    /// assert!(event.is_set());
    /// ```
    pub fn is_set(&self) -> bool {
        self.shared.set.load(Ordering::SeqCst)
    }

    /// Waits until the event is set.
    ///
    /// If it is set, the future completes immediately and is no cancel point. (In Trio it still is
    /// one.) The future may outlive this handle.
    ///
    /// ```
    /// futures_lite::future::block_on(async {
    ///     let event = seedbed::sync::Event::new();
    ///     event.set();
    ///     event.wait().await;
    ///     assert!(event.is_set());
    /// });
    /// ```
    ///
    /// # Cancellation
    ///
    /// Atomic: if cancelled, nothing has happened.
    pub fn wait(&self) -> Wait {
        Wait {
            state: State::New(self.clone()),
        }
    }

    /// Returns the number of waiters at this moment.
    ///
    /// ```
    /// let event = seedbed::sync::Event::new();
    /// assert_eq!(event.statistics().waiting, 0);
    /// ```
    pub fn statistics(&self) -> EventStatistics {
        EventStatistics {
            waiting: self.shared.waiters.lock().waiting(),
        }
    }

    /// Adds a waiter; `None` if the event is set.
    fn arrive(&self, waker: &Waker) -> Option<WaiterKey> {
        if self.is_set() {
            return None;
        }
        // Cloned before the mutex is locked, because a clone runs foreign code. An unused clone is
        // dropped after the unlock.
        let waker = waker.clone();
        let mut waiters = self.shared.waiters.lock();
        // The event may have been set since. Then the list is not looked at again.
        if self.is_set() {
            return None;
        }
        Some(waiters.push(waker))
    }
}

/// Shows whether the event is set, and the number of waiters.
impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("set", &self.is_set())
            .field("waiting", &self.statistics().waiting)
            .finish()
    }
}

/// How an [`Event`] was used at one moment; from [`Event::statistics`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventStatistics {
    /// Number of [`Wait`] futures that wait.
    pub waiting: usize,
}

/// Waits for an [`Event`]; from [`Event::wait`].
///
/// It may be polled at any time and with changing wakers; the newest one is woken. When polled
/// after it has completed, it completes again.
///
/// ```
/// use seedbed::sync::{Event, Wait};
///
/// let event = Event::new();
/// let wait: Wait = event.wait();
/// event.set();
/// futures_lite::future::block_on(wait);
/// assert!(event.is_set());
/// ```
///
/// # Cancellation
///
/// Atomic: if cancelled, nothing has happened.
///
/// # Dropping
///
/// Stops waiting. Forgetting it ([`std::mem::forget`]) leaks a little memory, and
/// [`Event::statistics`] counts it until the event is set.
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct Wait {
    state: State,
}

/// The state of a [`Wait`].
enum State {
    /// Not polled yet.
    New(Event),
    /// In the list of waiters.
    Queued(Event, WaiterKey),
    /// The event was set.
    Done,
}

impl Wait {
    /// Leaves the list of waiters.
    fn leave(&mut self) {
        if let State::Queued(event, key) = mem::replace(&mut self.state, State::Done) {
            let left = event.shared.waiters.lock().remove(key);
            // Contains the waker, if the event is not set. Dropped after the unlock.
            drop(left);
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Future for Wait {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let waker = cx.waker();
        match mem::replace(&mut self.state, State::Done) {
            State::New(event) => {
                if let Some(key) = event.arrive(waker) {
                    self.state = State::Queued(event, key);
                    return wait::pending(&wait::Wait::For("an event"));
                }
            }
            State::Queued(event, key) => {
                let waiters = &event.shared.waiters;
                let granted = waiters.poll_granted(waker, |waiters| waiters.payload_mut(&key));
                self.state = State::Queued(event, key);
                if granted.is_pending() {
                    return wait::pending(&wait::Wait::For("an event"));
                }
                self.leave();
            }
            State::Done => {}
        }
        Poll::Ready(())
    }
}

impl fmt::Debug for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::New(_) => "not polled yet",
            State::Queued(..) => "waiting",
            State::Done => "done",
        };
        f.debug_struct("Wait").field("state", &state).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::test_waker::{Count, poll, poll_with};

    /// A wait that waits.
    fn waiting(event: &Event) -> Wait {
        let mut wait = event.wait();
        assert!(poll(&mut wait).is_pending());
        wait
    }

    #[test]
    fn handles_and_futures_are_send_sync_and_static() {
        fn check<T: Send + Sync + 'static>() {}
        check::<Event>();
        check::<Wait>();
    }

    #[test]
    fn set_wakes_everybody_once_and_may_be_repeated() {
        let event = Event::new();
        let mut waits: Vec<_> = (0..10).map(|_| (event.wait(), Count::new())).collect();
        for (wait, (_, waker)) in &mut waits {
            assert!(poll_with(wait, waker).is_pending());
        }
        assert_eq!(event.statistics().waiting, 10);
        event.set();
        event.clone().set();
        assert_eq!(event.statistics().waiting, 0);
        for (wait, (count, _)) in &mut waits {
            assert_eq!(count.wakes(), 1);
            assert!(poll(wait).is_ready());
        }
    }

    #[test]
    fn waiting_for_a_set_event_completes_at_once_also_when_it_was_set_before_the_first_poll() {
        let event = Event::new();
        let mut early = event.wait();
        event.set();
        assert!(poll(&mut early).is_ready());
        assert!(poll(&mut event.wait()).is_ready());
        assert!(poll(&mut early).is_ready(), "it stays complete");
    }

    #[test]
    fn a_waiter_that_is_dropped_leaves_at_once_and_the_others_are_woken() {
        let event = Event::new();
        let (first, mut second) = (waiting(&event), waiting(&event));
        drop(first);
        assert_eq!(event.statistics().waiting, 1);
        event.set();
        assert!(poll(&mut second).is_ready());
    }

    #[test]
    fn a_woken_waiter_that_is_dropped_unpolled_takes_nothing_from_others() {
        let event = Event::new();
        let (first, mut second) = (waiting(&event), waiting(&event));
        event.set();
        drop(first);
        assert!(poll(&mut second).is_ready());
    }

    #[test]
    fn only_the_newest_waker_is_woken() {
        let event = Event::new();
        let (old, old_waker) = Count::new();
        let (new, new_waker) = Count::new();
        let mut wait = event.wait();
        for waker in [&old_waker, &old_waker, &new_waker] {
            assert!(poll_with(&mut wait, waker).is_pending());
        }
        assert_eq!(event.statistics().waiting, 1, "no double registration");
        event.set();
        assert_eq!((old.wakes(), new.wakes()), (0, 1));
    }

    #[test]
    fn a_forgotten_waiter_does_not_keep_others_from_being_woken() {
        let event = Event::new();
        mem::forget(waiting(&event));
        let mut other = waiting(&event);
        event.set();
        assert!(poll(&mut other).is_ready());
    }
}
