//! `Semaphore`: a number of permits that tasks take, give back, and make.
//!
//! A thin driver around `tokens`, which are the limiter's too, and built as the limiter is: an uncontended acquire is one
//! atomic step and no allocation, handles and futures own their share.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::sync::locked::Deferred;
use crate::sync::token_pool::TokenPool;
use crate::sync::token_queue::{Full, TokenQueue};
use crate::sync::wait_list::WaiterKey;

/// A number of permits: whoever wants to go on takes a [`Permit`], and waits for one if none is free.
///
/// The handle is cheap to clone; all clones are the same semaphore. It is fair: permits go to those who wait strictly
/// in the order in which they began to (a [`SemaphoreAcquire`] begins when it is first polled), and a permit that is
/// given back or made belongs to the longest waiter before that call returns. Nobody can barge in between, which is the
/// difference from `async-lock`'s semaphore.
///
/// A permit comes back when it is dropped. It can also be taken out of existence ([`Permit::forget`]), and anybody can
/// bring one into existence ([`release`](Self::release)): so one task can take what another one gives.
///
/// To bound how many of something happen at once, [`CapacityLimiter`](crate::sync::CapacityLimiter) is the better tool:
/// its total can be seen and changed.
///
/// ```
/// use seedbed::sync::Semaphore;
///
/// futures_lite::future::block_on(async {
///     let semaphore = Semaphore::new(1);
///     let permit = semaphore.acquire().await;
///     assert!(semaphore.try_acquire().is_none());
///     drop(permit);
///     assert_eq!(semaphore.value(), 1);
/// });
/// ```
///
/// # Coming from Trio
///
/// Trio's semaphore knows nothing but a number, so that `acquire` without `release` is the normal case. Here that is
/// `acquire().await.forget()`. In return the bound counts the permits that are held, too, so a release too many is
/// refused also while somebody waits, where Trio overlooks it.
///
/// # Dropping
///
/// Dropping a handle changes nothing for others: permits and waiters keep the semaphore alive.
#[derive(Clone)]
pub struct Semaphore {
    shared: Arc<Shared>,
}

struct Shared {
    tokens: TokenPool,
    /// How many permits may exist; `None` for no bound.
    max: Option<usize>,
}

impl Semaphore {
    /// Creates a semaphore with so many free permits (0 is fine), to which any number may be added.
    ///
    /// ```
    /// let semaphore = seedbed::sync::Semaphore::new(2);
    /// assert_eq!(semaphore.value(), 2);
    /// assert_eq!(semaphore.max(), None);
    /// ```
    pub fn new(permits: usize) -> Self {
        Self::with(permits, None)
    }

    /// Creates a semaphore with so many free permits, of which at most `max` may ever exist: free, held, or on their
    /// way to a waiter.
    ///
    /// ```
    /// let semaphore = seedbed::sync::Semaphore::bounded(1, 1);
    /// assert_eq!(semaphore.max(), Some(1));
    /// assert!(semaphore.release().is_err());
    /// ```
    ///
    /// # Panics
    ///
    /// If `permits` is more than `max`.
    #[track_caller]
    pub fn bounded(permits: usize, max: usize) -> Self {
        assert!(
            permits <= max,
            "a semaphore of at most {max} permits cannot begin with {permits}"
        );
        Self::with(permits, Some(max))
    }

    fn with(permits: usize, max: Option<usize>) -> Self {
        let tokens = TokenPool::new(Some(permits));
        Semaphore {
            shared: Arc::new(Shared { tokens, max }),
        }
    }

    /// Takes a permit, waiting for one as long as none is free or others wait.
    ///
    /// The future may outlive this handle, and be moved to other threads. It completes at once if it can: an acquire
    /// that need not wait is not a cancel point. Its place in the queue is that of its first poll.
    ///
    /// ```
    /// futures_lite::future::block_on(async {
    ///     let semaphore = seedbed::sync::Semaphore::new(1);
    ///     let permit = semaphore.acquire().await;
    ///     assert_eq!(semaphore.value(), 0);
    /// # drop(permit);
    /// });
    /// ```
    ///
    /// # Cancellation
    ///
    /// Atomic: if cancelled, nothing has happened. A waiter that is dropped leaves the queue at once, and the order of
    /// the others is unchanged; if a permit had been assigned to it already, the next waiter gets that permit.
    pub fn acquire(&self) -> SemaphoreAcquire {
        SemaphoreAcquire {
            state: State::New(self.clone()),
        }
    }

    /// Takes a permit if one is free and nobody waits for it; never waits.
    ///
    /// ```
    /// let semaphore = seedbed::sync::Semaphore::new(1);
    /// let permit = semaphore.try_acquire();
    /// assert!(permit.is_some());
    /// assert!(semaphore.try_acquire().is_none());
    /// ```
    pub fn try_acquire(&self) -> Option<Permit> {
        let taken = self.shared.tokens.try_take();
        taken.then(|| Permit::of(self.clone()))
    }

