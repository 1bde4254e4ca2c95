//! The run, and the values of the tree variables, of the code that this thread is polling.
//!
//! The layers above put their parts of a run into a [`Run`] and read them back by type, so this
//! file knows none of them. (The position in the scope tree is known to `cancel::position` only,
//! which sets the run when the tree changes.)
//!
//! When a thread ends, its thread-locals are dropped one after the other. From then on it has no
//! run and no values, and setting them does nothing.

use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

thread_local! {
    static AMBIENT: Ambient = const { Ambient {
        run: RefCell::new(None),
        tree_values: RefCell::new(None),
    } };
}

struct Ambient {
    run: RefCell<Option<Arc<Run>>>,
    tree_values: RefCell<Option<TreeValues>>,
}

/// One run: at most one value of each type, put in by the module that the type belongs to.
pub(crate) struct Run {
    /// The type of each part stands next to it, so that a look-up compares before it calls the
    /// part's vtable.
    parts: Vec<(TypeId, Arc<dyn Any + Send + Sync>)>,
}

impl Run {
    pub(crate) fn new() -> Self {
        Run { parts: Vec::new() }
    }

    /// Adds a part. Parts that are read often should be added first.
    pub(crate) fn with<T: Send + Sync + 'static>(mut self, part: Arc<T>) -> Self {
        debug_assert!(self.get::<T>().is_none(), "one part of each type");
        self.parts.push((TypeId::of::<T>(), part));
        self
    }

    /// Returns the part of this type.
    pub(crate) fn get<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.find::<T>()?.downcast_ref()
    }

    /// Returns the part of this type, counted.
    pub(crate) fn get_arc<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.find::<T>()?.clone().downcast().ok()
    }

    fn find<T: 'static>(&self) -> Option<&Arc<dyn Any + Send + Sync>> {
        let wanted = TypeId::of::<T>();
        let (_, part) = self.parts.iter().find(|(type_id, _)| *type_id == wanted)?;
        Some(part)
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("parts", &self.parts.len())
            .finish_non_exhaustive()
    }
}

/// Returns the run that this thread is polling; `None` outside of a run.
pub(crate) fn current_run() -> Option<Arc<Run>> {
    with(|ambient| ambient.run.borrow().clone()).flatten()
}

/// Returns a part of the run that this thread is polling; `None` outside of a run.
pub(crate) fn part_of_run<T: Send + Sync + 'static>() -> Option<Arc<T>> {
    with(|ambient| ambient.run.borrow().as_ref()?.get_arc()).flatten()
}

/// Makes `run` the run that this thread is polling, and returns the one before. The caller puts
/// that back.
pub(crate) fn replace_run(run: Option<Arc<Run>>) -> Option<Arc<Run>> {
    with(|ambient| ambient.run.replace(run)).flatten()
}

/// `None` if the thread is ending.
#[inline]
fn with<T>(act: impl FnOnce(&Ambient) -> T) -> Option<T> {
    AMBIENT.try_with(act).ok()
}

/// The values of all tree variables that are set, as a linked list with the newest first.
pub type TreeValues = Arc<TreeValue>;

/// The value of one tree variable, and what was set before it.
// A method of a sealed trait returns it.
#[allow(unnameable_types)]
pub struct TreeValue {
    /// The address of the variable.
    pub(crate) variable: usize,
    pub(crate) value: Box<dyn Any + Send + Sync>,
    pub(crate) outer: Option<TreeValues>,
}

impl fmt::Debug for TreeValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TreeValue").finish_non_exhaustive()
    }
}

impl Drop for TreeValue {
    /// Unlinks in a loop, because dropping a long list recursively could overflow the stack.
    fn drop(&mut self) {
        let mut outer = self.outer.take();
        while let Some(mut value) = outer.and_then(Arc::into_inner) {
            outer = value.outer.take();
        }
    }
}

/// Returns the tree variables' values of the code that this thread is polling.
pub(crate) fn tree_values() -> Option<TreeValues> {
    with(|ambient| ambient.tree_values.borrow().clone()).flatten()
}

/// Sets this thread's tree variables until it is dropped, which restores the values of before.
pub(crate) struct WithValues {
    before: Option<TreeValues>,
}

impl WithValues {
    pub(crate) fn new(values: Option<TreeValues>) -> Self {
        WithValues {
            before: replace_tree_values(values),
        }
    }
}

impl Drop for WithValues {
    fn drop(&mut self) {
        replace_tree_values(self.before.take());
    }
}

fn replace_tree_values(values: Option<TreeValues>) -> Option<TreeValues> {
    with(|ambient| ambient.tree_values.replace(values)).flatten()
}
