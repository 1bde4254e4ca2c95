//! Wakes all tasks that wait for something that happens again and again.
//!
//! `event-listener` keeps the waiters. It wakes, and drops wakers, while its lock is held, so it
//! gets wakers of this module only: these collect the wakers of the tasks, which are foreign code
//! that may poll, drop or inspect what woke it. The tasks are woken after the lock is released.

use std::cell::RefCell;
use std::future::Future;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use event_listener::{Event, EventListener, Listener as _};

use crate::sys::primitives::lock;
use crate::sys::unwind::wake_all_and_go_on;

thread_local! {
    /// The wakers of tasks that are to be woken when this thread holds no lock. `None` outside of
    /// [`wake_afterwards`], so nothing is lost by not dropping it; without a destructor it exists
    /// until the last destructor of the thread has run.
    static COLLECTED: RefCell<ManuallyDrop<Option<Vec<Waker>>>> =
        const { RefCell::new(ManuallyDrop::new(None)) };
}

/// Notifies all [`Listener`]s that exist at that moment.
#[derive(Debug)]
pub(crate) struct Notify(Event);

/// Waits for the next notification after its creation.
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub(crate) struct Listener {
    /// `None` while this is dropped.
    listener: Option<EventListener>,
    collector: Arc<Collector>,
}

/// The waker that `event-listener` gets in place of a task's.
#[derive(Debug, Default)]
struct Collector {
    /// The waker of the task. The lock is never held while it is cloned, woken or dropped.
    task: Mutex<Option<Waker>>,
}

impl Notify {
    pub(crate) const fn new() -> Self {
        Self(Event::new())
    }

    /// Listens from now on, polled or not.
    pub(crate) fn listen(&self) -> Listener {
        Listener {
            listener: Some(self.0.listen()),
            collector: Arc::default(),
        }
    }

    /// Wakes all tasks that listen. A foreign waker that panics concerns neither the others nor the
    /// code that notifies.
    pub(crate) fn notify_all(&self) {
        wake_afterwards(|| {
            self.0.notify(usize::MAX);
        });
    }
}

/// Calls `notify`, and wakes the tasks of the collectors that it wakes afterwards. `notify` runs no
/// foreign code, so calls are never nested.
fn wake_afterwards(notify: impl FnOnce()) {
    COLLECTED.with_borrow_mut(|collected| **collected = Some(Vec::new()));
    notify();
    let tasks = COLLECTED.with_borrow_mut(|collected| collected.take());
    wake_all_and_go_on(tasks.unwrap_or_default());
}

impl Collector {
    /// Keeps the waker of the task that polls, unless the one it keeps wakes the same task.
    fn store(&self, task: &Waker) {
        let is_kept = |kept: &Waker| kept.will_wake(task);
        if !lock(&self.task).as_ref().is_some_and(is_kept) {
            // The clone and the drop are foreign code, so they happen outside of the lock.
            let task = task.clone();
            let former = lock(&self.task).replace(task);
            drop(former);
        }
    }
}

impl Wake for Collector {
    fn wake(self: Arc<Self>) {
        let mut task = lock(&self.task).take();
        COLLECTED.with_borrow_mut(|collected| {
            if let Some(collected) = &mut **collected {
                collected.extend(task.take());
            }
        });
        wake_all_and_go_on(task);
    }
}

impl Future for Listener {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.collector.store(cx.waker());
        let waker = Waker::from(self.collector.clone());
        let listener = self.listener.as_mut().expect("it is not being dropped");
        Pin::new(listener).poll(&mut Context::from_waker(&waker))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let listener = self.listener.take().expect("it is dropped once");
        // When it is dropped, `event-listener` passes a notification that it has not seen on to
        // another listener, which may have been created after that notification.
        wake_afterwards(|| {
            listener.discard();
        });
        let task = lock(&self.collector.task).take();
        drop(task); // foreign code, after the unlock
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::pin::pin;
    use std::sync::Weak;
    use std::task::Wake;

    use super::*;

    /// A waker that uses the [`Notify`] which wakes it.
    struct Uses {
        notify: Arc<Notify>,
        listener: Mutex<Option<Listener>>,
        polls: bool,
    }

    impl Wake for Uses {
        fn wake(self: Arc<Self>) {
            drop(self.notify.listen());
            self.notify.notify_all();
            let Some(mut listener) = self.listener.lock().unwrap().take() else {
                return;
            };
            if self.polls {
                let mut cx = Context::from_waker(Waker::noop());
                assert!(pin!(&mut listener).poll(&mut cx).is_ready());
            }
        }
    }

