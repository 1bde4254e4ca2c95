//! The task that the code on this thread belongs to.
//!
//! A thread-local holds the innermost block that the thread polls, or the root task or remote
//! child; the block holds the child that is being polled. So a block pays for two stores in each
//! poll of itself, and for two in each poll of a child.

// Keeps pointers in a thread-local without counting references.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::Arc;

use super::child_ref::{ChildRef, Header, NurseryState, Root, TaskRef};
use super::polling::PollGuard;
use super::ready::Linked;

/// Each pointer was made from a reference that is borrowed until [`with`] has replaced this value.
#[derive(Clone, Copy)]
enum Current {
    None,
    Root(NonNull<Root>),
    Child(NonNull<Header>),
    /// The block of this nursery, in the thread that holds its poll lock.
    Block(NonNull<NurseryState>),
}

thread_local! {
    static CURRENT: Cell<Current> = const { Cell::new(Current::None) };
}

/// Sets the current task while `act` runs, and restores it also if `act` panics.
///
/// The pointer in `current` must have been made from a reference that outlives this call.
fn with<T>(current: Current, act: impl FnOnce() -> T) -> T {
    struct Restore(Current);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.set(self.0);
        }
    }
    let _restore = Restore(CURRENT.replace(current));
    act()
}

/// Makes a pointer that may be turned into an `Arc` again, which a pointer made from a reference
/// may not.
fn pointer<T>(shared: &Arc<T>) -> NonNull<T> {
    NonNull::new(Arc::as_ptr(shared).cast_mut()).expect("an Arc is never null")
}

/// Counts another reference.
///
/// # Safety
///
/// The pointer was made by [`pointer()`], from an `Arc` that exists until this returns.
unsafe fn counted<T>(shared: NonNull<T>) -> Arc<T> {
    let shared = shared.as_ptr().cast_const();
    // SAFETY: the pointer came from `Arc::as_ptr` and the `Arc` exists, by the contract of this
    // function. The count that the first call adds belongs to the result of the second.
    unsafe {
        Arc::increment_strong_count(shared);
        Arc::from_raw(shared)
    }
}

/// Returns the task that this thread polls.
pub(super) fn current() -> Option<TaskRef> {
    match CURRENT.get() {
        Current::None => None,
        // SAFETY: `in_task` made the pointer with `pointer`, and borrows the `Arc` while this value
        // is current.
        Current::Root(root) => Some(TaskRef::Root(unsafe { counted(root) })),
        Current::Child(child) => {
            // SAFETY: `in_task` made the pointer with `as_raw`, and borrows a reference while this
            // value is current. The result is not dropped.
            let child = std::mem::ManuallyDrop::new(unsafe { ChildRef::from_raw(child) });
            Some(TaskRef::Child(ChildRef::clone(&child)))
        }
        Current::Block(nursery) => {
            // SAFETY: `in_block` borrows the `Arc` while this value is current, and only shared
            // references to it exist.
            let nursery = unsafe { nursery.as_ref() };
            match nursery.children.current() {
                Some(child) => Some(TaskRef::Child(child)),
                // The body is part of the task that opened the block.
                None => nursery.opener.clone(),
            }
        }
    }
}

/// Returns the innermost nursery whose block this thread polls, unless a root task or a remote
/// child is further in.
pub(super) fn current_nursery() -> Option<Arc<NurseryState>> {
    match CURRENT.get() {
        // SAFETY: `in_block` made the pointer with `pointer`, and borrows the `Arc` while this
        // value is current.
        Current::Block(nursery) => Some(unsafe { counted(nursery) }),
        Current::None | Current::Root(_) | Current::Child(_) => None,
    }
}

/// Runs `act` as a task that no block polls here: a run's root task, or a child on an executor.
pub(super) fn in_task<T>(task: &TaskRef, act: impl FnOnce() -> T) -> T {
    let current = match task {
        TaskRef::Root(root) => Current::Root(pointer(root)),
        TaskRef::Child(child) => Current::Child(child.as_raw()),
    };
    with(current, act)
}

/// Runs `act` outside of any task.
pub(crate) fn in_no_task<T>(act: impl FnOnce() -> T) -> T {
    with(Current::None, act)
}

/// Polls or drops a block: runs `act` with its poll lock held.
pub(super) fn in_block<T>(
    nursery: &Arc<NurseryState>,
    act: impl for<'b> FnOnce(&PollGuard<'b>) -> T,
) -> T {
    let current = Current::Block(pointer(nursery));
    nursery.children.lock(|guard| with(current, || act(guard)))
}
