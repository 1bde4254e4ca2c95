//! Waits of code that is cancelled, until the scope that absorbs the cancellation drops it.
//!
//! Usually that scope does so within the same poll. It cannot if the code is in a future that the
//! scope has only by reference (or in a `FuturesUnordered`, or in a `Shared`): then the scope ends,
//! and the future is left. Its node tells it so.

use std::sync::Arc;
use std::task::{Context, Poll};

use super::node::{Node, NodeState};
use super::position::{attach, commit_if_cancelled, follow, is_cancelled};
use super::tree::Kind;

/// Waits to be dropped, in a future whose content is gone. `state` belongs to its node, which is
/// plain and at this thread's position.
///
/// # Panics
///
/// If the running code is not cancelled: no scope will drop this future.
pub(crate) fn poll_dead<T>(state: &NodeState, what: &str, cx: &mut Context<'_>) -> Poll<T> {
    // Registered first: if the absorbing scope ends after the check, it wakes this.
    state.waker.register(cx.waker());
    assert!(
        is_cancelled(),
        "{what} was cancelled by a scope that has ended, and is polled again: the scope had it by reference, in a \
         FuturesUnordered or in a Shared; move it into the scope or time limit, or spawn it into a nursery and await \
         its Task by reference"
    );
    Poll::Pending
}

/// Waits of a future that does nothing while it is cancelled, and has no node otherwise.
#[derive(Debug, Default)]
pub(crate) struct WhileCancelled {
    // Boxed, because it is almost always `None`.
    node: Option<Box<(Node, Arc<NodeState>)>>,
}

impl WhileCancelled {
    pub(crate) const fn new() -> Self {
        WhileCancelled { node: None }
    }

    /// Ready if the running code is not cancelled. If it is, commits it to its end, and wakes the
    /// task if the future outlives the cancelled scope.
    #[inline]
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if commit_if_cancelled() {
            self.wait(cx)
        } else {
            self.node = None;
            Poll::Ready(())
        }
    }

    #[cold]
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let node = self.node.get_or_insert_with(|| {
            let state = Arc::<NodeState>::default();
            Box::new((attach(Kind::Plain, Some(state.clone() as _)), state))
        });
        let (node, state) = &mut **node;
        follow(node);
        state.waker.register(cx.waker());
        // False if the scope has ended since, which is seen at the next poll.
        if !state.is_effective() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}
