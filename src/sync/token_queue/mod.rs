//! The queue of a limiter or a semaphore: pure, without wakers or locks.

mod queue;

#[cfg(test)]
mod tests;

pub(super) use queue::{Full, TokenQueue};
