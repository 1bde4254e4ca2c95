//! The handle, token and future of a limiter: a driver around a [`TokenPool`].
//!
//! An uncontended acquire is one atomic step and no allocation. Everything else happens under a
//! mutex that is locked for a few instructions and never while foreign code runs.
//!
//! Decision: the handle, [`Acquire`] and [`Token`] each own a reference to the limiter instead of
//! borrowing it. So a token can be moved into the owner of the resource (a worker process, a
//! thread, another task) and released there.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::key_sets::KeySets;
use crate::sync::acquiring::{Acquiring, TokenHandle};
use crate::sync::token_pool::{QueueGuard, TokenPool};
use crate::sys::unwind::wake_all;
use crate::wait;

/// Limits how many operations run at once: each takes a [`Token`], and waits while all are taken.
///
/// The handle is cheap to clone; all clones are handles of the same limiter. It is fair: tokens go
/// to waiters strictly in the order in which they began to wait (an [`Acquire`] begins when it is
/// first polled). A token that is returned belongs to the longest waiter before [`Token`]'s `drop`
/// returns, so no other task can barge in between.
///
/// The number of tokens may be changed at any time with [`set_total`](Self::set_total), and may be
/// 0.
///
/// ```
/// use seedbed::sync::CapacityLimiter;
///
/// futures_lite::future::block_on(async {
///     let limiter = CapacityLimiter::new(2);
///     let first = limiter.acquire().await;
///     let second = limiter.acquire().await;
///     assert_eq!(limiter.available(), Some(0));
///     assert!(limiter.try_acquire().is_none());
///
///     drop(first);
///     assert_eq!(limiter.available(), Some(1));
/// # drop(second);
/// });
/// ```
///
/// # Coming from Trio
///
/// In Trio, each token has a borrower: the current task, or the object that `acquire_on_behalf_of`
/// names, and each borrower may hold one token. Here **the token is the borrower**. It may be moved
/// to another task or thread, and is released by dropping it there. So a double release, or a
/// release without an acquire, does not compile. In exchange, one task may take several tokens, and
/// the limiter does not detect whether that is a mistake. [`acquire_for`](Self::acquire_for) takes
/// a token for a key, and returns an error if that key has one already.
///
/// # Deadlock by nesting
///
/// A task that holds a token and waits for another one of the same limiter, directly or in a call,
/// can wait forever: with `n` tokens, `n` such tasks are enough to block each other and all others.
/// (Trio raises an error if that task is its own borrower; here, it waits.) Take the tokens of one
/// limiter at one level of the program only, use a second limiter for nested operations, or use
/// [`try_acquire`](Self::try_acquire).
///
/// # Dropping
///
/// Dropping a handle does not affect others: tokens and waiters keep the limiter alive.
#[derive(Clone)]
#[doc(alias = "throttle")]
#[doc(alias = "max_workers")]
pub struct CapacityLimiter {
    shared: Arc<Shared>,
}

struct Shared {
    tokens: TokenPool,
    keys: KeySets,
}

impl CapacityLimiter {
    /// Creates a limiter with `total` tokens. With 0, all tasks wait until
    /// [`set_total`](Self::set_total) raises it.
    ///
    /// ```
    /// use seedbed::sync::CapacityLimiter;
    ///
    /// assert_eq!(CapacityLimiter::new(3).total(), Some(3));
    /// assert!(CapacityLimiter::new(0).try_acquire().is_none());
    /// ```
    pub fn new(total: usize) -> Self {
        Self::with_total(Some(total))
    }

    /// Creates a limiter without a limit. It still counts the tokens that are
    /// [`borrowed`](Self::borrowed).
    ///
    /// ```
    /// use seedbed::sync::CapacityLimiter;
    ///
    /// let limiter = CapacityLimiter::unlimited();
    /// let tokens: Vec<_> = (0..1000).map_while(|_| limiter.try_acquire()).collect();
    /// assert_eq!(tokens.len(), 1000);
    /// assert_eq!(limiter.total(), None);
    /// assert_eq!(limiter.borrowed(), 1000);
    /// ```
    pub fn unlimited() -> Self {
        Self::with_total(None)
    }

    fn with_total(total: Option<usize>) -> Self {
        CapacityLimiter {
            shared: Arc::new(Shared {
                tokens: TokenPool::new(total),
                keys: KeySets::new(),
            }),
        }
    }

