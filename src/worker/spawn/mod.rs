//! How a worker process comes up: the hook, the launcher thread, the fork server, and programs that
//! start workers elsewhere.

pub(crate) mod exec_spec;
pub(crate) mod fork_server;
pub(crate) mod forking;
pub(crate) mod hook;
pub(crate) mod inheritance;
pub(crate) mod launched;
pub(crate) mod launcher;
pub(crate) mod start;