    fn is_notified(listener: &mut Listener) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        pin!(listener).poll(&mut cx).is_ready()
    }

    #[test]
    fn all_that_listen_are_notified_once_polled_or_not() {
        let notify = Notify::new();
        notify.notify_all();
        let (mut polled, mut new) = (notify.listen(), notify.listen());
        assert!(!is_notified(&mut polled));
        notify.notify_all();
        let mut later = notify.listen();
        assert!(is_notified(&mut polled) && is_notified(&mut new));
        assert!(!is_notified(&mut later));
        notify.notify_all();
        assert!(is_notified(&mut later));
    }

    #[test]
    fn a_waker_may_poll_or_drop_its_listener_and_use_what_woke_it() {
        for polls in [true, false] {
            let notify = Arc::new(Notify::new());
            let mut others = [notify.listen(), notify.listen()];
            let uses = Arc::new(Uses {
                notify: notify.clone(),
                listener: Mutex::default(),
                polls,
            });
            let mut listener = notify.listen();
            let waker = Waker::from(uses.clone());
            let mut cx = Context::from_waker(&waker);
            assert!(pin!(&mut listener).poll(&mut cx).is_pending());
            *uses.listener.lock().unwrap() = Some(listener);
            notify.notify_all();
            assert!(uses.listener.lock().unwrap().is_none());
            assert!(others.iter_mut().all(is_notified));
        }
    }

    /// The panic once ended the task that keeps the time of all slow checks.
    #[test]
    fn a_waker_that_panics_concerns_neither_the_others_nor_the_code_that_notifies() {
        struct Panics;
        impl Wake for Panics {
            fn wake(self: Arc<Self>) {
                panic!("a waker that panics");
            }
        }
        let notify = Notify::new();
        let mut listeners = [notify.listen(), notify.listen()];
        let waker = Waker::from(Arc::new(Panics));
        for listener in &mut listeners {
            let mut cx = Context::from_waker(&waker);
            assert!(pin!(listener).poll(&mut cx).is_pending());
        }
        notify.notify_all();
        assert!(listeners.iter_mut().all(is_notified));
    }

    /// A task that is woken by something else must not be kept alive by what it no longer waits
    /// for.
    #[test]
    fn a_dropped_listener_leaves_no_waker() {
        struct Nothing;
        impl Wake for Nothing {
            fn wake(self: Arc<Self>) {}
        }
        let notify = Notify::new();
        let nothing = Arc::new(Nothing);
        let waker = Waker::from(nothing.clone());
        let mut listener = notify.listen();
        let mut cx = Context::from_waker(&waker);
        assert!(pin!(&mut listener).poll(&mut cx).is_pending());
        drop((listener, waker));
        let alone: Weak<Nothing> = Arc::downgrade(&nothing);
        drop(nothing);
        assert_eq!(alone.strong_count(), 0);
    }

    /// It once ended the next start of a fork server, which listened for it only afterwards.
    #[test]
    fn a_notification_that_a_dropped_listener_has_not_seen_does_not_reach_a_later_one() {
        let notify = Notify::new();
        let unseen = notify.listen();
        notify.notify_all();
        let mut later = notify.listen();
        drop(unseen);
        assert!(!is_notified(&mut later));
        notify.notify_all();
        assert!(is_notified(&mut later));
    }

    /// A waker that is called under the lock of `event-listener`, and notifies, is a deadlock.
    #[test]
    fn a_thread_that_ends_wakes_tasks_outside_of_all_locks_too() {
        struct NotifiesAtTheEnd(Arc<Notify>);
        impl Drop for NotifiesAtTheEnd {
            fn drop(&mut self) {
                self.0.notify_all();
            }
        }
        thread_local! {
            static AT_THE_END: RefCell<Option<NotifiesAtTheEnd>> = const { RefCell::new(None) };
        }
        let notify = Arc::new(Notify::new());
        let uses = Arc::new(Uses {
            notify: notify.clone(),
            listener: Mutex::default(),
            polls: false,
        });
        let mut listener = notify.listen();
        let waker = Waker::from(uses.clone());
        let mut cx = Context::from_waker(&waker);
        assert!(pin!(&mut listener).poll(&mut cx).is_pending());
        *uses.listener.lock().unwrap() = Some(listener);
        let at_the_end = NotifiesAtTheEnd(notify);
        let thread = std::thread::spawn(move || {
            // Its destructor is registered first, so it is called after those of what comes next.
            AT_THE_END.set(Some(at_the_end));
            Notify::new().notify_all();
        });
        thread.join().unwrap();
        assert!(uses.listener.lock().unwrap().is_none());
    }
}
