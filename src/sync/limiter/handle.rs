//! `CapacityLimiter`: bounds how many of something happen at once.
//!
//! A thin driver around `tokens`: an uncontended acquire is one atomic step and no allocation; everything else happens
//! under a mutex that is held for a few instructions. No foreign code ever runs under the lock: wakers are cloned before
//! it is taken, and woken and dropped after it is given back, so a waker may use the limiter itself.
//!
//! Choice: the handle, [`Acquire`] and [`Token`] each own a reference to the limiter instead of borrowing it, so that
//! a token can be moved into whatever holds on to the resource (a worker process, a thread, another task) and be
//! released there.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::key_sets::KeySets;
use crate::sync::token_pool::{QueueGuard, TokenPool};
use crate::sync::wait_list::WaiterKey;

/// Bounds how many of something happen at once: whoever wants to begin takes a [`Token`], and waits for one if all are
/// given out.
///
/// The handle is cheap to clone; all clones are the same limiter. It is fair: tokens go to those who wait strictly in
/// the order in which they began to (an [`Acquire`] begins when it is first polled), and a token that is given back
/// belongs to the longest waiter before [`Token`]'s `drop` returns. Nobody can barge in between.
///
/// The number of tokens may be changed at any time ([`set_total`](Self::set_total)), and may be 0.
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
/// Trio's limiter knows *who* borrows: the current task, or what `acquire_on_behalf_of` names, and each borrower may
/// hold one token. Here **the token is the borrower**. It may be moved to another task or thread and is released by
/// dropping it, wherever that happens, so releasing twice, or without having acquired, cannot be written. In exchange
/// one task may take several tokens, and the limiter does not notice if that is a mistake. [`acquire_for`](Self::acquire_for) takes a
/// token for a key, and returns an error if that key has one already.
///
/// # Deadlock by nesting
///
/// A task that holds a token and waits for another one of the same limiter, directly or by calling something that
/// takes one, can wait for ever: with `n` tokens, `n` such tasks are enough to block each other and everybody else.
/// (Trio raises an error if that task is its own borrower; here, it just waits.) Take the tokens of one limiter at one
/// level of the program only, use a second limiter for what is nested, or use [`try_acquire`](Self::try_acquire).
///
/// # Dropping
///
/// Dropping a handle changes nothing for others: tokens and waiters keep the limiter alive.
#[derive(Clone)]
pub struct CapacityLimiter {
    shared: Arc<Shared>,
}

struct Shared {
    tokens: TokenPool,
    keys: KeySets,
}

impl CapacityLimiter {
    /// Creates a limiter with `total` tokens. With 0, everybody waits until [`set_total`](Self::set_total) raises it.
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

    /// Creates a limiter with as many tokens as anybody wants. It still counts those that are
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

    /// Takes a token, waiting for one as long as all are given out or others wait.
    ///
    /// The future may outlive this handle, and be moved to other threads. It completes at once if it can: an acquire
    /// that need not wait is not a cancel point. Its place in the queue is that of its first poll.
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
    /// Atomic: if cancelled, nothing has happened. A waiter that is dropped leaves the queue at once, and the order of
    /// the others is unchanged; if a token had been assigned to it already, the next waiter gets that token.
    pub fn acquire(&self) -> Acquire {
        Acquire {
            state: State::New(self.clone()),
        }
    }

    /// Takes a token if one is free and nobody waits for it; never waits.
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

    /// Changes the number of tokens.
    ///
    /// Raising it assigns the new tokens to those who wait, in their order, before this returns. Lowering it takes
    /// nothing from those who hold tokens: nobody is admitted until enough were given back that fewer than `total` are
    /// borrowed. An [`unlimited`](Self::unlimited) limiter becomes a limited one.
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

