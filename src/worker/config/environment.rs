//! Changes to the environment variables of a new process.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::hash::{Hash, Hasher};

/// The changes to the environment of a new worker process.
#[derive(Clone, Default)]
pub(in crate::worker) struct Environment {
    /// In the order in which the user asked for them.
    pub(super) changes: Vec<Change>,
}

#[derive(Clone)]
pub(super) enum Change {
    Set(OsString, OsString),
    Remove(OsString),
    Clear,
}

impl Environment {
    /// Returns the variables of a new process: those of this process, with the changes.
    pub(in crate::worker) fn variables(&self) -> BTreeMap<OsString, OsString> {
        let mut variables: BTreeMap<_, _> = std::env::vars_os().collect();
        for change in &self.changes {
            match change {
                Change::Set(key, value) => {
                    variables.insert(key.clone(), value.clone());
                }
                Change::Remove(key) => {
                    variables.remove(key);
                }
                Change::Clear => variables.clear(),
            }
        }
        variables
    }

    /// Hashes the variables of a new process. The result also changes if only their order does.
    pub(in crate::worker) fn hash_variables(&self, hasher: &mut impl Hasher) {
        if self.changes.is_empty() {
            std::env::vars_os().for_each(|variable| variable.hash(hasher));
        } else {
            self.variables().hash(hasher);
        }
    }
}

/// Shows names and no values.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        for change in &self.changes {
            match change {
                Change::Set(key, _) => list.entry(&format_args!("{key:?} = ..")),
                Change::Remove(key) => list.entry(&format_args!("no {key:?}")),
                Change::Clear => list.entry(&format_args!("nothing inherited")),
            };
        }
        list.finish()
    }
}
