//! The instruments of the run on this thread, and the calls of their hooks.

use std::any::Any;
use std::cell::RefCell;
use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use super::hooks::Instrument;
use crate::task::observe::{TaskExit, TaskObserver, current_run, set_current_run, set_observer};
use crate::task::{RunId, TaskInfo};

thread_local! {
    /// The instruments of the run on this thread. A change makes a new list, so that a loop over
    /// the old one goes on.
    static ACTIVE: RefCell<Instruments> = const { RefCell::new(Instruments(None)) };
}

/// A set of instruments, in the order of adding.
#[derive(Clone, Default)]
pub(crate) struct Instruments(Option<Arc<Vec<Arc<dyn Instrument>>>>);

impl Instruments {
    /// Adds an instrument, unless it is in the set.
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

/// Tells whether both are the same allocation. Each `Arc` has one, even if its value has no size.
fn is_same<I: Instrument + ?Sized, J: Instrument + ?Sized>(one: &Arc<I>, two: &Arc<J>) -> bool {
    ptr::addr_eq(Arc::as_ptr(one), Arc::as_ptr(two))
}

/// Replaces the instruments of the run on this thread.
fn replace(instruments: Instruments) {
    let is_observed = instruments.0.is_some();
    set_observer(is_observed.then_some(&Dispatch as &dyn TaskObserver));
    let before = ACTIVE.replace(instruments);
    // Dropped when nothing is borrowed: the `Drop` of an instrument may add or remove instruments.
    drop(before);
}

/// A run on this thread, and its instruments. Dropped after everything that belongs to the run.
pub(crate) struct Observed(());

impl Observed {
    /// Begins a run on this thread.
    pub(crate) fn begin(instruments: Instruments) -> Self {
        set_current_run(Some(RunId::next()));
        replace(instruments);
        let observed = Observed(());
        call_hook("before_run", |instrument| instrument.before_run());
        observed
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        call_hook("after_run", |instrument| instrument.after_run());
        set_current_run(None);
        let last = || replace(Instruments::default());
        // The drop of an instrument may panic. The run must not fail because of that.
        if let Err(payload) = catch_unwind(AssertUnwindSafe(last)) {
            std::mem::forget(payload);
        }
    }
}

/// The error of removing an instrument that is not active in the run on this thread.
///
/// ```
/// use std::sync::Arc;
/// use seedbed::instrument::{Instrument, NotActiveError, remove_instrument};
/// use seedbed::run;
///
/// struct Silent;
/// impl Instrument for Silent {}
///
/// run(async {
///     assert_eq!(remove_instrument(&Arc::new(Silent)), Err(NotActiveError));
/// });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotActiveError;

impl fmt::Display for NotActiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the instrument is not active in this run: it was never added, or it was removed before")
    }
}

impl Error for NotActiveError {}

/// Adds an instrument to the run on this thread. Its hooks are called from the next event on.
///
/// Returns false if the instrument was active already, by this `Arc` or a clone of it. Its hooks
/// are not called twice.
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
        current_run().is_some(),
        "add_instrument was called outside of a run: an instrument belongs to the run on the thread that adds it"
    );
    let active = ACTIVE.with_borrow(Clone::clone);
    let new = !active.contains(&instrument);
    if new {
        replace(active.with(instrument));
    }
    new
}

/// Removes an instrument from the run on this thread. No more of its hooks are called, not even at
/// the end of a step that has begun.
///
/// # Errors
///
/// [`NotActiveError`] if the instrument was not added, or was removed before, by this function or
/// because it panicked. Also outside of a run.
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
fn call_hook(name: &'static str, hook: impl Fn(&dyn Instrument)) {
    let called = ACTIVE.with_borrow(Clone::clone);
    for instrument in called.as_slice() {
        // A hook of another instrument may have removed this one.
        if !ACTIVE.with_borrow(|active| active.contains(instrument)) {
            continue;
        }
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| hook(&**instrument))) {
            remove_panicked(instrument, name, payload);
        }
    }
    // This may drop an instrument that was removed by a hook.
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(called))) {
        std::mem::forget(payload);
    }
}

/// Removes an instrument that has panicked, and logs that.
fn remove_panicked(
    instrument: &Arc<dyn Instrument>,
    hook: &'static str,
    payload: Box<dyn Any + Send>,
) {
    // The instrument may have removed itself before it panicked.
    _ = remove_instrument(instrument);
    let report = || {
        tracing::error!(
            hook,
            panic = message(&*payload),
            "an instrument panicked, and was removed"
        );
    };
    // The subscriber may panic too. That panic is dropped.
    if let Err(second) = catch_unwind(AssertUnwindSafe(report)) {
        std::mem::forget(second);
    }
    // The drop of the payload may panic too.
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

/// Defines a function for each hook.
macro_rules! hooks {
    ($($hook:ident($($name:ident: $type:ty),*);)*) => {
        $(
            /// Calls this hook of each instrument of the run on this thread.
            #[cold]
            pub(crate) fn $hook($($name: $type),*) {
                call_hook(stringify!($hook), |instrument| instrument.$hook($($name),*));
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

/// Passes the events of the task core on to the instruments.
struct Dispatch;

impl TaskObserver for Dispatch {
    fn task_spawned(&self, task: &TaskInfo) {
        task_spawned(task);
    }

    fn task_scheduled(&self, task: &TaskInfo) {
        task_scheduled(task);
    }

    fn before_task_step(&self, task: &TaskInfo) {
        before_task_step(task);
    }

    fn after_task_step(&self, task: &TaskInfo) {
        after_task_step(task);
    }

    fn task_exited(&self, task: &TaskInfo, how: TaskExit) {
        task_exited(task, how);
    }
}
