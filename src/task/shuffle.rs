//! The order in which ready children are polled, shuffled by a seed: for tests that must not lean on it.
//!
//! The source of randomness follows the tree as a variable does, so a part of a program may be shuffled, in a run or
//! without one. Each nursery takes a generator of its own from it when it is opened, so that shuffling locks nothing, and
//! one nursery's order does not depend on how often others are polled.

use std::future::IntoFuture;
use std::sync::{Arc, Mutex};

use fastrand::Rng;

use crate::cancel::lock;
use crate::variables::{TreeVar, TreeVarScope};

static SOURCE: TreeVar<Arc<Mutex<Rng>>> = TreeVar::new();

/// A generator for a nursery that is opened here, if its children are to be shuffled.
pub(super) fn generator() -> Option<Rng> {
    SOURCE.get().map(|source| lock(&source).fork())
}

/// Runs `future`; in every nursery that is opened in it, the children that are ready are polled in an order that `seed`
/// decides.
///
/// That order is unspecified, so no program may depend on it; but usually it is the one in which the children were woken,
/// and what is true by accident stays unnoticed. Whatever the seed, each ready child is polled once in a turn, and the
/// body before the children. The same program with the same seed goes the same way, unless threads or processes have a
/// part in it. [`RunBuilder::shuffle`](crate::RunBuilder::shuffle) does this to a whole run.
///
/// # Cancellation
///
/// Transparent: as `future` itself. Dropping it drops `future`.
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
