//! `Condition`: wait, without the lock, until somebody who has it says that its value has changed.
//!
//! Two queues, one behind the other. A waiter lies in the condition's own list until it is notified; `notify` moves it,
//! in order and in the same step, into the queue of the lock, with its waker, so that it is woken only when the lock is
//! really its own. Its place there ([`Ticket`]) is what the list grants it.
//!
//! Choice: a notification that reaches a waiter which is then dropped goes to the next one, together with the place in
//! the lock's queue. Trio loses it.
//!
//! Invariants: the condition's mutex is taken before the lock's, never the other way round; a place in the lock's queue
//! that came from a notification has exactly one owner: a grant in the list, or a `ConditionWait`.

#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::guarded::{Guarded, Then};
use super::lock::{Lock, LockAcquire, LockGuard, LockStatistics};
use super::wait_list::{Removed, Ticket, WaitList};

/// Lets tasks wait until the value of a [`Lock`] has become what they need.
///
/// The handle is cheap to clone; all clones are the same condition. It is fair: notifications go to those who wait in
/// the order in which they began to, and they get the lock in that order.
///
/// Always look at the value again after a wait: between a notification and the lock, others may have had it, and a
/// notification that was passed on may be stale.
///
/// ```
/// use seedbed::sync::Condition;
///
/// let queue = Condition::new(Vec::new());
/// let producer = queue.clone();
/// std::thread::spawn(move || {
///     futures_lite::future::block_on(async {
///         let mut items = producer.acquire().await;
///         items.push("an item");
///         producer.notify(&items, 1);
///     });
/// });
/// futures_lite::future::block_on(async {
///     let mut items = queue.acquire().await;
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
pub struct Condition<T> {
    lock: Lock<T>,
    /// Those who wait to be notified, and the places in the lock's queue of those who were.
    waiters: Arc<Guarded<WaitList<Waker, Ticket>>>,
}

impl<T> Condition<T> {
    /// Creates a condition with a lock of its own.
    ///
    /// ```
    /// let condition = seedbed::sync::Condition::new(0);
    /// assert!(!condition.lock().is_locked());
    /// ```
    pub fn new(value: T) -> Self {
        Self::with_lock(Lock::new(value))
    }

    /// Creates a condition over a lock; several may share one.
    ///
    /// ```
    /// use seedbed::sync::{Condition, Lock};
    ///
    /// let lock = Lock::new(Vec::<u8>::new());
    /// let (not_empty, not_full) = (Condition::with_lock(lock.clone()), Condition::with_lock(lock));
    /// let guard = not_empty.try_acquire();
    /// assert!(not_full.lock().is_locked());
    /// # drop(guard);
    /// ```
    pub fn with_lock(lock: Lock<T>) -> Self {
        Condition {
            lock,
            waiters: Arc::new(Guarded::new(WaitList::new())),
        }
    }

    /// The condition's lock.
    ///
    /// ```
    /// let condition = seedbed::sync::Condition::new(5);
    /// let guard = condition.lock().try_acquire();
    /// assert!(guard.is_some());
    /// ```
    pub fn lock(&self) -> &Lock<T> {
        &self.lock
    }

    /// Takes the lock; the same as [`Lock::acquire`].
    ///
    /// ```
    /// futures_lite::future::block_on(async {
    ///     let condition = seedbed::sync::Condition::new(5);
    ///     assert_eq!(*condition.acquire().await, 5);
    /// });
    /// ```
    ///
    /// # Cancellation
    ///
    /// Atomic: if cancelled, nothing has happened.
    pub fn acquire(&self) -> LockAcquire<T> {
        self.lock.acquire()
    }

    /// Takes the lock if it is free and nobody waits for it; the same as [`Lock::try_acquire`].
    ///
    /// ```
    /// let condition = seedbed::sync::Condition::new(5);
    /// assert!(condition.try_acquire().is_some());
    /// ```
    pub fn try_acquire(&self) -> Option<LockGuard<T>> {
        self.lock.try_acquire()
    }

