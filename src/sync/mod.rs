//! What tasks share: limits, locks, signals and channels, each a cheap handle that clones.
//!
//! * [`CapacityLimiter`] bounds how many of something happen at once; its total can be changed.
//! * [`Semaphore`] is a number of permits that tasks take, give back, and make.
//! * [`Mutex`] lets one task at a time use a value; [`RwLock`] lets many look or one change it.
//! * [`Condvar`] lets tasks wait until the value of a lock has become what they need.
//! * [`channel()`] passes values from senders to receivers, with or without a buffer. [`open_producer`] runs a task
//!   that makes values when they are asked for.
//! * [`Event`] happens once and wakes everybody who waits for it.
//! * [`ConflictDetector`] notices that two tasks use at once what only one may use.
//!
//! All but `Event` are **strictly fair**: what comes free is assigned to the longest waiter in the very step that frees
//! it, before that waiter runs, so that nobody can barge in between. An order of service is thereby the order of
//! arrival, as in Trio, and a program behaves the same however its tasks are scheduled.
//!
//! Everything here is runtime-agnostic: a future wakes whoever polled it last, so it works inside [`crate`]'s
//! nurseries, on a bare executor and across threads alike. Like every future of this crate's family they are cancelled
//! by being dropped; each says what that leaves behind. None of them is a cancel point when it need not wait.
//!
//! # What is async-lock's, and what to take from elsewhere
//!
//! [`Barrier`] and [`OnceCell`] are `async-lock`'s, smol's own, as they are: they have nothing to be unfair about. A
//! `Barrier` lets a group go on when all have come; mind that a `wait` that is dropped goes on being counted. A
//! `OnceCell` holds a value that is made once; if whoever makes it is cancelled, the next one in line begins anew.
//! Everything else here is this crate's.
//!
//! `async-lock`'s `Mutex`, `RwLock` and `Semaphore` *barge*: they free what is released and wake a waiter, and whoever
//! comes by first has it. That is faster under contention, and right where the order does not matter; under these
//! names here they would break the promise above, so they stay in `smol::lock`. For locks that are not held across an
//! await, [`std::sync`] is best. `async_channel` is a faster channel between many threads; what it cannot promise
//! stands at [`channel()`]. To build a primitive of one's own, `event_listener` is what Trio's `ParkingLot` is: a
//! queue of those who wait, to be woken one by one or all together.

mod channel;
mod condvar;
mod conflict;
mod event;
mod limiter;
mod locked;
mod mutex;
mod producer;
mod rw_lock;
mod semaphore;
mod token_pool;
mod token_queue;
mod wait_list;

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(test)]
mod test_waker;

#[doc(no_inline)]
pub use smol::lock::{Barrier, BarrierWaitResult, OnceCell};

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
pub use producer::{Produced, Producer, open_producer, try_open_producer};
pub use rw_lock::{
    RwLock, RwLockRead, RwLockReadGuard, RwLockStatistics, RwLockWrite, RwLockWriteGuard,
};
pub use semaphore::{Permit, ReleaseError, Semaphore, SemaphoreAcquire, SemaphoreStatistics};
