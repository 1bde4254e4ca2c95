//! Sessions of a map: many items for one worker, without a message for each.
//!
//! A map hands a worker one long job, a *session*, and with it shared [`memory`]: a ring of encoded
//! items, a ring of encoded results, and a few words. The parent's end is [`feeder`]; the worker's
//! is [`serve`]. Both are used by one thread at a time.
//!
//! # The protocol
//!
//! The items of a session are numbered from 0. Two words decide what happens to them:
//!
//! * `limit`, written by the parent: the number of items that the worker may begin, with the flags
//!   [`CLOSED`](memory::CLOSED) (the session ends after them) and [`ABANDONED`](memory::ABANDONED)
//!   (results have no reader any more).
//! * `progress`, written by the worker: `2 n` after `n` items have ended, `2 n + 1` while item `n`
//!   is in progress. The parent writes it once, when it *condemns* the item in progress
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
//! Between both ends of a session, `limit` also publishes the items: the parent writes their
//! records before it raises `limit`. In the same way, `progress` publishes results, and `taken`
//! returns the words of results that the parent has read to the worker.
//!
//! # Waiting
//!
//! Each side announces that it waits, then checks once more, and then sleeps. The other side
//! changes something, then checks for an announcement, and then wakes. All these accesses are
//! sequentially consistent, so at least one side sees what the other has done, and no wake-up is
//! lost.
//!
//! | side | announces in | checks | sleeps | is woken after a change of |
//! |---|---|---|---|---|
//! | worker without items | `waiting` | `limit` | on a futex | `limit`, also by a close |
//! | worker without room for a result | `waiting` | `taken`, `limit` | on a futex | `taken`, or `limit` by the end of the session |
//! | parent | `parked` | `progress` | until an eventfd or its workers' sockets are readable | `progress` |
//!
//! The worker reads the futex between its announcement and its check, and the parent changes the
//! futex before it wakes: a wake-up that comes before the worker sleeps keeps it from sleeping. The
//! worker spins briefly before it announces. One item that ends wakes the parent once: the worker
//! clears `parked` when it wakes. The limit on each sleep of a worker is no part of this: it is
//! there because the parent may have ended.
//!
//! # The end of a process
//!
//! A worker that is killed at any instruction leaves a `progress` that counts whole results only.
//! The parent learns of its end from its socket, not from the memory, and reads the memory after
//! that. If the worker was killed before it woke the parent, the end of the socket does that
//! instead. A parent that ends leaves a worker that waits; the kernel kills it, and otherwise it
//! notices at its next look at the parent's process id.
//!
//! # Models
//!
//! `loom_tests` runs both ends in all interleavings with up to three preemptions, also with a
//! worker that is killed at each step. A model has no kernel: a value in the heap stands for the
//! mapping, a lock and a condition variable for the futex and for the eventfd, and there is no
//! time. The end of a parent, and a session that is restarted, are not modelled. A model cannot
//! contain a reactor, so it repeats the steps of the code that parks the parent
//! (`worker::call::map::parking`).
//!
//! # Trust
//!
//! A faulty job may overwrite the memory. The parent copies before it decodes, checks every length,
//! and treats a `progress` that is not possible as a violation of the protocol. It keeps its own
//! copy of items that have not ended.

pub(crate) mod feeder;
#[cfg(all(test, loom))]
mod loom_tests;
pub(crate) mod memory;
#[cfg(all(test, not(loom)))]
mod protocol_tests;
pub(crate) mod serve;
