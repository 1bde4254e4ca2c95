//! The handle and future of a condition variable.
//!
//! There are two queues. A waiter lies in the condition variable's own list until it is notified. A
//! notification moves it, in order and in the same step, into the queue of the mutex, so that it is
//! woken only when the mutex is its own. Its key there is what the list grants it.
//!
//! Decision: a notification of a waiter that is then dropped goes to the next waiter, together with
//! the position in the mutex's queue. Trio loses it.
//!
//! Invariants: the condition variable's list is locked before the mutex's state, never the other
//! way round. A key in the mutex's queue that came from a notification has exactly one owner: a
//! grant in the list, or a `CondvarWait`.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::sync::locked::{Deferred, Locked};
use crate::sync::mutex::{Mutex, MutexGuard, MutexLock, MutexStatistics};
use crate::sync::wait_list::{Removed, WaitList, WaiterKey};
use crate::wait::{self, Wait};

/// A condition variable: tasks wait, without the mutex, until another task has changed the value of
/// a [`Mutex`].
///
/// The handle is cheap to clone; all clones are handles of the same condition variable. It is fair:
/// tasks are notified in the order in which they began to wait, and lock the mutex in that order.
///
/// Always check the value again after a wait: another task may have locked the mutex between the
/// notification and the wait's end, and a notification that was passed on may be stale.
///
/// ```
/// use seedbed::sync::Condvar;
///
/// let queue = Condvar::new(Vec::new());
/// let producer = queue.clone();
/// std::thread::spawn(move || {
///     futures_lite::future::block_on(async {
///         let mut items = producer.lock().await;
///         items.push("an item");
///         producer.notify_one(&items);
///     });
/// });
/// futures_lite::future::block_on(async {
///     let mut items = queue.lock().await;
///     while items.is_empty() {
///         items = queue.wait(items).await;
///     }
///     assert_eq!(items.pop(), Some("an item"));
/// });
/// ```
///
/// # Coming from Trio
///
/// This is `Condition`. The guard shows that the caller has locked the mutex, so there is no error
/// for a caller that has not. A cancelled wait does *not* lock the mutex again: the wait owns the
/// guard, and a cancelled task has nothing to undo with it. A notification of a cancelled waiter
/// goes to the next waiter, where Trio loses it.
///
/// # Dropping
///
/// Dropping a handle does not affect others. If the last handle is dropped, the remaining waiters
/// wait forever.
pub struct Condvar<T> {
    mutex: Mutex<T>,
    /// The waiters; a notified one is granted its key in the mutex's queue.
    waiters: Arc<Locked<WaitList<Waker, WaiterKey>>>,
}

impl<T> Condvar<T> {
    /// Creates a condition variable with a mutex of its own around `value`.
    ///
    /// ```
    /// let condvar = seedbed::sync::Condvar::new(0);
    /// assert!(!condvar.mutex().is_locked());
    /// ```
    pub fn new(value: T) -> Self {
        Self::with_mutex(Mutex::new(value))
    }

    /// Creates a condition variable for a mutex. Several condition variables may share one mutex.
    ///
    /// ```
    /// use seedbed::sync::{Condvar, Mutex};
    ///
    /// let lock = Mutex::new(Vec::<u8>::new());
    /// let (not_empty, not_full) = (Condvar::with_mutex(lock.clone()), Condvar::with_mutex(lock));
    /// let guard = not_empty.try_lock();
    /// assert!(not_full.mutex().is_locked());
    /// # drop(guard);
    /// ```
    pub fn with_mutex(mutex: Mutex<T>) -> Self {
        Condvar {
            mutex,
            waiters: Arc::new(Locked::new(WaitList::new())),
        }
    }

    /// Returns the mutex.
    ///
    /// ```
    /// let condvar = seedbed::sync::Condvar::new(5);
    /// let guard = condvar.mutex().try_lock();
    /// assert!(guard.is_some());
    /// ```
    pub fn mutex(&self) -> &Mutex<T> {
        &self.mutex
    }

    /// Locks the mutex; see [`Mutex::lock`].
    ///
    /// ```
    /// futures_lite::future::block_on(async {
    ///     let condvar = seedbed::sync::Condvar::new(5);
    ///     assert_eq!(*condvar.lock().await, 5);
    /// });
    /// ```
    ///
    /// # Cancellation
    ///
    /// Atomic: if cancelled, nothing has happened.
    pub fn lock(&self) -> MutexLock<T> {
        self.mutex.lock()
    }

    /// Locks the mutex if it is unlocked, without waiting; see [`Mutex::try_lock`].
    ///
    /// ```
    /// let condvar = seedbed::sync::Condvar::new(5);
    /// assert!(condvar.try_lock().is_some());
    /// ```
    pub fn try_lock(&self) -> Option<MutexGuard<T>> {
        self.mutex.try_lock()
    }

