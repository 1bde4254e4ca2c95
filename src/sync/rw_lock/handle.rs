//! The handle of a read-write lock: a driver around the pure [`queue`](super::queue).
//!
//! Entering an uncontended lock locks one internal mutex for a few instructions and allocates
//! nothing.
//!
//! Decision: the value lies in an `Arc`. Readers share it. A writer takes it out and may change it
//! because no reader has a share any more (`Arc::get_mut` checks). So exclusion is ownership,
//! without `unsafe`. The price is one allocation for each lock and one compare-and-swap for each
//! access by a writer.
//!
//! Invariant: a reader's share is dropped before the queue is told that the reader has left; see
//! the order of the fields of [`RwLockReadGuard`](crate::sync::RwLockReadGuard).

use std::fmt;
use std::sync::Arc;
use std::task::{Poll, Waker};

use super::queue::{Held, Mode, Queue, WaiterKey};
use crate::sync::locked::{Deferred, Locked};
use crate::sys::unwind::{self, wake_all};

/// An async read-write lock: many tasks may read the value together, or one task may write it, also
/// across awaits.
///
/// The handle is cheap to clone; all clones are handles of the same lock. It is fair: tasks get it
/// strictly in the order in which they began to wait. So a reader that arrives after a waiting
/// writer waits too, although others are reading. When that writer has finished, all readers that
/// arrived before the next writer enter together. The next task owns the lock before the `drop` of
/// the last guard returns, so no other task can barge in between. `async-lock`'s lock prefers
/// writers and does not promise an order.
///
/// A lock can be *read-biased*: then readers may join other readers and pass waiting writers, which
/// may starve. A writer still hands the lock to the first waiter.
///
/// ```
/// use seedbed::sync::RwLock;
///
/// futures_lite::future::block_on(async {
///     let table = RwLock::new(vec![1, 2]);
///     let (first, second) = (table.read().await, table.read().await);
///     assert_eq!(first.len() + second.len(), 4);
///     assert!(table.try_write().is_none());
///     drop((first, second));
///
///     table.write().await.push(3);
///     assert_eq!(*table.read().await, [1, 2, 3]);
/// });
/// ```
///
/// # Deadlock
///
/// A task that reads and locks for reading again waits forever if a writer has arrived in between
/// (unless the lock is read-biased). A task that holds the lock in any mode and locks for writing
/// waits forever.
///
/// # Coming from tricycle
///
/// This is `RWLock`. The owner is the guard, not the task: a release without an acquire does not
/// compile, and locking again waits instead of raising an error. A waiting writer that is cancelled
/// lets in the readers behind it, and enabling the bias during a write admits no reader. tricycle
/// does neither.
///
/// There is no poisoning: a guard that is dropped by a panic unlocks the lock like any other.
///
/// # Dropping
///
/// Dropping a handle does not affect others: guards and waiters keep the lock alive. The value is
/// dropped with the last of them.
pub struct RwLock<T> {
    pub(super) state: Arc<Locked<State<T>>>,
}

/// The holders, the waiters and the value.
pub(super) struct State<T> {
    pub(super) queue: Queue<Waker>,
    /// `None` while a writer holds it.
    value: Option<Arc<T>>,
}

impl<T> RwLock<T> {
    /// Creates an unlocked lock that is strictly first come, first served.
    ///
    /// ```
    /// let lock = seedbed::sync::RwLock::new(5);
    /// assert!(!lock.is_read_biased());
    /// ```
    pub fn new(value: T) -> Self {
        Self::with(value, false)
    }

    /// Creates an unlocked lock that is read-biased: readers may pass waiting writers.
    ///
    /// ```
    /// let lock = seedbed::sync::RwLock::new_read_biased(5);
    /// assert!(lock.is_read_biased());
    /// ```
    pub fn new_read_biased(value: T) -> Self {
        Self::with(value, true)
    }

    fn with(value: T, read_biased: bool) -> Self {
        let state = State {
            queue: Queue::new(read_biased),
            value: Some(Arc::new(value)),
        };
        RwLock {
            state: Arc::new(Locked::new(state)),
        }
    }

    /// Whether readers may pass waiting writers.
    ///
    /// ```
    /// assert!(seedbed::sync::RwLock::new_read_biased(5).is_read_biased());
    /// ```
    pub fn is_read_biased(&self) -> bool {
        self.state.lock().queue.is_read_biased()
    }