    /// Lifts the limit: all who wait get a token before this returns, and nobody waits from now on.
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
        granted.into_iter().for_each(Waker::wake);
    }

    /// Number of tokens that there are, given out or not; `None` if there is no limit.
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

    /// Number of tokens that are given out, including those assigned to waiters that have not run since.
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

    /// Number of tokens that are free: total minus borrowed. `None` if there is no limit.
    ///
    /// Negative after [`set_total`](Self::set_total) went below what was borrowed: so many have to come back before
    /// the next one is given out, and one more. (Clamped to what an `isize` can say.)
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

    /// Says, for one moment, how the limiter is used.
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

    /// A place at the end of the queue, or `None` if a token came free meanwhile and was taken.
    #[cold]
    fn arrive(&self, waker: &Waker) -> Option<WaiterKey> {
        // Declared before the lock is taken, so that an unused one is dropped after it was given back.
        let waker = waker.clone();
        let mut queue = self.lock_queue();
        if queue.try_take() {
            return None;
        }
        Some(queue.push(waker))
    }

    fn poll_granted(&self, key: &WaiterKey, waker: &Waker) -> Poll<()> {
        self.shared.tokens.poll_granted(key, waker)
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

/// How a [`CapacityLimiter`] is used, at one moment; from [`CapacityLimiter::statistics`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CapacityLimiterStatistics {
    /// Number of tokens that there are; `None` if there is no limit.
    pub total: Option<usize>,
    /// Number of tokens that are given out; more than `total` after that was lowered.
    pub borrowed: usize,
    /// Number of [`Acquire`] futures in the queue.
    pub waiting: usize,
}

/// The right to do one of what a [`CapacityLimiter`] limits.
///
/// It owns its share of the limiter: it may be stored, sent to other threads, and outlive every handle.
///
/// # Dropping
///
/// Gives the token back: the longest waiter owns it before `drop` returns. A token that is forgotten
/// ([`std::mem::forget`]) stays borrowed for ever; [`CapacityLimiter::set_total`] can make up for it.
///
/// ```
/// use seedbed::sync::CapacityLimiter;
///
/// let limiter = CapacityLimiter::new(1);
/// let token = limiter.try_acquire().expect("one is free");
/// std::thread::spawn(move || drop(token)).join().unwrap();
/// assert_eq!(limiter.borrowed(), 0);
/// ```
#[must_use = "dropping the token gives it back at once"]
pub struct Token {
    limiter: CapacityLimiter,
}

impl Token {
    /// For one token that has just been taken from this limiter's queue.
    fn of(limiter: CapacityLimiter) -> Self {
        Token { limiter }
    }

    /// The limiter that the token belongs to.
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
/// Leaves the queue at once; the order of the others is unchanged. If a token had been assigned already, it goes to
/// the next waiter. A waiter that is *forgotten* ([`std::mem::forget`]) keeps its place, and the token that reaches it
/// there is lost like a forgotten [`Token`]; everything else works on.
///
/// # Panics
///
/// When polled again after it has given its token.
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct Acquire {
    state: State,
}

/// Where an [`Acquire`] stands.
enum State {
    /// Not polled yet; not in the queue.
    New(CapacityLimiter),
    /// In the queue, or granted a token that it has not seen yet.
    Queued(CapacityLimiter, WaiterKey),
    /// The token was handed out.
    Done,
}

impl Acquire {
    /// Whether a token is there for this future to [`finish`](Self::finish) with; if not, it is `Queued` now.
    #[inline]
    fn advance(&mut self, waker: &Waker) -> bool {
        let limiter = match &self.state {
            State::New(limiter) => limiter,
            State::Queued(limiter, key) => return limiter.poll_granted(key, waker).is_ready(),
            State::Done => panic!("an `Acquire` was polled after it had given its token"),
        };
        // The common case comes first: nothing to lock, and nothing to clone.
        if limiter.shared.tokens.try_take() {
            return true;
        }
        let Some(key) = limiter.arrive(waker) else {
            return true;
        };
        self.state = State::Queued(limiter.clone(), key);
        false
    }

    /// Hands out the token that is there.
    #[inline]
    fn finish(&mut self) -> Token {
        let limiter = match mem::replace(&mut self.state, State::Done) {
            State::New(limiter) => limiter,
            State::Queued(limiter, key) => {
                limiter.shared.tokens.claim(key);
                limiter
            }
            State::Done => unreachable!("`advance` found a token"),
        };
        Token::of(limiter)
    }
}

impl Future for Acquire {
    type Output = Token;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Token> {
        if self.advance(cx.waker()) {
            Poll::Ready(self.finish())
        } else {
            Poll::Pending
        }
    }
}

impl Drop for Acquire {
    fn drop(&mut self) {
        if let State::Queued(..) = &self.state
            && let State::Queued(limiter, key) = mem::replace(&mut self.state, State::Done)
        {
            let then = limiter.lock_queue().give_up(key);
            then.run();
        }
    }
}

impl fmt::Debug for Acquire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::New(_) => "not polled yet",
            State::Queued(..) => "queued",
            State::Done => "done",
        };
        f.debug_struct("Acquire").field("state", &state).finish()
    }
}
