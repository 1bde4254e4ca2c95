//! `Borrowers`: tokens of a limiter that are held in somebody's name, one for each.
//!
//! A layer on top of the limiter: a map from borrower to token. Whoever takes tokens without a name does not know of it
//! and pays nothing for it. The order of service is the limiter's, among named and nameless alike.
//!
//! Choice: the token lies in the map, not with the caller. The point of a name is that somebody else can give the token
//! back; whoever wants it to come back by itself has [`Token`], which needs no name.
//!
//! Choice: a name counts from the moment when its owner begins to wait. So a second one who waits for the same name is
//! refused at once. (Trio compares with those who *hold* a token, so that two who wait for the same borrower both get
//! through, and count as one.)
//!
//! The borrower's `Hash` and `Eq` run under this file's mutex, as in any map behind one; they must not use the
//! `Borrowers` that they are in. Wakers, tokens and borrowers are woken and dropped after it was given back.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::guarded::Guarded;
use super::limiter::{Acquire, CapacityLimiter, CapacityLimiterStatistics, Token};

/// Takes tokens of a [`CapacityLimiter`] on behalf of borrowers, each of whom may have one, and lets anybody give them
/// back.
///
/// A borrower is any value that can be a key: a name, a number, the address of a client. This is for a limit on
/// something that outlives the code which takes the token, and which others identify by that value. If whoever takes
/// the token also gives it back, [`CapacityLimiter::acquire`] is simpler and cannot be forgotten.
///
/// The handle is cheap to clone; all clones know the same borrowers. The limiter can be used directly, too, and by
/// other `Borrowers`: tokens are given out in the order in which all of these began to wait.
///
/// ```
/// use seedbed::sync::{Borrowers, CapacityLimiter};
///
/// futures_lite::future::block_on(async {
///     let desks = Borrowers::new(&CapacityLimiter::new(2));
///     desks.acquire("ada").await.unwrap();
///     desks.acquire("grace").await.unwrap();
///     assert!(desks.acquire("ada").await.is_err(), "she has one");
///     assert!(desks.release(&"ada"));
///     assert_eq!(desks.statistics().borrowers, ["grace"]);
/// });
/// ```
///
/// # Coming from Trio
///
/// `limiter.acquire_on_behalf_of(b)` is `borrowers.acquire(b)`. Two tasks that wait for the same borrower are an error
/// here, where Trio lets both through with one token.
///
/// # Dropping
///
/// Dropping a handle changes nothing for others; with the last one, all tokens of its borrowers are given back. Those
/// who wait keep it alive.
pub struct Borrowers<K> {
    shared: Arc<Shared<K>>,
}

struct Shared<K> {
    limiter: CapacityLimiter,
    places: Guarded<HashMap<K, Place>>,
}

/// What a borrower has.
#[derive(Debug)]
enum Place {
    /// Somebody waits for a token in this name.
    Waiting,
    /// Its token, which is given back by being dropped.
    Held { _token: Token },
}

impl<K: Hash + Eq + Clone> Borrowers<K> {
    /// Borrowers of this limiter's tokens; nobody has one yet.
    ///
    /// ```
    /// use seedbed::sync::{Borrowers, CapacityLimiter};
    ///
    /// let borrowers: Borrowers<u64> = Borrowers::new(&CapacityLimiter::new(1));
    /// assert_eq!(borrowers.limiter().total(), Some(1));
    /// ```
    pub fn new(limiter: &CapacityLimiter) -> Self {
        Borrowers {
            shared: Arc::new(Shared {
                limiter: limiter.clone(),
                places: Guarded::new(HashMap::new()),
            }),
        }
    }

    /// Takes a token in this borrower's name, waiting for one as long as all are given out or others wait.
    ///
    /// It completes at once if it can, and is then no cancel point. Its place in the queue is that of its first poll.
    ///
    /// ```
    /// use seedbed::sync::{Borrowers, CapacityLimiter};
    ///
    /// futures_lite::future::block_on(async {
    ///     let limiter = CapacityLimiter::new(1);
    ///     let borrowers = Borrowers::new(&limiter);
    ///     borrowers.acquire("ada").await.unwrap();
    ///     assert_eq!(limiter.available(), Some(0));
    /// });
    /// ```
    ///
    /// # Errors
    ///
    /// [`AlreadyBorrowing`] at the first poll, if the borrower has a token, or somebody waits for one in that name.
    ///
    /// # Cancellation
    ///
    /// Atomic: if cancelled, nothing has happened, and somebody else may wait in that name. A token that had been
    /// assigned already goes to the next waiter.
    pub fn acquire(&self, borrower: K) -> AcquireFor<K> {
        AcquireFor {
            state: State::New(self.clone(), borrower),
        }
    }

