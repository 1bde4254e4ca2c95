//! `Semaphore`: a number of permits that tasks take, give back and add.

mod handle;

#[cfg(test)]
mod tests;

pub use handle::{Permit, ReleaseError, Semaphore, SemaphoreAcquire, SemaphoreStatistics};
