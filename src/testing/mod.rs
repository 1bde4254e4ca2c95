//! Tools for tests without sleeps and guesses: virtual time, waiting until all tasks wait, a fixed
//! order of the steps of several tasks, and assertions on checkpoints.

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