    /// Takes a token in this borrower's name if one is free and nobody waits for it; never waits. Returns whether it
    /// did.
    ///
    /// ```
    /// use seedbed::sync::{Borrowers, CapacityLimiter};
    ///
    /// let borrowers = Borrowers::new(&CapacityLimiter::new(1));
    /// assert_eq!(borrowers.try_acquire("ada"), Ok(true));
    /// assert_eq!(borrowers.try_acquire("grace"), Ok(false));
    /// assert!(borrowers.try_acquire("ada").is_err());
    /// ```
    ///
    /// # Errors
    ///
    /// [`AlreadyBorrowing`] if the borrower has a token, or somebody waits for one in that name.
    pub fn try_acquire(&self, borrower: K) -> Result<bool, AlreadyBorrowing> {
        // The limiter's lock is taken within this one, and never the other way round. Taking a token runs no foreign
        // code.
        let mut places = self.shared.places.lock();
        if places.contains_key(&borrower) {
            return Err(AlreadyBorrowing { _private: () });
        }
        let Some(token) = self.shared.limiter.try_acquire() else {
            return Ok(false);
        };
        places.insert(borrower, Place::Held { _token: token });
        Ok(true)
    }

    /// Gives a borrower's token back, whoever took it: the longest waiter owns it before this returns. Returns whether
    /// the borrower had one; one for whom somebody still waits has none.
    ///
    /// ```
    /// use seedbed::sync::{Borrowers, CapacityLimiter};
    ///
    /// let borrowers = Borrowers::new(&CapacityLimiter::new(1));
    /// borrowers.try_acquire("ada").unwrap();
    /// assert!(borrowers.release(&"ada"));
    /// assert!(!borrowers.release(&"ada"), "she has none any more");
    /// ```
    #[must_use = "releasing what was not borrowed is usually a mistake"]
    pub fn release(&self, borrower: &K) -> bool {
        let mut places = self.shared.places.lock();
        let removed = match places.get(borrower) {
            Some(Place::Held { .. }) => places.remove_entry(borrower),
            Some(Place::Waiting) | None => None,
        };
        drop(places);
        // The token and the borrower are dropped here, where nothing is locked.
        removed.is_some()
    }

    /// Whether this borrower has a token.
    ///
    /// ```
    /// use seedbed::sync::{Borrowers, CapacityLimiter};
    ///
    /// let borrowers = Borrowers::new(&CapacityLimiter::new(1));
    /// borrowers.try_acquire("ada").unwrap();
    /// assert!(borrowers.holds(&"ada") && !borrowers.holds(&"grace"));
    /// ```
    pub fn holds(&self, borrower: &K) -> bool {
        let places = self.shared.places.lock();
        matches!(places.get(borrower), Some(Place::Held { .. }))
    }

    /// The limiter whose tokens these are.
    ///
    /// ```
    /// use seedbed::sync::{Borrowers, CapacityLimiter};
    ///
    /// let borrowers = Borrowers::<u8>::new(&CapacityLimiter::new(1));
    /// borrowers.limiter().set_total(5);
    /// assert_eq!(borrowers.limiter().total(), Some(5));
    /// ```
    pub fn limiter(&self) -> &CapacityLimiter {
        &self.shared.limiter
    }

    /// Says, for one moment, who has tokens, and how the limiter is used.
    ///
    /// ```
    /// use seedbed::sync::{Borrowers, CapacityLimiter};
    ///
    /// let limiter = CapacityLimiter::new(3);
    /// let borrowers = Borrowers::new(&limiter);
    /// let nameless = limiter.try_acquire();
    /// borrowers.try_acquire("ada").unwrap();
    /// let statistics = borrowers.statistics();
    /// assert_eq!(statistics.borrowers, ["ada"]);
    /// assert_eq!(statistics.limiter.borrowed, 2);
    /// # drop(nameless);
    /// ```
    pub fn statistics(&self) -> BorrowersStatistics<K> {
        let places = self.shared.places.lock();
        let held = places
            .iter()
            .filter(|(_, place)| matches!(place, Place::Held { .. }));
        BorrowersStatistics {
            borrowers: held.map(|(borrower, _)| borrower.clone()).collect(),
            limiter: self.shared.limiter.statistics(),
        }
    }

