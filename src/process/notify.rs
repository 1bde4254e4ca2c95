//! Wakes all tasks that wait for something that happens again and again.
//!
//! `event-listener` keeps the waiters. It wakes, and drops wakers, while its lock is held, so it gets
//! wakers of this module only: these collect the wakers of the tasks, which are foreign code that may
//! poll, drop or inspect what woke it. The tasks are woken after the lock is released.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use event_listener::{Event, EventListener};

use crate::sys::primitives::lock;
use crate::sys::unwind::wake_all_and_go_on;

thread_local! {
    /// The wakers of tasks that are to be woken when this thread holds no lock. `None` outside of
    /// [`wake_afterwards`].
    static COLLECTED: RefCell<Option<Vec<Waker>>> = const { RefCell::new(None) };
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

    /// Wakes all tasks that listen. A foreign waker that panics concerns neither the others nor the code
    /// that notifies.
    pub(crate) fn notify_all(&self) {
        wake_afterwards(|| {
            self.0.notify(usize::MAX);
        });
    }
}

/// Calls `notify`, and wakes the tasks of the collectors that it wakes afterwards. `notify` runs no
/// foreign code, so calls are never nested. A thread that ends, and whose thread-locals are gone,
/// wakes the tasks at once.
fn wake_afterwards(notify: impl FnOnce()) {
    let begun = COLLECTED.try_with(|collected| collected.replace(Some(Vec::new())));
    notify();
    if begun.is_ok() {
        wake_all_and_go_on(COLLECTED.take().unwrap_or_default());
    }
}

impl Wake for Collector {
    fn wake(self: Arc<Self>) {
        let mut task = lock(&self.task).take();
        // The thread-locals of a thread that ends may be gone. Then `task` is woken below.
        let _ = COLLECTED.try_with(|collected| {
            if let Some(collected) = &mut *collected.borrow_mut() {
                collected.extend(task.take());
            }
        });
        wake_all_and_go_on(task);
    }
}

impl Future for Listener {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let task = cx.waker().clone();
        let former = lock(&self.collector.task).replace(task);
        drop(former); // foreign code, after the unlock
        let waker = Waker::from(self.collector.clone());
        let listener = self.listener.as_mut().expect("it is not being dropped");
        Pin::new(listener).poll(&mut Context::from_waker(&waker))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // A notification that this listener has not seen goes to the next one.
        wake_afterwards(|| drop(self.listener.take()));
        let task = lock(&self.collector.task).take();
        drop(task); // foreign code, after the unlock
    }
}
#[cfg(all(test, not(loom)))]
mod tests {
    use std::pin::pin;
    use std::sync::Weak;
    use std::sync::atomic::{AtomicUsize, Ordering};
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

    /// A task that is woken by something else must not be kept alive by what it no longer waits for.
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

    #[test]
    fn a_notification_that_a_dropped_listener_has_not_seen_wakes_the_next_one() {
        struct Counts(AtomicUsize);
        impl Wake for Counts {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let counts = Arc::new(Counts(AtomicUsize::new(0)));
        let waker = Waker::from(counts.clone());
        let notify = Notify::new();
        let unseen = notify.listen();
        notify.notify_all();
        let mut next = notify.listen();
        let mut cx = Context::from_waker(&waker);
        assert!(pin!(&mut next).poll(&mut cx).is_pending());
        drop(unseen);
        assert_eq!(counts.0.load(Ordering::SeqCst), 1);
        assert!(is_notified(&mut next));
    }
}
