//! `ScopeGroup`: scopes in different places of the tree, cancelled and shielded together.
//!
//! It is a list of handles and no part of the tree: each scope decides by its own place. Scopes that are over are
//! forgotten when the list has doubled, so adding one costs the same however many there were.

use std::fmt;
use std::sync::Arc;

use super::cancel_scope::CancelScope;
use crate::sys::primitives::{Mutex, lock};

/// Cancel scopes that are cancelled together, wherever in the program they run.
///
/// A scope reaches what runs below it. A group reaches what stands in several places: all requests of one client, say,
/// each of which is handled in another nursery. Clones are handles on the same group, on any thread. Dropping them changes
/// nothing for the scopes. (tricycle's `MultiCancelScope`.)
///
/// ```
/// use seedbed::cancel::ScopeGroup;
/// use seedbed::time::sleep_forever;
/// use seedbed::{open_nursery, run};
///
/// run(async {
///     let client = &ScopeGroup::new();
///     let ended = open_nursery(|n| async move {
///         let requests = [(); 3].map(|()| n.spawn(client.open_child().run(sleep_forever())));
///         n.spawn(async { client.cancel() });
///         for request in requests {
///             assert_eq!(request.await, None);
///         }
///         "all three, and nobody else"
///     });
///     assert_eq!(ended.await, "all three, and nobody else");
/// });
/// ```
#[derive(Clone, Default)]
pub struct ScopeGroup {
    inner: Arc<Mutex<Group>>,
}

#[derive(Default)]
struct Group {
    cancelled: bool,
    shield: bool,
    scopes: Vec<CancelScope>,
    /// How long the list is when it is next looked through.
    full: usize,
}

impl ScopeGroup {
    /// Makes a group without scopes.
    ///
    /// ```
    /// assert!(!seedbed::cancel::ScopeGroup::new().is_cancelled());
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a scope that has not run yet: cancelled if the group is, and shielded if the group is. Its deadline, and what
    /// is done to its shield later, are its own.
    ///
    /// ```
    /// use seedbed::cancel::ScopeGroup;
    /// use seedbed::time::sleep_forever;
    /// use seedbed::run;
    ///
    /// let group = ScopeGroup::new();
    /// group.cancel();
    /// assert_eq!(run(group.open_child().run(sleep_forever())), None);
    /// ```
    #[track_caller]
    pub fn open_child(&self) -> CancelScope {
        let scope = CancelScope::new();
        let cancelled = lock(&self.inner).add(scope.clone());
        if cancelled {
            scope.cancel();
        }
        scope
    }

    /// Cancels every scope of the group, also those that are added later. May be called from any thread.
    ///
    /// ```
    /// let group = seedbed::cancel::ScopeGroup::new();
    /// let (one, two) = (group.open_child(), group.open_child());
    /// group.cancel();
    /// assert!(one.is_cancelled() && two.is_cancelled());
    /// ```
    #[track_caller]
    pub fn cancel(&self) {
        let scopes = {
            let mut group = lock(&self.inner);
            group.cancelled = true;
            group.scopes.clone()
        };
        // Not under the lock: this wakes.
        for scope in scopes {
            scope.cancel();
        }
    }

    /// Whether [`cancel`](ScopeGroup::cancel) was called.
    ///
    /// ```
    /// let group = seedbed::cancel::ScopeGroup::new();
    /// group.open_child().cancel();
    /// assert!(!group.is_cancelled());
    /// group.cancel();
    /// assert!(group.is_cancelled());
    /// ```
    pub fn is_cancelled(&self) -> bool {
        lock(&self.inner).cancelled
    }

    /// Puts up or takes down the [shield](CancelScope::set_shield) of every scope in the group, whatever it was before,
    /// and of those that are added later.
    ///
    /// ```
    /// use seedbed::cancel::ScopeGroup;
    /// use seedbed::{CancelScope, checkpoint, run};
    ///
    /// let (group, outer) = (ScopeGroup::new(), CancelScope::new());
    /// group.set_shield(true);
    /// outer.cancel();
    /// let inner = group.open_child();
    /// assert_eq!(run(outer.run(async { inner.run(checkpoint()).await })), Some(Some(())));
    /// ```
    pub fn set_shield(&self, shield: bool) {
        let scopes = {
            let mut group = lock(&self.inner);
            group.shield = shield;
            group.scopes.clone()
        };
        // Not under the lock: this wakes.
        for scope in scopes {
            scope.set_shield(shield);
        }
    }
}

impl Group {
    /// Adds a scope that nobody else has yet. True if it is to be cancelled.
    fn add(&mut self, scope: CancelScope) -> bool {
        scope.set_shield(self.shield);
        if self.scopes.len() >= self.full {
            self.scopes.retain(|scope| !scope.is_over());
            self.full = 2 * self.scopes.len().max(8);
        }
        self.scopes.push(scope);
        self.cancelled
    }
}

impl fmt::Debug for ScopeGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let group = lock(&self.inner);
        f.debug_struct("ScopeGroup")
            .field("cancelled", &group.cancelled)
            .field("shield", &group.shield)
            .field("scopes", &group.scopes.len())
            .finish_non_exhaustive()
    }
}