    /// Unlocks the mutex, waits to be notified, and locks the mutex again.
    ///
    /// The first poll unlocks and begins to wait in one step, so no notification is missed in
    /// between. Until then, the future holds the guard.
    ///
    /// ```
    /// use futures_lite::future::{block_on, poll_once};
    /// use seedbed::sync::Condvar;
    ///
    /// block_on(async {
    ///     let condvar = Condvar::new(5);
    ///     let mut wait = condvar.wait(condvar.lock().await);
    ///     assert!(poll_once(&mut wait).await.is_none());
    ///
    ///     let mut value = condvar.lock().await;
    ///     *value = 6;
    ///     condvar.notify_one(&value);
    ///     drop(value);
    ///     assert_eq!(*wait.await, 6);
    /// });
    /// ```
    ///
    /// # Cancellation
    ///
    /// If cancelled, the mutex has been unlocked and is not locked again. If this waiter was
    /// notified already, the notification and the position in the mutex's queue go to the next
    /// waiter, so none is lost.
    ///
    /// # Panics
    ///
    /// If the guard belongs to another mutex.
    #[track_caller]
    pub fn wait(&self, guard: MutexGuard<T>) -> CondvarWait<T> {
        self.check(&guard);
        CondvarWait {
            condvar: self.clone(),
            state: State::New(guard),
        }
    }

    /// Notifies the longest waiter; returns whether there was one. Like [`notify`](Self::notify)
    /// with 1.
    ///
    /// ```
    /// let condvar = seedbed::sync::Condvar::new(5);
    /// let value = condvar.try_lock().expect("it is unlocked");
    /// assert!(!condvar.notify_one(&value), "there is no waiter");
    /// ```
    ///
    /// # Panics
    ///
    /// If the guard belongs to another mutex.
    #[track_caller]
    pub fn notify_one(&self, guard: &MutexGuard<T>) -> bool {
        self.notify(guard, 1) == 1
    }

    /// Notifies the `n` longest waiters, or all if there are fewer; returns how many.
    ///
    /// They are in the mutex's queue before this returns, behind its current waiters. None of them
    /// runs before the caller's guard is dropped.
    ///
    /// ```
    /// let condvar = seedbed::sync::Condvar::new(5);
    /// let value = condvar.try_lock().expect("it is unlocked");
    /// assert_eq!(condvar.notify(&value, 2), 0, "there is no waiter");
    /// ```
    ///
    /// # Panics
    ///
    /// If the guard belongs to another mutex.
    #[track_caller]
    pub fn notify(&self, guard: &MutexGuard<T>, n: usize) -> usize {
        self.check(guard);
        let mut waiters = self.waiters.lock();
        let notify = |waker| (self.mutex.push(waker), ());
        (0..n)
            .map_while(|_| waiters.grant_first_with(notify))
            .count()
    }

    /// Notifies all waiters; returns how many.
    ///
    /// ```
    /// let condvar = seedbed::sync::Condvar::new(5);
    /// let value = condvar.try_lock().expect("it is unlocked");
    /// assert_eq!(condvar.notify_all(&value), 0, "there is no waiter");
    /// ```
    ///
    /// # Panics
    ///
    /// If the guard belongs to another mutex.
    #[track_caller]
    pub fn notify_all(&self, guard: &MutexGuard<T>) -> usize {
        self.notify(guard, usize::MAX)
    }

    /// Returns how many futures wait, and how the mutex is used.
    ///
    /// ```
    /// let condvar = seedbed::sync::Condvar::new(5);
    /// let statistics = condvar.statistics();
    /// assert_eq!(statistics.waiting, 0);
    /// assert!(!statistics.mutex.locked);
    /// ```
    pub fn statistics(&self) -> CondvarStatistics {
        let waiters = self.waiters.lock();
        CondvarStatistics {
            waiting: waiters.waiting(),
            mutex: self.mutex.statistics(),
        }
    }

    #[track_caller]
    fn check(&self, guard: &MutexGuard<T>) {
        assert!(
            self.mutex.is_same(MutexGuard::source(guard)),
            "a `Condvar` was used with the guard of another mutex"
        );
    }

    /// Joins the list, then unlocks the mutex. A notification needs the mutex, so it comes later.
    fn park(&self, guard: MutexGuard<T>, waker: &Waker) -> WaiterKey {
        let waker = waker.clone();
        let key = self.waiters.lock().push(waker);
        drop(guard);
        key
    }

    /// Ready if the waiter was notified; otherwise stores `waker` as the one to wake.
    fn poll_notified(&self, key: &WaiterKey, waker: &Waker) -> Poll<()> {
        let waiters = &self.waiters;
        waiters.poll_granted(waker, |waiters| waiters.payload_mut(key))
    }

    /// Removes a notified waiter and returns its key in the mutex's queue.
    fn relock_key(&self, key: WaiterKey) -> WaiterKey {
        match self.waiters.lock().remove(key) {
            Removed::Granted(relock) => relock,
            Removed::Waiting(_) => unreachable!("only a notified waiter has a place"),
        }
    }

