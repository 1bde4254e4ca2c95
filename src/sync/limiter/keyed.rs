//! TokenPool of a limiter for keys, at most one token for each key.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::handle::{Acquire, CapacityLimiter, Token};
use super::key_sets::{InUse, KeySet};

/// TokenPool for keys.
impl CapacityLimiter {
    /// Takes a token for a key, waiting while none is free or others wait. A key holds at most one
    /// token.
    ///
    /// A key is any value that identifies the user of the resource: a name, a number, a client's
    /// address. Use this where a second token for the same user would be a mistake. Calls with and
    /// without a key wait in one queue. Keys of different types are different keys.
    ///
    /// The future completes immediately if it can; then it is no cancel point. Its position in the
    /// queue is that of its first poll. A key's `Hash`, `Eq` and `Clone` run under a mutex and must
    /// not use this limiter.
    ///
    /// ```
    /// use seedbed::sync::CapacityLimiter;
    ///
    /// futures_lite::future::block_on(async {
    ///     let desks = CapacityLimiter::new(2);
    ///     let ada = desks.acquire_for("ada").await.unwrap();
    ///     assert!(desks.acquire_for("ada").await.is_err(), "she has one already");
    ///     let grace = desks.acquire_for("grace").await.unwrap();
    ///     drop(ada);
    ///     assert_eq!(desks.borrowers::<&str>(), ["grace"]);
    /// # drop(grace);
    /// });
    /// ```
    ///
    /// # Errors
    ///
    /// [`KeyInUseError`] at the first poll, if the key holds a token or another future waits for
    /// one for that key.
    ///
    /// # Cancellation
    ///
    /// Atomic: if cancelled, nothing has happened, and the key is free again. A token that had been
    /// assigned already goes to the next waiter.
    ///
    /// # Coming from Trio
    ///
    /// This is `acquire_on_behalf_of(key)`. There, two tasks that wait for the same borrower share
    /// one token; here, the second one gets an error. There is no `release_on_behalf_of`: the token
    /// is released by dropping it. To release by key, keep the tokens in a map:
    ///
    /// ```
    /// use std::collections::HashMap;
    /// use seedbed::sync::{CapacityLimiter, KeyedToken};
    ///
    /// let limiter = CapacityLimiter::new(1);
    /// let mut tokens: HashMap<u64, KeyedToken<u64>> = HashMap::new();
    /// let token = limiter.try_acquire_for(7).unwrap().expect("one is free");
    /// tokens.insert(7, token);
    ///
    /// tokens.remove(&7);
    /// assert_eq!(limiter.borrowed(), 0);
    /// ```
    pub fn acquire_for<K>(&self, key: K) -> AcquireFor<K>
    where
        K: Hash + Eq + Clone + Send + 'static,
    {
        AcquireFor {
            state: State::New(self.clone(), key),
        }
    }

    /// Takes a token for a key if one is free; never waits. `None` if none is free or others wait.
    ///
    /// ```
    /// use seedbed::sync::CapacityLimiter;
    ///
    /// let limiter = CapacityLimiter::new(1);
    /// let token = limiter.try_acquire_for("ada").unwrap();
    /// assert!(token.is_some());
    /// assert!(limiter.try_acquire_for("grace").unwrap().is_none());
    /// assert!(limiter.try_acquire_for("ada").is_err());
    /// ```
    ///
    /// # Errors
    ///
    /// [`KeyInUseError`] if the key holds a token or a future waits for one for that key.
    pub fn try_acquire_for<K>(&self, key: K) -> Result<Option<KeyedToken<K>>, KeyInUseError>
    where
        K: Hash + Eq + Clone + Send + 'static,
    {
        let keys = self.key_sets().of::<K>();
        // The limiter's mutex is taken while the set's is held, never the other way round.
        let taken = keys.add_holding(key.clone(), || self.try_acquire());
        let token = taken.map_err(KeyInUseError::from)?;
        Ok(token.map(|token| KeyedToken {
            entry: Entry { keys, key },
            token,
        }))
    }

    /// Returns whether this key holds a token.
    ///
    /// ```
    /// use seedbed::sync::CapacityLimiter;
    ///
    /// let limiter = CapacityLimiter::new(1);
    /// let token = limiter.try_acquire_for("ada").unwrap();
    /// assert!(limiter.is_borrowed_by(&"ada") && !limiter.is_borrowed_by(&"grace"));
    /// # drop(token);
    /// ```
    pub fn is_borrowed_by<K>(&self, key: &K) -> bool
    where
        K: Hash + Eq + Clone + Send + 'static,
    {
        self.key_sets().of::<K>().is_holding(key)
    }

    /// Returns the keys of type `K` that hold tokens, in no particular order.
    ///
    /// ```
    /// use seedbed::sync::CapacityLimiter;
    ///
    /// let limiter = CapacityLimiter::new(3);
    /// let without_key = limiter.try_acquire();
    /// let with_key = limiter.try_acquire_for("ada").unwrap();
    /// assert_eq!(limiter.borrowers::<&str>(), ["ada"]);
    /// assert_eq!(limiter.borrowed(), 2);
    /// # drop((without_key, with_key));
    /// ```
    pub fn borrowers<K>(&self) -> Vec<K>
    where
        K: Hash + Eq + Clone + Send + 'static,
    {
        self.key_sets().of::<K>().holding()
    }
}

