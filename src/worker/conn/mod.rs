//! The parent's end of a worker: its process, its connection, its mailbox, and the spin poller that
//! watches mailboxes.

mod callsites;
pub(crate) mod connection;
#[cfg(all(test, not(loom)))]
pub(crate) mod connection_tests;
pub(crate) mod ending;
mod forwarded;
pub(crate) mod mailbox;
pub(crate) mod pending_fork;
pub(crate) mod remote_process;
pub(crate) mod spin_poller;
pub(crate) mod stderr_tail;
pub(crate) mod worker;
pub(crate) mod worker_process;
#[cfg(all(test, not(loom)))]
pub(crate) mod worker_process_tests;
