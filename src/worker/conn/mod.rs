//! The parent's end of a worker: its process, its connection, its mailbox, and the spin poller that watches mailboxes.

pub(crate) mod connection;
#[cfg(all(test, not(loom)))]
pub(crate) mod connection_tests;
pub(crate) mod mailbox;
pub(crate) mod process;
#[cfg(all(test, not(loom)))]
pub(crate) mod process_tests;
pub(crate) mod spin_poller;
pub(crate) mod tick;
pub(crate) mod worker;
