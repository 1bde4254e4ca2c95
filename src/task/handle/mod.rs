//! The handles with which children are put into a nursery, and the block is ended early.

// Spawning is sound by the bounds of these methods, which `child::spawn` cannot know.
#![allow(unsafe_code)]

mod spawner;

use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::panic::Location;
use std::sync::Arc;

pub use spawner::Spawner;

use super::child;
use super::error::NurseryClosedError;
use super::info::{Name, NurseryInfo};
use super::outcome::Outcome;
use super::ready::Core;
use super::start::{StartError, Started, Waiting, start};
use super::task_handle::Task;
use crate::ambient::TreeValues;
use crate::cancel::{CancelReason, CancelSource, lock};
use crate::variables::TreeValuesOfChildren;

/// What a handle is made of, whatever kind it is.
#[derive(Debug)]
pub struct RawHandle<R> {
    core: Arc<Core>,
    pub(super) outcome: Outcome<R>,
}

/// Kinds of handle that a block can be opened with.
pub trait FromRaw<R> {
    /// Wraps the block's raw handle.
    fn from_raw(raw: RawHandle<R>) -> Self;
}

impl<R> RawHandle<R> {
    pub(super) fn new(core: Arc<Core>, outcome: Outcome<R>) -> Self {
        RawHandle { core, outcome }
    }

    #[track_caller]
    fn terminate(&self, value: R) -> Result<(), R> {
        let reason = CancelReason::explicit(None, Location::caller());
        self.end(value, reason, Outcome::terminate)
    }

    /// Terminates with an error, for whose coming out the scopes around wait.
    fn fail(&self, error: R) -> Result<(), R> {
        let reason = CancelReason::new(CancelSource::Error);
        self.end(error, reason, |outcome, error| {
            outcome
                .fail(error)
                .inspect(|()| self.core.scope.defer_ancestors())
        })
    }

    fn end(
        &self,
        value: R,
        reason: CancelReason,
        decide: impl FnOnce(&Outcome<R>, R) -> Result<(), R>,
    ) -> Result<(), R> {
        // The value first: whoever sees the cancellation finds it.
        let decided = if self.core.is_closed() {
            Err(value)
        } else {
            decide(&self.outcome, value)
        };
        self.core.scope.cancel_for(reason);
        decided
    }
}

impl<R> Clone for RawHandle<R> {
    fn clone(&self) -> Self {
        RawHandle {
            core: self.core.clone(),
            outcome: self.outcome.clone(),
        }
    }
}

/// Puts a child into the nursery, which without a name is called after `N`.
///
/// # Safety
///
/// As [`child::spawn`].
unsafe fn spawn_raw<F: Future, N>(
    core: &Arc<Core>,
    name: Option<&Name>,
    future: F,
) -> Result<Task<F::Output>, NurseryClosedError<F>> {
    // SAFETY: passed on.
    match unsafe { child::spawn::<F, N>(core, name, future) } {
        // SAFETY: the handle was spawned with a future of this output type.
        Ok(handle) => Ok(unsafe { Task::new(handle) }),
        Err(future) => Err(NurseryClosedError::new(future)),
    }
}

/// Ends a block with an error, or reports it if the block's outcome was decided before.
fn fail<T, E>(raw: &RawHandle<Result<T, E>>, error: E) {
    if let Err(late) = raw.fail(Err(error)) {
        report_late(&raw.outcome, late);
    }
}

/// Reports a value that came too late to be the block's, unless the hook takes it.
fn report_late<T, E>(outcome: &Outcome<Result<T, E>>, late: Result<T, E>) {
    if let Err(Err(error)) = outcome.tell_late(late) {
        tracing::warn!(
            target: "seedbed::nursery",
            error_type = std::any::type_name::<E>(),
            "a nursery's child failed after the block's outcome was decided; see Nursery::on_late_error"
        );
        drop(error);
    }
}

/// Ends a block with the error that its body has returned. Gives the value back, for the block to return it: also if a
/// scope around the block is cancelled. `None` if the block's outcome was decided before; then the error is reported.
pub(super) fn check_body<T, E>(
    raw: &RawHandle<Result<T, E>>,
    value: Result<T, E>,
) -> Option<Result<T, E>> {
    if value.is_err() {
        if !raw.outcome.begin_failure() {
            report_late(&raw.outcome, value);
            return None;
        }
        raw.core.scope.defer_ancestors();
        raw.core
            .scope
            .cancel_for(CancelReason::new(CancelSource::Error));
    }
    Some(value)
}

