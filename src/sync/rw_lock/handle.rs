//! `RwLock`: many may look at a value, or one may change it; first come, first served.
//!
//! A thin driver around the pure `queue`: one mutex, held for a few instructions; entering an uncontended lock is one
//! lock and no allocation.
//!
//! Choice: the value lies in an `Arc`. Readers share it; a writer takes it out, and may change it because no reader has
//! a share any more (`Arc::get_mut` checks). So exclusion is ownership, and there is no `unsafe`. It costs one
//! allocation per lock, and a writer one compare-and-swap per access.
//!
//! Invariant: a share is given back before the queue is told that its reader is gone; the order of the fields of
//! [`RwLockReadGuard`](crate::sync::RwLockReadGuard) sees to it.

use std::fmt;
use std::sync::Arc;
use std::task::{Poll, Waker};

use super::queue::{Held, Mode, Queue, WaiterKey};
use crate::sync::locked::Locked;

/// A value that many tasks may look at together, or one may change, also across awaits.
///
/// The handle is cheap to clone; all clones are the same lock. It is fair: tasks get it strictly in the order in which
/// they began to wait. So a reader that comes after a waiting writer waits, too, although others are reading; when the
/// writer has been in, all readers that come before the next writer get in together. Whoever is next owns the lock
/// before the `drop` of the last guard returns; nobody can barge in between. That is the difference from
/// `async-lock`'s, where writers are preferred and order is not promised.
///
/// A lock can be *read-biased*: then, as long as somebody reads, others may join, past waiting writers, which may
/// starve them. A writer that lets go still hands over to whoever is first in the queue.
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
/// A task that reads and asks to read once more waits for ever if a writer has come in between (unless the lock is
/// read-biased), as does one that holds the lock in any mode and asks to write.
///
/// # Coming from tricycle
///
/// The owner is the guard, not the task, so that releasing what one does not hold cannot be written, and asking again
/// waits instead of raising an error. A waiting writer that is cancelled lets in the readers behind it, and switching
/// the bias on while somebody writes lets nobody in; tricycle does neither.
///
/// There is no poisoning: a guard that is dropped by a panic releases the lock like any other.
///
/// # Dropping
///
/// Dropping a handle changes nothing for others: guards and waiters keep the lock alive. The value is dropped with the
/// last of them.
pub struct RwLock<T> {
    pub(super) state: Arc<Locked<State<T>>>,
}

/// Who has the lock, and the value.
pub(super) struct State<T> {
    pub(super) queue: Queue<Waker>,
    /// `None` while a writer has it.
    value: Option<Arc<T>>,
}

impl<T> RwLock<T> {
    /// Creates a lock that nobody holds, strictly first come, first served.
    ///
    /// ```
    /// let lock = seedbed::sync::RwLock::new(5);
    /// assert!(!lock.is_read_biased());
    /// ```
    pub fn new(value: T) -> Self {
        Self::with(value, false)
    }

    /// Creates a lock that nobody holds, and that readers may join past waiting writers.
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

    /// Whether readers may join past waiting writers.
    ///
    /// ```
    /// assert!(seedbed::sync::RwLock::new_read_biased(5).is_read_biased());
    /// ```
    pub fn is_read_biased(&self) -> bool {
        self.state.lock().queue.is_read_biased()
    }

    /// Switches the bias, at any time. Readers that may join now have the lock before this returns; while somebody
    /// writes, nobody may. Switching it off takes the lock from nobody.
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
        admitted.into_iter().for_each(Waker::wake);
    }

    /// Says, for one moment, how the lock is used.
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

    /// Whether the waiter has the lock; if not, makes `waker` the one to wake.
    pub(super) fn poll_granted(&self, key: &WaiterKey, waker: &Waker) -> Poll<()> {
        let state = &self.state;
        state.poll_granted(waker, |state| state.queue.payload_mut(key))
    }

    pub(super) fn give_up(&self, key: WaiterKey) {
        let (own, admitted) = self.state.lock().queue.give_up(key);
        own.run();
        admitted.into_iter().for_each(Waker::wake);
    }

    /// A reader whose share is gone lets go, or a writer with its value.
    pub(super) fn release(&self, value: Option<Arc<T>>) {
        let mut state = self.state.lock();
        if let Some(value) = value {
            state.value = Some(value);
        }
        let admitted = state.queue.release();
        drop(state);
        admitted.into_iter().for_each(Waker::wake);
    }
}

impl<T> State<T> {
    /// A reader's share, if one may enter.
    pub(super) fn try_share(&mut self) -> Option<Arc<T>> {
        self.queue.try_take(Mode::Read).then(|| self.share())
    }

    /// The value, if a writer may enter.
    pub(super) fn try_take(&mut self) -> Option<Arc<T>> {
        self.queue.try_take(Mode::Write).then(|| self.take())
    }

    /// For a reader that has entered.
    pub(super) fn share(&self) -> Arc<T> {
        self.value.clone().expect("no writer has it")
    }

    /// For a writer that has entered.
    pub(super) fn take(&mut self) -> Arc<T> {
        self.value.take().expect("no other writer has it")
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

/// How an [`RwLock`] is used, at one moment; from [`RwLock::statistics`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RwLockStatistics {
    /// Number of readers inside, including those that were let in and have not run since.
    pub readers: usize,
    /// Whether a writer is inside, or was let in and has not run since.
    pub writing: bool,
    /// Number of [`RwLockRead`](crate::sync::RwLockRead) futures in the queue.
    pub waiting_readers: usize,
    /// Number of [`RwLockWrite`](crate::sync::RwLockWrite) futures in the queue.
    pub waiting_writers: usize,
    /// Whether readers may join past waiting writers.
    pub read_biased: bool,
}