    /// Brings one more permit into existence; the longest waiter owns it before this returns.
    ///
    /// Not needed to give a [`Permit`] back: dropping it does. This is for a permit that was
    /// [forgotten](Permit::forget), and for counting things that become available.
    ///
    /// ```
    /// use seedbed::sync::Semaphore;
    ///
    /// let items = Semaphore::new(0);
    /// items.release().unwrap();
    /// items.release().unwrap();
    /// assert_eq!(items.value(), 2);
    /// items.try_acquire().expect("there are two").forget();
    /// assert_eq!(items.value(), 1);
    /// ```
    ///
    /// # Errors
    ///
    /// [`ReleaseError`] if there are as many permits as may be, free and held ones together, whether somebody waits
    /// or not; nothing has changed then. (Without a bound, `usize::MAX` may be.)
    pub fn release(&self) -> Result<(), ReleaseError> {
        let max = self.shared.max.unwrap_or(usize::MAX);
        let created = self.shared.tokens.lock_queue().create(max);
        let next = created.map_err(|Full| ReleaseError { max })?;
        Deferred::wake(next).run();
        Ok(())
    }

    /// Number of permits that are free; 0 whenever somebody waits.
    ///
    /// ```
    /// assert_eq!(seedbed::sync::Semaphore::new(3).value(), 3);
    /// ```
    pub fn value(&self) -> usize {
        free(&self.shared.tokens.lock_queue())
    }

    /// Number of permits that may exist; `None` without a bound.
    ///
    /// ```
    /// use seedbed::sync::Semaphore;
    ///
    /// assert_eq!(Semaphore::bounded(0, 5).max(), Some(5));
    /// assert_eq!(Semaphore::new(0).max(), None);
    /// ```
    pub fn max(&self) -> Option<usize> {
        self.shared.max
    }

    /// Says, for one moment, how the semaphore is used.
    ///
    /// ```
    /// let semaphore = seedbed::sync::Semaphore::bounded(2, 4);
    /// let permit = semaphore.try_acquire();
    /// let statistics = semaphore.statistics();
    /// assert_eq!((statistics.value, statistics.held), (1, 1));
    /// assert_eq!((statistics.max, statistics.waiting), (Some(4), 0));
    /// # drop(permit);
    /// ```
    pub fn statistics(&self) -> SemaphoreStatistics {
        let queue = self.shared.tokens.lock_queue();
        SemaphoreStatistics {
            value: free(&queue),
            held: queue.taken(),
            max: self.shared.max,
            waiting: queue.waiting(),
        }
    }

    /// A place at the end of the queue, or `None` if a permit came free meanwhile and was taken.
    #[cold]
    fn arrive(&self, waker: &Waker) -> Option<WaiterKey> {
        // Declared before the lock is taken, so that an unused one is dropped after it was given back.
        let waker = waker.clone();
        let mut queue = self.shared.tokens.lock_queue();
        if queue.try_take() {
            return None;
        }
        Some(queue.push(waker))
    }

    fn poll_granted(&self, key: &WaiterKey, waker: &Waker) -> Poll<()> {
        self.shared.tokens.poll_granted(key, waker)
    }
}

/// How many permits are free: never less than none, for the total grows and shrinks by permits that exist.
fn free<W>(queue: &TokenQueue<W>) -> usize {
    queue
        .total()
        .map_or(usize::MAX, |total| total - queue.taken())
}

/// Shows [`statistics`](Semaphore::statistics).
impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let statistics = self.statistics();
        f.debug_struct("Semaphore")
            .field("value", &statistics.value)
            .field("held", &statistics.held)
            .field("max", &statistics.max)
            .field("waiting", &statistics.waiting)
            .finish()
    }
}

/// How a [`Semaphore`] is used, at one moment; from [`Semaphore::statistics`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SemaphoreStatistics {
    /// Number of permits that are free.
    pub value: usize,
    /// Number of [`Permit`]s, including those assigned to waiters that have not run since.
    pub held: usize,
    /// Number of permits that may exist; `None` without a bound.
    pub max: Option<usize>,
    /// Number of [`SemaphoreAcquire`] futures in the queue.
    pub waiting: usize,
}

/// [`Semaphore::release`] was called once too often: there are as many permits as may be.
///
/// ```
/// let full = seedbed::sync::Semaphore::bounded(2, 2);
/// assert_eq!(full.release().unwrap_err().max, 2);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReleaseError {
    /// How many permits may exist.
    pub max: usize,
}

impl fmt::Display for ReleaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the semaphore was released too often: all of the {} permits that may exist do; a `Permit` gives itself \
             back when dropped, so call `release` only for one that was forgotten",
            self.max
        )
    }
}

impl Error for ReleaseError {}

/// One permit of a [`Semaphore`].
///
/// It owns its share of the semaphore: it may be stored, sent to other threads, and outlive every handle.
///
/// ```
/// let semaphore = seedbed::sync::Semaphore::new(1);
/// let permit = semaphore.try_acquire().expect("one is free");
/// std::thread::spawn(move || drop(permit)).join().unwrap();
/// assert_eq!(semaphore.value(), 1);
/// ```
///
/// # Dropping
///
/// Gives the permit back: the longest waiter owns it before `drop` returns. One that is lost by [`std::mem::forget`]
/// goes on counting as held; use [`forget`](Self::forget).
#[must_use = "dropping the permit gives it back at once"]
pub struct Permit {
    semaphore: Semaphore,
    fate: Fate,
}

