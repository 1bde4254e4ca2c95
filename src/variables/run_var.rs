//! `RunVar`: a variable with one value for all tasks of a run.
//!
//! The values are part of the run, by the address of the variable. They are dropped with it, on the
//! run's thread, after the last task, system task and [queued
//! call](crate::run::RunHandle::call_soon). They are reference-counted, so a value is cloned and
//! dropped after the lock is released.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex};

use crate::ambient;
use crate::ambient::Run;
use crate::sys::primitives::lock;

type Value = Arc<dyn Any + Send + Sync>;

/// The values of one run's variables.
pub(crate) struct Variables {
    values: Mutex<Values>,
}

enum Values {
    Of(BTreeMap<usize, Value>),
    /// The run has ended, and stores no more values.
    Ended,
}

impl Default for Variables {
    fn default() -> Self {
        Variables {
            values: Mutex::new(Values::Of(BTreeMap::new())),
        }
    }
}

impl Variables {
    fn get(&self, variable: usize) -> Option<Value> {
        match &*lock(&self.values) {
            Values::Of(values) => values.get(&variable).cloned(),
            Values::Ended => None,
        }
    }

    /// Sets or unsets a variable, and returns its value of before. After the end of the run,
    /// nothing is set.
    fn replace(&self, variable: usize, value: Option<Value>) -> Option<Value> {
        match (&mut *lock(&self.values), value) {
            (Values::Of(values), Some(value)) => values.insert(variable, value),
            (Values::Of(values), None) => values.remove(&variable),
            // Dropped by the caller, after the lock is released.
            (Values::Ended, value) => value,
        }
    }

    /// Takes all values, which the caller drops. From now on nothing is set.
    pub(crate) fn end(&self) -> impl Sized + use<> {
        std::mem::replace(&mut *lock(&self.values), Values::Ended)
    }
}

/// A variable whose value belongs to the run: all of its tasks, system tasks and queued calls see
/// the same value.
///
/// It is for data that a library keeps once per run: a cache, a counter, the handle of a [system
/// task](crate::run::spawn_system_task). In another run, also in a later one, it is unset again.
/// For a value that follows the tree of tasks, use a [`TreeVar`](crate::nursery::TreeVar). The
/// values are dropped at the end of the run, when all code that could use them has ended.
///
/// Another thread is not in the run: give it the value, or [call into the
/// run](crate::run::RunHandle::call).
///
/// ```
/// use std::sync::{Arc, atomic::{AtomicU32, Ordering::Relaxed}};
/// use seedbed::run::RunVar;
/// use seedbed::{open_nursery, run};
///
/// static REQUESTS: RunVar<Arc<AtomicU32>> = RunVar::new();
///
/// async fn request() {
///     REQUESTS.get_or_init(Arc::default).fetch_add(1, Relaxed);
/// }
///
/// for _ in 0..2 {
///     run(async {
///         open_nursery(|n| async move {
///             n.spawn(request());
///             n.spawn(request());
///         })
///         .await;
///         assert_eq!(REQUESTS.get().unwrap().load(Relaxed), 2);
///     });
/// }
/// ```
pub struct RunVar<T> {
    /// Gives every variable an address of its own.
    _place: u8,
    value: PhantomData<fn() -> T>,
}

