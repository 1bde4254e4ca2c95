//! A task's claim on the result of its child, without the type of that result.

// Takes a result whose type only the caller knows.
#![allow(unsafe_code)]

use std::fmt;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use super::child_ref::{ChildRef, HANDLE, OUTPUT, REFERENCE, free_if_last};
use super::ready::Linked;

/// The claim of a child's one task.
pub(super) struct RawTask {
    /// Dropped together with the claim: see `Drop`.
    child: ManuallyDrop<ChildRef>,
    /// A waker may be registered with the child.
    awaited: bool,
}

impl RawTask {
    /// # Safety
    ///
    /// `child` has its `HANDLE` flag, and no other `RawTask` of this child is ever made.
    pub(super) unsafe fn new(child: ChildRef) -> Self {
        RawTask {
            child: ManuallyDrop::new(child),
            awaited: false,
        }
    }

    pub(super) fn child(&self) -> &ChildRef {
        &self.child
    }

    /// Takes the result once the child is done. `None` if the child has none, or if it was taken
    /// before.
    ///
    /// # Safety
    ///
    /// `T` is the output type of the child's future.
    pub(super) unsafe fn poll_output<T>(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let header = self.child.header();
        if !self.child.is_done() {
            self.awaited = true;
            header.awaiter.register(cx.waker());
            // The child may have ended before the waker was registered.
            if !self.child.is_done() {
                return Poll::Pending;
            }
        }
        let before = header.state.fetch_and(!OUTPUT, Ordering::AcqRel);
        let mut output = None::<T>;
        if before & OUTPUT != 0 {
            // SAFETY: the function came with this child. `OUTPUT`, read with acquire, makes the
            // result this task's, and clearing it makes sure that the result is taken once. The
            // target is an `Option` of the child's output type, by the contract.
            unsafe { (header.vtable.take)(self.child.as_raw(), NonNull::from(&mut output).cast()) };
        }
        Poll::Ready(output)
    }

    /// Gives up the claim and the reference in one step, unless there is a result. False if there
    /// is.
    fn try_detach(&self) -> bool {
        let header = self.child.header();
        let vtable = header.vtable;
        // Acquire, here and below: if `OUTPUT` is set, the caller drops the result.
        let mut state = header.state.load(Ordering::Acquire);
        while state & OUTPUT == 0 {
            // Release: what was done with the child here happens before it is freed.
            match header.state.compare_exchange_weak(
                state,
                state - (HANDLE + REFERENCE),
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(before) => {
                    // SAFETY: the exchange has taken this task's reference out of `before`. The
                    // caller does not use the child again.
                    unsafe { free_if_last(before, self.child.as_raw(), vtable) };
                    return true;
                }
                Err(now) => state = now,
            }
        }
        false
    }

    /// Gives up the claim, and drops a result that is there.
    fn detach(&mut self) {
        /// Drops the reference also if the drop of the result panics.
        struct DropReference<'a>(&'a mut ManuallyDrop<ChildRef>);
        impl Drop for DropReference<'_> {
            fn drop(&mut self) {
                // SAFETY: `detach` is called once, by `Drop`, and the child is not used after this.
                unsafe { ManuallyDrop::drop(self.0) };
            }
        }
        if !self.try_detach() {
            let child = DropReference(&mut self.child);
            // SAFETY: the function came with this child. `OUTPUT` makes the result this task's, and
            // it was not taken: taking it clears the flag.
            unsafe { (child.0.header().vtable.clear)(child.0.as_raw()) };
        }
    }
}

impl Drop for RawTask {
    fn drop(&mut self) {
        /// Detaches also if the drop of the waker panics.
        struct Detach<'a>(&'a mut RawTask);
        impl Drop for Detach<'_> {
            fn drop(&mut self) {
                self.0.detach();
            }
        }
        let task = Detach(self);
        if task.0.awaited {
            // A waker that stayed could keep this child alive forever: if a child awaits itself, or
            // a sibling that awaits it.
            drop(task.0.child.header().awaiter.take());
        }
    }
}

impl fmt::Debug for RawTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawTask")
            .field("done", &self.child.is_done())
            .finish_non_exhaustive()
    }
}
