//! `CapacityLimiter`: bounds how many of something happen at once.

mod handle;
mod key_sets;
mod keyed;

#[cfg(test)]
mod keyed_tests;
#[cfg(test)]
mod tests;

pub use handle::{Acquire, CapacityLimiter, CapacityLimiterStatistics, Token};
pub use keyed::{AcquireFor, KeyInUseError, KeyedToken};