impl<T: Clone + Send + Sync + 'static> RunVar<T> {
    /// Makes a variable that is not set in any run. It belongs in a `static`.
    ///
    /// ```
    /// static NAME: seedbed::run::RunVar<&str> = seedbed::run::RunVar::new();
    /// seedbed::run(async { assert_eq!(NAME.get(), None) });
    /// ```
    pub const fn new() -> Self {
        RunVar {
            _place: 0,
            value: PhantomData,
        }
    }

    /// Returns the value that the variable has in this run. `None` if it is unset, and outside of a
    /// run, which [`in_run`](crate::run::in_run) tells apart.
    ///
    /// ```
    /// static NAME: seedbed::run::RunVar<&str> = seedbed::run::RunVar::new();
    /// assert_eq!(NAME.get(), None);
    /// seedbed::run(async {
    ///     assert_eq!(NAME.get(), None);
    ///     NAME.set("ada");
    ///     assert_eq!(NAME.get(), Some("ada"));
    /// });
    /// ```
    pub fn get(&'static self) -> Option<T> {
        self.get_in(&*ambient::current_run()?)
    }

    /// Returns the value that the variable has in a run.
    pub(crate) fn get_in(&'static self, run: &Run) -> Option<T> {
        variables(run)
            .get(self.address())
            .map(|value| read(&*value))
    }

    /// Returns the value that the variable has in this run. If it has none, sets it to the value of
    /// `init`.
    ///
    /// # Panics
    ///
    /// Outside of a run; and with the panic of `init`, which leaves the variable unset.
    ///
    /// ```
    /// static LIMIT: seedbed::run::RunVar<u32> = seedbed::run::RunVar::new();
    /// seedbed::run(async {
    ///     assert_eq!(LIMIT.get_or_init(|| 5), 5);
    ///     assert_eq!(LIMIT.get_or_init(|| 6), 5);
    /// });
    /// ```
    #[track_caller]
    pub fn get_or_init(&'static self, init: impl FnOnce() -> T) -> T {
        let run = current_run("get_or_init");
        let variables = variables(&run);
        if let Some(value) = variables.get(self.address()) {
            return read(&*value);
        }
        let value = init();
        // One thread polls the run, so only `init` itself can have set the variable since. That
        // value is dropped.
        drop(variables.replace(self.address(), Some(Arc::new(value.clone()))));
        value
    }

    /// Sets the variable for this run, and returns a token that can restore the value of before.
    ///
    /// While the run's variables are being dropped, at its end, nothing is set any more, and the
    /// value is dropped.
    ///
    /// # Panics
    ///
    /// Outside of a run.
    ///
    /// ```
    /// static NAME: seedbed::run::RunVar<&str> = seedbed::run::RunVar::new();
    /// seedbed::run(async {
    ///     NAME.set("ada");
    ///     let before = NAME.set("bob");
    ///     assert_eq!(NAME.get(), Some("bob"));
    ///     before.reset();
    ///     assert_eq!(NAME.get(), Some("ada"));
    /// });
    /// ```
    #[track_caller]
    pub fn set(&'static self, value: T) -> RunVarToken<T> {
        let run = current_run("set");
        let before = variables(&run).replace(self.address(), Some(Arc::new(value)));
        RunVarToken {
            run,
            variable: self.address(),
            before,
            value: PhantomData,
        }
    }

    fn address(&'static self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}

/// Clones a value of the only type that is kept at its variable's address.
fn read<T: Clone + 'static>(value: &(dyn Any + Send + Sync)) -> T {
    value
        .downcast_ref::<T>()
        .expect("a variable's address is its own")
        .clone()
}

#[track_caller]
fn current_run(method: &str) -> Arc<Run> {
    ambient::current_run().unwrap_or_else(|| {
        panic!(
            "RunVar::{method} was called outside of a run: on a thread that seedbed::run does not poll on; give the \
             thread the value, or call into the run by its RunHandle"
        )
    })
}

fn variables(run: &Run) -> &Variables {
    run.get().expect("every run has variables")
}

impl<T: Clone + Send + Sync + 'static> Default for RunVar<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for RunVar<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunVar").finish_non_exhaustive()
    }
}

/// The value of a [`RunVar`] before it was set; made by [`RunVar::set`].
///
/// Dropping it changes nothing: the variable keeps its new value.
///
/// It may be sent to other tasks and threads, and always affects the run in which it was made.
pub struct RunVarToken<T> {
    run: Arc<Run>,
    variable: usize,
    before: Option<Value>,
    value: PhantomData<fn() -> T>,
}

impl<T> RunVarToken<T> {
    /// Restores the variable's value of before, whatever has been set since; unsets it if it was
    /// unset. Does nothing if the run has ended.
    ///
    /// ```
    /// static NAME: seedbed::run::RunVar<&str> = seedbed::run::RunVar::new();
    /// seedbed::run(async {
    ///     let unset = NAME.set("ada");
    ///     NAME.set("bob");
    ///     unset.reset();
    ///     assert_eq!(NAME.get(), None);
    /// });
    /// ```
    pub fn reset(self) {
        drop(variables(&self.run).replace(self.variable, self.before));
    }
}

impl<T> fmt::Debug for RunVarToken<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunVarToken")
            .field("was_set", &self.before.is_some())
            .finish_non_exhaustive()
    }
}
