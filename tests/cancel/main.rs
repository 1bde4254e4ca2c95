//! Scopes, shields, clean-up and time limits. No test sleeps: futures are polled by hand or run in
//! virtual time.

#[path = "../common/polling.rs"]
mod polling;

mod scopes;
mod shields;
mod time_limits;

use std::time::Duration;

use seedbed::testing::MockClock;
use seedbed::{CancelScope, RunBuilder};

const SECOND: Duration = Duration::from_secs(1);

/// Runs a future in virtual time, and returns how much of it that took.
fn virtually<F: Future>(future: F) -> (F::Output, Duration) {
    let clock = MockClock::autojump();
    let value = RunBuilder::new().clock(clock.clone()).run(future);
    (value, clock.elapsed())
}

/// A scope and a handle on it.
fn scope() -> (CancelScope, CancelScope) {
    let scope = CancelScope::new();
    (scope.clone(), scope)
}
