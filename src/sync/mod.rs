//! Synchronisation between tasks: limiters, locks, events and channels, as handles that are cheap
//! to clone.
//!
//! * [`CapacityLimiter`] limits how many operations run at once; its total can be changed.
//! * [`Semaphore`] is a number of permits that tasks take, return and add.
//! * [`Mutex`] lets one task at a time use a value; [`RwLock`] lets many tasks read it or one write
//!   it.
//! * [`Condvar`] lets tasks wait until the value of a mutex has changed.
//! * [`channel()`] passes values from senders to receivers, with or without a buffer.
//!   [`open_producer`] runs a task that makes a value whenever one is requested; [`spawn_producer`]
//!   returns the stream of its values.
//! * [`Event`] happens once and wakes all waiters.
//! * [`ConflictDetector`] detects that two tasks run operations at once which must not overlap.
//!
//! All but `Event` are **strictly fair**: a resource that becomes free is assigned to the longest
//! waiter in the same step, before that waiter runs, so no other task can barge in between. Tasks
//! are served in the order of their arrival, as in Trio, and a program behaves the same however its
//! tasks are scheduled.
//!
//! Everything here works with any runtime: a future wakes the task that polled it last, so it works
//! in nurseries, on a bare executor and across threads. Futures are cancelled by dropping them;
//! each documents what that does. A future that need not wait is no cancel point.
//!
//! A waiter owns what it was assigned before it is polled. So a future that waits for a lock, a
//! permit or a token must be polled or dropped. If it is kept without being polled (the branch of a
//! `select!` loop that is awaited by reference, while the code of another branch waits), it keeps
//! the resource from all other tasks. A `send` on a channel is received even so.
//!
//! # Primitives of other crates
//!
//! The primitives of `smol::lock` work in nurseries too. Its `Barrier` releases a group of tasks
//! when all have arrived; a `wait` that is dropped still counts. Its `OnceCell` holds a value that
//! is initialised once; if the initialising task is cancelled, the next one starts again.
//!
//! Its `Mutex`, `RwLock` and `Semaphore` are not strictly fair: they release, wake a waiter, and
//! let any task take the lock first. That is faster under contention, and right where the order
//! does not matter. For a lock that is not held across an await, [`std::sync`] is best.
//! `async_channel` is faster between many threads; [`channel()`] lists what it does not guarantee.
//! To build a primitive, use `event_listener`, a queue of waiters that are woken one by one or
//! together, like Trio's `ParkingLot`.

mod acquiring;
mod channel;
mod condvar;
mod conflict;
mod event;
mod limiter;
mod locked;
mod mutex;
mod produced_stream;
mod producer;
mod rw_lock;
mod semaphore;
mod token_pool;
mod token_queue;
mod tuning;
mod wait_list;

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(test)]
mod test_waker;

pub use channel::{
    ChannelStatistics, Receiver, Recv, RecvError, Send, SendError, Sender, TryRecvError,
    TrySendError, channel, unbounded,
};
pub use condvar::{Condvar, CondvarStatistics, CondvarWait};
pub use conflict::{BusyResourceError, ConflictDetector, ConflictGuard};
pub use event::{Event, EventStatistics, Wait};
pub use limiter::{
    Acquire, AcquireFor, CapacityLimiter, CapacityLimiterStatistics, KeyInUseError, KeyedToken,
    Token,
};
pub use mutex::{Mutex, MutexGuard, MutexLock, MutexStatistics};
pub use produced_stream::{ProducedStream, ProducerError, spawn_producer};
pub use producer::{Produced, Producer, open_producer, try_open_producer};
pub use rw_lock::{
    RwLock, RwLockRead, RwLockReadGuard, RwLockStatistics, RwLockWrite, RwLockWriteGuard,
};
pub use semaphore::{Permit, ReleaseError, Semaphore, SemaphoreAcquire, SemaphoreStatistics};
