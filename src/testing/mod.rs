//! Tools for tests that neither sleep nor guess: virtual time, and waiting until everybody waits.

mod blocked;
mod mock_clock;

pub use crate::nursery::shuffle::shuffle;
pub use blocked::{AllTasksBlocked, wait_all_tasks_blocked};
pub use mock_clock::MockClock;