    /// Passes a notification and its position in the mutex's queue to the next waiter. Without a
    /// waiter, both go.
    fn pass_on(&self, relock: WaiterKey) {
        let mut waiters = self.waiters.lock();
        if waiters.waiting() == 0 {
            drop(waiters);
            return self.mutex.give_up(relock);
        }
        let then = waiters.grant_first_with(|waker| {
            let then = self.mutex.take_over(&relock, waker);
            (relock, then)
        });
        drop(waiters);
        then.unwrap_or(Deferred::Nothing).run();
    }
}

impl<T> Clone for Condvar<T> {
    fn clone(&self) -> Self {
        Condvar {
            mutex: self.mutex.clone(),
            waiters: self.waiters.clone(),
        }
    }
}

/// Shows [`statistics`](Condvar::statistics), never the value.
impl<T> fmt::Debug for Condvar<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.waiters.lock().waiting();
        f.debug_struct("Condvar")
            .field("waiting", &waiting)
            .field("mutex", &self.mutex)
            .finish()
    }
}

/// How a [`Condvar`] was used at one moment; from [`Condvar::statistics`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CondvarStatistics {
    /// Number of [`CondvarWait`] futures that wait to be notified.
    pub waiting: usize,
    /// How the mutex is used; notified waiters wait in its queue.
    pub mutex: MutexStatistics,
}

/// Waits to be notified; from [`Condvar::wait`].
///
/// It may be polled at any time and with changing wakers; the newest one is woken.
///
/// ```
/// use seedbed::sync::{Condvar, CondvarWait};
///
/// let condvar = Condvar::new(5);
/// let guard = condvar.try_lock().expect("it is unlocked");
/// let wait: CondvarWait<i32> = condvar.wait(guard);
/// assert!(condvar.mutex().is_locked(), "futures do nothing until polled");
/// drop(wait);
/// assert!(!condvar.mutex().is_locked());
/// ```
///
/// # Cancellation
///
/// If cancelled, the mutex has been unlocked and is not locked again; a notification goes to the
/// next waiter.
///
/// # Dropping
///
/// Stops waiting immediately; the order of the others is unchanged. If it was notified already, the
/// longest waiter gets the notification and the position in the mutex's queue. Without a waiter,
/// the position goes, and the mutex is unlocked if it had been assigned. A wait that is *forgotten*
/// ([`std::mem::forget`]) keeps its notification, and then the mutex.
///
/// # Panics
///
/// When polled again after it has returned its guard.
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct CondvarWait<T> {
    condvar: Condvar<T>,
    state: State<T>,
}

/// The state of a [`CondvarWait`].
enum State<T> {
    /// Not polled yet; holds the guard.
    New(MutexGuard<T>),
    /// In the list, or notified and not polled since.
    Parked(WaiterKey),
    /// In the mutex's queue, or granted the mutex and not polled since.
    Relocking(WaiterKey),
    /// The guard was returned.
    Done,
}

impl<T> CondvarWait<T> {
    /// Polls once: returns the guard, or the next state.
    fn advance(&self, state: State<T>, waker: &Waker) -> Result<MutexGuard<T>, State<T>> {
        let relock = match state {
            State::New(guard) => return Err(State::Parked(self.condvar.park(guard, waker))),
            State::Parked(key) if self.condvar.poll_notified(&key, waker).is_ready() => {
                self.condvar.relock_key(key)
            }
            parked @ State::Parked(_) => return Err(parked),
            State::Relocking(relock) => relock,
            State::Done => panic!("a `CondvarWait` was polled after it had returned its guard"),
        };
        if self.condvar.mutex.poll_granted(&relock, waker).is_ready() {
            Ok(self.condvar.mutex.claim(relock))
        } else {
            Err(State::Relocking(relock))
        }
    }
}

impl<T> Future for CondvarWait<T> {
    type Output = MutexGuard<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<MutexGuard<T>> {
        let state = mem::replace(&mut self.state, State::Done);
        match self.advance(state, cx.waker()) {
            Ok(guard) => Poll::Ready(guard),
            Err(state) => {
                self.state = state;
                wait::pending(&Wait::For("a notification"))
            }
        }
    }
}

impl<T> Drop for CondvarWait<T> {
    fn drop(&mut self) {
        match mem::replace(&mut self.state, State::Done) {
            State::New(guard) => drop(guard),
            State::Parked(key) => {
                let removed = self.condvar.waiters.lock().remove(key);
                match removed {
                    Removed::Waiting(unused_waker) => drop(unused_waker),
                    Removed::Granted(relock) => self.condvar.pass_on(relock),
                }
            }
            State::Relocking(relock) => self.condvar.pass_on(relock),
            State::Done => (),
        }
    }
}

impl<T> fmt::Debug for CondvarWait<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::New(_) => "not polled yet",
            State::Parked(_) => "waiting",
            State::Relocking(_) => "notified",
            State::Done => "done",
        };
        f.debug_struct("CondvarWait")
            .field("state", &state)
            .finish()
    }
}
