//! `Condvar`: wait, without the lock, until somebody who has it says that its value has changed.
//!
//! Two queues, one behind the other. A waiter lies in the condvar's own list until it is notified; `notify` moves it,
//! in order and in the same step, into the queue of the lock, with its waker, so that it is woken only when the lock is
//! really its own. Its place there ([`WaiterKey`]) is what the list grants it.
//!
//! Choice: a notification that reaches a waiter which is then dropped goes to the next one, together with the place in
//! the lock's queue. Trio loses it.
//!
//! Invariants: the condvar's mutex is taken before the lock's, never the other way round; a place in the lock's queue
//! that came from a notification has exactly one owner: a grant in the list, or a `CondvarWait`.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::sync::locked::{Deferred, Locked};
use crate::sync::mutex::{Mutex, MutexGuard, MutexLock, MutexStatistics};
use crate::sync::wait_list::{Removed, WaitList, WaiterKey};

/// Lets tasks wait until the value of a [`Mutex`] has become what they need.
///
/// The handle is cheap to clone; all clones are the same condvar. It is fair: notifications go to those who wait in
/// the order in which they began to, and they get the lock in that order.
///
/// Always look at the value again after a wait: between a notification and the lock, others may have had it, and a
/// notification that was passed on may be stale.
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
/// That the caller has the lock is shown by its guard, so nothing is left to raise an error about. A cancelled wait
/// does *not* take the lock again: the guard was given to it, and whoever is cancelled has nothing to undo with it. And
/// a notification that reaches a cancelled waiter is passed on, where Trio loses it.
///
/// # Dropping
///
/// Dropping a handle changes nothing for others. If the last one is dropped while somebody waits, they wait for ever.
pub struct Condvar<T> {
    mutex: Mutex<T>,
    /// Those who wait to be notified, and the places in the lock's queue of those who were.
    waiters: Arc<Locked<WaitList<Waker, WaiterKey>>>,
}

impl<T> Condvar<T> {
    /// Creates a condvar with a lock of its own.
    ///
    /// ```
    /// let condvar = seedbed::sync::Condvar::new(0);
    /// assert!(!condvar.mutex().is_locked());
    /// ```
    pub fn new(value: T) -> Self {
        Self::with_mutex(Mutex::new(value))
    }

    /// Creates a condvar over a lock; several may share one.
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

    /// The condvar's lock.
    ///
    /// ```
    /// let condvar = seedbed::sync::Condvar::new(5);
    /// let guard = condvar.mutex().try_lock();
    /// assert!(guard.is_some());
    /// ```
    pub fn mutex(&self) -> &Mutex<T> {
        &self.mutex
    }

    /// Takes the lock; the same as [`Mutex::lock`].
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

    /// Takes the lock if it is free and nobody waits for it; the same as [`Mutex::try_lock`].
    ///
    /// ```
    /// let condvar = seedbed::sync::Condvar::new(5);
    /// assert!(condvar.try_lock().is_some());
    /// ```
    pub fn try_lock(&self) -> Option<MutexGuard<T>> {
        self.mutex.try_lock()
    }

    /// Releases the lock, waits to be notified, and takes the lock again.
    ///
    /// Releasing and beginning to wait are one step, made when the future is first polled: no notification can slip in
    /// between. Until then, the future holds the lock.
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
    /// If cancelled, the lock has been released, and is not taken again. A notification that had reached this waiter
    /// goes to the next one, as does its place in the lock's queue; so none is lost.
    ///
    /// # Panics
    ///
    /// If the guard is of another lock.
    #[track_caller]
    pub fn wait(&self, guard: MutexGuard<T>) -> CondvarWait<T> {
        self.check(&guard);
        CondvarWait {
            condvar: self.clone(),
            state: State::New(guard),
        }
    }

    /// Notifies the longest waiter; returns whether there was one. Like [`notify`](Self::notify) with 1.
    ///
    /// ```
    /// let condvar = seedbed::sync::Condvar::new(5);
    /// let value = condvar.try_lock().expect("nobody holds it");
    /// assert!(!condvar.notify_one(&value), "nobody waits");
    /// ```
    ///
    /// # Panics
    ///
    /// If the guard is of another mutex.
    #[track_caller]
    pub fn notify_one(&self, guard: &MutexGuard<T>) -> bool {
        self.notify(guard, 1) == 1
    }