    /// Takes a token, and waits while all are taken or others wait.
    ///
    /// The future may outlive this handle, and be moved to other threads. It completes immediately
    /// if it can; then it is no cancel point. Its position in the queue is that of its first poll.
    ///
    /// ```
    /// use seedbed::sync::CapacityLimiter;
    ///
    /// futures_lite::future::block_on(async {
    ///     let limiter = CapacityLimiter::new(1);
    ///     let token = limiter.acquire().await;
    ///     assert_eq!(limiter.borrowed(), 1);
    /// # drop(token);
    /// });
    /// ```
    ///
    /// # Cancellation
    ///
    /// Atomic: if cancelled, nothing has happened. A waiter that is dropped leaves the queue
    /// immediately, and the order of the others is unchanged; if a token had been assigned to it
    /// already, the next waiter gets that token.
    pub fn acquire(&self) -> Acquire {
        Acquire {
            acquiring: Acquiring::new(self.clone()),
        }
    }

    /// Takes a token if one is free; never waits. `None` if none is free or others wait.
    ///
    /// ```
    /// use seedbed::sync::CapacityLimiter;
    ///
    /// let limiter = CapacityLimiter::new(1);
    /// let token = limiter.try_acquire();
    /// assert!(token.is_some());
    /// assert!(limiter.try_acquire().is_none());
    /// ```
    pub fn try_acquire(&self) -> Option<Token> {
        let taken = self.shared.tokens.try_take();
        taken.then(|| Token::of(self.clone()))
    }

    /// Sets the number of tokens.
    ///
    /// Raising it assigns the new tokens to the longest waiters before this returns. Lowering it
    /// revokes no token: the next one is given out when fewer than `total` are borrowed. An
    /// [`unlimited`](Self::unlimited) limiter becomes a limited one.
    ///
    /// ```
    /// use seedbed::sync::CapacityLimiter;
    ///
    /// let limiter = CapacityLimiter::new(2);
    /// let (first, second) = (limiter.try_acquire(), limiter.try_acquire());
    /// limiter.set_total(1);
    /// assert_eq!(limiter.available(), Some(-1));
    ///
    /// drop(first);
    /// assert!(limiter.try_acquire().is_none());
    /// drop(second);
    /// assert!(limiter.try_acquire().is_some());
    /// ```
    pub fn set_total(&self, total: usize) {
        self.change_total(Some(total));
    }

    /// Removes the limit: all waiters get a token before this returns, and no task waits from now
    /// on.
    ///
    /// ```
    /// use seedbed::sync::CapacityLimiter;
    ///
    /// let limiter = CapacityLimiter::new(0);
    /// limiter.set_unlimited();
    /// assert_eq!(limiter.total(), None);
    /// assert!(limiter.try_acquire().is_some());
    /// ```
    pub fn set_unlimited(&self) {
        self.change_total(None);
    }

    fn change_total(&self, total: Option<usize>) {
        let granted = self.lock_queue().set_total(total);
        wake_all(granted);
    }

    /// Returns the number of tokens, taken or free; `None` without a limit.
    ///
    /// ```
    /// use seedbed::sync::CapacityLimiter;
    ///
    /// let limiter = CapacityLimiter::new(2);
    /// limiter.set_total(5);
    /// assert_eq!(limiter.total(), Some(5));
    /// assert_eq!(CapacityLimiter::unlimited().total(), None);
    /// ```
    pub fn total(&self) -> Option<usize> {
        self.lock_queue().total()
    }

    /// Returns the number of taken tokens, including those assigned to waiters that have not run
    /// since.
    ///
    /// ```
    /// use seedbed::sync::CapacityLimiter;
    ///
    /// let limiter = CapacityLimiter::new(2);
    /// let token = limiter.try_acquire();
    /// assert_eq!(limiter.borrowed(), 1);
    /// # drop(token);
    /// ```
    pub fn borrowed(&self) -> usize {
        self.lock_queue().taken()
    }

    /// Returns the number of free tokens: total minus borrowed. `None` without a limit.
    ///
    /// Negative after [`set_total`](Self::set_total) has set a total below the number of borrowed
    /// tokens. The result is clamped to the range of `isize`.
    ///
    /// ```
    /// use seedbed::sync::CapacityLimiter;
    ///
    /// let limiter = CapacityLimiter::new(2);
    /// let token = limiter.try_acquire();
    /// assert_eq!(limiter.available(), Some(1));
    /// limiter.set_total(0);
    /// assert_eq!(limiter.available(), Some(-1));
    /// assert_eq!(CapacityLimiter::unlimited().available(), None);
    /// # drop(token);
    /// ```
    pub fn available(&self) -> Option<isize> {
        let queue = self.lock_queue();
        let (total, borrowed) = (queue.total()?, queue.taken());
        Some(if total >= borrowed {
            isize::try_from(total - borrowed).unwrap_or(isize::MAX)
        } else {
            isize::try_from(borrowed - total).map_or(isize::MIN, |below| -below)
        })
    }

