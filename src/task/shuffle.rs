//! Shuffles the order in which ready children are polled, for tests.
//!
//! The random number generator is a tree variable, so that a part of a program can be shuffled, in
//! a run or without one. Each nursery forks its own generator from it when it is opened. So
//! shuffling takes no lock, and one nursery's order does not depend on how often others are polled.

use std::future::IntoFuture;
use std::sync::{Arc, Mutex};

use fastrand::Rng;

use crate::sys::primitives::lock;
use crate::variables::{TreeVar, TreeVarScope};

static SOURCE: TreeVar<Arc<Mutex<Rng>>> = TreeVar::new();

/// Returns a generator for a nursery that is opened here, if its children are to be shuffled.
pub(super) fn generator() -> Option<Rng> {
    SOURCE.get().map(|source| lock(&source).fork())
}

/// Runs `future`, and polls the ready children of every nursery that is opened in it in an order
/// that `seed` determines.
///
/// The order is unspecified, so no program may depend on it. Without this function children are
/// usually polled in the order in which they were woken, which hides such dependencies. With any
/// seed, each ready child is polled once per round, and the body before the children. A program
/// takes the same path each time with the same seed, unless threads or processes take part.
/// [`RunBuilder::shuffle`](crate::RunBuilder::shuffle) shuffles a whole run.
///
/// # Cancellation
///
/// Is cancelled where `future` is. Dropping it drops `future`.
///
/// ```
/// use std::sync::Mutex;
/// use seedbed::{open_nursery, run, testing};
///
/// let order = |seed| {
///     let seen = &Mutex::new(Vec::new());
///     run(testing::shuffle(seed, open_nursery(|n| async move {
///         for child in 0..10 {
///             n.spawn(async move { seen.lock().unwrap().push(child) });
///         }
///     })));
///     seen.lock().unwrap().clone()
/// };
/// assert_eq!(order(1), order(1));
/// assert_ne!(order(1), order(2));
/// ```
pub fn shuffle<F: IntoFuture>(seed: u64, future: F) -> TreeVarScope<F::IntoFuture> {
    SOURCE.scope(Arc::new(Mutex::new(Rng::with_seed(seed))), future)
}
