//! The state that a fork server has inherited from this process, and passes on to its workers.

use std::hash::{DefaultHasher, Hasher};

use crate::sys::directory::{self, DirectoryId};
use crate::worker::config::Environment;

/// What a new process inherits from this one, or gets by the configuration of its context. If that
/// changes, a fork server is replaced, so that forked workers have what executed ones would have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worker) struct Inheritance {
    /// The generation of the credentials.
    credentials: u64,
    /// A hash, because values of variables may be secrets.
    environment: u64,
    directory: Option<DirectoryId>,
}

impl Inheritance {
    /// Returns what a process that is started now would inherit, given the generation of the
    /// credentials.
    pub(in crate::worker) fn present(credentials: u64, environment: &Environment) -> Self {
        let mut hasher = DefaultHasher::new();
        environment.hash_variables(&mut hasher);
        Self {
            credentials,
            environment: hasher.finish(),
            directory: directory::present().ok(),
        }
    }
}
