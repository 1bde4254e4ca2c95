//! The keys that hold a token of a limiter, or wait for one.
//!
//! A limiter has one set of keys for each type of key, made when that type is first used. So the
//! limiter itself needs no type parameter, and a limiter without keys pays one empty `Vec`.
//!
//! A key's `Hash`, `Eq` and `Clone` run under the set's mutex, as in any map behind one. Keys are
//! dropped after the mutex was released.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use crate::sync::locked::Locked;

/// The sets of keys of one limiter, at most one for each type.
pub(super) struct KeySets(Locked<Vec<Arc<dyn Any + Send + Sync>>>);

impl KeySets {
    pub(super) fn new() -> Self {
        KeySets(Locked::new(Vec::new()))
    }

    /// Returns the set for keys of this type.
    pub(super) fn of<K: Send + 'static>(&self) -> Arc<KeySet<K>> {
        let mut sets = self.0.lock();
        // A program uses one or two types of keys with a limiter, so a search is cheaper than a
        // map.
        let known = sets.iter().find_map(|set| set.clone().downcast().ok());
        known.unwrap_or_else(|| {
            let set = Arc::new(KeySet(Locked::new(HashMap::new())));
            sets.push(set.clone());
            set
        })
    }
}

impl fmt::Debug for KeySets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySets").finish_non_exhaustive()
    }
}

/// The keys of one type.
pub(super) struct KeySet<K>(Locked<HashMap<K, Standing>>);

/// The state of a key that is in the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// A future waits for a token for this key.
    Waiting,
    /// The key has a token.
    Holding,
}

/// The key is in the set already.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InUse;

impl<K: Hash + Eq + Clone> KeySet<K> {
    /// Adds a key that waits.
    pub(super) fn add_waiting(&self, key: K) -> Result<(), InUse> {
        let mut keys = self.0.lock();
        if keys.contains_key(&key) {
            drop(keys);
            return Err(InUse);
        }
        keys.insert(key, Standing::Waiting);
        Ok(())
    }

    /// Adds a key that holds a token, if `take` takes one; no other call sees the key before that
    /// is known.
    pub(super) fn add_holding<T>(
        &self,
        key: K,
        take: impl FnOnce() -> Option<T>,
    ) -> Result<Option<T>, InUse> {
        let mut keys = self.0.lock();
        if keys.contains_key(&key) {
            drop(keys);
            return Err(InUse);
        }
        let Some(taken) = take() else {
            drop(keys);
            return Ok(None);
        };
        keys.insert(key, Standing::Holding);
        Ok(Some(taken))
    }

    /// The key that waited holds a token now.
    pub(super) fn set_holding(&self, key: &K) {
        let mut keys = self.0.lock();
        let standing = keys.get_mut(key);
        *standing.expect("a waiting key is in the set") = Standing::Holding;
    }

    /// Whether the key holds a token.
    pub(super) fn is_holding(&self, key: &K) -> bool {
        self.0.lock().get(key) == Some(&Standing::Holding)
    }

    /// Returns the keys that hold tokens.
    pub(super) fn holding(&self) -> Vec<K> {
        let keys = self.0.lock();
        let holding = keys
            .iter()
            .filter(|(_, standing)| **standing == Standing::Holding);
        holding.map(|(key, _)| key.clone()).collect()
    }
}

impl<K: Hash + Eq> KeySet<K> {
    /// Removes a key; it is dropped after the mutex was released.
    pub(super) fn remove(&self, key: &K) {
        let removed = self.0.lock().remove_entry(key);
        drop(removed);
    }
}
