//! What tasks share: limits, locks, signals and channels, each a cheap handle that clones.
//!
//! * [`CapacityLimiter`] bounds how many of something happen at once; its total can be changed.
//! * [`Semaphore`] is a number of permits that tasks take, give back, and make.
//! * [`Lock`] lets one task at a time use a value; [`RwLock`] lets many look or one change it.
//! * [`Condition`] lets tasks wait until the value of a lock has become what they need.
//! * [`channel()`] passes values from senders to receivers, with or without a buffer.
//! * [`Event`] happens once and wakes everybody who waits for it.
//!
//! All but `Event` are **strictly fair**: what comes free is assigned to the longest waiter in the very step that frees
//! it, before that waiter runs, so that nobody can barge in between. An order of service is thereby the order of
//! arrival, as in Trio, and a program behaves the same however its tasks are scheduled.
//!
//! Everything here is runtime-agnostic: a future wakes whoever polled it last, so it works inside [`crate`]'s
//! nurseries, on a bare executor and across threads alike. Like every future of this crate's family they are cancelled
//! by being dropped; each says what that leaves behind. None of them is a cancel point when it need not wait.
//!
//! # What to take from elsewhere
//!
//! `async-lock`, smol's own, *barges*: its `Mutex`, `RwLock` and `Semaphore` free what is released and wake a waiter,
//! and whoever comes by first has it. That is faster under contention, and right where the order does not matter. It is
//! why they are not re-exported: under these names they would break the promise above. Its other types have nothing to
//! be unfair about, and are fine as they are: `async_lock::OnceCell` for a value that is made once, and
//! `async_lock::Barrier` for a group that waits until all have come. For locks that are not held across an await,
//! [`std::sync`] is best. `async_channel` is a faster channel between many threads; what it cannot promise stands at
//! [`channel()`].

mod channel;
mod condition;
mod event;
mod guarded;
mod limiter;
mod lock;
mod rw_lock;
mod semaphore;
mod token_queue;
mod wait_list;

#[cfg(test)]
mod test_waker;

pub use channel::{
    ChannelStatistics, ReceiveError, Receiver, Receiving, SendError, Sender, Sending,
    TryReceiveError, TrySendError, channel, unbounded,
};
pub use condition::{Condition, ConditionStatistics, ConditionWait};
pub use event::{Event, EventStatistics, Wait};
pub use limiter::{Acquire, CapacityLimiter, CapacityLimiterStatistics, Token};
pub use lock::{Lock, LockAcquire, LockGuard, LockStatistics};
pub use rw_lock::{
    RwLock, RwLockRead, RwLockReadGuard, RwLockStatistics, RwLockWrite, RwLockWriteGuard,
};
pub use semaphore::{Permit, ReleasedTooOften, Semaphore, SemaphoreAcquire, SemaphoreStatistics};
