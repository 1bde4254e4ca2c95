//! `Condvar`: waits, without the mutex, until a holder of the mutex notifies.

mod handle;

#[cfg(test)]
mod tests;

pub use handle::{Condvar, CondvarStatistics, CondvarWait};
