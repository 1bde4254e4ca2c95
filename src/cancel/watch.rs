//! `Watch`: lets work on another thread see a cancellation, without being dropped by it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Context;

use super::node::{Node, NodeState};
use super::position::{attach, enter};
use super::tree::Kind;
use crate::sys::primitives::AtomicBool;

/// A node at which a task waits for work that goes on elsewhere, and that has to see a
/// cancellation.
#[derive(Debug)]
pub(crate) struct Watch {
    kind: Kind,
    node: Option<Node>,
    view: CancelView,
}

/// Shows on any thread, at the cost of two loads, whether a [`Watch`] is cancelled.
#[derive(Clone, Debug, Default)]
pub(crate) struct CancelView(Arc<WatchState>);

#[derive(Debug, Default)]
struct WatchState {
    node: Arc<NodeState>,
    /// The watch was dropped.
    gone: AtomicBool,
}

impl CancelView {
    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.gone.load(Ordering::Acquire) || self.0.node.is_effective()
    }
}

impl Watch {
    /// Makes a watch. With `defers`, all scopes around wait for the end of the watch.
    pub(crate) fn new(defers: bool) -> Self {
        Watch {
            kind: if defers { Kind::Defer } else { Kind::Plain },
            node: None,
            view: CancelView::default(),
        }
    }

    pub(crate) fn view(&self) -> CancelView {
        self.view.clone()
    }

    /// Polls something at the watch's node, which is added to the tree the first time.
    pub(crate) fn poll_inside<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> T,
    ) -> T {
        let state = &self.view.0.node;
        let node = self
            .node
            .get_or_insert_with(|| attach(self.kind, Some(state.clone() as _)));
        state.waker.register(cx.waker());
        let _entered = enter(&node.shared, node.id);
        poll(cx)
    }

    /// Returns whether what is polled inside has to be dropped: it is cancelled, and no shield is
    /// active in it.
    pub(crate) fn must_drop_inside(&self) -> bool {
        self.view.0.node.is_effective()
            && self
                .node
                .as_ref()
                .is_some_and(|node| !node.shared.is_deferred(node.id))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.view.0.gone.store(true, Ordering::Release);
    }
}
