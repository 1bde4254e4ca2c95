//! `Mutex`: mutual exclusion for a value, strictly first come, first served.
//!
//! A thin driver around the pure `hold`: one mutex, held for a few instructions; an uncontended acquire is one lock and
//! no allocation. The value itself is moved from holder to holder; `hold` says why.

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

/// A value that one task at a time may use, also across awaits.
///
/// The handle is cheap to clone; all clones are the same lock. It is fair: tasks get it strictly in the order in which
/// they began to wait (a [`MutexLock`] begins when it is first polled), and when the holder lets go, it belongs to
/// the longest waiter before that `drop` returns. A task that lets go and at once asks again goes to the end of the
/// queue. This is what Trio calls a `StrictFIFOLock`, and the difference from `async-lock`'s `Mutex`, where whoever is
/// awake gets in first and the others are only protected from starving.
///
/// If nothing is awaited while the lock is held, use [`std::sync::Mutex`]; where the order does not matter,
/// `async_lock::Mutex`, which is faster under contention.
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
/// The owner is the guard, not the task: it may be moved to another task or thread, and releasing what one does not
/// hold cannot be written. In exchange a task that acquires a lock which it holds already waits for itself, for ever.
/// The owner cannot exit without letting go, because its guard is dropped with it; one that is *forgotten*
/// ([`std::mem::forget`]) leaves the lock held for ever, where Trio would call it broken.
///
/// There is no poisoning: a guard that is dropped by a panic releases the lock like any other.
///
/// # Dropping
///
/// Dropping a handle changes nothing for others: the guard and the waiters keep the lock alive. The value is dropped
/// with the last of them.
pub struct Mutex<T> {
    state: Arc<Locked<MutexState<T, Waker>>>,
}

impl<T> Mutex<T> {
    /// Creates a lock that nobody holds.
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

    /// Takes the lock, waiting for it as long as it is held or others wait.
    ///
    /// The future may outlive this handle, and be moved to other threads. It completes at once if it can: an acquire
    /// that need not wait is not a cancel point. Its place in the queue is that of its first poll.
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
    /// Atomic: if cancelled, nothing has happened. A waiter that is dropped leaves the queue at once, and the order of
    /// the others is unchanged; if the lock had been assigned to it already, the next waiter gets it.
    pub fn lock(&self) -> MutexLock<T> {
        MutexLock {
            state: State::New(self.clone()),
        }
    }

    /// Takes the lock if it is free and nobody waits for it; never waits.
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

    /// Whether somebody holds it, or has been assigned it and has not run since.
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

    /// Says, for one moment, how the lock is used.
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

    /// The value, or a place at the end of the queue.
    #[cold]
    fn arrive(&self, waker: &Waker) -> Arrival<T> {
        // Declared before the lock is taken, so that an unused one is dropped after it was given back.
        let waker = waker.clone();
        let mut state = self.state.lock();
        match state.try_take() {
            Some(value) => Arrival::Admitted(value),
            None => Arrival::Queued(state.push(waker)),
        }
    }

    /// Puts somebody at the end of the queue while it is known to be held.
    pub(in crate::sync) fn push(&self, waker: Waker) -> WaiterKey {
        self.state.lock().push(waker)
    }

    /// Makes `waker` that of a place in the queue, whose owner has changed.
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

    /// The guard of a place that is granted.
    pub(in crate::sync) fn claim(&self, key: WaiterKey) -> MutexGuard<T> {
        let value = self.state.lock().claim(key);
        self.guard(value)
    }

    pub(in crate::sync) fn give_up(&self, key: WaiterKey) {
        let then = self.state.lock().give_up(key);
        then.run();
    }

    /// Whether both are handles of one lock.
    pub(in crate::sync) fn is_same(&self, other: &Mutex<T>) -> bool {
        Arc::ptr_eq(&self.state, &other.state)
    }
}

/// What an arrival got.
enum Arrival<T> {
    /// The value.
    Admitted(Box<T>),
    /// A place at the end of the queue.
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

/// How a [`Mutex`] is used, at one moment; from [`Mutex::statistics`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MutexStatistics {
    /// Whether somebody holds it, or has been assigned it and has not run since.
    pub locked: bool,
    /// Number of futures in the queue: of [`MutexLock`]s, and of [`CondvarWait`](crate::sync::CondvarWait)s that
    /// were notified.
    pub waiting: usize,
}

/// The value of a [`Mutex`], and the right to use it.
///
/// It owns its share of the lock: it may be stored, sent to other threads, and outlive every handle.
///
/// ```
/// let lock = seedbed::sync::Mutex::new(5);
/// let guard = lock.try_lock().expect("nobody holds it");
/// std::thread::spawn(move || assert_eq!(*guard, 5)).join().unwrap();
/// assert!(!lock.is_locked());
/// ```
///
/// # Dropping
///
/// Releases the lock: it belongs to the longest waiter before `drop` returns. If the guard is forgotten
/// ([`std::mem::forget`]), the lock stays held for ever.
#[must_use = "dropping the guard releases the lock at once"]
pub struct MutexGuard<T> {
    lock: Mutex<T>,
    /// There until it is dropped.
    value: Option<Box<T>>,
}

impl<T> MutexGuard<T> {
    /// Returns the mutex that the guard holds.
    ///
    /// It is not a method, because a method would hide one of the same name of the value.
    ///
    /// ```
    /// use seedbed::sync::{Mutex, MutexGuard};
    ///
    /// let guard = Mutex::new(5).try_lock().expect("nobody holds it");
    /// assert!(MutexGuard::source(&guard).is_locked());
    /// ```
    pub fn source(guard: &Self) -> &Mutex<T> {
        &guard.lock
    }
}

impl<T> Deref for MutexGuard<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_deref().expect("it is there until dropped")
    }
}

impl<T> DerefMut for MutexGuard<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value
            .as_deref_mut()
            .expect("it is there until dropped")
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

/// Shows the lock, never the value.
impl<T> fmt::Debug for MutexGuard<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MutexGuard")
            .field("lock", &self.lock)
            .finish_non_exhaustive()
    }
}

/// Waits for a [`Mutex`]; from [`Mutex::lock`].
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
/// Leaves the queue at once; the order of the others is unchanged. If the lock had been assigned already, it goes to
/// the next waiter. A waiter that is *forgotten* ([`std::mem::forget`]) keeps its place, and when the lock reaches it
/// there, it is held for ever.
///
/// # Panics
///
/// When polled again after it has given its guard.
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct MutexLock<T> {
    state: State<T>,
}

/// Where a [`MutexLock`] stands.
enum State<T> {
    /// Not polled yet; not in the queue.
    New(Mutex<T>),
    /// In the queue, or granted the lock and not yet aware of it.
    Queued(Mutex<T>, WaiterKey),
    /// The guard was handed out.
    Done,
}

impl<T> MutexLock<T> {
    /// The first poll.
    fn begin(&mut self, lock: Mutex<T>, waker: &Waker) -> Poll<MutexGuard<T>> {
        // The common case comes first: one lock, and nothing to clone.
        if let Some(guard) = lock.try_lock() {
            return Poll::Ready(guard);
        }
        match lock.arrive(waker) {
            Arrival::Admitted(value) => Poll::Ready(lock.guard(value)),
            Arrival::Queued(key) => {
                self.state = State::Queued(lock, key);
                Poll::Pending
            }
        }
    }
}

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
                Poll::Pending
            }
            State::Done => panic!("a `MutexLock` was polled after it had given its guard"),
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
