//! The test tools: the virtual clock, waiting until all tasks are blocked, sequences, and
//! assertions on checkpoints. No test sleeps in real time, except where a cushion, a threshold or a
//! rate is measured in real time.

#[path = "../common/panics.rs"]
mod panics;
#[path = "../common/polling.rs"]
mod polling;

mod blocked;
mod checkpoints;
mod clock;
mod sequences;

use std::time::Duration;

use seedbed::RunBuilder;
use seedbed::testing::MockClock;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const MILLISECOND: Duration = Duration::from_millis(1);

/// Runs a future with this clock, which the caller keeps.
fn with_clock<F: Future>(clock: &MockClock, future: F) -> F::Output {
    RunBuilder::new().clock(clock.clone()).run(future)
}