/// Writes the methods that handles have in common. `$bound` is what futures and results must be.
macro_rules! handle {
    ($(#[$doc:meta])* $name:ident, $block:literal, [$($bound:tt)*], $marker:ty) => {
        $(#[$doc])*
        pub struct $name<'env, R = ()> {
            raw: RawHandle<R>,
            /// What the children are called that are put in with this handle.
            name: Option<Name>,
            /// Invariant: a child must outlive exactly what the block was opened for.
            marker: PhantomData<(fn(&'env ()) -> &'env (), $marker)>,
        }

        impl<R> FromRaw<R> for $name<'_, R> {
            fn from_raw(raw: RawHandle<R>) -> Self {
                $name { raw, name: None, marker: PhantomData }
            }
        }

        impl<R> Clone for $name<'_, R> {
            fn clone(&self) -> Self {
                $name { raw: self.raw.clone(), name: self.name.clone(), marker: PhantomData }
            }
        }

        /// Makes the compiler check that `'env` outlives every handle, so that no destructor puts a child in afterwards.
        impl<R> Drop for $name<'_, R> {
            fn drop(&mut self) {}
        }

        impl<R> fmt::Debug for $name<'_, R> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).field("closed", &self.raw.core.is_closed()).finish_non_exhaustive()
            }
        }

        impl<R> TreeValuesOfChildren for $name<'_, R> {
            fn tree_values(&self) -> Option<TreeValues> {
                lock(&self.raw.core.values).clone()
            }
        }

        impl<'env, R> $name<'env, R> {
            /// Puts a child into the nursery. It is first polled after the caller has waited or ended, in the cancel
            /// scopes and with the tree variables of where the nursery was opened.
            ///
            /// Every child is polled at least once, also in a nursery that is cancelled already, unless the whole block
            /// is dropped first. Dropping the [`Task`] changes nothing.
            ///
            /// # Panics
            ///
            /// If the block has ended. It ends when the body and all children have; a handle that may outlive that
            /// belongs to [`spawn_if_open`](Self::spawn_if_open).
            ///
            /// ```
            #[doc = concat!("use seedbed::{", $block, ", run};")]
            ///
            /// run(async {
            ///     let words = vec!["a", "few", "words"];
            ///     let words = &words; // children may borrow what outlives the block
            #[doc = concat!("    let total = ", $block, "(|n| async move {")]
            ///         let tasks: Vec<_> = words.iter().map(|word| n.spawn(async move { word.len() })).collect();
            ///         let mut total = 0;
            ///         for task in tasks {
            ///             total += task.await;
            ///         }
            ///         total
            ///     });
            ///     assert_eq!(total.await, 9);
            /// });
            /// ```
            #[track_caller]
            pub fn spawn<F>(&self, future: F) -> Task<F::Output>
            where
                F: IntoFuture,
                F::IntoFuture: $($bound)*,
                F::Output: $($bound)*,
            {
                match self.spawn_if_open(future) {
                    Ok(task) => task,
                    Err(closed) => panic!("{closed}"),
                }
            }

            /// Puts a child into the nursery if the block has not ended.
            ///
            /// # Errors
            ///
            /// [`NurseryClosedError`] if the block has ended; it gives the future back.
            ///
            /// ```
            #[doc = concat!("use seedbed::{", $block, ", run};")]
            ///
            /// run(async {
            ///     let mut kept = None;
            #[doc = concat!("    ", $block, "(|n| {")]
            ///         kept = Some(n.clone());
            ///         async {}
            ///     })
            ///     .await;
            ///     let refused = kept.unwrap().spawn_if_open(async { 5 }).unwrap_err();
            ///     assert_eq!(refused.into_future().await, 5);
            /// });
            /// ```
            pub fn spawn_if_open<F>(
                &self,
                future: F,
            ) -> Result<Task<F::Output>, NurseryClosedError<F::IntoFuture>>
            where
                F: IntoFuture,
                F::IntoFuture: $($bound)*,
                F::Output: $($bound)*,
            {
                self.spawn_as::<F::IntoFuture, F::IntoFuture>(future.into_future())
            }

            /// Puts a child into the nursery that without a name is called after the type `N`.
            pub(super) fn spawn_as<F, N>(&self, future: F) -> Result<Task<F::Output>, NurseryClosedError<F>>
            where
                F: Future + $($bound)*,
                F::Output: $($bound)*,
            {
                // SAFETY: the bounds: `'env` outlives the block, which is invariant in it and drop-checked; the result
                // is as alive as the `Task` that holds its type; and for a `Send` handle both are `Send`, while a local
                // handle never leaves its thread, nor does its block.
                unsafe { spawn_raw::<F, N>(&self.raw.core, self.name.as_ref(), future) }
            }

            /// Returns a handle on the same nursery that gives a name to each child which is put in with it, however that
            /// is done.
            ///
            /// Names are for [`task_tree`](crate::nursery::task_tree), for instruments and for whoever debugs; several children may
            /// have the same. A child without one is called after the function that it came from.
            ///
            /// ```
            #[doc = concat!("use seedbed::{", $block, ", run};")]
            ///
            /// run(async {
            #[doc = concat!("    ", $block, "(|n| async move {")]
            ///         let connections = n.named("connection");
            ///         let (one, two) = (connections.spawn(async {}), connections.spawn(async {}));
            ///         assert_eq!([one.info().name(), two.info().name()], ["connection"; 2]);
            ///         assert_ne!(one.info(), two.info());
            ///     })
            ///     .await;
            /// });
            /// ```
            pub fn named(&self, name: impl Into<Arc<str>>) -> Self {
                $name { raw: self.raw.clone(), name: Some(name.into()), marker: PhantomData }
            }

            /// Returns which nursery it is: who opened it, and who its children are.
            ///
            /// ```
            /// use seedbed::nursery::current_task;
            #[doc = concat!("use seedbed::{", $block, ", run};")]
            ///
            /// run(async {
            #[doc = concat!("    ", $block, "(|n| async move {")]
            ///         assert_eq!(n.info().opener(), current_task());
            ///     })
            ///     .await;
            /// });
            /// ```
            pub fn info(&self) -> NurseryInfo {
                NurseryInfo::new(self.raw.core.clone())
            }

            /// Puts a child into the nursery and waits until it says that it has started.
            ///
            /// The child gets a [`Started`] and calls [`send`](Started::send) when others may rely on it: a server once
            /// it listens, say. What it sends is the result here; the child goes on.
            ///
            /// # Cancellation
            ///
            /// Cancelled before the child has started, cancels the child, and waits until it is gone. Dropped from
            /// outside, it cancels the child without waiting. Once the child has started, it belongs to the nursery.
            ///
            /// # Errors
            ///
            /// [`StartError::Exited`] if the child ended without having started, with its result;
            /// [`StartError::Cancelled`] if it was cancelled, for instance with the nursery. The nursery is not harmed.
            ///
            /// # Panics
            ///
            /// As [`spawn`](Self::spawn), when polled.
            ///
            /// ```
            /// use seedbed::time::sleep_forever;
            #[doc = concat!("use seedbed::{", $block, ", run};")]
            ///
            /// run(async {
            #[doc = concat!("    ", $block, "(|n| async move {")]
            ///         let port = n.start(|started| async move {
            ///             started.send(8080);
            ///             sleep_forever().await
            ///         });
            ///         assert_eq!(port.await.unwrap(), 8080);
            ///         n.cancel();
            ///     })
            ///     .await;
            /// });
            /// ```
            pub async fn start<V, F, Fut>(&self, child: F) -> Result<V, StartError<Fut::Output>>
            where
                V: $($bound)*,
                F: FnOnce(Started<V>) -> Fut,
                Fut: Future + $($bound)*,
                Fut::Output: $($bound)*,
            {
                start(|started, _| self.spawn(child(started))).await
            }

            /// Ends the block: drops the body and all children where they wait, shielded ones when their shields have
            /// ended, and makes the block return `value`.
            ///
            /// The first call decides, also over a value that the body has returned; later values are dropped. In a
            /// block that has ended it does nothing.
            ///
            /// ```
            /// use seedbed::time::sleep_forever;
            #[doc = concat!("use seedbed::{", $block, ", run};")]
            ///
            /// run(async {
            #[doc = concat!("    let first = ", $block, "(|n| async move {")]
            ///         for racer in 0..3 {
            ///             let finish = n.clone();
            ///             n.spawn(async move { finish.terminate(racer) });
            ///         }
            ///         sleep_forever().await;
            ///         unreachable!()
            ///     });
            ///     assert_eq!(first.await, 0);
            /// });
            /// ```
            #[track_caller]
            pub fn terminate(&self, value: R) {
                // Somebody else decided first: documented, the value is dropped.
                drop(self.raw.terminate(value));
            }
        }

        impl $name<'_, ()> {
            /// Ends the block: `terminate(())`.
            ///
            /// ```
            /// use seedbed::time::sleep_forever;
            #[doc = concat!("use seedbed::{", $block, ", run};")]
            ///
            /// run(async {
            ///     let reached_the_end = std::cell::Cell::new(false);
            ///     let reached = &reached_the_end;
            #[doc = concat!("    ", $block, "(|n| async move {")]
            ///         n.spawn(sleep_forever());
            ///         n.cancel();
            ///         sleep_forever().await; // the body is cancelled, too
            ///         reached.set(true);
            ///     })
            ///     .await;
            ///     assert!(!reached_the_end.get());
            /// });
            /// ```
            #[track_caller]
            pub fn cancel(&self) {
                self.terminate(());
            }
        }

        impl<'env, T, E> $name<'env, Result<T, E>> {
            /// Puts a child into the nursery whose error ends the block: the rest is cancelled, and the block returns
            /// the error.
            ///
            /// Only the first error can be the block's; it comes out even if a scope around is cancelled meanwhile. A
            /// later one, which can only come from a shielded section, goes to [`on_late_error`](Self::on_late_error).
            ///
            /// # Panics
            ///
            /// As [`spawn`](Self::spawn).
            ///
            /// ```
            /// use seedbed::time::sleep_forever;
            #[doc = concat!("use seedbed::{try_", $block, ", run};")]
            ///
            /// run(async {
            #[doc = concat!("    let result: Result<(), String> = try_", $block, "(|n| async move {")]
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

            /// The same, for a child that without a name is called after the type `N`.
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

            /// As [`start`](Self::start), for a child whose error, once it has started, ends the block as with
            /// [`try_spawn`](Self::try_spawn).
            ///
            /// # Cancellation
            ///
            /// As [`start`](Self::start). If the child then ends with an error, that ends the block.
            ///
            /// # Errors
            ///
            /// As [`start`](Self::start): an error *before* the child has started is
            /// `StartError::Exited(Err(error))`, and does the nursery no harm.
            ///
            /// # Panics
            ///
            /// As [`spawn`](Self::spawn), when polled.
            ///
            /// ```
            /// use seedbed::time::sleep_forever;
            #[doc = concat!("use seedbed::{try_", $block, ", checkpoint, run};")]
            ///
            /// run(async {
            #[doc = concat!("    let result: Result<(), &str> = try_", $block, "(|n| async move {")]
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
                start(spawn).await.map_err(StartError::kept)
            }

            /// Says what happens to errors that come after the block's outcome was decided: instead of a `tracing` event at
            /// WARN, `hook` gets each of them.
            ///
            /// ```
            /// use std::sync::{Arc, atomic::{AtomicU32, Ordering::Relaxed}};
            #[doc = concat!("use seedbed::{checkpoint, run, shield, try_", $block, "};")]
            ///
            /// let late = Arc::new(AtomicU32::new(0));
            /// let seen = late.clone();
            /// run(async move {
            #[doc = concat!("    let result: Result<(), u32> = try_", $block, "(|n| async move {")]
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

