//! The bounded queue between uploads and dispatchers, which is closed before it is emptied.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use seedbed::CapacityLimiter;
use seedbed::sync::{Receiver, Sender, Token, unbounded};

/// The side of the service. Each upload gets a sender from it, until it is closed.
pub struct Queue<T> {
    sender: Mutex<Option<QueueSender<T>>>,
}

/// The side of one upload. Clones put into the same queue.
pub struct QueueSender<T> {
    items: Sender<Queued<T>>,
    places: CapacityLimiter,
    accepted: Arc<AtomicU64>,
}

/// An item with its place in the queue, which is free when this is dropped.
pub struct Queued<T> {
    item: T,
    place: Token,
}

/// The queue is not read any more.
#[derive(Debug)]
pub struct QueueLost;

impl<T> Queue<T> {
    /// Makes a queue with this many places, which counts the items that are put into it.
    pub fn new(places: usize, accepted: Arc<AtomicU64>) -> (Self, Receiver<Queued<T>>) {
        let (items, receiver) = unbounded();
        let sender = QueueSender {
            items,
            places: CapacityLimiter::new(places),
            accepted,
        };
        let sender = Mutex::new(Some(sender));
        (Self { sender }, receiver)
    }

    /// Returns a sender, or `None` if the queue is closed.
    pub fn sender(&self) -> Option<QueueSender<T>> {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        sender.clone()
    }

    /// Gives out no more senders. Senders that were given out before still work. When the last one
    /// is dropped, the receivers get the items that are left, and then the end.
    pub fn close(&self) {
        let mut sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        *sender = None;
    }
}

impl<T> QueueSender<T> {
    /// Waits for a place, and puts the item into it.
    ///
    /// The item is counted and put in without a wait in between. A channel of this capacity would
    /// not do: a `send` that waits may succeed although its task is cancelled, and the item would
    /// be processed without having been counted.
    ///
    /// # Cancellation
    ///
    /// If cancelled, the item was not put in.
    ///
    /// # Errors
    ///
    /// If there is no receiver.
    pub async fn put(&self, item: T) -> Result<(), QueueLost> {
        let place = self.places.acquire().await;
        let put = self.items.try_send(Queued { item, place });
        put.map_err(|_| QueueLost)?;
        // The tasks of a run share a thread, so none has taken the item yet.
        self.accepted.fetch_add(1, Relaxed);
        Ok(())
    }
}

impl<T> Clone for QueueSender<T> {
    fn clone(&self) -> Self {
        Self {
            items: self.items.clone(),
            places: self.places.clone(),
            accepted: self.accepted.clone(),
        }
    }
}

impl<T> Queued<T> {
    /// Returns the item, and frees its place.
    pub fn take(self) -> T {
        drop(self.place);
        self.item
    }
}

#[cfg(test)]
mod tests {
    use seedbed::sync::RecvError;
    use seedbed::testing::wait_all_tasks_blocked;
    use seedbed::{Nursery, open_nursery};

    use super::*;

    #[test]
    fn a_full_queue_makes_its_senders_wait_and_counts_what_is_in_it() {
        seedbed::run(open_nursery(async |n: Nursery<'_>| {
            let accepted = Arc::new(AtomicU64::new(0));
            let (queue, items) = Queue::new(2, accepted.clone());
            let sender = queue.sender().unwrap();
            n.spawn(async move {
                for item in 0..3 {
                    sender.put(item).await.unwrap();
                }
            });
            wait_all_tasks_blocked().await;
            assert_eq!(accepted.load(Relaxed), 2);
            assert_eq!(items.recv().await.unwrap().take(), 0);
            wait_all_tasks_blocked().await;
            assert_eq!(accepted.load(Relaxed), 3);
        }));
    }

    #[test]
    fn a_closed_queue_gives_out_no_senders_and_ends_after_those_that_it_gave_out() {
        seedbed::run(async {
            let (queue, items) = Queue::new(2, Arc::default());
            let sender = queue.sender().unwrap();
            queue.close();
            assert!(queue.sender().is_none());
            sender.put("the last item").await.unwrap();
            drop(sender);
            assert_eq!(items.recv().await.unwrap().take(), "the last item");
            assert_eq!(items.recv().await.err(), Some(RecvError::EndOfChannel));
        });
    }

    #[test]
    fn an_item_that_cannot_be_put_in_is_not_counted() {
        seedbed::run(async {
            let accepted = Arc::new(AtomicU64::new(0));
            let (queue, items) = Queue::new(2, accepted.clone());
            drop(items);
            assert!(queue.sender().unwrap().put("lost").await.is_err());
            assert_eq!(accepted.load(Relaxed), 0);
        });
    }
}
