//! The tools for tests: the virtual clock, waiting until all are blocked, sequences, assertions on
//! checkpoints. No test sleeps in real time, except for the real time that a cushion, a threshold
//! or a rate is about.

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

/// Runs with this clock, which the caller keeps.
fn with_clock<F: Future>(clock: &MockClock, future: F) -> F::Output {
    RunBuilder::new().clock(clock.clone()).run(future)
}
