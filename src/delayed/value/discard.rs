//! Drops chains of nodes without recursion.
//!
//! The last owner of a chain of a million operations would otherwise drop it in a million nested
//! calls. A node that is dropped puts its operands into a thread-local bin, and the outermost drop
//! empties the bin.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use super::node::Graph;

thread_local! {
    static BIN: RefCell<Vec<Arc<dyn Graph>>> = const { RefCell::new(Vec::new()) };
    static IS_EMPTYING: Cell<bool> = const { Cell::new(false) };
}

/// Puts a node into the bin. Drops it at once at the end of the thread, when the bin is gone.
pub(super) fn discard(node: Arc<dyn Graph>) {
    let mut node = Some(node);
    let _ = BIN.try_with(|bin| bin.borrow_mut().extend(node.take())); // without a bin, `node` drops here
}

/// Empties the bin, unless a caller of this function does that.
pub(super) fn empty_bin() {
    if IS_EMPTYING.replace(true) {
        return;
    }
    /// Restores the flag if a destructor of a value panics.
    struct Emptying;
    impl Drop for Emptying {
        fn drop(&mut self) {
            IS_EMPTYING.set(false);
        }
    }
    let _emptying = Emptying;
    while let Ok(Some(node)) = BIN.try_with(|bin| bin.borrow_mut().pop()) {
        drop(node);
    }
}
