//! Changes to the environment variables of a new process.

use std::ffi::OsString;
use std::fmt;
use std::process::Command;

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
    pub(in crate::worker) fn apply_to(&self, command: &mut Command) {
        for change in &self.changes {
            match change {
                Change::Set(key, value) => command.env(key, value),
                Change::Remove(key) => command.env_remove(key),
                Change::Clear => command.env_clear(),
            };
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
