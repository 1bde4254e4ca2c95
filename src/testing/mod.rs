//! Tools for tests that neither sleep nor guess: virtual time, waiting until everybody waits, a
//! fixed order for what several tasks do, and assertions on who waits at all.

mod blocked;
mod checkpoints;
mod mock_clock;
mod sequencer;

pub use crate::task::shuffle::shuffle;
pub use blocked::{AllTasksBlocked, wait_all_tasks_blocked};
pub use checkpoints::{
    AssertCheckpoints, AssertNoCheckpoints, assert_checkpoints, assert_no_checkpoints,
};
pub use mock_clock::MockClock;
pub use sequencer::{InSequence, Sequencer};
