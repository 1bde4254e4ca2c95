//! In which task the code that runs on this thread is.
//!
//! The thread knows the innermost block that it polls, or the run whose root it polls, and that knows whose turn it is. So
//! a block pays for two stores each time that it is polled, and for two each time that it polls a child.

// Keeps pointers in a thread-local; what keeps them alive is said where they are put there.
#![allow(unsafe_code)]

use std::cell::Cell as StdCell;
use std::ptr::NonNull;
use std::sync::Arc;

use super::child::{ChildRef, Header};
use super::info::{Root, TaskRef};
use super::ready::Core;

/// What this thread polls.
#[derive(Clone, Copy)]
enum Place {
    Outside,
    /// Alive until [`in_task`] takes it back.
    Root(NonNull<Root>),
    /// The same.
    Child(NonNull<Header>),
    /// Alive, and its roster held by this thread, until [`Stay`] takes it back.
    Block(NonNull<Core>),
}

thread_local! {
    static PLACE: StdCell<Place> = const { StdCell::new(Place::Outside) };
}

/// The task that this thread polls.
pub(super) fn current() -> Option<TaskRef> {
    match PLACE.get() {
        Place::Outside => None,
        Place::Root(root) => {
            let root = root.as_ptr().cast_const();
            // SAFETY: the pointer came from `Arc::as_ptr`, and `in_task` has that `Arc` until it takes the place back.
            let root = unsafe {
                Arc::increment_strong_count(root);
                Arc::from_raw(root)
            };
            Some(TaskRef::Root(root))
        }
        // SAFETY: `in_task` has a reference until it takes the place back.
        Place::Child(child) => Some(TaskRef::Child(unsafe { ChildRef::counted(child) })),
        Place::Block(core) => {
            // SAFETY: who made the `Stay` has seen to it that the core outlives it.
            let core = unsafe { core.as_ref() };
            // SAFETY: while this is the place, the block holds its roster on this thread.
            match unsafe { core.roster.turn() } {
                Some(child) => Some(TaskRef::Child(child)),
                // The body belongs to who opened the block.
                None => core.opener.clone(),
            }
        }
    }
}

/// The innermost block that this thread polls, if the task that it polls is not in a run's root or on an executor.
pub(super) fn current_block() -> Option<Arc<Core>> {
    let Place::Block(core) = PLACE.get() else {
        return None;
    };
    let core = core.as_ptr().cast_const();
    // SAFETY: the pointer came from `Arc::as_ptr`, and who made the `Stay` keeps that `Arc` longer than that.
    Some(unsafe {
        Arc::increment_strong_count(core);
        Arc::from_raw(core)
    })
}

/// Puts the place around back when dropped, also when a poll panics.
struct PutBack(Place);

impl Drop for PutBack {
    fn drop(&mut self) {
        PLACE.set(self.0);
    }
}

/// A pointer to what is shared that also leads to its counts, which one made from a reference would not.
fn pointer<T>(shared: &Arc<T>) -> NonNull<T> {
    NonNull::new(Arc::as_ptr(shared).cast_mut()).expect("an Arc points to something")
}

/// Does something in the name of a task that no block polls here: a run's root, or a child on an executor.
pub(super) fn in_task<T>(task: &TaskRef, act: impl FnOnce() -> T) -> T {
    let place = match task {
        TaskRef::Root(root) => Place::Root(pointer(root)),
        TaskRef::Child(child) => Place::Child(child.as_ptr()),
    };
    let _back = PutBack(PLACE.replace(place));
    act()
}

/// Does something that belongs to no task.
pub(crate) fn in_no_task<T>(act: impl FnOnce() -> T) -> T {
    let _back = PutBack(PLACE.replace(Place::Outside));
    act()
}

/// The block is being polled, or dropped, by this thread, and holds its roster.
pub(super) struct Stay {
    core: NonNull<Core>,
    // Dropped after the roster was released.
    _back: PutBack,
}

impl Stay {
    /// # Safety
    ///
    /// The caller is the block. It keeps `core`, and drops the result, on this thread, before anything that was begun
    /// earlier and before it is polled again.
    pub(super) unsafe fn begin(core: &Arc<Core>) -> Self {
        core.roster.hold();
        let core = pointer(core);
        Stay {
            core,
            _back: PutBack(PLACE.replace(Place::Block(core))),
        }
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        // SAFETY: the block keeps the core: promised to `begin`.
        unsafe { self.core.as_ref() }.roster.release();
    }
}
