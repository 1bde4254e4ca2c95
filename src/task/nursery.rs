//! The handles with which children are spawned into a nursery, and its block is ended early.

// Spawning is sound by the bounds of these methods, which `child::spawn` cannot check.
#![allow(unsafe_code)]

use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::sync::Arc;

use super::child::{Name, spawn};
use super::child_handle::Task;
use super::error::NurseryClosedError;
use super::info::{NurseryInfo, TaskInfo};
use super::observe::notify;
use super::outcome::Outcome;
use super::raw_handle::RawHandle;
use super::start::{StartError, Started, start};
use crate::ambient::TreeValues;
use crate::cancel::CancelReason;
use crate::sys::primitives::lock;
use crate::variables::TreeValuesOfChildren;

/// Defines a kind of handle, with the methods that all kinds have. `$bound` are the bounds of
/// futures and results. `$block` is the function that opens such a nursery, and `$imports` what its
/// examples import.
macro_rules! handle {
    ($(#[$doc:meta])* $name:ident, $block:literal, [$($bound:tt)*], $marker:ty, $imports:literal) => {
        $(#[$doc])*
        pub struct $name<'env, R = ()> {
            pub(super) raw: RawHandle<R>,
            /// The name of the children that are spawned with this handle.
            pub(super) name: Option<Name>,
            /// Makes `'env` invariant. If it could shrink, children could borrow what ends before
            /// the block.
            pub(super) marker: PhantomData<(fn(&'env ()) -> &'env (), $marker)>,
        }

        impl<R> $name<'_, R> {
            pub(super) fn new(raw: RawHandle<R>) -> Self {
                $name { raw, name: None, marker: PhantomData }
            }
        }

        impl<R> Clone for $name<'_, R> {
            fn clone(&self) -> Self {
                $name { raw: self.raw.clone(), name: self.name.clone(), marker: PhantomData }
            }
        }

        /// Makes the compiler check that `'env` outlives every handle, so that no destructor spawns
        /// a child after it.
        impl<R> Drop for $name<'_, R> {
            fn drop(&mut self) {}
        }

        impl<R> fmt::Debug for $name<'_, R> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).field("closed", &self.raw.nursery.children.is_closed()).finish_non_exhaustive()
            }
        }

        impl<R> TreeValuesOfChildren for $name<'_, R> {
            fn tree_values(&self) -> Option<TreeValues> {
                lock(&self.raw.nursery.values).clone()
            }
        }

        impl<'env, R> $name<'env, R> {
            /// Spawns a child into the nursery.
            ///
            /// The child is first polled when the caller next waits or ends. It runs in the cancel
            /// scopes and with the tree variables of the place where the nursery was opened. Every
            /// child is polled at least once, even in a nursery that is already cancelled, unless
            /// the whole block is dropped first.
            ///
            /// Dropping the [`Task`] has no effect, except that the child's result is lost. If that
            /// result is an `Err`, a `tracing` event at WARN names the child. (An `Err` that may be
            /// ignored is dropped by the child itself: `async { _ = save().await }`.) For a child
            /// whose error must end the others, use a block of
            /// [`try_open_nursery`](crate::try_open_nursery) and its `try_spawn`.
            ///
            /// # Panics
            ///
            /// If the block has ended. It ends when the body and all children have ended. Use
            /// [`spawn_if_open`](Self::spawn_if_open) with a handle that may be kept for longer.
            ///
            /// ```
            #[doc = $imports]
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
            // Inlined, as the two functions below, so that the future is not moved once more.
            #[inline(always)]
            #[track_caller]
            #[doc(alias = "start_soon")]
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

            /// Spawns a child into the nursery, if the block has not ended.
            ///
            /// # Errors
            ///
            /// [`NurseryClosedError`] if the block has ended; it gives the future back.
            ///
            /// ```
            #[doc = $imports]
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
            #[inline(always)]
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

            /// Spawns a child whose default name is that of the type `N`.
            #[inline(always)]
            pub(super) fn spawn_as<F, N>(&self, future: F) -> Result<Task<F::Output>, NurseryClosedError<F>>
            where
                F: Future + $($bound)*,
                F::Output: $($bound)*,
            {
                let nursery = &self.raw.nursery;
                let observed = nursery.is_observed();
                // SAFETY: `F` and its output are `Send` where the handle is. A local handle is not
                // `Send`, so this is the thread of its block, which is not `Send` either. `F` is
                // valid for `'env`, which outlives the block and every handle: they are invariant
                // in it, and handles are drop-checked. The output is valid while its `Task` exists,
                // because the task's type contains the output's.
                match unsafe { spawn::<F, N>(nursery, self.name.as_ref(), observed, future) } {
                    Ok(task) => {
                        if observed {
                            // Before the first poll: this thread polls the block, and is here.
                            notify(|observer| observer.task_spawned(&TaskInfo::of(task.child())));
                        }
                        // SAFETY: the child that this task belongs to was spawned with a future of
                        // this output type.
                        Ok(unsafe { Task::new(task) })
                    }
                    Err(future) => Err(NurseryClosedError::new(future)),
                }
            }

            /// Returns a handle on the same nursery that gives this name to each child that is
            /// spawned with it.
            ///
            /// Names are for debugging: [`task_tree`](crate::nursery::task_tree) and instruments
            /// show them. Several children may have the same name. A child without one is named
            /// after the function whose `async` block it runs.
            ///
            /// ```
            #[doc = $imports]
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

            /// Returns information about the nursery: the task that opened it, and its children.
            ///
            /// ```
            /// use seedbed::nursery::current_task;
            #[doc = $imports]
            ///
            /// run(async {
            #[doc = concat!("    ", $block, "(|n| async move {")]
            ///         assert_eq!(n.info().opener(), current_task());
            ///     })
            ///     .await;
            /// });
            /// ```
            pub fn info(&self) -> NurseryInfo {
                NurseryInfo::new(self.raw.nursery.clone())
            }

            /// Spawns a child and waits until the child reports that it has started. (Trio's
            /// `nursery.start`.)
            ///
            /// The child gets a [`Started`], and calls [`send`](Started::send) when other tasks may
            /// rely on it: a server calls it when it listens. This method returns the value that
            /// the child sends. The child goes on.
            ///
            /// # Cancellation
            ///
            /// If cancelled before the child has started, cancels the child and waits until its
            /// future is dropped. If dropped from outside, cancels the child without waiting. A
            /// child that has started is not affected.
            ///
            /// # Errors
            ///
            /// [`StartError::Exited`] with the child's result if the child ended without having
            /// started. [`StartError::Cancelled`] if it was cancelled, for instance with the
            /// nursery, or panicked. An error of the child does not end the block.
            ///
            /// # Panics
            ///
            /// If the block has ended, when polled.
            ///
            /// ```
            /// use seedbed::time::sleep_forever;
            #[doc = $imports]
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
            #[doc(alias = "task_status")]
            pub async fn start<V, F, Fut>(&self, child: F) -> Result<V, StartError<Fut::Output>>
            where
                V: $($bound)*,
                F: FnOnce(Started<V>) -> Fut,
                Fut: Future + $($bound)*,
                Fut::Output: $($bound)*,
            {
                start(|started, _| self.spawn(child(started))).await
            }

            /// Ends the block early, with `value` as its result.
            ///
            /// The body and all children are dropped where they wait, and shielded ones when their
            /// shields have ended. The first call decides, even if the body has already returned a
            /// value. Later values are dropped. Does nothing if the block has ended.
            ///
            /// ```
            /// use seedbed::time::sleep_forever;
            #[doc = $imports]
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
            #[doc(alias = "select")]
            #[doc(alias = "race")]
            pub fn terminate(&self, value: R) {
                // A value that comes second is dropped, as documented.
                drop(self.raw.terminate(value));
            }
        }

        impl $name<'_, ()> {
            /// Ends the block early: calls [`terminate(())`](Self::terminate).
            ///
            /// ```
            /// use seedbed::time::sleep_forever;
            #[doc = $imports]
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
    };
}

handle! {
    /// A handle on an open nursery. Clones are handles on the same nursery.
    ///
    /// `'env` is the lifetime of everything that the children may borrow: what outlives the block.
    /// `R` is the type of the block's result. The handle may be sent to other tasks and threads.
    /// The block polls the children.
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
    Nursery, "open_nursery", [Send + 'env], (),
    "use seedbed::{open_nursery, run};"
}

handle! {
    /// A handle on a nursery whose children need not be `Send`. The handle and the block stay on
    /// their thread.
    ///
    /// ```
    /// use std::cell::Cell;
    /// use seedbed::nursery::open_local_nursery;
    /// use seedbed::run;
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
    LocalNursery, "open_local_nursery", ['env], *mut (),
    "use seedbed::nursery::open_local_nursery;\nuse seedbed::run;"
}

impl Nursery<'_, ()> {
    /// Ends the block early, for another reason than this call.
    pub(crate) fn cancel_for(&self, reason: CancelReason) {
        // If another call decided first, the value is the same.
        _ = self.raw.end((), reason, Outcome::terminate);
    }
}