    /// Releases the lock, waits to be notified, and takes the lock again.
    ///
    /// Releasing and beginning to wait are one step, made when the future is first polled: no notification can slip in
    /// between. Until then, the future holds the lock.
    ///
    /// ```
    /// use futures_lite::future::{block_on, poll_once};
    /// use seedbed::sync::Condition;
    ///
    /// block_on(async {
    ///     let condition = Condition::new(5);
    ///     let mut wait = condition.wait(condition.acquire().await);
    ///     assert!(poll_once(&mut wait).await.is_none());
    ///
    ///     let mut value = condition.acquire().await;
    ///     *value = 6;
    ///     condition.notify(&value, 1);
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
    pub fn wait(&self, guard: LockGuard<T>) -> ConditionWait<T> {
        self.check(&guard);
        ConditionWait {
            condition: self.clone(),
            state: State::New(guard),
        }
    }

    /// Notifies the `n` longest waiters, or all if there are fewer; returns how many.
    ///
    /// They are in the lock's queue before this returns, behind those who are there already, and run when the lock
    /// reaches them; not before the caller's guard is dropped.
    ///
    /// ```
    /// let condition = seedbed::sync::Condition::new(5);
    /// let value = condition.try_acquire().expect("nobody holds it");
    /// assert_eq!(condition.notify(&value, 1), 0, "nobody waits");
    /// ```
    ///
    /// # Panics
    ///
    /// If the guard is of another lock.
    #[track_caller]
    pub fn notify(&self, guard: &LockGuard<T>, n: usize) -> usize {
        self.check(guard);
        let mut waiters = self.waiters.lock();
        let notify = |waker| (self.lock.push(waker), ());
        (0..n)
            .map_while(|_| waiters.grant_first_with(notify))
            .count()
    }

    /// Notifies all who wait; returns how many. The same as [`notify`](Self::notify) with no limit.
    ///
    /// ```
    /// let condition = seedbed::sync::Condition::new(5);
    /// let value = condition.try_acquire().expect("nobody holds it");
    /// assert_eq!(condition.notify_all(&value), 0, "nobody waits");
    /// ```
    ///
    /// # Panics
    ///
    /// If the guard is of another lock.
    #[track_caller]
    pub fn notify_all(&self, guard: &LockGuard<T>) -> usize {
        self.notify(guard, usize::MAX)
    }

    /// Says, for one moment, how the condition and its lock are used.
    ///
    /// ```
    /// let condition = seedbed::sync::Condition::new(5);
    /// let statistics = condition.statistics();
    /// assert_eq!(statistics.waiting, 0);
    /// assert!(!statistics.lock.locked);
    /// ```
    pub fn statistics(&self) -> ConditionStatistics {
        let waiters = self.waiters.lock();
        ConditionStatistics {
            waiting: waiters.waiting(),
            lock: self.lock.statistics(),
        }
    }

    #[track_caller]
    fn check(&self, guard: &LockGuard<T>) {
        assert!(
            self.lock.is_same(guard.lock()),
            "a `Condition` was used with the guard of another lock"
        );
    }

    /// Begins to wait, then releases the lock: who notifies must have the lock, and so comes later.
    fn park(&self, guard: LockGuard<T>, waker: &Waker) -> Ticket {
        let waker = waker.clone();
        let ticket = self.waiters.lock().push(waker);
        drop(guard);
        ticket
    }

    /// Whether the waiter was notified; if not, makes `waker` the one to wake.
    fn is_notified(&self, ticket: &Ticket, waker: &Waker) -> bool {
        let waiters = &self.waiters;
        waiters.is_granted(waker, |waiters| waiters.payload_mut(ticket))
    }

    /// The place in the lock's queue of a waiter that was notified.
    fn place_of(&self, ticket: Ticket) -> Ticket {
        match self.waiters.lock().remove(ticket) {
            Removed::Granted(place) => place,
            Removed::Waiting(_) => unreachable!("only a notified waiter has a place"),
        }
    }

