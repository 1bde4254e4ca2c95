//! Entering: what a run returns, when it may not be entered, what time it is in it, and when everybody waits.

#[path = "common/polling.rs"]
mod polling;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::time::Duration;

use polling::{Drops, turns};
use seedbed::sync::Event;
use seedbed::testing::{MockClock, wait_all_tasks_blocked};
use seedbed::{
    CancelScope, CtrlC, RunBuilder, checkpoint, current_time, move_on_after, open_nursery, run,
    shield, sleep, sleep_forever, sleep_until,
};

const SECOND: Duration = Duration::from_secs(1);

/// Runs in virtual time, and returns how much of it that took.
fn virtually<F: Future>(future: F) -> (F::Output, Duration) {
    let clock = MockClock::autojump();
    let value = RunBuilder::new().clock(clock.clone()).run(future);
    (value, clock.elapsed())
}

// ---- Bugs that were found by these tests.

/// When everybody who waited for the run to be idle was gone by then, the loop went to sleep without looking at the
/// deadlines.
#[test]
fn a_wait_for_idleness_that_is_dropped_does_not_stop_the_clock() {
    let block = open_nursery(|n| async move {
        let waits = n.spawn(wait_all_tasks_blocked());
        checkpoint().await;
        waits.cancel().await;
        sleep(5 * SECOND).await;
    });
    assert_eq!(virtually(block).1, 5 * SECOND);
}

/// A scope's handle on another thread compared deadlines of the run's clock with that thread's.
#[test]
fn a_scope_s_deadline_is_in_the_run_s_time_on_other_threads_too() {
    let clock = MockClock::new();
    clock.jump(100 * SECOND);
    RunBuilder::new().clock(clock).run(async {
        let scope = CancelScope::new();
        let handle = scope.clone();
        let body = async move {
            let (here, there) = (handle.clone(), handle);
            std::thread::spawn(move || there.set_timeout(3 * SECOND))
                .join()
                .unwrap();
            assert_eq!(here.deadline(), Some(current_time() + 3 * SECOND));
            here.set_deadline(Some(current_time()));
            std::thread::spawn(move || here.is_cancelled())
                .join()
                .unwrap()
        };
        assert_eq!(scope.run(body).await, Some(true));
    });
}
