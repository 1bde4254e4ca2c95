//! A handle that can only spawn.

use std::fmt;
use std::future::IntoFuture;
use std::sync::Arc;

use super::child_handle::Task;
use super::error::NurseryClosedError;
use super::nursery::Nursery;
use super::outcome::Outcome;
use super::raw_handle::RawHandle;
use crate::ambient::TreeValues;
use crate::variables::TreeValuesOfChildren;

impl<'env, R> Nursery<'env, R> {
    /// Returns a handle that can only spawn, and whose type does not name the block's result.
    ///
    /// ```
    /// use seedbed::nursery::Spawner;
    /// use seedbed::{open_nursery, run};
    ///
    /// fn add(spawner: &Spawner<'_>) {
    ///     spawner.spawn(async {});
    /// }
    ///
    /// run(async {
    ///     let five = open_nursery(|n| async move { add(&n.spawner()); 5 }).await;
    ///     assert_eq!(five, 5);
    /// });
    /// ```
    pub fn spawner(&self) -> Spawner<'env> {
        let mut nursery = Nursery::new(RawHandle::new(self.raw.nursery.clone(), Outcome::new()));
        nursery.name = self.name.clone();
        Spawner { nursery }
    }
}

/// A handle on a nursery that can only spawn, whatever the block returns. Returned by
/// [`Nursery::spawner`].
///
/// ```
/// use seedbed::nursery::Spawner;
/// use seedbed::{open_nursery, run};
///
/// fn add(spawner: &Spawner<'_>) {
///     spawner.spawn(async {});
/// }
///
/// run(async { open_nursery(|n| async move { add(&n.spawner()); 5 }).await });
/// ```
#[derive(Clone)]
pub struct Spawner<'env> {
    nursery: Nursery<'env, Never>,
}

/// The result type of the inner handle, which never ends the block.
enum Never {}

impl TreeValuesOfChildren for Spawner<'_> {
    fn tree_values(&self) -> Option<TreeValues> {
        self.nursery.tree_values()
    }
}

impl<'env> Spawner<'env> {
    /// Spawns a child into the nursery, like [`Nursery::spawn`].
    ///
    /// # Panics
    ///
    /// If the block has ended.
    ///
    /// ```
    /// use seedbed::{open_nursery, run};
    ///
    /// let sum = run(open_nursery(|n| async move { n.spawner().spawn(async { 1 + 2 }).await }));
    /// assert_eq!(sum, 3);
    /// ```
    #[track_caller]
    pub fn spawn<F>(&self, future: F) -> Task<F::Output>
    where
        F: IntoFuture,
        F::IntoFuture: Send + 'env,
        F::Output: Send + 'env,
    {
        self.nursery.spawn(future)
    }

    /// Spawns a child into the nursery if the block has not ended, like [`Nursery::spawn_if_open`].
    ///
    /// # Errors
    ///
    /// [`NurseryClosedError`] if the block has ended; it gives the future back.
    ///
    /// ```
    /// use seedbed::{open_nursery, run};
    ///
    /// run(async {
    ///     let spawner = open_nursery(|n| async move { n.spawner() }).await;
    ///     assert!(spawner.spawn_if_open(async {}).is_err()); // the block has ended
    /// });
    /// ```
    pub fn spawn_if_open<F>(
        &self,
        future: F,
    ) -> Result<Task<F::Output>, NurseryClosedError<F::IntoFuture>>
    where
        F: IntoFuture,
        F::IntoFuture: Send + 'env,
        F::Output: Send + 'env,
    {
        self.nursery.spawn_if_open(future)
    }

    /// Returns a handle that gives this name to each child that is spawned with it, like
    /// [`Nursery::named`].
    ///
    /// ```
    /// use seedbed::{open_nursery, run};
    ///
    /// run(open_nursery(|n| async move {
    ///     let task = n.spawner().named("worker").spawn(async {});
    ///     assert_eq!(task.info().name(), "worker");
    /// }));
    /// ```
    pub fn named(&self, name: impl Into<Arc<str>>) -> Self {
        Spawner {
            nursery: self.nursery.named(name),
        }
    }
}

impl fmt::Debug for Spawner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spawner")
            .field("closed", &self.nursery.raw.nursery.children.is_closed())
            .finish_non_exhaustive()
    }
}