    /// Notifies the `n` longest waiters, or all if there are fewer; returns how many.
    ///
    /// They are in the lock's queue before this returns, behind those who are there already, and run when the lock
    /// reaches them; not before the caller's guard is dropped.
    ///
    /// ```
    /// let condvar = seedbed::sync::Condvar::new(5);
    /// let value = condvar.try_lock().expect("nobody holds it");
    /// assert_eq!(condvar.notify(&value, 2), 0, "nobody waits");
    /// ```
    ///
    /// # Panics
    ///
    /// If the guard is of another lock.
    #[track_caller]
    pub fn notify(&self, guard: &MutexGuard<T>, n: usize) -> usize {
        self.check(guard);
        let mut waiters = self.waiters.lock();
        let notify = |waker| (self.mutex.push(waker), ());
        (0..n)
            .map_while(|_| waiters.grant_first_with(notify))
            .count()
    }

    /// Notifies all who wait; returns how many. The same as [`notify`](Self::notify) with no limit.
    ///
    /// ```
    /// let condvar = seedbed::sync::Condvar::new(5);
    /// let value = condvar.try_lock().expect("nobody holds it");
    /// assert_eq!(condvar.notify_all(&value), 0, "nobody waits");
    /// ```
    ///
    /// # Panics
    ///
    /// If the guard is of another lock.
    #[track_caller]
    pub fn notify_all(&self, guard: &MutexGuard<T>) -> usize {
        self.notify(guard, usize::MAX)
    }

    /// Says, for one moment, how the condvar and its lock are used.
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
            "a `Condvar` was used with the guard of another lock"
        );
    }

    /// Begins to wait, then releases the lock: who notifies must have the lock, and so comes later.
    fn park(&self, guard: MutexGuard<T>, waker: &Waker) -> WaiterKey {
        let waker = waker.clone();
        let key = self.waiters.lock().push(waker);
        drop(guard);
        key
    }

    /// Whether the waiter was notified; if not, makes `waker` the one to wake.
    fn poll_notified(&self, key: &WaiterKey, waker: &Waker) -> Poll<()> {
        let waiters = &self.waiters;
        waiters.poll_granted(waker, |waiters| waiters.payload_mut(key))
    }

    /// The place in the lock's queue of a waiter that was notified.
    fn relock_key(&self, key: WaiterKey) -> WaiterKey {
        match self.waiters.lock().remove(key) {
            Removed::Granted(relock) => relock,
            Removed::Waiting(_) => unreachable!("only a notified waiter has a place"),
        }
    }

    /// Gives a notification, and its place in the lock's queue, to the next waiter. If nobody waits, nobody needs it.
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

/// How a [`Condvar`] is used, at one moment; from [`Condvar::statistics`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CondvarStatistics {
    /// Number of [`CondvarWait`] futures that wait to be notified.
    pub waiting: usize,
    /// How the lock is used; those who were notified wait there.
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
/// let guard = condvar.try_lock().expect("nobody holds it");
/// let wait: CondvarWait<i32> = condvar.wait(guard);
/// assert!(condvar.mutex().is_locked(), "futures do nothing until polled");
/// drop(wait);
/// assert!(!condvar.mutex().is_locked());
/// ```
///
/// # Cancellation
///
/// If cancelled, the lock has been released, and is not taken again; a notification goes to the next waiter.
///
/// # Dropping
///
/// Stops waiting at once; the order of the others is unchanged. If it was notified already, the longest waiter gets the
/// notification and the place in the lock's queue; if nobody waits, the place goes, and the lock with it if that had
/// been assigned. One that is *forgotten* ([`std::mem::forget`]) keeps what reaches it: its notification, and then the
/// lock.
///
/// # Panics
///
/// When polled again after it has given its guard.
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct CondvarWait<T> {
    condvar: Condvar<T>,
    state: State<T>,
}

/// Where a [`CondvarWait`] stands.
enum State<T> {
    /// Not polled yet; has the lock.
    New(MutexGuard<T>),
    /// In the condvar's list, or notified and not yet aware of it.
    Parked(WaiterKey),
    /// In the lock's queue, or granted the lock and not yet aware of it.
    Relocking(WaiterKey),
    /// The guard was handed out.
    Done,
}

impl<T> CondvarWait<T> {
    /// One poll of a state; what comes next, or the guard.
    fn advance(&self, state: State<T>, waker: &Waker) -> Result<MutexGuard<T>, State<T>> {
        let relock = match state {
            State::New(guard) => return Err(State::Parked(self.condvar.park(guard, waker))),
            State::Parked(key) if self.condvar.poll_notified(&key, waker).is_ready() => {
                self.condvar.relock_key(key)
            }
            parked @ State::Parked(_) => return Err(parked),
            State::Relocking(relock) => relock,
            State::Done => panic!("a `CondvarWait` was polled after it had given its guard"),
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
                Poll::Pending
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
