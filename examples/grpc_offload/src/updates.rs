//! The subscribers to updates, each with a queue of its own.

use std::sync::{Arc, Mutex, PoisonError};

use seedbed::sync::{Receiver, RecvError, Sender, TrySendError, channel};

/// The updates that wait for one subscriber. One that is slower than this loses its subscription.
const QUEUE: usize = 1000;

/// The subscribers at this time. Clones are handles on the same list.
pub struct Subscribers<T> {
    list: Arc<Mutex<List<T>>>,
}

struct List<T> {
    next: u64,
    queues: Vec<(u64, Sender<T>)>,
}

/// The updates from a certain time on. Dropping it ends the subscription.
pub struct Subscription<T> {
    number: u64,
    receiver: Receiver<T>,
    subscribers: Subscribers<T>,
}

impl<T: Clone> Subscribers<T> {
    pub fn new() -> Self {
        let list = List {
            next: 0,
            queues: Vec::new(),
        };
        Self {
            list: Arc::new(Mutex::new(list)),
        }
    }

    pub fn subscribe(&self) -> Subscription<T> {
        let (sender, receiver) = channel(QUEUE);
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        let number = list.next;
        list.next += 1;
        list.queues.push((number, sender));
        Subscription {
            number,
            receiver,
            subscribers: self.clone(),
        }
    }

    /// Puts the value into every queue. A full queue is closed: its subscriber gets the values in it,
    /// and then an error. So one subscriber delays no other, and uses a bounded amount of memory.
    pub fn publish(&self, value: &T) {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.queues.retain(|(_, queue)| {
            let sent = queue.try_send(value.clone());
            !matches!(
                sent,
                Err(TrySendError::WouldBlock(_) | TrySendError::Broken(_))
            )
        });
    }

    /// Returns the number of subscribers.
    pub fn count(&self) -> usize {
        let list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.queues.len()
    }
}

impl<T: Clone> Default for Subscribers<T> {
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
    /// Waits for the next update.
    ///
    /// # Errors
    ///
    /// If this subscriber was too slow.
    pub async fn next(&self) -> Result<T, RecvError> {
        self.receiver.recv().await
    }
}

impl<T> Drop for Subscription<T> {
    fn drop(&mut self) {
        let list = &self.subscribers.list;
        let mut list = list.lock().unwrap_or_else(PoisonError::into_inner);
        list.queues.retain(|(number, _)| *number != self.number);
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
            for value in 0..=QUEUE {
                subscribers.publish(&value);
                assert_eq!(fast.next().await, Ok(value));
            }
            assert_eq!(subscribers.count(), 1);
            for value in 0..QUEUE {
                assert_eq!(slow.next().await, Ok(value));
            }
            assert_eq!(slow.next().await, Err(RecvError::EndOfChannel));
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