    /// Sets the bias, at any time. Readers that may enter now own the lock before this returns;
    /// during a write, there are none. Disabling it revokes no lock.
    ///
    /// ```
    /// let lock = seedbed::sync::RwLock::new(5);
    /// let writer = lock.try_write();
    /// lock.set_read_biased(true);
    /// assert!(lock.try_read().is_none());
    /// # drop(writer);
    /// ```
    pub fn set_read_biased(&self, read_biased: bool) {
        let admitted = self.state.lock().queue.set_read_biased(read_biased);
        wake_all(admitted);
    }

    /// Returns the number of holders and waiters at this moment.
    ///
    /// ```
    /// let lock = seedbed::sync::RwLock::new(5);
    /// let readers = (lock.try_read(), lock.try_read());
    /// let statistics = lock.statistics();
    /// assert_eq!((statistics.readers, statistics.writing), (2, false));
    /// assert_eq!((statistics.waiting_readers, statistics.waiting_writers), (0, 0));
    /// # drop(readers);
    /// ```
    pub fn statistics(&self) -> RwLockStatistics {
        let state = self.state.lock();
        RwLockStatistics {
            readers: match state.queue.held() {
                Held::Reading(readers) => readers,
                Held::Free | Held::Writing => 0,
            },
            writing: state.queue.held() == Held::Writing,
            waiting_readers: state.queue.waiting(Mode::Read),
            waiting_writers: state.queue.waiting(Mode::Write),
            read_biased: state.queue.is_read_biased(),
        }
    }

    /// Ready if the waiter has the lock; otherwise stores `waker` as the one to wake.
    pub(super) fn poll_granted(&self, key: &WaiterKey, waker: &Waker) -> Poll<()> {
        let state = &self.state;
        state.poll_granted(waker, |state| state.queue.payload_mut(key))
    }

    pub(super) fn give_up(&self, key: WaiterKey) {
        let (own, admitted) = self.state.lock().queue.give_up(key);
        let admitted = admitted.into_iter().map(Deferred::Wake);
        unwind::for_each(admitted.chain([own]), Deferred::run);
    }

    /// Unlocks: for a reader whose share is dropped, or for a writer, with its value.
    pub(super) fn release(&self, value: Option<Arc<T>>) {
        let mut state = self.state.lock();
        if let Some(value) = value {
            state.value = Some(value);
        }
        let admitted = state.queue.release();
        drop(state);
        wake_all(admitted);
    }
}

impl<T> State<T> {
    /// Enters as a reader if that is possible without waiting; the reader's share.
    pub(super) fn try_share(&mut self) -> Option<Arc<T>> {
        self.queue.try_take(Mode::Read).then(|| self.share())
    }

    /// Enters as a writer if that is possible without waiting; the value.
    pub(super) fn try_take(&mut self) -> Option<Arc<T>> {
        self.queue.try_take(Mode::Write).then(|| self.take())
    }

    /// Returns the share of a reader that has entered.
    pub(super) fn share(&self) -> Arc<T> {
        self.value
            .clone()
            .expect("a reader holds the lock, so no writer has the value")
    }

    /// Returns the value for a writer that has entered.
    pub(super) fn take(&mut self) -> Arc<T> {
        self.value.take().expect("this writer holds the lock alone")
    }
}

impl<T> Clone for RwLock<T> {
    fn clone(&self) -> Self {
        RwLock {
            state: self.state.clone(),
        }
    }
}

impl<T: Default> Default for RwLock<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

/// Shows [`statistics`](RwLock::statistics), never the value.
impl<T> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let statistics = self.statistics();
        f.debug_struct("RwLock")
            .field("readers", &statistics.readers)
            .field("writing", &statistics.writing)
            .field("waiting_readers", &statistics.waiting_readers)
            .field("waiting_writers", &statistics.waiting_writers)
            .field("read_biased", &statistics.read_biased)
            .finish_non_exhaustive()
    }
}

/// How an [`RwLock`] was used at one moment; from [`RwLock::statistics`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RwLockStatistics {
    /// Number of readers, including those that were admitted and have not run since.
    pub readers: usize,
    /// Whether there is a writer, including one that was admitted and has not run since.
    pub writing: bool,
    /// Number of [`RwLockRead`](crate::sync::RwLockRead) futures in the queue.
    pub waiting_readers: usize,
    /// Number of [`RwLockWrite`](crate::sync::RwLockWrite) futures in the queue.
    pub waiting_writers: usize,
    /// Whether readers may pass waiting writers.
    pub read_biased: bool,
}