    /// Returns the number of tokens and waiters at this moment.
    ///
    /// ```
    /// use seedbed::sync::CapacityLimiter;
    ///
    /// let limiter = CapacityLimiter::new(2);
    /// let token = limiter.try_acquire();
    /// let statistics = limiter.statistics();
    /// assert_eq!(statistics.total, Some(2));
    /// assert_eq!(statistics.borrowed, 1);
    /// assert_eq!(statistics.waiting, 0);
    /// # drop(token);
    /// ```
    pub fn statistics(&self) -> CapacityLimiterStatistics {
        let queue = self.lock_queue();
        CapacityLimiterStatistics {
            total: queue.total(),
            borrowed: queue.taken(),
            waiting: queue.waiting(),
        }
    }

    /// The keys that hold tokens or wait for them.
    pub(super) fn key_sets(&self) -> &KeySets {
        &self.shared.keys
    }

    fn lock_queue(&self) -> QueueGuard<'_> {
        self.shared.tokens.lock_queue()
    }
}

/// Shows [`statistics`](CapacityLimiter::statistics).
impl fmt::Debug for CapacityLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let statistics = self.statistics();
        f.debug_struct("CapacityLimiter")
            .field("total", &statistics.total)
            .field("borrowed", &statistics.borrowed)
            .field("waiting", &statistics.waiting)
            .finish()
    }
}

/// How a [`CapacityLimiter`] was used at one moment; from [`CapacityLimiter::statistics`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CapacityLimiterStatistics {
    /// Number of tokens; `None` without a limit.
    pub total: Option<usize>,
    /// Number of taken tokens; more than `total` after the total was lowered.
    pub borrowed: usize,
    /// Number of [`Acquire`] futures in the queue.
    pub waiting: usize,
}

/// A token of a [`CapacityLimiter`]: the right to run one of the limited operations.
///
/// It owns a handle of the limiter: it may be stored, sent to other threads, and outlive every
/// other handle.
///
/// # Dropping
///
/// Returns the token: the longest waiter owns it before `drop` returns. A token that is forgotten
/// ([`std::mem::forget`]) stays borrowed forever; raise [`CapacityLimiter::set_total`] to
/// compensate.
///
/// ```
/// use seedbed::sync::CapacityLimiter;
///
/// let limiter = CapacityLimiter::new(1);
/// let token = limiter.try_acquire().expect("one is free");
/// std::thread::spawn(move || drop(token)).join().unwrap();
/// assert_eq!(limiter.borrowed(), 0);
/// ```
#[must_use = "dropping the token returns it immediately"]
pub struct Token {
    limiter: CapacityLimiter,
}

impl Token {
    /// Wraps one token that has just been taken from this limiter's pool.
    fn of(limiter: CapacityLimiter) -> Self {
        Token { limiter }
    }

    /// Returns the limiter of the token.
    ///
    /// ```
    /// use seedbed::sync::CapacityLimiter;
    ///
    /// let token = CapacityLimiter::new(3).try_acquire().expect("three are free");
    /// assert_eq!(token.limiter().available(), Some(2));
    /// ```
    pub fn limiter(&self) -> &CapacityLimiter {
        &self.limiter
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.limiter.shared.tokens.give_back();
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("limiter", &self.limiter)
            .finish()
    }
}

/// Waits for a [`Token`]; from [`CapacityLimiter::acquire`].
///
/// It may be polled at any time and with changing wakers; the newest one is woken.
///
/// ```
/// use seedbed::sync::{Acquire, CapacityLimiter};
///
/// let limiter = CapacityLimiter::new(1);
/// let acquire: Acquire = limiter.acquire();
/// assert_eq!(limiter.borrowed(), 0, "futures do nothing until polled");
/// let token = futures_lite::future::block_on(acquire);
/// assert_eq!(limiter.borrowed(), 1);
/// # drop(token);
/// ```
///
/// # Cancellation
///
/// Atomic: if cancelled, nothing has happened.
///
/// # Dropping
///
/// Leaves the queue immediately; the order of the others is unchanged. If a token had been assigned
/// already, it goes to the next waiter. A waiter that is *forgotten* ([`std::mem::forget`]) keeps
/// its position, and a token that is assigned to it is lost like a forgotten [`Token`].
///
/// # Panics
///
/// When polled again after it has returned its token.
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct Acquire {
    acquiring: Acquiring<CapacityLimiter>,
}

impl TokenHandle for CapacityLimiter {
    const POLLED_AFTER_END: &'static str =
        "an `Acquire` was polled after it had returned its token";

    fn tokens(&self) -> &TokenPool {
        &self.shared.tokens
    }
}

impl Future for Acquire {
    type Output = Token;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Token> {
        match self.acquiring.poll(cx.waker()) {
            Some(handle) => Poll::Ready(Token::of(handle)),
            None => wait::pending(&wait::LIMITER_TOKEN),
        }
    }
}

impl fmt::Debug for Acquire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquire")
            .field("state", &self.acquiring)
            .finish()
    }
}
