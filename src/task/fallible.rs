//! The methods of handles on nurseries whose block can fail.

use std::future::{Future, IntoFuture};

use super::child_handle::Task;
use super::nursery::{LocalNursery, Nursery};
use super::raw_handle::fail;
use super::start::{StartError, Started, Waiting, start};

/// The task of a child of [`try_spawn`](Nursery::try_spawn): its result is `Some(value)`, or `None`
/// if the child failed.
///
/// ```
/// use seedbed::{run, try_open_nursery};
///
/// let value: Result<_, ()> = run(try_open_nursery(async |n| {
///     let task = n.try_spawn(async { Ok(3) });
///     Ok(task.await)
/// }));
/// assert_eq!(value, Ok(Some(3)));
/// ```
pub type TrySpawned<U> = Task<Option<U>>;

/// Defines these methods for one kind of handle. `$bound` are the bounds of futures and results;
/// `$path` and `$block` name the function that opens such a nursery.
macro_rules! fallible {
    ($name:ident, $path:literal, $block:literal, [$($bound:tt)*]) => {
        impl<'env, T, E> $name<'env, Result<T, E>> {
            /// Spawns a child whose error ends the block: the body and the other children are
            /// cancelled, and the block returns the error.
            ///
            /// Only the first error becomes the block's result, even if a scope around the block is
            /// cancelled at the same time. A later error can only come from a shielded section, and
            /// goes to [`on_late_error`](Self::on_late_error).
            ///
            /// # Panics
            ///
            /// If the block has ended.
            ///
            /// ```
            /// use seedbed::time::sleep_forever;
            /// use seedbed::run;
            #[doc = concat!("use ", $path, $block, ";")]
            ///
            /// run(async {
            #[doc = concat!("    let result: Result<(), String> = ", $block, "(|n| async move {")]
            ///         n.try_spawn(async { Err::<(), _>("no luck".to_string()) });
            ///         sleep_forever().await;
            ///         Ok(())
            ///     })
            ///     .await;
            ///     assert_eq!(result.unwrap_err(), "no luck");
            /// });
            /// ```
            #[track_caller]
            pub fn try_spawn<U, F>(&self, future: F) -> TrySpawned<U>
            where
                F: IntoFuture<Output = Result<U, E>>,
                F::IntoFuture: $($bound)*,
                U: $($bound)*,
                T: $($bound)*,
                E: $($bound)*,
            {
                self.try_spawn_as::<U, F::IntoFuture, F::IntoFuture>(future.into_future())
            }

            /// Spawns a child whose error ends the block, and whose default name is that of the
            /// type `N`.
            #[track_caller]
            pub(super) fn try_spawn_as<U, F, N>(&self, future: F) -> TrySpawned<U>
            where
                F: Future<Output = Result<U, E>> + $($bound)*,
                U: $($bound)*,
                T: $($bound)*,
                E: $($bound)*,
            {
                let raw = self.raw.clone();
                let child = async move {
                    match future.await {
                        Ok(value) => Some(value),
                        Err(error) => {
                            fail(&raw, error);
                            None
                        }
                    }
                };
                match self.spawn_as::<_, N>(child) {
                    Ok(task) => task,
                    Err(closed) => panic!("{closed}"),
                }
            }

            /// Spawns a child and waits until it has started. After that, an error of the child
            /// ends the block.
            ///
            /// Combines [`start`](Self::start) and [`try_spawn`](Self::try_spawn).
            ///
            /// # Cancellation
            ///
            /// If cancelled before the child has started, cancels the child and waits until its
            /// future is dropped. If the child returns an error instead, that error ends the block.
            ///
            /// # Errors
            ///
            /// `StartError::Exited(Err(error))` if the child fails before it has started, and
            /// `StartError::Exited(Ok(value))` if it returns a value before that.
            /// [`StartError::Cancelled`] if it was cancelled, or panicked. None of them ends the
            /// block.
            ///
            /// # Panics
            ///
            /// If the block has ended, when polled.
            ///
            /// ```
            /// use seedbed::time::sleep_forever;
            /// use seedbed::{checkpoint, run};
            #[doc = concat!("use ", $path, $block, ";")]
            ///
            /// run(async {
            #[doc = concat!("    let result: Result<(), &str> = ", $block, "(|n| async move {")]
            ///         let port = n.try_start(|started| async move {
            ///             started.send(8080);
            ///             checkpoint().await;
            ///             Err::<(), _>("the listener broke")
            ///         });
            ///         assert_eq!(port.await.unwrap(), 8080);
            ///         sleep_forever().await;
            ///         Ok(())
            ///     })
            ///     .await;
            ///     assert_eq!(result, Err("the listener broke"));
            /// });
            /// ```
            pub async fn try_start<V, U, F, Fut>(
                &self,
                child: F,
            ) -> Result<V, StartError<Result<U, E>>>
            where
                V: $($bound)*,
                F: FnOnce(Started<V>) -> Fut,
                Fut: Future<Output = Result<U, E>> + $($bound)*,
                U: $($bound)*,
                T: $($bound)*,
                E: $($bound)*,
            {
                let spawn = |started, waiting: Waiting<V>| {
                    let (raw, child) = (self.raw.clone(), child(started));
                    let child = async move {
                        match child.await {
                            Err(error) if waiting.is_over() => {
                                fail(&raw, error);
                                None
                            }
                            result => Some(result),
                        }
                    };
                    match self.spawn_as::<_, Fut>(child) {
                        Ok(task) => task,
                        Err(closed) => panic!("{closed}"),
                    }
                };
                start(spawn).await.map_err(StartError::unwrap_result)
            }

            /// Sets a hook that gets each error that comes after the block's outcome was decided.
            /// Without a hook, a `tracing` event at WARN reports such an error.
            ///
            /// ```
            /// use std::sync::{Arc, atomic::{AtomicU32, Ordering::Relaxed}};
            /// use seedbed::{checkpoint, run, shield};
            #[doc = concat!("use ", $path, $block, ";")]
            ///
            /// let late = Arc::new(AtomicU32::new(0));
            /// let seen = late.clone();
            /// run(async move {
            #[doc = concat!("    let result: Result<(), u32> = ", $block, "(|n| async move {")]
            ///         n.on_late_error(move |error| seen.store(error, Relaxed));
            ///         n.try_spawn(shield(async { checkpoint().await; Err::<(), _>(2) }));
            ///         Err(1)
            ///     })
            ///     .await;
            ///     assert_eq!(result, Err(1));
            /// });
            /// assert_eq!(late.load(Relaxed), 2);
            /// ```
            pub fn on_late_error(&self, mut hook: impl FnMut(E) + Send + 'static) {
                self.raw.outcome.set_late_hook(Box::new(move |late| {
                    if let Err(error) = late {
                        hook(error);
                    }
                }));
            }
        }
    };
}

fallible!(Nursery, "seedbed::", "try_open_nursery", [Send + 'env]);
fallible!(
    LocalNursery,
    "seedbed::nursery::",
    "try_open_local_nursery",
    ['env]
);
