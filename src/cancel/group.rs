//! `ScopeGroup`: scopes in different parts of the tree that are cancelled and shielded together.
//!
//! A group is a list of handles, and no part of the tree: each scope decides by its own node.
//! Scopes that have ended are removed from the list whenever it has doubled, so adding one costs
//! the same however many there were.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;

use super::cancel_scope::CancelScope;
use super::reason::CancelReason;
use crate::sys::primitives::{Mutex, lock};
use crate::sys::unwind;

/// A group of cancel scopes that are cancelled together, wherever in the program they run.
///
/// A scope cancels what runs below it. A group cancels work in several parts of the program: for
/// example all requests of one client, each of which is handled in another nursery. Clones are
/// handles on the same group, on any thread. Dropping them has no effect on the scopes. (tricycle's
/// `MultiCancelScope`.)
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
///         "all three"
///     });
///     assert_eq!(ended.await, "all three");
/// });
/// ```
#[derive(Clone, Default)]
#[doc(alias = "child_token")]
pub struct ScopeGroup {
    inner: Arc<Mutex<Group>>,
}

#[derive(Default)]
struct Group {
    cancelled: bool,
    shield: bool,
    scopes: Vec<CancelScope>,
    /// The length of the list at which ended scopes are next removed.
    clean_up_at: usize,
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

    /// Adds a new scope: cancelled if the group is cancelled, and shielded if the group is
    /// shielded. Its deadline, and later changes of its shield, are its own.
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

    /// Cancels every scope of the group, also those that are added later. May be called from any
    /// thread.
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
        // After the lock is released, because this wakes tasks.
        let reason = CancelReason::explicit(None, Location::caller());
        unwind::for_each(scopes, |scope| scope.cancel_for(reason.clone()));
    }

    /// Returns whether [`cancel`](ScopeGroup::cancel) was called.
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

    /// Puts up or takes down the [shield](CancelScope::set_shield) of every scope in the group,
    /// whatever it was before, and of the scopes that are added later.
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
        // After the lock is released, because this wakes tasks.
        unwind::for_each(scopes, |scope| scope.set_shield(shield));
    }
}

impl Group {
    /// Adds a scope that has no other handle yet. Returns whether the caller must cancel it.
    fn add(&mut self, scope: CancelScope) -> bool {
        scope.set_shield(self.shield);
        if self.scopes.len() >= self.clean_up_at {
            self.scopes.retain(|scope| !scope.is_over());
            self.clean_up_at = 2 * self.scopes.len().max(8);
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
