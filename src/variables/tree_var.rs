//! `TreeVar`: a variable whose value follows the tree of tasks.
//!
//! The values are a linked list, newest first, that all code which sees them shares. Setting a
//! value for a future puts a new element in front. A nursery keeps the list of where it was opened,
//! and its children see that list.

use std::any::Any;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use crate::ambient;
use crate::ambient::{TreeValue, TreeValues, WithValues};

/// A variable whose value is inherited by everything below the place where it is set.
///
/// It is like a thread-local, but for the tree of tasks: a child of a nursery sees the values of
/// where *the nursery was opened*, whichever task spawns it. So a value that is set around a block
/// is visible in everything that the block owns, and nowhere else. (tricycle's `TreeVar` works this
/// way. There is no plain `set`, because a value that ends with a future cannot be forgotten or
/// reset in the wrong place.)
///
/// ```
/// use seedbed::nursery::TreeVar;
/// use seedbed::{open_nursery, run};
///
/// static USER: TreeVar<&str> = TreeVar::new();
///
/// run(async {
///     assert_eq!(USER.get(), None);
///     USER.scope("ada", async {
///         open_nursery(|n| async move {
///             n.spawn(async { assert_eq!(USER.get(), Some("ada")) });
///             // Setting it here does not change what the nursery's children see.
///             USER.scope("bob", async { n.spawn(async { assert_eq!(USER.get(), Some("ada")) }) }).await;
///         })
///         .await;
///     })
///     .await;
/// });
/// ```
#[doc(alias = "contextvars")]
#[doc(alias = "task_local")]
pub struct TreeVar<T> {
    /// Gives every variable an address of its own.
    _place: u8,
    value: PhantomData<fn() -> T>,
}

impl<T: Clone + Send + Sync + 'static> TreeVar<T> {
    /// Makes a variable that is not set anywhere. It belongs in a `static`.
    ///
    /// ```
    /// static NAME: seedbed::nursery::TreeVar<String> = seedbed::nursery::TreeVar::new();
    /// assert_eq!(NAME.get(), None);
    /// ```
    pub const fn new() -> Self {
        TreeVar {
            _place: 0,
            value: PhantomData,
        }
    }

    /// Returns the value that is set around the running code, if any.
    ///
    /// ```
    /// static DEPTH: seedbed::nursery::TreeVar<u32> = seedbed::nursery::TreeVar::new();
    /// assert_eq!(DEPTH.get(), None);
    /// ```
    pub fn get(&'static self) -> Option<T> {
        // The list is cloned, because the value's `Clone` is foreign code.
        self.find(ambient::tree_values().as_ref())
    }

    /// Returns the value that a new child of this nursery would see, if any. Works anywhere, also
    /// outside of a run. `None` once the block has ended.
    ///
    /// ```
    /// use seedbed::nursery::TreeVar;
    /// use seedbed::{open_nursery, run};
    ///
    /// static USER: TreeVar<&str> = TreeVar::new();
    ///
    /// run(USER.scope("ada", open_nursery(|n| async move {
    ///     let seen = USER.scope("bob", async { (USER.get(), USER.get_in(&n)) }).await;
    ///     assert_eq!(seen, (Some("bob"), Some("ada")));
    /// })));
    /// ```
    pub fn get_in(&'static self, nursery: &impl HasTreeVars) -> Option<T> {
        self.find(nursery.tree_values().as_ref())
    }

    fn find(&'static self, values: Option<&TreeValues>) -> Option<T> {
        let variable = self.address();
        let mut at = values;
        while let Some(link) = at {
            if link.variable == variable {
                return link.value.downcast_ref().cloned();
            }
            at = link.outer.as_ref();
        }
        None
    }

    /// Sets the variable to `value` for `future` and everything that it opens.
    ///
    /// # Cancellation
    ///
    /// Cancelling or dropping the returned future cancels or drops `future`.
    ///
    /// ```
    /// static DEPTH: seedbed::nursery::TreeVar<u32> = seedbed::nursery::TreeVar::new();
    /// seedbed::run(async {
    ///     let inside = DEPTH.scope(1, async { DEPTH.get() }).await;
    ///     assert_eq!((inside, DEPTH.get()), (Some(1), None));
    /// });
    /// ```
    pub fn scope<F: IntoFuture>(&'static self, value: T, future: F) -> TreeVarScope<F::IntoFuture> {
        TreeVarScope {
            state: State::New {
                variable: self.address(),
                value: Box::new(value),
            },
            future: future.into_future(),
        }
    }

    fn address(&'static self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}

impl<T: Clone + Send + Sync + 'static> Default for TreeVar<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for TreeVar<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TreeVar").finish_non_exhaustive()
    }
}

/// A handle on a nursery, for [`TreeVar::get_in`]: [`Nursery`](crate::Nursery),
/// [`LocalNursery`](crate::nursery::LocalNursery), [`Spawner`](crate::nursery::Spawner). It cannot
/// be implemented elsewhere.
///
/// ```
/// use seedbed::nursery::{HasTreeVars, TreeVar};
/// use seedbed::{open_nursery, run};
///
/// static USER: TreeVar<&str> = TreeVar::new();
///
/// fn is_named(nursery: &impl HasTreeVars) -> bool {
///     USER.get_in(nursery).is_some()
/// }
///
/// run(open_nursery(|n| async move { assert!(!is_named(&n) && !is_named(&n.spawner())) }));
/// ```
pub trait HasTreeVars: sealed::TreeValuesOfChildren {}

impl<T: sealed::TreeValuesOfChildren> HasTreeVars for T {}

pub(crate) mod sealed {
    use super::TreeValues;

    /// Names the values that a nursery's children see.
    // Sealed: only the types of this crate implement it.
    #[allow(unnameable_types)]
    pub trait TreeValuesOfChildren {
        /// Returns the values that a new child would see.
        #[doc(hidden)]
        fn tree_values(&self) -> Option<TreeValues>;
    }
}

pin_project! {
    /// Runs a future with a variable set; made by [`TreeVar::scope`].
    #[must_use = "futures do nothing unless awaited"]
    pub struct TreeVarScope<F> {
        state: State,
        #[pin]
        future: F,
    }
}

enum State {
    New {
        variable: usize,
        value: Box<dyn Any + Send + Sync>,
    },
    /// Set since the first poll, which determined the values around.
    Set(TreeValues),
    Moving,
}

impl State {
    fn values(&mut self) -> TreeValues {
        let values = match std::mem::replace(self, State::Moving) {
            State::New { variable, value } => Arc::new(TreeValue {
                variable,
                value,
                outer: ambient::tree_values(),
            }),
            State::Set(values) => values,
            State::Moving => unreachable!("the state is put back before anything else runs"),
        };
        *self = State::Set(values.clone());
        values
    }
}

impl<F> fmt::Debug for TreeVarScope<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TreeVarScope").finish_non_exhaustive()
    }
}

impl<F: Future> Future for TreeVarScope<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _restore = WithValues::new(Some(this.state.values()));
        this.future.poll(cx)
    }
}
