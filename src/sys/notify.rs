//! Wakes all tasks that wait for something that happens again and again.
//!
//! `event-listener` would serve as well, but wakes while its lock is held. A foreign waker that polls,
//! drops or inspects in `wake` would deadlock, with the background thread if that wakes it.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Waker};

use slab::Slab;

use super::primitives::lock;
use super::tuning::LISTENER_SLOTS_KEPT;
use super::unwind::wake_all_and_go_on;

/// Notifies all [`Listener`]s that exist at that moment.
#[derive(Debug)]
pub(crate) struct Notify(OnceLock<Arc<Listeners>>);

/// The lock is never held while a waker is cloned, woken or dropped, because that is foreign code.
type Listeners = Mutex<Slab<Slot>>;

#[derive(Debug)]
enum Slot {
    Waiting(Option<Waker>),
    Notified,
}

/// Waits for the next notification after its creation.
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub(crate) struct Listener {
    listeners: Arc<Listeners>,
    key: usize,
}

impl Notify {
    pub(crate) const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// Listens from now on, polled or not.
    pub(crate) fn listen(&self) -> Listener {
        let listeners = self.0.get_or_init(Arc::default).clone();
        let key = lock(&listeners).insert(Slot::Waiting(None));
        Listener { listeners, key }
    }

    /// Wakes all tasks that listen. A foreign waker that panics concerns neither the others nor the code
    /// that notifies.
    pub(crate) fn notify_all(&self) {
        let Some(listeners) = self.0.get() else {
            return; // nothing has ever listened
        };
        let notify = |slot: &mut Slot| match mem::replace(slot, Slot::Notified) {
            Slot::Waiting(waker) => waker,
            Slot::Notified => None,
        };
        let mut listeners = lock(listeners);
        let wakers: Vec<_> = listeners
            .iter_mut()
            .filter_map(|(_, slot)| notify(slot))
            .collect();
        drop(listeners);
        wake_all_and_go_on(wakers);
    }
}

impl Future for Listener {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &lock(&self.listeners)[self.key] {
            Slot::Notified => return Poll::Ready(()),
            Slot::Waiting(Some(waker)) if waker.will_wake(cx.waker()) => return Poll::Pending,
            Slot::Waiting(_) => {}
        }
        // Dropped after the unlock, as the waker that it replaces.
        let mut waker = Some(cx.waker().clone());
        match &mut lock(&self.listeners)[self.key] {
            Slot::Notified => Poll::Ready(()),
            Slot::Waiting(stored) => {
                mem::swap(stored, &mut waker);
                Poll::Pending
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut listeners = lock(&self.listeners);
        let slot = listeners.remove(self.key);
        if listeners.is_empty() && listeners.capacity() > LISTENER_SLOTS_KEPT {
            *listeners = Slab::new();
        }
        drop(listeners);
        drop(slot); // its waker is foreign code
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

    /// A task that is woken by something else must not be kept alive by what it no longer waits for.
    #[test]
    fn a_dropped_listener_leaves_no_waker_and_a_crowd_no_memory() {
        struct Nothing;
        impl Wake for Nothing {
            fn wake(self: Arc<Self>) {}
        }
        let notify = Notify::new();
        let nothing = Arc::new(Nothing);
        let waker = Waker::from(nothing.clone());
        let mut crowd: Vec<_> = (0..=LISTENER_SLOTS_KEPT).map(|_| notify.listen()).collect();
        for listener in &mut crowd {
            let mut cx = Context::from_waker(&waker);
            assert!(pin!(listener).poll(&mut cx).is_pending());
        }
        drop((crowd, waker));
        let alone: Weak<Nothing> = Arc::downgrade(&nothing);
        drop(nothing);
        assert_eq!(alone.strong_count(), 0);
        let slots = lock(notify.0.get().unwrap());
        assert!(slots.capacity() <= LISTENER_SLOTS_KEPT);
    }
}
