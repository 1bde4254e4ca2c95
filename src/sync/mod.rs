//! What tasks share: limits and signals, each a cheap handle that clones.
//!
//! * [`CapacityLimiter`] bounds how many of something happen at once, strictly first come, first served.
//! * [`Event`] happens once and wakes everybody who waits for it.
//!
//! Everything here is runtime-agnostic: the futures are `Send + 'static` and wake whoever polled them last, so they
//! work inside [`crate`]'s nurseries, on a bare executor and across threads alike. Like every future of this crate's
//! family they are cancelled by being dropped; each says what that leaves behind.
//!
//! For plain mutual exclusion, use `async-lock`: its locks are faster where nobody needs a fair queue.

mod condition;
mod event;
mod guarded;
mod limiter;
mod lock;
mod rw_lock;
mod semaphore;
mod wait_list;

#[cfg(test)]
mod test_waker;

pub use condition::{Condition, ConditionStatistics, ConditionWait};
pub use event::{Event, EventStatistics, Wait};
pub use limiter::{Acquire, CapacityLimiter, CapacityLimiterStatistics, Token};
pub use lock::{Lock, LockAcquire, LockGuard, LockStatistics};
pub use rw_lock::{
    RwLock, RwLockRead, RwLockReadGuard, RwLockStatistics, RwLockWrite, RwLockWriteGuard,
};
pub use semaphore::{Permit, ReleasedTooOften, Semaphore, SemaphoreAcquire, SemaphoreStatistics};
