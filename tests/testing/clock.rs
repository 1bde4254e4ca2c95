//! The clock: moved by hand, with a rate, and with autojump.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::panics::panic_of;
use crate::{HOUR, MILLISECOND, SECOND, with_clock};
use seedbed::testing::{MockClock, wait_all_tasks_blocked};
use seedbed::time::{Clock, current_time};
use seedbed::{checkpoint, open_nursery, sleep};

#[test]
fn a_clock_shows_its_time_and_how_it_moves() {
    let clock = MockClock::autojump();
    clock.jump(Duration::from_secs(3));
    assert_eq!(
        format!("{clock:?}"),
        "MockClock { elapsed: 3s, rate: 0.0, autojump_threshold: Some(0ns), .. }"
    );
}

#[test]
fn a_new_clock_is_at_zero_and_stands_still() {
    let clock = MockClock::new();
    let now = clock.now();
    wait_for_real_time_to_move();
    assert_eq!((clock.now(), clock.elapsed()), (now, Duration::ZERO));
    clock.jump(3 * SECOND);
    assert_eq!(
        (clock.now(), clock.elapsed()),
        (now + 3 * SECOND, 3 * SECOND)
    );
}

fn wait_for_real_time_to_move() {
    let now = Instant::now();
    while Instant::now() == now {}
}

#[test]
fn a_clock_that_runs_reaches_deadlines_by_itself() {
    let clock = MockClock::new();
    clock.set_rate(3_600_000.0); // an hour in a millisecond
    let began = Instant::now();
    with_clock(&clock, async {
        let start = current_time();
        sleep(HOUR).await;
        assert!(current_time() - start >= HOUR);
    });
    assert!(
        began.elapsed() >= MILLISECOND - Duration::from_micros(1),
        "it did not run faster than that"
    );
}

#[test]
fn changing_the_rate_moves_no_time_and_wakes_those_who_sleep() {
    let clock = MockClock::new();
    let sleeping = |n: &seedbed::Nursery<'static>| n.spawn(sleep(HOUR));
    with_clock(
        &clock,
        open_nursery(async |n| {
            let sleeper = sleeping(&n);
            wait_all_tasks_blocked().await;
            clock.set_rate(0.0);
            assert_eq!(clock.elapsed(), Duration::ZERO);
            wait_all_tasks_blocked().await;
            assert!(!sleeper.is_finished());
            clock.set_rate(1e9);
            sleeper.await;
            clock.set_rate(0.0);
            let stopped = clock.elapsed();
            assert!(stopped >= HOUR);
            wait_for_real_time_to_move();
            assert_eq!(clock.elapsed(), stopped);
        }),
    );
}

#[test]
fn a_rate_that_is_negative_or_not_a_number_is_refused_and_changes_nothing() {
    let clock = MockClock::new();
    for rate in [-1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let message = panic_of(|| clock.set_rate(rate));
        assert!(message.contains("0 or more"), "{message}");
    }
    assert_eq!(clock.rate(), 0.0);
    clock.jump(SECOND);
    assert_eq!(clock.elapsed(), SECOND, "nothing is poisoned");
}

#[test]
fn an_autojump_goes_exactly_to_the_next_deadline() {
    let clock = MockClock::autojump();
    with_clock(
        &clock,
        open_nursery(async |n| {
            let start = current_time();
            for span in [SECOND, HOUR, HOUR + Duration::from_nanos(1)] {
                n.spawn(async move {
                    sleep(span).await;
                    assert_eq!(current_time() - start, span);
                });
            }
        }),
    );
    assert_eq!(clock.elapsed(), HOUR + Duration::from_nanos(1));
}

#[test]
fn a_clock_that_runs_and_jumps_does_what_comes_first() {
    let clock = MockClock::new();
    clock.set_rate(1e9);
    clock.set_autojump_threshold(Some(HOUR)); // of real time
    with_clock(&clock, sleep(HOUR));
    clock.set_rate(1e-9);
    clock.set_autojump_threshold(Some(Duration::ZERO));
    let before = clock.elapsed();
    with_clock(&clock, sleep(HOUR));
    assert!(clock.elapsed() - before >= HOUR);
}

#[test]
fn an_autojump_waits_for_its_threshold_of_real_time() {
    let (clock, threshold) = (MockClock::new(), 3 * MILLISECOND);
    clock.set_autojump_threshold(Some(threshold));
    let began = Instant::now();
    with_clock(&clock, sleep(HOUR));
    assert!(began.elapsed() >= threshold);
    assert_eq!(clock.elapsed(), HOUR);
}

/// Runs a task that sleeps for an hour and reports when it begins to.
fn sleep_for_an_hour(clock: &MockClock, sleeps: &mpsc::Sender<()>) {
    with_clock(
        clock,
        open_nursery(async |n| {
            let sleeper = n.spawn(sleep(HOUR));
            wait_all_tasks_blocked().await;
            sleeps.send(()).unwrap();
            sleeper.await;
        }),
    );
}

#[test]
fn a_threshold_that_is_changed_while_the_run_is_blocked_takes_effect_at_once() {
    let clock = MockClock::new();
    clock.set_autojump_threshold(Some(HOUR)); // of real time: the test would not end
    let (blocked, is_blocked) = mpsc::channel();
    let changes = {
        let clock = clock.clone();
        thread::spawn(move || {
            is_blocked.recv().unwrap();
            clock.set_autojump_threshold(Some(Duration::ZERO));
        })
    };
    sleep_for_an_hour(&clock, &blocked);
    changes.join().unwrap();
}

#[test]
fn a_threshold_that_is_taken_away_stops_the_jumps() {
    let clock = MockClock::autojump();
    with_clock(
        &clock,
        open_nursery(async |n| {
            sleep(SECOND).await;
            clock.set_autojump_threshold(None);
            let sleeper = n.spawn(sleep(SECOND));
            for _ in 0..3 {
                wait_all_tasks_blocked().await;
                checkpoint().await;
            }
            assert!(!sleeper.is_finished());
            assert_eq!(clock.elapsed(), SECOND);
            clock.jump(SECOND);
            sleeper.await;
        }),
    );
}

#[test]
fn a_clock_that_is_not_the_run_s_has_no_influence() {
    let (clock, other) = (MockClock::new(), MockClock::autojump());
    other.set_rate(1e9);
    with_clock(
        &clock,
        open_nursery(async |n| {
            let sleeper = n.spawn(sleep(SECOND));
            wait_all_tasks_blocked().await;
            other.jump(HOUR);
            wait_all_tasks_blocked().await;
            assert!(!sleeper.is_finished());
            clock.jump(SECOND);
            sleeper.await;
        }),
    );
}

/// Two runs in two threads share one clock. A regression test: the clock once kept only one run's
/// waker, and the other run was not woken.
#[test]
fn a_clock_that_two_runs_share_wakes_both_whatever_changes() {
    type Change = fn(&MockClock);
    let changes: [Change; 3] = [
        |clock| clock.jump(HOUR),
        |clock| clock.set_rate(1e9),
        |clock| clock.set_autojump_threshold(Some(Duration::ZERO)),
    ];
    for change in changes {
        let clock = MockClock::new();
        let (blocked, is_blocked) = mpsc::channel();
        let runs = [(); 2].map(|()| {
            let (clock, blocked) = (clock.clone(), blocked.clone());
            thread::spawn(move || sleep_for_an_hour(&clock, &blocked))
        });
        is_blocked.recv().unwrap();
        is_blocked.recv().unwrap();
        change(&clock);
        for run in runs {
            run.join().unwrap();
        }
    }
}
