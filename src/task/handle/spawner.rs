//! A handle for functions that only put children in, whatever the block returns.

use std::fmt;
use std::future::IntoFuture;
use std::marker::PhantomData;
use std::sync::Arc;

use super::{Nursery, RawHandle};
use crate::ambient::TreeValues;
use crate::task::error::NurseryClosedError;
use crate::task::outcome::Outcome;
use crate::task::task_handle::Task;
use crate::variables::TreeValuesOfChildren;

impl<'env, R> Nursery<'env, R> {
    /// Returns a handle that can only put children in, without the type of what the block returns.
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
        let raw = RawHandle::new(self.raw.core.clone(), Outcome::new());
        Spawner {
            nursery: Nursery {
                raw,
                name: self.name.clone(),
                marker: PhantomData,
            },
        }
    }
}

/// A [`Nursery`] handle for functions that only put children in; made by [`Nursery::spawner`].
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

/// What no block returns.
enum Never {}

impl TreeValuesOfChildren for Spawner<'_> {
    fn tree_values(&self) -> Option<TreeValues> {
        self.nursery.tree_values()
    }
}

impl<'env> Spawner<'env> {
    /// As [`Nursery::spawn`].
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

    /// As [`Nursery::spawn_if_open`].
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

    /// As [`Nursery::named`].
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
            .field("closed", &self.nursery.raw.core.is_closed())
            .finish_non_exhaustive()
    }
}
