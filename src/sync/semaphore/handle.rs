//! The handle, permit and future of a semaphore: a driver around a [`TokenPool`], as the limiter
//! is.
//!
//! An uncontended acquire is one atomic step and no allocation. Handles, permits and futures own
//! their share.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::sync::acquiring::{Acquiring, TokenHandle};
use crate::sync::locked::Deferred;
use crate::sync::token_pool::TokenPool;
use crate::sync::token_queue::{Full, TokenQueue};
use crate::wait::{self, Wait};

/// A number of permits: a task takes a [`Permit`], and waits while none is free.
///
/// The handle is cheap to clone; all clones are handles of the same semaphore. It is fair: permits
/// go to waiters strictly in the order in which they began to wait (a [`SemaphoreAcquire`] begins
/// when it is first polled). A permit that is returned or added belongs to the longest waiter
/// before that call returns, so no other task can barge in between. In `async-lock`'s semaphore,
/// other tasks can.
///
/// Dropping a permit returns it. [`Permit::forget`] removes a permit, and
/// [`release`](Self::release) adds one, from any task. So one task can take permits that another
/// task adds.
///
/// To limit how many operations run at once, prefer
/// [`CapacityLimiter`](crate::sync::CapacityLimiter): its total can be read and changed.
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
/// Trio's semaphore is only a number, so `acquire` without `release` is the normal case. Here that
/// is `acquire().await.forget()`. In exchange, the maximum counts held permits too, so one release
/// too many is an error also while tasks wait, where Trio does not detect it.
///
/// # Dropping
///
/// Dropping a handle does not affect others: permits and waiters keep the semaphore alive.
#[derive(Clone)]
pub struct Semaphore {
    shared: Arc<Shared>,
}

struct Shared {
    tokens: TokenPool,
    /// The maximum number of permits; `None` for no maximum.
    max: Option<usize>,
}

impl Semaphore {
    /// Creates a semaphore with `permits` free permits, without a maximum. 0 is allowed.
    ///
    /// ```
    /// let semaphore = seedbed::sync::Semaphore::new(2);
    /// assert_eq!(semaphore.value(), 2);
    /// assert_eq!(semaphore.max(), None);
    /// ```
    pub fn new(permits: usize) -> Self {
        Self::with(permits, None)
    }

    /// Creates a semaphore with `permits` free permits and a maximum of `max` permits: free, held
    /// and assigned ones together.
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

    /// Takes a permit, and waits while none is free or others wait.
    ///
    /// The future may outlive this handle, and be moved to other threads. It completes immediately
    /// if it can; then it is no cancel point. Its position in the queue is that of its first poll.
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
    /// Atomic: if cancelled, nothing has happened. A waiter that is dropped leaves the queue
    /// immediately, and the order of the others is unchanged; if a permit had been assigned to it
    /// already, the next waiter gets that permit.
    pub fn acquire(&self) -> SemaphoreAcquire {
        SemaphoreAcquire {
            acquiring: Acquiring::new(self.clone()),
        }
    }

    /// Takes a permit if one is free; never waits. `None` if none is free or others wait.
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

    /// Adds a permit. The longest waiter, if any, owns it before this returns. This is
    /// `add_permits(1)` of other semaphores.
    ///
    /// A [`Permit`] is returned by dropping it. Use this for a permit that was
    /// [forgotten](Permit::forget), or to count resources that become available.
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
    /// [`ReleaseError`] if the number of permits, free and held ones together, is at its maximum;
    /// nothing has changed then. Without a maximum, the limit is `usize::MAX`.
    pub fn release(&self) -> Result<(), ReleaseError> {
        let max = self.shared.max.unwrap_or(usize::MAX);
        let created = self.shared.tokens.lock_queue().create(max);
        let next = created.map_err(|Full| ReleaseError { max })?;
        Deferred::wake(next).run();
        Ok(())
    }

    /// Returns the number of free permits; 0 while others wait.
    ///
    /// ```
    /// assert_eq!(seedbed::sync::Semaphore::new(3).value(), 3);
    /// ```
    pub fn value(&self) -> usize {
        free_permits(&self.shared.tokens.lock_queue())
    }

    /// Returns the maximum number of permits; `None` without a maximum.
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

    /// Returns the number of permits and waiters at this moment.
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
            value: free_permits(&queue),
            held: queue.taken(),
            max: self.shared.max,
            waiting: queue.waiting(),
        }
    }
}

/// Returns the number of free permits. The total never falls below the number of taken ones,
/// because only permits that exist are removed.
fn free_permits<W>(queue: &TokenQueue<W>) -> usize {
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

/// How a [`Semaphore`] was used at one moment; from [`Semaphore::statistics`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SemaphoreStatistics {
    /// Number of permits that are free.
    pub value: usize,
    /// Number of [`Permit`]s, including those assigned to waiters that have not run since.
    pub held: usize,
    /// Returns the maximum number of permits; `None` without a maximum.
    pub max: Option<usize>,
    /// Number of [`SemaphoreAcquire`] futures in the queue.
    pub waiting: usize,
}

/// [`Semaphore::release`] failed: the number of permits is at its maximum.
///
/// ```
/// let full = seedbed::sync::Semaphore::bounded(2, 2);
/// assert_eq!(full.release().unwrap_err().max, 2);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReleaseError {
    /// The maximum number of permits.
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
/// It owns its share of the semaphore: it may be stored, sent to other threads, and outlive every
/// handle.
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
/// Returns the permit: the longest waiter owns it before `drop` returns. A permit that is lost by
/// [`std::mem::forget`] still counts as held; use [`forget`](Self::forget).
#[must_use = "dropping the permit returns it immediately"]
pub struct Permit {
    semaphore: Semaphore,
    fate: Fate,
}

/// The effect of dropping a permit.
#[derive(Clone, Copy)]
enum Fate {
    /// It is returned.
    Return,
    /// It is removed.
    Vanish,
}

impl Permit {
    /// Wraps one permit that has just been taken from this semaphore's pool.
    fn of(semaphore: Semaphore) -> Self {
        Permit {
            semaphore,
            fate: Fate::Return,
        }
    }

    /// Removes the permit. [`Semaphore::release`] adds it again, from any task.
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

    /// Returns the semaphore of the permit.
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
/// Leaves the queue immediately; the order of the others is unchanged. If a permit had been
/// assigned already, it goes to the next waiter. A waiter that is *forgotten*
/// ([`std::mem::forget`]) keeps its position, and a permit that is assigned to it counts as held
/// from then on.
///
/// # Panics
///
/// When polled again after it has returned its permit.
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct SemaphoreAcquire {
    acquiring: Acquiring<Semaphore>,
}

impl TokenHandle for Semaphore {
    const POLLED_AFTER_END: &'static str =
        "a `SemaphoreAcquire` was polled after it had returned its permit";

    fn tokens(&self) -> &TokenPool {
        &self.shared.tokens
    }
}

impl Future for SemaphoreAcquire {
    type Output = Permit;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Permit> {
        match self.acquiring.poll(cx.waker()) {
            Some(handle) => Poll::Ready(Permit::of(handle)),
            None => wait::pending(&Wait::For("a permit")),
        }
    }
}

impl fmt::Debug for SemaphoreAcquire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SemaphoreAcquire")
            .field("state", &self.acquiring)
            .finish()
    }
}
