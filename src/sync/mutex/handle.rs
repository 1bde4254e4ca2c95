//! The handle, guard and future of a mutex: a driver around the pure [`state`](super::state).
//!
//! An uncontended `lock` locks one internal mutex for a few instructions and allocates nothing.

use std::fmt;
use std::future::Future;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::state::MutexState;
use crate::sync::locked::{Deferred, Locked};
use crate::sync::wait_list::WaiterKey;
use crate::wait::{self, Wait};

/// An async mutex: one task at a time may use the value, also across awaits.
///
/// The handle is cheap to clone; all clones are handles of the same lock. It is fair: tasks lock it
/// strictly in the order in which they began to wait (a [`MutexLock`] begins when it is first
/// polled). When a guard is dropped, the mutex belongs to the longest waiter before that `drop`
/// returns. A task that unlocks and immediately locks again goes to the end of the queue. This is
/// Trio's `StrictFIFOLock`. `async-lock`'s `Mutex` gives the lock to any task that is awake and
/// only protects the others from starving.
///
/// If nothing is awaited while the mutex is locked, use [`std::sync::Mutex`]. Where the order does
/// not matter, use `async_lock::Mutex`, which is faster under contention.
///
/// ```
/// use seedbed::sync::Mutex;
///
/// futures_lite::future::block_on(async {
///     let lines = Mutex::new(Vec::new());
///     let mut guard = lines.lock().await;
///     guard.push("hello");
///     assert!(lines.try_lock().is_none());
///     drop(guard);
///     assert_eq!(*lines.lock().await, ["hello"]);
/// });
/// ```
///
/// # Coming from Trio
///
/// This is `Lock` and `StrictFIFOLock`. The owner is the guard, not the task: it may be moved to
/// another task or thread, and a release without an acquire does not compile. In exchange, a task
/// that locks a mutex which it has locked already waits for itself, forever. An owner cannot exit
/// without unlocking, because its guard is dropped with it. A guard that is *forgotten*
/// ([`std::mem::forget`]) leaves the mutex locked forever, where Trio calls the lock broken.
///
/// There is no poisoning: a guard that is dropped by a panic unlocks the mutex like any other.
///
/// # Dropping
///
/// Dropping a handle does not affect others: the guard and the waiters keep the mutex alive. The
/// value is dropped with the last of them.
pub struct Mutex<T> {
    state: Arc<Locked<MutexState<T, Waker>>>,
}

impl<T> Mutex<T> {
    /// Creates an unlocked mutex.
    ///
    /// ```
    /// let lock = seedbed::sync::Mutex::new(5);
    /// assert!(!lock.is_locked());
    /// ```
    pub fn new(value: T) -> Self {
        Mutex {
            state: Arc::new(Locked::new(MutexState::new(value))),
        }
    }

    /// Locks the mutex, and waits while it is locked or others wait.
    ///
    /// The future may outlive this handle, and be moved to other threads. It completes immediately
    /// if it can; then it is no cancel point. Its position in the queue is that of its first poll.
    ///
    /// ```
    /// futures_lite::future::block_on(async {
    ///     let lock = seedbed::sync::Mutex::new(5);
    ///     *lock.lock().await += 1;
    ///     assert_eq!(*lock.lock().await, 6);
    /// });
    /// ```
    ///
    /// # Cancellation
    ///
    /// Atomic: if cancelled, nothing has happened. A waiter that is dropped leaves the queue
    /// immediately, and the order of the others is unchanged; if the mutex had been assigned to it
    /// already, the next waiter gets it.
    pub fn lock(&self) -> MutexLock<T> {
        MutexLock {
            state: State::New(self.clone()),
        }
    }

    /// Locks the mutex if it is unlocked; never waits. `None` if it is locked or others wait.
    ///
    /// ```
    /// let lock = seedbed::sync::Mutex::new(5);
    /// let guard = lock.try_lock();
    /// assert!(guard.is_some());
    /// assert!(lock.try_lock().is_none());
    /// ```
    pub fn try_lock(&self) -> Option<MutexGuard<T>> {
        let value = self.state.lock().try_take()?;
        Some(self.guard(value))
    }

    /// Whether a guard exists, or the mutex is assigned to a waiter that has not run since.
    ///
    /// ```
    /// let lock = seedbed::sync::Mutex::new(5);
    /// let guard = lock.try_lock();
    /// assert!(lock.is_locked());
    /// drop(guard);
    /// assert!(!lock.is_locked());
    /// ```
    pub fn is_locked(&self) -> bool {
        self.state.lock().is_locked()
    }

