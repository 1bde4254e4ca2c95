//! Seeing a cancellation without being dropped by it: for work that goes on elsewhere, on a thread.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Context;

use super::node::{Node, NodeState};
use super::position::{attach, enter};
use super::tree::Kind;
use crate::sys::primitives::AtomicBool;

/// A place in the tree at which one waits for something that has to be told that it is cancelled.
#[derive(Debug)]
pub(crate) struct Watch {
    kind: Kind,
    node: Option<Node>,
    view: CancelView,
}

/// Tells, from any thread and at the cost of two loads, whether a [`Watch`] is cancelled.
#[derive(Clone, Debug, Default)]
pub(crate) struct CancelView(Arc<Seen>);

#[derive(Debug, Default)]
struct Seen {
    cell: Arc<NodeState>,
    /// The watch was dropped.
    gone: AtomicBool,
}

impl CancelView {
    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.gone.load(Ordering::Acquire) || self.0.cell.is_effective()
    }
}

impl Watch {
    /// Makes a watch that lets itself be dropped, or one for which everything above waits.
    pub(crate) fn new(holds: bool) -> Self {
        Watch {
            kind: if holds { Kind::Defer } else { Kind::Plain },
            node: None,
            view: CancelView::default(),
        }
    }

    pub(crate) fn view(&self) -> CancelView {
        self.view.clone()
    }

    /// Polls something at this place, which is taken in the tree at the first time.
    pub(crate) fn poll_inside<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> T,
    ) -> T {
        let cell = &self.view.0.cell;
        let node = self
            .node
            .get_or_insert_with(|| attach(self.kind, Some(cell.clone() as _)));
        cell.waker.register(cx.waker());
        let _entered = enter(&node.shared, node.id);
        poll(cx)
    }

    /// Whether what is polled inside is to be dropped: it is cancelled, and no shield is active in it.
    pub(crate) fn must_drop_inside(&self) -> bool {
        self.view.0.cell.is_effective()
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