    /// Takes a place for somebody who waits.
    fn reserve(&self, borrower: K) -> Result<(), AlreadyBorrowing> {
        let mut places = self.shared.places.lock();
        if places.contains_key(&borrower) {
            return Err(AlreadyBorrowing { _private: () });
        }
        places.insert(borrower, Place::Waiting);
        Ok(())
    }

    /// Gives the place to the token that was waited for.
    fn hold(&self, borrower: &K, token: Token) {
        let mut places = self.shared.places.lock();
        let place = places.get_mut(borrower);
        *place.expect("a place is kept for whoever waits") = Place::Held { _token: token };
    }
}

impl<K: Hash + Eq> Shared<K> {
    /// Whoever waited in this name waits no more.
    fn leave(&self, borrower: &K) {
        let removed = self.places.lock().remove_entry(borrower);
        drop(removed);
    }
}

impl<K> Clone for Borrowers<K> {
    fn clone(&self) -> Self {
        Borrowers {
            shared: self.shared.clone(),
        }
    }
}

/// Shows how many borrowers there are, and the limiter.
impl<K> fmt::Debug for Borrowers<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.shared.places.lock().len();
        f.debug_struct("Borrowers")
            .field("holding_or_waiting", &known)
            .field("limiter", &self.shared.limiter)
            .finish()
    }
}

/// Who has tokens, at one moment; from [`Borrowers::statistics`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BorrowersStatistics<K> {
    /// Those who have one, in no particular order.
    pub borrowers: Vec<K>,
    /// How the limiter is used, by whomever.
    pub limiter: CapacityLimiterStatistics,
}

/// The borrower has a token already, or somebody waits for one in that name; from [`Borrowers::acquire`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AlreadyBorrowing {
    _private: (),
}

impl fmt::Display for AlreadyBorrowing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "no token was taken: this borrower has one already, or somebody waits for one in its name; release it \
             first",
        )
    }
}

impl Error for AlreadyBorrowing {}

/// Waits for a token in somebody's name; from [`Borrowers::acquire`].
///
/// It may be polled at any time and with changing wakers; the newest one is woken.
///
/// # Cancellation
///
/// Atomic: if cancelled, nothing has happened.
///
/// # Dropping
///
/// Leaves the queue at once; the order of the others is unchanged. If a token had been assigned already, it goes to the
/// next waiter.
///
/// # Panics
///
/// When polled again after it has completed.
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct AcquireFor<K: Hash + Eq> {
    state: State<K>,
}

/// Where an [`AcquireFor`] stands.
enum State<K: Hash + Eq> {
    /// Not polled yet.
    New(Borrowers<K>, K),
    Waiting(Acquire, Reserved<K>),
    Done,
}

/// A place that is given up when this is dropped.
struct Reserved<K: Hash + Eq> {
    borrowers: Borrowers<K>,
    borrower: K,
    /// Whether the place is still ours to give up.
    kept: bool,
}

impl<K: Hash + Eq> Drop for Reserved<K> {
    fn drop(&mut self) {
        if !self.kept {
            self.borrowers.shared.leave(&self.borrower);
        }
    }
}

// Nothing in it is pinned.
impl<K: Hash + Eq> Unpin for AcquireFor<K> {}

impl<K: Hash + Eq + Clone> Future for AcquireFor<K> {
    type Output = Result<(), AlreadyBorrowing>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let State::New(..) = self.state
            && let State::New(borrowers, borrower) = mem::replace(&mut self.state, State::Done)
        {
            borrowers.reserve(borrower.clone())?;
            let acquire = borrowers.limiter().acquire();
            let reserved = Reserved {
                borrowers,
                borrower,
                kept: false,
            };
            self.state = State::Waiting(acquire, reserved);
        }
        let State::Waiting(acquire, reserved) = &mut self.state else {
            panic!("an `AcquireFor` was polled after it had completed");
        };
        let token = ready!(Pin::new(acquire).poll(cx));
        reserved.borrowers.hold(&reserved.borrower, token);
        reserved.kept = true;
        self.state = State::Done;
        Poll::Ready(Ok(()))
    }
}

impl<K: Hash + Eq> fmt::Debug for AcquireFor<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::New(..) => "not polled yet",
            State::Waiting(..) => "queued",
            State::Done => "done",
        };
        f.debug_struct("AcquireFor").field("state", &state).finish()
    }
}
