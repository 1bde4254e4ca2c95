//! `RwLock`: many tasks read a value or one task writes it, first come, first served.

mod future;
mod guard;
mod handle;
mod queue;

#[cfg(test)]
mod tests;

pub use future::{RwLockRead, RwLockWrite};
pub use guard::{RwLockReadGuard, RwLockWriteGuard};
pub use handle::{RwLock, RwLockStatistics};
