//! `Mutex`: mutual exclusion for a value, strictly first come, first served.

mod handle;
mod state;

#[cfg(test)]
mod tests;

pub use handle::{Mutex, MutexGuard, MutexLock, MutexStatistics};