    /// Gives a notification, and its place in the lock's queue, to the next waiter. If nobody waits, nobody needs it.
    fn pass_on(&self, place: Ticket) {
        let mut waiters = self.waiters.lock();
        if waiters.waiting() == 0 {
            drop(waiters);
            return self.lock.give_up(place);
        }
        let then = waiters.grant_first_with(|waker| {
            let then = self.lock.take_over(&place, waker);
            (place, then)
        });
        drop(waiters);
        then.unwrap_or(Then::Nothing).run();
    }
}

impl<T> Clone for Condition<T> {
    fn clone(&self) -> Self {
        Condition {
            lock: self.lock.clone(),
            waiters: self.waiters.clone(),
        }
    }
}

/// Shows [`statistics`](Condition::statistics), never the value.
impl<T> fmt::Debug for Condition<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.waiters.lock().waiting();
        f.debug_struct("Condition")
            .field("waiting", &waiting)
            .field("lock", &self.lock)
            .finish()
    }
}

/// How a [`Condition`] is used, at one moment; from [`Condition::statistics`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConditionStatistics {
    /// Number of [`ConditionWait`] futures that wait to be notified.
    pub waiting: usize,
    /// How the lock is used; those who were notified wait there.
    pub lock: LockStatistics,
}

/// Waits to be notified; from [`Condition::wait`].
///
/// It may be polled at any time and with changing wakers; the newest one is woken.
///
/// ```
/// use seedbed::sync::{Condition, ConditionWait};
///
/// let condition = Condition::new(5);
/// let guard = condition.try_acquire().expect("nobody holds it");
/// let wait: ConditionWait<i32> = condition.wait(guard);
/// assert!(condition.lock().is_locked(), "futures do nothing until polled");
/// drop(wait);
/// assert!(!condition.lock().is_locked());
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
pub struct ConditionWait<T> {
    condition: Condition<T>,
    state: State<T>,
}

/// Where a [`ConditionWait`] stands.
enum State<T> {
    /// Not polled yet; has the lock.
    New(LockGuard<T>),
    /// In the condition's list, or notified and not yet aware of it.
    Parked(Ticket),
    /// In the lock's queue, or granted the lock and not yet aware of it.
    Relocking(Ticket),
    /// The guard was handed out.
    Done,
}

impl<T> ConditionWait<T> {
    /// One poll of a state; what comes next, or the guard.
    fn advance(&self, state: State<T>, waker: &Waker) -> Result<LockGuard<T>, State<T>> {
        let place = match state {
            State::New(guard) => return Err(State::Parked(self.condition.park(guard, waker))),
            State::Parked(ticket) if self.condition.is_notified(&ticket, waker) => {
                self.condition.place_of(ticket)
            }
            parked @ State::Parked(_) => return Err(parked),
            State::Relocking(place) => place,
            State::Done => panic!("a `ConditionWait` was polled after it had given its guard"),
        };
        if self.condition.lock.is_granted(&place, waker) {
            Ok(self.condition.lock.claim(place))
        } else {
            Err(State::Relocking(place))
        }
    }
}

impl<T> Future for ConditionWait<T> {
    type Output = LockGuard<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<LockGuard<T>> {
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

impl<T> Drop for ConditionWait<T> {
    fn drop(&mut self) {
        match mem::replace(&mut self.state, State::Done) {
            State::New(guard) => drop(guard),
            State::Parked(ticket) => {
                let removed = self.condition.waiters.lock().remove(ticket);
                match removed {
                    Removed::Waiting(unused_waker) => drop(unused_waker),
                    Removed::Granted(place) => self.condition.pass_on(place),
                }
            }
            State::Relocking(place) => self.condition.pass_on(place),
            State::Done => (),
        }
    }
}

impl<T> fmt::Debug for ConditionWait<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::New(_) => "not polled yet",
            State::Parked(_) => "waiting",
            State::Relocking(_) => "notified",
            State::Done => "done",
        };
        f.debug_struct("ConditionWait")
            .field("state", &state)
            .finish()
    }
}
