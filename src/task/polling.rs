//! The operations on a child that only its block may use, while it is being polled.

// Calls the functions that depend on the child's type.
#![allow(unsafe_code)]

use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use super::child_ref::{ChildRef, DONE, HANDLE, Header, OUTPUT};
use super::children::Own;
use super::ready::Linked;
use super::waker::BorrowedWaker;
use crate::cancel::NodeId;

/// A child of the nursery whose block this thread polls.
pub(super) type OwnChild<'b> = Own<'b, ChildRef>;

/// The proof that this thread polls a nursery's block.
pub(super) type PollGuard<'b> = super::children::PollGuard<'b, ChildRef>;

impl Own<'_, ChildRef> {
    /// Polls the future. `Ready` means that the future is gone, and its result is in the hands of
    /// the task.
    #[inline(always)]
    pub(super) fn poll(&self) -> Poll<()> {
        assert!(!self.is_done(), "a child is polled while it runs");
        let header = self.header();
        let waker = BorrowedWaker::new(self);
        // SAFETY: the function came with this child, which `self` keeps alive. This thread polls
        // the child's block (the type of `self`), only that thread sets `DONE`, and the flag was
        // clear above.
        let polled = header.wait.during(|| unsafe {
            (header.vtable.poll)(self.as_raw(), &mut Context::from_waker(&waker))
        });
        if polled.is_ready() {
            let before = header.state.fetch_or(DONE | OUTPUT, Ordering::AcqRel);
            if before & HANDLE == 0 {
                // SAFETY: the function came with this child. The task had given up its claim before
                // it could see `OUTPUT`, so the result still belongs to the block, which is this
                // thread.
                unsafe { (header.vtable.clear)(self.as_raw()) };
            } else {
                header.awaiter.wake();
            }
        }
        polled
    }

    /// Drops the future of a child that is not done. There will be no result. Panics if that drop
    /// does.
    pub(super) fn drop_future(&self) {
        /// Ends the child also if the drop panics.
        struct SetDone<'a>(&'a Header);
        impl Drop for SetDone<'_> {
            fn drop(&mut self) {
                // Without a task there is nothing to wake: the task takes its waker with it.
                if self.0.state.fetch_or(DONE, Ordering::AcqRel) & HANDLE != 0 {
                    self.0.awaiter.wake();
                }
            }
        }
        assert!(!self.is_done(), "a child's future is dropped once");
        let _done = SetDone(self.header());
        // SAFETY: the function came with this child, which `self` keeps alive. `DONE` was clear
        // above, and only this thread, which polls the child's block, sets it; so the future
        // belongs to the block.
        unsafe { (self.header().vtable.clear)(self.as_raw()) };
    }

    /// Returns the child's node in the scope tree, if it has one.
    pub(super) fn node(&self) -> Option<NodeId> {
        self.header().node.get()
    }

    pub(super) fn set_node(&self, node: Option<NodeId>) {
        self.header().node.set(node);
    }
}