/// What becomes of a permit when it is dropped.
#[derive(Clone, Copy)]
enum Fate {
    /// It is given back.
    Return,
    /// It ceases to exist.
    Vanish,
}

impl Permit {
    /// For one permit that has just been taken from this semaphore's queue.
    fn of(semaphore: Semaphore) -> Self {
        Permit {
            semaphore,
            fate: Fate::Return,
        }
    }

    /// Takes the permit out of existence. [`Semaphore::release`] makes up for it, now or later, from any task.
    ///
    /// ```
    /// let semaphore = seedbed::sync::Semaphore::bounded(1, 1);
    /// semaphore.try_acquire().expect("one is free").forget();
    /// assert_eq!(semaphore.value(), 0);
    /// semaphore.release().unwrap();
    /// assert_eq!(semaphore.value(), 1);
    /// ```
    pub fn forget(mut self) {
        self.fate = Fate::Vanish;
    }

    /// The semaphore that the permit belongs to.
    ///
    /// ```
    /// let permit = seedbed::sync::Semaphore::new(3).try_acquire().expect("three are free");
    /// assert_eq!(permit.semaphore().value(), 2);
    /// ```
    pub fn semaphore(&self) -> &Semaphore {
        &self.semaphore
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let tokens = &self.semaphore.shared.tokens;
        match self.fate {
            Fate::Return => tokens.give_back(),
            Fate::Vanish => tokens.lock_queue().destroy(),
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("semaphore", &self.semaphore)
            .finish()
    }
}

/// Waits for a [`Permit`]; from [`Semaphore::acquire`].
///
/// It may be polled at any time and with changing wakers; the newest one is woken.
///
/// ```
/// use seedbed::sync::{Semaphore, SemaphoreAcquire};
///
/// let semaphore = Semaphore::new(1);
/// let acquire: SemaphoreAcquire = semaphore.acquire();
/// assert_eq!(semaphore.value(), 1, "futures do nothing until polled");
/// let permit = futures_lite::future::block_on(acquire);
/// assert_eq!(semaphore.value(), 0);
/// # drop(permit);
/// ```
///
/// # Cancellation
///
/// Atomic: if cancelled, nothing has happened.
///
/// # Dropping
///
/// Leaves the queue at once; the order of the others is unchanged. If a permit had been assigned already, it goes to
/// the next waiter. A waiter that is *forgotten* ([`std::mem::forget`]) keeps its place, and the permit that reaches it
/// there goes on counting as held; everything else works on.
///
/// # Panics
///
/// When polled again after it has given its permit.
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct SemaphoreAcquire {
    state: State,
}

/// Where a [`SemaphoreAcquire`] stands.
enum State {
    /// Not polled yet; not in the queue.
    New(Semaphore),
    /// In the queue, or granted a permit that it has not seen yet.
    Queued(Semaphore, WaiterKey),
    /// The permit was handed out.
    Done,
}

impl SemaphoreAcquire {
    /// Whether a permit is there for this future to [`finish`](Self::finish) with; if not, it is `Queued` now.
    fn advance(&mut self, waker: &Waker) -> bool {
        let semaphore = match &self.state {
            State::New(semaphore) => semaphore,
            State::Queued(semaphore, key) => return semaphore.poll_granted(key, waker).is_ready(),
            State::Done => panic!("a `SemaphoreAcquire` was polled after it had given its permit"),
        };
        // The common case comes first: nothing to lock, and nothing to clone.
        if semaphore.shared.tokens.try_take() {
            return true;
        }
        let Some(key) = semaphore.arrive(waker) else {
            return true;
        };
        self.state = State::Queued(semaphore.clone(), key);
        false
    }

    /// Hands out the permit that is there.
    fn finish(&mut self) -> Permit {
        let semaphore = match mem::replace(&mut self.state, State::Done) {
            State::New(semaphore) => semaphore,
            State::Queued(semaphore, key) => {
                semaphore.shared.tokens.claim(key);
                semaphore
            }
            State::Done => unreachable!("`advance` found a permit"),
        };
        Permit::of(semaphore)
    }
}

impl Future for SemaphoreAcquire {
    type Output = Permit;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Permit> {
        if self.advance(cx.waker()) {
            Poll::Ready(self.finish())
        } else {
            Poll::Pending
        }
    }
}

impl Drop for SemaphoreAcquire {
    fn drop(&mut self) {
        if let State::Queued(semaphore, key) = mem::replace(&mut self.state, State::Done) {
            let then = semaphore.shared.tokens.lock_queue().give_up(key);
            then.run();
        }
    }
}

impl fmt::Debug for SemaphoreAcquire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::New(_) => "not polled yet",
            State::Queued(..) => "queued",
            State::Done => "done",
        };
        f.debug_struct("SemaphoreAcquire")
            .field("state", &state)
            .finish()
    }
}
