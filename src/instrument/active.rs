//! The instruments of the run on this thread, and how they are told.

use std::any::Any;
use std::cell::{Cell as StdCell, RefCell};
use std::fmt;
use std::num::NonZeroU64;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Instrument, NotActiveError, TaskExit};
use crate::task::TaskInfo;

/// The number of a run; no two of a process have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RunId(NonZeroU64);

thread_local! {
    /// The run on this thread.
    static RUN: StdCell<Option<RunId>> = const { StdCell::new(None) };
    /// The same, if it has instruments: all that the hot paths look at.
    static OBSERVED: StdCell<Option<RunId>> = const { StdCell::new(None) };
    /// Those instruments. A change makes a new list, so that it does not disturb who is going through the old one.
    static ACTIVE: RefCell<Instruments> = const { RefCell::new(Instruments(None)) };
}

/// A set of instruments, in the order of adding.
#[derive(Clone, Default)]
pub(crate) struct Instruments(Option<Arc<Vec<Arc<dyn Instrument>>>>);

impl Instruments {
    /// Adds one, unless it is there already.
    pub(crate) fn add(&mut self, instrument: Arc<dyn Instrument>) {
        if !self.contains(&instrument) {
            *self = self.with(instrument);
        }
    }

    fn as_slice(&self) -> &[Arc<dyn Instrument>] {
        self.0.as_ref().map_or(&[], |instruments| instruments)
    }

    fn contains<I: Instrument + ?Sized>(&self, instrument: &Arc<I>) -> bool {
        self.as_slice()
            .iter()
            .any(|other| is_same(other, instrument))
    }

    fn with(&self, instrument: Arc<dyn Instrument>) -> Self {
        let mut instruments = self.as_slice().to_vec();
        instruments.push(instrument);
        Instruments(Some(Arc::new(instruments)))
    }

    fn without<I: Instrument + ?Sized>(&self, instrument: &Arc<I>) -> Self {
        let mut instruments = self.as_slice().to_vec();
        instruments.retain(|other| !is_same(other, instrument));
        Instruments((!instruments.is_empty()).then(|| Arc::new(instruments)))
    }
}

impl fmt::Debug for Instruments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} instruments", self.as_slice().len())
    }
}

/// Whether both are the same allocation, which each `Arc` has one of its own of, also if what is in it has no size.
fn is_same<I: Instrument + ?Sized, J: Instrument + ?Sized>(one: &Arc<I>, two: &Arc<J>) -> bool {
    ptr::addr_eq(Arc::as_ptr(one), Arc::as_ptr(two))
}

/// The run on this thread.
pub(crate) fn current_run() -> Option<RunId> {
    RUN.get()
}

/// Whether `run` is the run on this thread, and has instruments.
#[inline]
pub(crate) fn is_observing(run: Option<RunId>) -> bool {
    match OBSERVED.get() {
        None => false,
        observed => observed == run,
    }
}

/// Puts another list in place.
fn replace(instruments: Instruments) {
    OBSERVED.set(RUN.get().filter(|_| instruments.0.is_some()));
    let before = ACTIVE.replace(instruments);
    // Dropped here, where nothing is borrowed: an instrument's `Drop` may come back to this file.
    drop(before);
}

/// A run on this thread, and its instruments. Dropped when all that belongs to the run is gone.
pub(crate) struct Observed(());

impl Observed {
    /// Tells the instruments that the run begins.
    pub(crate) fn begin(instruments: Instruments) -> Self {
        static RUNS: AtomicU64 = AtomicU64::new(0);
        let number = RUNS.fetch_add(1, Ordering::Relaxed);
        RUN.set(Some(RunId(NonZeroU64::MIN.saturating_add(number))));
        replace(instruments);
        let observed = Observed(());
        tell("before_run", |instrument| instrument.before_run());
        observed
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        tell("after_run", |instrument| instrument.after_run());
        RUN.set(None);
        let last = || replace(Instruments::default());
        // As when a hook panics: the run is not to suffer from it.
        if let Err(payload) = catch_unwind(AssertUnwindSafe(last)) {
            std::mem::forget(payload);
        }
    }
}

