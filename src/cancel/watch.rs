//! `Watch`: lets work on another thread see a cancellation, without being dropped by it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Context;
#[cfg(all(feature = "workers", target_os = "linux"))]
use std::time::Instant;

use super::node::{Node, NodeState};
use super::position::{attach, enter, follow};
use super::tree::Kind;
use crate::sys::primitives::AtomicBool;

/// A node at which a task waits for work that goes on elsewhere, and that has to see a
/// cancellation.
#[derive(Debug)]
pub(crate) struct Watch {
    node: Node,
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
    /// Adds a watch to the tree, below the position of the caller. So the view shows every
    /// cancellation from now on. With `defers`, all scopes around wait for the end of the watch.
    pub(crate) fn new(defers: bool) -> Self {
        let kind = if defers { Kind::Defer } else { Kind::Plain };
        let view = CancelView::default();
        let owner = view.0.node.clone() as _;
        Watch {
            node: attach(kind, Some(owner)),
            view,
        }
    }

    pub(crate) fn view(&self) -> CancelView {
        self.view.clone()
    }

    /// Sets the deadline that code inside sees. It cancels nothing.
    #[cfg(all(feature = "workers", target_os = "linux"))]
    pub(crate) fn show_deadline(&self, deadline: Instant) {
        self.view.0.node.set_deadline(Some(deadline));
    }

    /// Polls something at the watch's node.
    pub(crate) fn poll_inside<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> T,
    ) -> T {
        follow(&mut self.node);
        self.view.0.node.waker.register(cx.waker());
        let _entered = enter(&self.node.shared, self.node.id);
        poll(cx)
    }

    /// Returns whether what is polled inside has to be dropped: it is cancelled, and no shield is
    /// active in it.
    pub(crate) fn must_drop_inside(&self) -> bool {
        self.view.0.node.is_effective() && !self.node.shared.is_deferred(self.node.id)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.view.0.gone.store(true, Ordering::Release);
    }
}
