//! Sessions of a map: many items for one worker, without a message for each.
//!
//! A map hands a worker one long job, a *session*, and with it shared [`memory`]: a ring of encoded
//! items, a ring of encoded results, and a few words. The parent's end is [`feeder`]; the worker's is
//! [`serve`]. Both are used by one thread at a time.
//!
//! # The protocol
//!
//! The items of a session are numbered from 0. Two words decide what happens to them:
//!
//! * `limit`, written by the parent: the number of items that the worker may begin, with the flags
//!   [`CLOSED`](memory::CLOSED) (the session ends after them) and
//!   [`ABANDONED`](memory::ABANDONED) (results have no reader any more).
//! * `progress`, written by the worker: `2 n` after `n` items have ended, `2 n + 1` while item `n` is
//!   in progress. The parent writes it once, when it *condemns* the item in progress
//!   ([`CONDEMNED`](memory::CONDEMNED)), whose time is over.
//!
//! | step | by | how |
//! |---|---|---|
//! | begin item `n` | worker | exchanges `2 n` for `2 n + 1`, then reads `limit` again; if that no longer allows item `n`, changes back |
//! | end item `n` | worker | writes the result into its ring, then exchanges `2 n + 1` for `2 n + 2`, or for `2 n + 3` if the next item is there |
//! | withdraw the items from `n` on | parent | lowers `limit` to `n`, then reads `progress`; raises `limit` again over items that have begun |
//! | condemn item `n` | parent | exchanges `2 n + 1` for the same with `CONDEMNED`; the worker can no longer end it, and is killed |
//!
//! All accesses to both words are sequentially consistent. So of a begin and a withdrawal, at least
//! one sees the other: an item is never both begun and withdrawn. And the memory outlives the
//! worker: when the process has been reaped, `progress` says which items have ended (their results
//! are in the ring), which one was in progress (at most one), and which have not begun.
//!
//! # Waiting
//!
//! A worker without items, or without room for a result, spins briefly, then waits on a futex that
//! the parent wakes if the word `waiting` says so. A parent that waits sets `parked`; the worker
//! that ends an item then clears it, and writes to an eventfd.
//!
//! # Trust
//!
//! A faulty job may overwrite the memory. The parent copies before it decodes, checks every length,
//! and treats a `progress` that is not possible as a violation of the protocol. It keeps its own copy
//! of items that have not ended.

pub(crate) mod feeder;
pub(crate) mod memory;
#[cfg(all(test, not(loom)))]
mod protocol_tests;
pub(crate) mod serve;