/// Adds an instrument to the run on this thread, to be told of everything from the next event on. Returns whether it is
/// new: an instrument that is active already (this `Arc` or a clone of it) is not told twice.
///
/// # Panics
///
/// Outside of a run.
///
/// ```
/// use std::sync::Arc;
/// use seedbed::instrument::{Instrument, NotActiveError, add_instrument, remove_instrument};
/// use seedbed::run;
///
/// struct Silent;
/// impl Instrument for Silent {}
///
/// run(async {
///     let silent = Arc::new(Silent);
///     assert!(add_instrument(silent.clone()));
///     assert!(!add_instrument(silent.clone()));
///     assert_eq!(remove_instrument(&silent), Ok(()));
///     assert_eq!(remove_instrument(&silent), Err(NotActiveError));
/// });
/// ```
pub fn add_instrument(instrument: Arc<dyn Instrument>) -> bool {
    assert!(
        RUN.get().is_some(),
        "add_instrument was called outside of a run: an instrument belongs to the run on the thread that adds it"
    );
    let active = ACTIVE.with_borrow(Clone::clone);
    let new = !active.contains(&instrument);
    if new {
        replace(active.with(instrument));
    }
    new
}

/// Removes an instrument from the run on this thread. It is told nothing more, not even the end of a step that is going
/// on.
///
/// # Errors
///
/// [`NotActiveError`] if it was not added, or was removed before: by this, or because it had panicked. Also outside of a run.
///
/// ```
/// use std::sync::Arc;
/// use seedbed::RunBuilder;
/// use seedbed::instrument::{Instrument, remove_instrument};
///
/// struct Silent;
/// impl Instrument for Silent {}
///
/// let silent = Arc::new(Silent);
/// RunBuilder::new().instrument(silent.clone()).run(async {
///     assert!(remove_instrument(&silent).is_ok());
/// });
/// assert!(remove_instrument(&silent).is_err());
/// ```
pub fn remove_instrument<I: Instrument + ?Sized>(
    instrument: &Arc<I>,
) -> Result<(), NotActiveError> {
    let active = ACTIVE.with_borrow(Clone::clone);
    if !active.contains(instrument) {
        return Err(NotActiveError);
    }
    replace(active.without(instrument));
    Ok(())
}

/// Calls a hook of every instrument. Never panics.
fn tell(name: &'static str, hook: impl Fn(&dyn Instrument)) {
    let told = ACTIVE.with_borrow(Clone::clone);
    for instrument in told.as_slice() {
        // Another one's hook may have removed it.
        if !ACTIVE.with_borrow(|active| active.contains(instrument)) {
            continue;
        }
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| hook(&**instrument))) {
            give_up_on(instrument, name, payload);
        }
    }
    // This may drop an instrument that was removed meanwhile.
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(told))) {
        std::mem::forget(payload);
    }
}

/// Removes an instrument that has panicked, and reports that.
fn give_up_on(instrument: &Arc<dyn Instrument>, hook: &'static str, payload: Box<dyn Any + Send>) {
    // It may have removed itself before it panicked.
    _ = remove_instrument(instrument);
    let report = || {
        tracing::error!(
            hook,
            panic = message(&*payload),
            "an instrument panicked, and was removed"
        );
    };
    // The subscriber is foreign code, too. If it panics nobody is left to be told.
    if let Err(second) = catch_unwind(AssertUnwindSafe(report)) {
        std::mem::forget(second);
    }
    // Its drop may panic in turn.
    std::mem::forget(payload);
}

fn message(payload: &(dyn Any + Send)) -> &str {
    match (
        payload.downcast_ref::<&str>(),
        payload.downcast_ref::<String>(),
    ) {
        (Some(message), _) => message,
        (None, Some(message)) => message,
        (None, None) => "(a payload that is not a string)",
    }
}

/// Writes a function for each hook.
macro_rules! hooks {
    ($($hook:ident($($name:ident: $type:ty),*);)*) => {
        $(
            /// Tells the instruments of the run on this thread.
            #[cold]
            pub(crate) fn $hook($($name: $type),*) {
                tell(stringify!($hook), |instrument| instrument.$hook($($name),*));
            }
        )*
    };
}

hooks! {
    task_spawned(task: &TaskInfo);
    task_scheduled(task: &TaskInfo);
    before_task_step(task: &TaskInfo);
    after_task_step(task: &TaskInfo);
    task_exited(task: &TaskInfo, how: TaskExit);
    before_io_wait(timeout: Option<Duration>);
    after_io_wait(timeout: Option<Duration>);
}
