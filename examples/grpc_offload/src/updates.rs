//! The subscribers to updates, each with a queue of its own.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use seedbed::sync::{Receiver, Sender, TrySendError, channel};

/// The updates that wait for one subscriber. One that is slower than this loses its subscription.
const WAITING_UPDATES: usize = 1000;

/// The subscribers at this time. Clones are handles on the same list.
pub struct Subscribers<T> {
    /// `None` when there are no more subscriptions.
    list: Arc<Mutex<Option<Vec<Subscriber<T>>>>>,
}

/// The sending side of one subscription.
struct Subscriber<T> {
    sender: Sender<T>,
    was_full: Arc<AtomicBool>,
}

/// The updates from a certain time on. Dropping it ends the subscription.
pub struct Subscription<T> {
    receiver: Receiver<T>,
    /// Shared with the subscriber, which it also identifies.
    was_full: Arc<AtomicBool>,
    subscribers: Subscribers<T>,
}

/// An update was lost, because its subscriber was too slow.
#[derive(Debug, PartialEq, Eq)]
pub struct TooSlow;

impl<T> Subscribers<T> {
    pub fn new() -> Self {
        Self {
            list: Arc::new(Mutex::new(Some(Vec::new()))),
        }
    }

    pub fn subscribe(&self) -> Subscription<T> {
        let (sender, receiver) = channel(WAITING_UPDATES);
        let was_full = Arc::new(AtomicBool::new(false));
        if let Some(list) = &mut *self.lock() {
            list.push(Subscriber {
                sender,
                was_full: was_full.clone(),
            });
        }
        Subscription {
            receiver,
            was_full,
            subscribers: self.clone(),
        }
    }

    /// Puts the value into every queue. A full queue is closed: its subscriber gets the values in
    /// it, and then an error. So one subscriber delays no other, and uses a bounded amount of
    /// memory.
    pub fn publish(&self, value: &T)
    where
        T: Clone,
    {
        self.retain(
            |subscriber| match subscriber.sender.try_send(value.clone()) {
                Err(TrySendError::WouldBlock(_)) => {
                    subscriber.was_full.store(true, Relaxed);
                    false
                }
                Err(TrySendError::Broken(_)) => false,
                _ => true,
            },
        );
    }

    /// Ends all subscriptions after the values in their queues. There are none from now on.
    pub fn close(&self) {
        *self.lock() = None;
    }

    /// Returns the number of subscribers.
    pub fn count(&self) -> usize {
        self.lock().as_ref().map_or(0, Vec::len)
    }

    fn retain(&self, is_kept: impl FnMut(&Subscriber<T>) -> bool) {
        if let Some(list) = &mut *self.lock() {
            list.retain(is_kept);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<Subscriber<T>>>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Default for Subscribers<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Clone for Subscribers<T> {
    fn clone(&self) -> Self {
        Self {
            list: self.list.clone(),
        }
    }
}

impl<T> Subscription<T> {
    /// Waits for the next update. Returns `None` when the last one was returned.
    ///
    /// # Errors
    ///
    /// If this subscriber was too slow.
    pub async fn next(&self) -> Option<Result<T, TooSlow>> {
        match self.receiver.recv().await {
            Ok(value) => Some(Ok(value)),
            Err(_) if self.was_full.load(Relaxed) => Some(Err(TooSlow)),
            Err(_) => None,
        }
    }
}

impl<T> Drop for Subscription<T> {
    fn drop(&mut self) {
        self.subscribers
            .retain(|subscriber| !Arc::ptr_eq(&subscriber.was_full, &self.was_full));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_subscriber_loses_its_subscription_and_delays_no_other() {
        seedbed::run(async {
            let subscribers = Subscribers::new();
            let slow = subscribers.subscribe();
            let fast = subscribers.subscribe();
            for value in 0..=WAITING_UPDATES {
                subscribers.publish(&value);
                assert_eq!(fast.next().await, Some(Ok(value)));
            }
            assert_eq!(subscribers.count(), 1);
            // A subscription that has lost an update is not complete, also if it is closed later.
            subscribers.close();
            for value in 0..WAITING_UPDATES {
                assert_eq!(slow.next().await, Some(Ok(value)));
            }
            assert_eq!(slow.next().await, Some(Err(TooSlow)));
            assert_eq!(fast.next().await, None);
        });
    }

    #[test]
    fn a_subscription_ends_after_the_last_update_and_none_begins_later() {
        seedbed::run(async {
            let subscribers = Subscribers::new();
            let early = subscribers.subscribe();
            for value in 0..WAITING_UPDATES {
                subscribers.publish(&value);
            }
            subscribers.close();
            for value in 0..WAITING_UPDATES {
                assert_eq!(early.next().await, Some(Ok(value)));
            }
            assert_eq!(early.next().await, None);
            assert_eq!(subscribers.subscribe().next().await, None);
            assert_eq!(subscribers.count(), 0);
        });
    }

    #[test]
    fn a_subscriber_that_leaves_is_forgotten_at_once() {
        let subscribers = Subscribers::<u8>::new();
        let (one, two) = (subscribers.subscribe(), subscribers.subscribe());
        drop(one);
        assert_eq!(subscribers.count(), 1);
        drop(two);
        assert_eq!(subscribers.count(), 0);
    }
}