/// A token of a [`CapacityLimiter`] for a key; from [`CapacityLimiter::acquire_for`].
///
/// It owns a handle of the limiter: it may be stored, sent to other threads, and outlive every
/// other handle.
///
/// ```
/// use seedbed::sync::CapacityLimiter;
///
/// let limiter = CapacityLimiter::new(1);
/// let token = limiter.try_acquire_for("ada").unwrap().expect("one is free");
/// assert_eq!(token.key(), &"ada");
/// assert_eq!(token.limiter().available(), Some(0));
/// std::thread::spawn(move || drop(token)).join().unwrap();
/// assert!(!limiter.is_borrowed_by(&"ada"));
/// ```
///
/// # Dropping
///
/// Releases the key and the token: the longest waiter owns the token before `drop` returns. A token
/// that is forgotten ([`std::mem::forget`]) stays borrowed, and its key in use.
#[must_use = "dropping the token returns it immediately"]
pub struct KeyedToken<K: Hash + Eq> {
    /// Dropped first: the key is free when the token reaches the next waiter.
    entry: Entry<K>,
    token: Token,
}

impl<K: Hash + Eq> KeyedToken<K> {
    /// Returns the key that holds the token.
    ///
    /// ```
    /// let limiter = seedbed::sync::CapacityLimiter::new(1);
    /// let token = limiter.try_acquire_for(7).unwrap().expect("one is free");
    /// assert_eq!(token.key(), &7);
    /// ```
    pub fn key(&self) -> &K {
        &self.entry.key
    }

    /// Returns the limiter that the token belongs to.
    ///
    /// ```
    /// let limiter = seedbed::sync::CapacityLimiter::new(1);
    /// let token = limiter.try_acquire_for(7).unwrap().expect("one is free");
    /// assert_eq!(token.limiter().total(), Some(1));
    /// ```
    pub fn limiter(&self) -> &CapacityLimiter {
        self.token.limiter()
    }
}

/// Shows the limiter, not the key.
impl<K: Hash + Eq> fmt::Debug for KeyedToken<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedToken")
            .field("limiter", self.limiter())
            .finish_non_exhaustive()
    }
}

/// A key in the set; removed when this is dropped.
struct Entry<K: Hash + Eq> {
    keys: Arc<KeySet<K>>,
    key: K,
}

impl<K: Hash + Eq> Drop for Entry<K> {
    fn drop(&mut self) {
        self.keys.remove(&self.key);
    }
}

/// The key holds a token already, or a future waits for one for it; from
/// [`CapacityLimiter::acquire_for`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyInUseError {
    _private: (),
}

impl From<InUse> for KeyInUseError {
    fn from(_: InUse) -> Self {
        KeyInUseError { _private: () }
    }
}

impl fmt::Display for KeyInUseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "no token was taken: this key has one already, or another call waits for one for it; drop that one first",
        )
    }
}

impl Error for KeyInUseError {}

/// Waits for a token for a key; from [`CapacityLimiter::acquire_for`].
///
/// It may be polled at any time and with changing wakers; the newest one is woken.
///
/// ```
/// use seedbed::sync::{AcquireFor, CapacityLimiter};
///
/// let limiter = CapacityLimiter::new(1);
/// let acquire: AcquireFor<u64> = limiter.acquire_for(7);
/// assert_eq!(limiter.borrowed(), 0, "futures do nothing until polled");
/// let token = futures_lite::future::block_on(acquire).unwrap();
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
/// already, it goes to the next waiter.
///
/// # Panics
///
/// When polled again after it has completed.
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct AcquireFor<K: Hash + Eq> {
    state: State<K>,
}

/// The state of an [`AcquireFor`].
enum State<K: Hash + Eq> {
    /// Not polled yet.
    New(CapacityLimiter, K),
    /// In the limiter's queue, or granted; the key is in the set.
    Waiting(Acquire, Entry<K>),
    Done,
}

// No field is pinned.
impl<K: Hash + Eq> Unpin for AcquireFor<K> {}

impl<K: Hash + Eq + Clone + Send + 'static> Future for AcquireFor<K> {
    type Output = Result<KeyedToken<K>, KeyInUseError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let State::New(..) = self.state
            && let State::New(limiter, key) = mem::replace(&mut self.state, State::Done)
        {
            let keys = limiter.key_sets().of::<K>();
            keys.add_waiting(key.clone())?;
            self.state = State::Waiting(limiter.acquire(), Entry { keys, key });
        }
        let State::Waiting(acquire, _) = &mut self.state else {
            panic!("an `AcquireFor` was polled after it had completed");
        };
        let token = ready!(Pin::new(acquire).poll(cx));
        let State::Waiting(_, entry) = mem::replace(&mut self.state, State::Done) else {
            unreachable!("it has just been polled");
        };
        entry.keys.set_holding(&entry.key);
        Poll::Ready(Ok(KeyedToken { entry, token }))
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