    /// Returns whether the mutex is locked and how many futures wait.
    ///
    /// ```
    /// let lock = seedbed::sync::Mutex::new(5);
    /// let guard = lock.try_lock();
    /// let statistics = lock.statistics();
    /// assert!(statistics.locked);
    /// assert_eq!(statistics.waiting, 0);
    /// # drop(guard);
    /// ```
    pub fn statistics(&self) -> MutexStatistics {
        let state = self.state.lock();
        MutexStatistics {
            locked: state.is_locked(),
            waiting: state.waiting(),
        }
    }

    fn guard(&self, value: Box<T>) -> MutexGuard<T> {
        MutexGuard {
            lock: self.clone(),
            value: Some(value),
        }
    }

    /// Takes the value or joins the queue.
    #[cold]
    fn arrive(&self, waker: &Waker) -> Arrival<T> {
        // Cloned before the mutex is locked, because a clone runs foreign code. An unused clone is
        // dropped after the unlock.
        let waker = waker.clone();
        let mut state = self.state.lock();
        match state.try_take() {
            Some(value) => Arrival::Admitted(value),
            None => Arrival::Queued(state.push(waker)),
        }
    }

    /// Adds a waiter at the end of the queue. Call this only while the mutex is locked.
    pub(in crate::sync) fn push(&self, waker: Waker) -> WaiterKey {
        self.state.lock().push(waker)
    }

    /// Replaces the waker of a waiter whose owner has changed.
    pub(in crate::sync) fn take_over(&self, key: &WaiterKey, waker: Waker) -> Deferred<Waker> {
        match self.state.lock().payload_mut(key) {
            Some(known) => Deferred::Drop(mem::replace(known, waker)),
            None => Deferred::Wake(waker),
        }
    }

    pub(in crate::sync) fn poll_granted(&self, key: &WaiterKey, waker: &Waker) -> Poll<()> {
        let state = &self.state;
        state.poll_granted(waker, |state| state.payload_mut(key))
    }

    /// Returns the guard of a granted waiter.
    pub(in crate::sync) fn claim(&self, key: WaiterKey) -> MutexGuard<T> {
        let value = self.state.lock().claim(key);
        self.guard(value)
    }

    pub(in crate::sync) fn give_up(&self, key: WaiterKey) {
        let then = self.state.lock().give_up(key);
        then.run();
    }

    /// Whether both are handles of the same mutex.
    pub(in crate::sync) fn is_same(&self, other: &Mutex<T>) -> bool {
        Arc::ptr_eq(&self.state, &other.state)
    }
}

/// The result of a first poll.
enum Arrival<T> {
    /// The mutex was unlocked: the value.
    Admitted(Box<T>),
    /// The mutex was locked: the waiter at the end of the queue.
    Queued(WaiterKey),
}

impl<T> Clone for Mutex<T> {
    fn clone(&self) -> Self {
        Mutex {
            state: self.state.clone(),
        }
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

/// Shows [`statistics`](Mutex::statistics), never the value.
impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let statistics = self.statistics();
        f.debug_struct("Mutex")
            .field("locked", &statistics.locked)
            .field("waiting", &statistics.waiting)
            .finish_non_exhaustive()
    }
}

/// How a [`Mutex`] was used at one moment; from [`Mutex::statistics`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MutexStatistics {
    /// Whether a guard exists, or the mutex is assigned to a waiter that has not run since.
    pub locked: bool,
    /// Number of futures in the queue: [`MutexLock`]s, and
    /// [`CondvarWait`](crate::sync::CondvarWait)s that were notified.
    pub waiting: usize,
}

/// The value of a locked [`Mutex`].
///
/// It owns a handle of the mutex: it may be stored, sent to other threads, and outlive every other
/// handle.
///
/// ```
/// let lock = seedbed::sync::Mutex::new(5);
/// let guard = lock.try_lock().expect("it is unlocked");
/// std::thread::spawn(move || assert_eq!(*guard, 5)).join().unwrap();
/// assert!(!lock.is_locked());
/// ```
///
/// # Dropping
///
/// Unlocks the mutex: it belongs to the longest waiter before `drop` returns. If the guard is
/// forgotten ([`std::mem::forget`]), the mutex stays locked forever.
#[must_use = "dropping the guard unlocks the mutex immediately"]
pub struct MutexGuard<T> {
    lock: Mutex<T>,
    /// `Some` until the guard is dropped.
    value: Option<Box<T>>,
}