/// What [`try_spawn`](Nursery::try_spawn) gives: `Some(value)`, or `None` from a child whose error ended the block.
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

handle! {
    /// A handle on an open nursery. Clones are handles on the same nursery.
    ///
    /// `'env` is what the children may borrow from: everything that outlives the block. `R` is what the block returns.
    /// The handle may go to other tasks and threads; the children are polled by the block.
    ///
    /// ```
    /// use seedbed::{open_nursery, run, Nursery};
    ///
    /// async fn fill<'env>(n: &Nursery<'env>, data: &'env [u8]) {
    ///     for byte in data {
    ///         n.spawn(async move { assert!(*byte < 9) });
    ///     }
    /// }
    ///
    /// run(async {
    ///     let data = vec![1, 2, 3];
    ///     open_nursery(async |n| fill(&n, &data).await).await;
    /// });
    /// ```
    Nursery, "open_nursery", [Send + 'env], ()
}

handle! {
    /// A handle on a nursery whose children need not be `Send`. It stays on its thread, as does the block.
    ///
    /// ```
    /// use std::cell::Cell;
    /// use seedbed::{open_local_nursery, run};
    ///
    /// run(async {
    ///     let count = Cell::new(0);
    ///     let count = &count;
    ///     open_local_nursery(|n| async move {
    ///         for _ in 0..3 {
    ///             n.spawn(async move { count.set(count.get() + 1) });
    ///         }
    ///     })
    ///     .await;
    ///     assert_eq!(count.get(), 3);
    /// });
    /// ```
    LocalNursery, "open_local_nursery", ['env], *mut ()
}

impl Nursery<'_, ()> {
    /// Ends the block as [`cancel`](Nursery::cancel) does, for a reason that is not the call.
    pub(crate) fn cancel_for(&self, reason: CancelReason) {
        // Somebody else may have decided first; the value is the same.
        _ = self.raw.end((), reason, Outcome::terminate);
    }
}
