//! The futures that wait for an [`RwLock`]: a shared one that waits, and one for each mode.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::guard::{RwLockReadGuard, RwLockWriteGuard};
use super::handle::{RwLock, State};
use super::queue::{Mode, WaiterKey};
use crate::wait::{Wait, noted};

/// Waits for the lock, in any mode.
struct Entry<T>(Stage<T>);

/// The state of an [`Entry`].
enum Stage<T> {
    /// Not polled yet, so not in the queue.
    New(RwLock<T>),
    /// In the queue, or admitted and not polled since.
    Queued(RwLock<T>, WaiterKey),
    /// The guard was returned.
    Done,
}

impl<T> Entry<T> {
    /// Polls. Once the lock is granted, returns the lock and the result of `fetch` on its state.
    fn poll(
        &mut self,
        mode: Mode,
        waker: &Waker,
        fetch: impl Fn(&mut State<T>) -> Arc<T>,
    ) -> Poll<(RwLock<T>, Arc<T>)> {
        match mem::replace(&mut self.0, Stage::Done) {
            Stage::New(lock) => self.begin(lock, mode, waker, fetch),
            Stage::Queued(lock, key) if lock.poll_granted(&key, waker).is_ready() => {
                let mut state = lock.state.lock();
                state.queue.claim(key);
                let value = fetch(&mut state);
                drop(state);
                Poll::Ready((lock, value))
            }
            queued @ Stage::Queued(..) => {
                self.0 = queued;
                Poll::Pending
            }
            Stage::Done => {
                panic!("a future of an `RwLock` was polled after it had returned its guard")
            }
        }
    }

    /// The first poll.
    fn begin(
        &mut self,
        lock: RwLock<T>,
        mode: Mode,
        waker: &Waker,
        fetch: impl Fn(&mut State<T>) -> Arc<T>,
    ) -> Poll<(RwLock<T>, Arc<T>)> {
        // Cloned before the mutex is locked, because a clone runs foreign code. An unused clone is
        // dropped after the unlock.
        let waker = waker.clone();
        let mut state = lock.state.lock();
        if state.queue.try_take(mode) {
            let value = fetch(&mut state);
            drop(state);
            return Poll::Ready((lock, value));
        }
        let key = state.queue.push(mode, waker);
        drop(state);
        self.0 = Stage::Queued(lock, key);
        Poll::Pending
    }

    fn name(&self) -> &'static str {
        match &self.0 {
            Stage::New(_) => "not polled yet",
            Stage::Queued(..) => "queued",
            Stage::Done => "done",
        }
    }
}

impl<T> Drop for Entry<T> {
    fn drop(&mut self) {
        if let Stage::Queued(lock, key) = mem::replace(&mut self.0, Stage::Done) {
            lock.give_up(key);
        }
    }
}

/// Waiting for the lock.
impl<T> RwLock<T> {
    /// Locks for reading, together with other readers; waits for writers that hold the lock or
    /// arrived earlier.
    ///
    /// The future may outlive this handle, and be moved to other threads. It completes immediately
    /// if it can; then it is no cancel point. Its position in the queue is that of its first poll.
    ///
    /// ```
    /// futures_lite::future::block_on(async {
    ///     let lock = seedbed::sync::RwLock::new(5);
    ///     assert_eq!(*lock.read().await, 5);
    /// });
    /// ```
    ///
    /// # Cancellation
    ///
    /// Atomic: if cancelled, nothing has happened. A waiter that is dropped leaves the queue
    /// immediately, and the order of the others is unchanged; if the lock had been assigned to it
    /// already, it is unlocked.
    pub fn read(&self) -> RwLockRead<T> {
        RwLockRead(Entry(Stage::New(self.clone())))
    }

    /// Locks for writing, alone; waits while the lock is held or others wait.
    ///
    /// The future may outlive this handle, and be moved to other threads. It completes immediately
    /// if it can; then it is no cancel point. Its position in the queue is that of its first poll.
    ///
    /// ```
    /// futures_lite::future::block_on(async {
    ///     let lock = seedbed::sync::RwLock::new(5);
    ///     *lock.write().await += 1;
    ///     assert_eq!(*lock.read().await, 6);
    /// });
    /// ```
    ///
    /// # Cancellation
    ///
    /// Atomic: if cancelled, nothing has happened. A waiter that is dropped leaves the queue
    /// immediately, and readers that waited only because of it are admitted; if the lock had been
    /// assigned to it already, the next waiters get it.
    pub fn write(&self) -> RwLockWrite<T> {
        RwLockWrite(Entry(Stage::New(self.clone())))
    }
}

/// Waits to read the value of an [`RwLock`]; from [`RwLock::read`].
///
/// It may be polled at any time and with changing wakers; the newest one is woken.
///
/// ```
/// use seedbed::sync::{RwLock, RwLockRead};
///
/// let read: RwLockRead<i32> = RwLock::new(5).read();
/// assert_eq!(*futures_lite::future::block_on(read), 5);
/// ```
///
/// # Cancellation
///
/// Atomic: if cancelled, nothing has happened.
///
/// # Dropping
///
/// Leaves the queue immediately; the order of the others is unchanged. If it had been admitted
/// already, it unlocks. A future that is *forgotten* ([`std::mem::forget`]) keeps its position, and
/// once it is admitted, no task can write any more.
///
/// # Panics
///
/// When polled again after it has returned its guard.
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct RwLockRead<T>(Entry<T>);

impl<T> Future for RwLockRead<T> {
    type Output = RwLockReadGuard<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = self.0.poll(Mode::Read, cx.waker(), |state| state.share());
        noted(polled, &Wait::For("a lock to read"))
            .map(|(lock, share)| RwLockReadGuard::new(lock, share))
    }
}

impl<T> fmt::Debug for RwLockRead<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwLockRead")
            .field("state", &self.0.name())
            .finish()
    }
}

/// Waits to write the value of an [`RwLock`]; from [`RwLock::write`].
///
/// It may be polled at any time and with changing wakers; the newest one is woken.
///
/// ```
/// use seedbed::sync::{RwLock, RwLockWrite};
///
/// let write: RwLockWrite<i32> = RwLock::new(5).write();
/// let mut guard = futures_lite::future::block_on(write);
/// *guard += 1;
/// assert_eq!(*guard, 6);
/// ```
///
/// # Cancellation
///
/// Atomic: if cancelled, nothing has happened.
///
/// # Dropping
///
/// Leaves the queue immediately, and readers that waited only because of it are admitted. If it had
/// been admitted already, the next waiters get the lock. A future that is *forgotten*
/// ([`std::mem::forget`]) keeps its position, and once it is admitted, the lock stays locked
/// forever.
///
/// # Panics
///
/// When polled again after it has returned its guard.
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct RwLockWrite<T>(Entry<T>);

impl<T> Future for RwLockWrite<T> {
    type Output = RwLockWriteGuard<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = self.0.poll(Mode::Write, cx.waker(), State::take);
        noted(polled, &Wait::For("a lock to write"))
            .map(|(lock, value)| RwLockWriteGuard::new(lock, value))
    }
}

impl<T> fmt::Debug for RwLockWrite<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwLockWrite")
            .field("state", &self.0.name())
            .finish()
    }
}
