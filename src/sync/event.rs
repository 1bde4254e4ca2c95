//! `Event`: happens once, and wakes everybody who waits for it.
//!
//! A flag and an `event-listener`, shared by all clones of the handle. There is no way to clear the flag: that is what
//! makes it safe to look at without a lock, as in Trio, whose documentation explains why an event that can be unset
//! always ends in a race. For something that happens again, make a new event.
//!
//! Invariant: the flag is set before anybody is notified, and looked at again after a listener was made. So nobody can
//! miss it, and whoever is notified finds it set.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

#[cfg(not(all(test, loom)))]
use event_listener::{Event as Listeners, EventListener};

#[cfg(all(test, loom))]
use crate::sys::model::{EventListener, Listeners};
use crate::sys::primitives::AtomicBool;

/// Something that happens once: tasks wait for it, and one of them, or a thread, says that it has happened.
///
/// The handle is cheap to clone; all clones are the same event. There is no `clear`: for something that happens again,
/// make a new event each time.
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
/// Dropping a handle changes nothing for others. If the last handle is dropped while somebody waits, they wait for
/// ever.
#[derive(Clone, Default)]
pub struct Event {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    set: AtomicBool,
    waiters: Listeners,
}

impl Event {
    /// Creates an event that has not happened.
    ///
    /// ```
    /// assert!(!seedbed::sync::Event::new().is_set());
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// Says that it has happened, and wakes everybody who waits, in no promised order. Doing so again changes nothing.
    ///
    /// What was written before `set` is visible to those who have seen it set.
    ///
    /// ```
    /// let event = seedbed::sync::Event::new();
    /// event.set();
    /// event.set();
    /// assert!(event.is_set());
    /// ```
    pub fn set(&self) {
        if !self.shared.set.swap(true, Ordering::SeqCst) {
            self.shared.waiters.notify(usize::MAX);
        }
    }

    /// Whether it has happened.
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

    /// Waits until it has happened.
    ///
    /// If it has, the future completes at once, and is then no cancel point. (In Trio it still is.) It may outlive
    /// this handle.
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

    /// Says, for one moment, how the event is used.
    ///
    /// ```
    /// let event = seedbed::sync::Event::new();
    /// assert_eq!(event.statistics().waiting, 0);
    /// ```
    pub fn statistics(&self) -> EventStatistics {
        let waiting = self.shared.waiters.total_listeners();
        EventStatistics {
            // Listeners that were notified count until their tasks have run, but they no longer wait.
            waiting: if self.is_set() { 0 } else { waiting },
        }
    }

    /// A listener that is notified if the event is set from now on; `None` if it is set.
    fn listen(&self) -> Option<EventListener> {
        if self.is_set() {
            return None;
        }
        let listener = self.shared.waiters.listen();
        // It may have been set, and everybody notified, before the listener was there.
        (!self.is_set()).then_some(listener)
    }
}

/// Shows whether it has happened, and how many wait.
impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("set", &self.is_set())
            .field("waiting", &self.statistics().waiting)
            .finish()
    }
}

/// How an [`Event`] is used, at one moment; from [`Event::statistics`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventStatistics {
    /// Number of [`Wait`] futures that wait.
    pub waiting: usize,
}

/// Waits for an [`Event`]; from [`Event::wait`].
///
/// It may be polled at any time and with changing wakers; the newest one is woken. Polled after it has completed, it
/// completes again.
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
/// Stops waiting. As everybody is woken, nothing has to be passed on. Forgetting it ([`std::mem::forget`]) leaks a
/// little memory, and [`Event::statistics`] goes on counting it until the event is set.
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct Wait {
    state: State,
}

/// Where a [`Wait`] stands.
enum State {
    /// Not polled yet.
    New(Event),
    /// Listens; the listener keeps what it needs of the event alive.
    Listening(EventListener),
    /// It has happened.
    Done,
}

impl Wait {
    /// Begins to listen at the first poll.
    fn begin(&mut self) {
        if let State::New(event) = &self.state {
            self.state = event.listen().map_or(State::Done, State::Listening);
        }
    }
}

impl Future for Wait {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.begin();
        if let State::Listening(listener) = &mut self.state
            && Pin::new(listener).poll(cx).is_pending()
        {
            return Poll::Pending;
        }
        drop(mem::replace(&mut self.state, State::Done));
        Poll::Ready(())
    }
}

impl fmt::Debug for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::New(_) => "not polled yet",
            State::Listening(_) => "waiting",
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
