//! Changes to the environment variables of a new process.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use crate::transport::relay::packet::EnvironmentChange;

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

    /// Returns the changes as a message to a guardian.
    pub(in crate::worker) fn to_message(&self) -> Vec<EnvironmentChange> {
        let changes = self.changes.iter().map(|change| match change {
            Change::Set(key, value) => {
                EnvironmentChange::Set(key.as_bytes().to_vec(), value.as_bytes().to_vec())
            }
            Change::Remove(key) => EnvironmentChange::Remove(key.as_bytes().to_vec()),
            Change::Clear => EnvironmentChange::Clear,
        });
        changes.collect()
    }

    /// Reads the changes that a guardian is to make. `None` if the kernel would not accept one.
    pub(in crate::worker) fn from_message(changes: Vec<EnvironmentChange>) -> Option<Self> {
        let is_valid = |bytes: &[u8]| !bytes.contains(&0);
        let changes = changes.into_iter().map(|change| {
            Some(match change {
                EnvironmentChange::Set(key, value) if is_valid(&key) && is_valid(&value) => {
                    Change::Set(OsString::from_vec(key), OsString::from_vec(value))
                }
                EnvironmentChange::Set(..) => return None,
                EnvironmentChange::Remove(key) => Change::Remove(OsString::from_vec(key)),
                EnvironmentChange::Clear => Change::Clear,
            })
        });
        let changes = changes.collect::<Option<_>>()?;
        Some(Self { changes })
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