impl<T> MutexGuard<T> {
    /// Returns the mutex that the guard locks.
    ///
    /// It is not a method, because a method would hide one of the same name of the value.
    ///
    /// ```
    /// use seedbed::sync::{Mutex, MutexGuard};
    ///
    /// let guard = Mutex::new(5).try_lock().expect("it is unlocked");
    /// assert!(MutexGuard::source(&guard).is_locked());
    /// ```
    pub fn source(guard: &Self) -> &Mutex<T> {
        &guard.lock
    }
}

impl<T> Deref for MutexGuard<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value
            .as_deref()
            .expect("the value is there until the guard is dropped")
    }
}

impl<T> DerefMut for MutexGuard<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value
            .as_deref_mut()
            .expect("the value is there until the guard is dropped")
    }
}

impl<T> Drop for MutexGuard<T> {
    fn drop(&mut self) {
        if let Some(value) = self.value.take() {
            let next = self.lock.state.lock().release(value);
            Deferred::wake(next).run();
        }
    }
}

/// Shows the mutex, never the value.
impl<T> fmt::Debug for MutexGuard<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MutexGuard")
            .field("lock", &self.lock)
            .finish_non_exhaustive()
    }
}

/// Waits until a [`Mutex`] is locked; from [`Mutex::lock`].
///
/// It may be polled at any time and with changing wakers; the newest one is woken.
///
/// ```
/// use seedbed::sync::{Mutex, MutexLock};
///
/// let lock = Mutex::new(5);
/// let acquire: MutexLock<i32> = lock.lock();
/// assert!(!lock.is_locked(), "futures do nothing until polled");
/// let guard = futures_lite::future::block_on(acquire);
/// assert!(lock.is_locked());
/// # drop(guard);
/// ```
///
/// # Cancellation
///
/// Atomic: if cancelled, nothing has happened.
///
/// # Dropping
///
/// Leaves the queue immediately; the order of the others is unchanged. If the mutex had been
/// assigned already, it goes to the next waiter. A waiter that is *forgotten*
/// ([`std::mem::forget`]) keeps its position, and when the mutex is assigned to it, it stays locked
/// forever.
///
/// # Panics
///
/// When polled again after it has returned its guard.
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct MutexLock<T> {
    state: State<T>,
}

/// The state of a [`MutexLock`].
enum State<T> {
    /// Not polled yet, so not in the queue.
    New(Mutex<T>),
    /// In the queue, or granted the mutex and not polled since.
    Queued(Mutex<T>, WaiterKey),
    /// The guard was returned.
    Done,
}

impl<T> MutexLock<T> {
    /// The first poll.
    fn begin(&mut self, lock: Mutex<T>, waker: &Waker) -> Poll<MutexGuard<T>> {
        // The common case first: one lock, and no clone of the waker.
        if let Some(guard) = lock.try_lock() {
            return Poll::Ready(guard);
        }
        match lock.arrive(waker) {
            Arrival::Admitted(value) => Poll::Ready(lock.guard(value)),
            Arrival::Queued(key) => {
                self.state = State::Queued(lock, key);
                wait::pending(&A_MUTEX)
            }
        }
    }
}

static A_MUTEX: Wait = Wait::For("a mutex");

impl<T> Future for MutexLock<T> {
    type Output = MutexGuard<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<MutexGuard<T>> {
        match mem::replace(&mut self.state, State::Done) {
            State::New(lock) => self.begin(lock, cx.waker()),
            State::Queued(lock, key) if lock.poll_granted(&key, cx.waker()).is_ready() => {
                Poll::Ready(lock.claim(key))
            }
            queued @ State::Queued(..) => {
                self.state = queued;
                wait::pending(&A_MUTEX)
            }
            State::Done => panic!("a `MutexLock` was polled after it had returned its guard"),
        }
    }
}

impl<T> Drop for MutexLock<T> {
    fn drop(&mut self) {
        if let State::Queued(lock, key) = mem::replace(&mut self.state, State::Done) {
            lock.give_up(key);
        }
    }
}

impl<T> fmt::Debug for MutexLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::New(_) => "not polled yet",
            State::Queued(..) => "queued",
            State::Done => "done",
        };
        f.debug_struct("MutexLock").field("state", &state).finish()
    }
}
