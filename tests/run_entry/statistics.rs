//! The statistics and the clock of a run.

use std::cell::Cell;
use std::panic::resume_unwind;

use crate::SECOND;
use crate::panics::message;
use seedbed::run::{current_run, current_statistics, spawn_system_task};
use seedbed::testing::MockClock;
use seedbed::time::{current_clock, current_time, sleep_forever};
use seedbed::{RunBuilder, checkpoint, fail_after, run, thread};

#[test]
fn statistics_count_system_tasks_calls_deadlines_and_threads() {
    RunBuilder::new().clock(MockClock::new()).run(async {
        let rest = current_statistics();
        assert_eq!(rest.system_tasks, 0);
        assert_eq!(rest.queued_calls, 0);
        assert_eq!(rest.time_to_next_deadline, None);
        assert_eq!(rest.active_threads, 0);

        current_run().call_soon(|| {}).unwrap();
        current_run().call_soon(|| {}).unwrap();
        assert_eq!(current_statistics().queued_calls, 2);

        let task = spawn_system_task(sleep_forever());
        assert_eq!(current_statistics().system_tasks, 1);
        task.cancel().await;
        assert_eq!(current_statistics().system_tasks, 0);
        assert_eq!(current_statistics().queued_calls, 0);

        let five = fail_after(5 * SECOND, async {
            fail_after(8 * SECOND, checkpoint()).await.unwrap();
            current_statistics().time_to_next_deadline
        });
        assert_eq!(five.await.unwrap(), Some(5 * SECOND));
        assert_eq!(current_statistics().time_to_next_deadline, None);

        let handle = current_run();
        let there = thread::run_sync(move || handle.statistics().active_threads);
        assert_eq!(there.await, 1);
        assert_eq!(current_statistics(), rest);
    });
}

#[test]
fn the_statistics_of_a_run_that_has_ended_are_zero() {
    let handle = run(async {
        spawn_system_task(sleep_forever());
        current_run().call_soon(|| {}).unwrap();
        current_run()
    });
    let left = handle.statistics();
    assert_eq!((left.system_tasks, left.queued_calls), (0, 0));
    assert_eq!((left.time_to_next_deadline, left.active_threads), (None, 0));
}

#[test]
fn the_current_clock_is_the_run_s_and_outside_the_system_s() {
    let clock = MockClock::new();
    clock.jump(100 * SECOND);
    RunBuilder::new().clock(clock).run(async {
        let clock = current_clock();
        assert_eq!(clock.now(), current_time());
        assert_eq!(clock.real_time_until(current_time() + SECOND), None);
    });
    let outside = current_clock();
    assert!(outside.real_time_until(outside.now() + SECOND) <= Some(SECOND));
}

/// The tests above rely on this: the payload of a panic comes out of a run unchanged.
#[test]
fn the_payload_of_a_call_s_panic_comes_out_as_it_is() {
    let caught = std::panic::catch_unwind(|| {
        run(async {
            let call = || resume_unwind(Box::new(Cell::new(5)));
            current_run().call_soon(call).unwrap();
            sleep_forever().await;
        });
    });
    let payload = caught.unwrap_err();
    assert_eq!(payload.downcast::<Cell<i32>>().unwrap().get(), 5);
    assert_eq!(message(Box::new("a text")), "a text");
}
