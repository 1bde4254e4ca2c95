//! The tools for tests: the virtual clock, waiting until all are blocked, sequences, assertions on checkpoints. No test
//! sleeps in real time, except for the real time that a cushion, a threshold or a rate is about.

#[path = "common/polling.rs"]
mod polling;

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::task::{Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use polling::{Drops, Hand, end_at_every_poll, turns};
use proptest::prelude::*;
use seedbed::sync::Event;
use seedbed::testing::{
    MockClock, Sequencer, assert_checkpoints, assert_no_checkpoints, wait_all_tasks_blocked,
};
use seedbed::time::Clock;
use seedbed::{
    CancelScope, RunBuilder, checkpoint, checkpoint_if_cancelled, current_time, on_cancel,
    open_local_nursery, open_nursery, run, shield, sleep, sleep_forever,
};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const MILLISECOND: Duration = Duration::from_millis(1);

/// Runs with this clock, which the caller keeps.
fn with_clock<F: Future>(clock: &MockClock, future: F) -> F::Output {
    RunBuilder::new().clock(clock.clone()).run(future)
}

/// What somebody panics with who is expected to.
#[track_caller]
fn panic_of(body: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(body)).expect_err("there was to be a panic");
    match payload.downcast::<String>() {
        Ok(message) => *message,
        Err(payload) => (*payload.downcast::<&str>().expect("a message")).to_owned(),
    }
}

// ---- The clock.

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
    with_clock(
        &clock,
        open_nursery(async |n| {
            let sleeper = n.spawn(sleep(HOUR));
            wait_all_tasks_blocked().await;
            blocked.send(()).unwrap();
            sleeper.await;
        }),
    );
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

/// Two runs in two threads have one clock. It once kept one run's waker only, so that the other slept on.
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
            thread::spawn(move || {
                with_clock(
                    &clock,
                    open_nursery(async |n| {
                        let sleeper = n.spawn(sleep(HOUR));
                        wait_all_tasks_blocked().await;
                        blocked.send(()).unwrap();
                        sleeper.await;
                    }),
                );
            })
        });
        is_blocked.recv().unwrap();
        is_blocked.recv().unwrap();
        change(&clock);
        for run in runs {
            run.join().unwrap();
        }
    }
}

// ---- Waiting until all are blocked.

#[test]
fn a_sleeping_task_counts_as_blocked_and_the_cushion_is_real_time() {
    let (clock, cushion) = (MockClock::new(), 3 * MILLISECOND);
    with_clock(
        &clock,
        open_nursery(async |n| {
            let sleeper = n.spawn(sleep(HOUR));
            let began = Instant::now();
            wait_all_tasks_blocked().cushion(cushion).await;
            assert!(began.elapsed() >= cushion);
            assert!(!sleeper.is_finished());
            n.cancel();
        }),
    );
    assert_eq!(clock.elapsed(), Duration::ZERO);
}

#[test]
fn everybody_gets_as_far_as_they_can_before_it_goes_on() {
    run(open_nursery(async |n| {
        let (first, second) = (Event::new(), Event::new());
        let chain = n.spawn({
            let (first, second) = (first.clone(), second.clone());
            async move {
                first.wait().await;
                turns(10).await;
                second.set();
                sleep_forever().await;
            }
        });
        wait_all_tasks_blocked().await;
        assert!(!second.is_set());
        first.set();
        wait_all_tasks_blocked().await;
        assert!(second.is_set() && !chain.is_finished());
        n.cancel();
    }));
}

/// The cushion is longer than each sleep, so each sleep begins it anew.
#[test]
fn a_cushion_outlasts_any_number_of_shorter_sleeps() {
    run(open_nursery(async |n| {
        let naps = n.spawn(async {
            for _ in 0..10 {
                sleep(MILLISECOND).await;
            }
        });
        wait_all_tasks_blocked().cushion(20 * MILLISECOND).await;
        assert!(naps.is_finished());
    }));
}

#[test]
fn equal_cushions_go_on_together_and_the_shortest_goes_first() {
    let order = RefCell::new(Vec::new());
    let log = &order;
    run(open_local_nursery(async |n| {
        for (name, cushion) in [("long", 4), ("short", 2), ("short too", 2), ("none", 0)] {
            n.spawn(async move {
                let wait = wait_all_tasks_blocked();
                wait.cushion(cushion * MILLISECOND).await;
                log.borrow_mut().push(name);
                if name == "short" {
                    // Shorter than anybody's cushion: the other short one would come later, if not with this one.
                    wait_all_tasks_blocked().await;
                    log.borrow_mut().push("short again");
                }
            });
        }
    }));
    // In which order the two run that were woken together is nobody's business.
    let mut order = order.into_inner();
    order[1..3].sort();
    assert_eq!(order, ["none", "short", "short too", "short again", "long"]);
}

#[test]
fn whoever_goes_on_begins_the_cushions_of_the_others_anew() {
    run(open_nursery(async |n| {
        let (short, long) = (2 * MILLISECOND, 6 * MILLISECOND);
        let waiting = n.spawn(async move {
            wait_all_tasks_blocked().cushion(long).await;
            Instant::now()
        });
        for _ in 0..5 {
            wait_all_tasks_blocked().cushion(short).await;
        }
        let last = Instant::now();
        assert!(waiting.await.duration_since(last) >= long);
    }));
}

#[test]
fn while_anybody_waits_for_blocked_tasks_no_clock_jumps() {
    for cushion in [Duration::ZERO, 3 * MILLISECOND] {
        let clock = MockClock::autojump();
        with_clock(
            &clock,
            open_nursery(async |n| {
                let sleeper = n.spawn(sleep(SECOND));
                wait_all_tasks_blocked().cushion(cushion).await;
                assert!(!sleeper.is_finished());
                assert_eq!(clock.elapsed(), Duration::ZERO);
                sleeper.await;
                assert_eq!(clock.elapsed(), SECOND);
            }),
        );
    }
}

#[test]
fn one_who_is_cancelled_while_waiting_for_blocked_tasks_holds_up_nobody() {
    let clock = MockClock::autojump();
    with_clock(
        &clock,
        open_nursery(async |n| {
            let scope = CancelScope::new();
            let cancelled = n.spawn(scope.run(wait_all_tasks_blocked().cushion(HOUR)));
            wait_all_tasks_blocked().await;
            scope.cancel();
            assert_eq!(cancelled.await, None);
            sleep(SECOND).await; // the clock would not jump
        }),
    );
}

#[test]
fn a_cushion_is_set_before_the_first_poll() {
    let message = panic_of(|| {
        run(async {
            let mut waiting = wait_all_tasks_blocked();
            assert!(
                futures_lite::future::poll_once(&mut waiting)
                    .await
                    .is_none()
            );
            _ = waiting.cushion(SECOND);
        });
    });
    assert!(message.contains("before it is polled"), "{message}");
}

/// A clock that counts the turns of the run.
#[derive(Clone, Debug)]
struct Turns {
    clock: MockClock,
    turns: Arc<AtomicUsize>,
}

impl Clock for Turns {
    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn real_time_until(&self, deadline: Instant) -> Option<Duration> {
        self.clock.real_time_until(deadline)
    }

    fn wake_on_change(&self, run: &Waker) {
        self.clock.wake_on_change(run);
        self.turns.fetch_add(1, SeqCst);
    }
}

#[test]
fn a_wake_from_outside_does_not_end_the_wait_and_one_of_a_task_begins_it_anew() {
    let clock = Turns {
        clock: MockClock::new(),
        turns: Arc::default(),
    };
    let seen = clock.clone();
    RunBuilder::new().clock(clock).run(open_nursery(async |n| {
        let (stop, stopped) = (Event::new(), Event::new());
        let wait = n.spawn(wait_all_tasks_blocked().cushion(HOUR));
        wait_all_tasks_blocked().await;
        let other = thread::spawn({
            let stop = stop.clone();
            move || {
                for _ in 0..100 {
                    let turn = seen.turns.load(SeqCst);
                    seen.clock.jump(Duration::ZERO);
                    while seen.turns.load(SeqCst) == turn {
                        thread::yield_now();
                    }
                }
                stop.set();
            }
        });
        n.spawn({
            let stopped = stopped.clone();
            async move {
                stop.wait().await;
                stopped.set();
            }
        });
        stopped.wait().await;
        other.join().unwrap();
        assert!(!wait.is_finished());
        n.cancel();
    }));
}

// ---- Sequences.

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    /// The blocks wait a little, too, so that a sequence that let the next one in too early would be found out.
    #[test]
    fn blocks_run_one_after_the_other_in_the_order_of_their_numbers(
        points in Just((0..8_usize).collect::<Vec<_>>()).prop_shuffle(),
        polls in proptest::collection::vec(0..8_usize, 0..40),
    ) {
        let (sequence, inside, order) = (Sequencer::new(), Cell::new(false), RefCell::new(Vec::new()));
        let (inside, order) = (&inside, &order);
        let mut blocks: Vec<_> = points
            .into_iter()
            .map(|point| {
                Some(Hand::new(sequence.at(point, async move {
                    assert!(!inside.replace(true));
                    turns(point % 3).await;
                    order.borrow_mut().push(point);
                    inside.set(false);
                })))
            })
            .collect();
        for at in polls {
            let polled = blocks[at].as_mut().map(Hand::poll);
            if polled.is_some_and(|polled| polled.is_ready()) {
                blocks[at] = None;
            }
        }
        // The rest only as they are woken.
        for block in blocks.iter_mut().flatten() {
            prop_assert!(block.poll().is_pending() || !block.is_woken());
        }
        while let Some(at) = blocks
            .iter()
            .position(|block| block.as_ref().is_some_and(Hand::is_woken))
        {
            let block = blocks[at].as_mut();
            if block.is_some_and(|block| block.poll().is_ready()) {
                blocks[at] = None;
            }
        }
        prop_assert_eq!(&*order.borrow(), &(0..8).collect::<Vec<_>>());
    }
}

#[test]
fn a_block_s_value_is_returned_and_only_when_it_is_gone_comes_the_next_turn() {
    let (sequence, drops) = (Sequencer::new(), Drops::new());
    let mut second = Hand::new(sequence.at(1, async { drops.alive() }));
    assert!(second.settle().is_pending());
    let value = drops.value();
    let first = Hand::new(sequence.at(0, async move {
        _ = &value;
        "a value"
    }));
    assert_eq!(first.finish(), "a value");
    assert!(second.is_woken());
    assert_eq!(second.finish(), 0);
}

#[test]
fn a_point_that_is_used_twice_panics_and_harms_nobody_else() {
    let sequence = Sequencer::new();
    let mut waiting = Hand::new(sequence.at(1, async { "second" }));
    assert!(waiting.settle().is_pending());
    let message = panic_of(|| Hand::new(sequence.at(1, async {})).finish());
    assert!(message.contains("point 1"), "{message}");
    Hand::new(sequence.at(0, async {})).finish();
    let message = panic_of(|| Hand::new(sequence.at(0, async {})).finish());
    assert!(message.contains("point 0"), "{message}");
    assert_eq!(waiting.finish(), "second");
}

#[test]
fn a_waiter_that_is_cancelled_breaks_the_sequence_for_all_who_wait_or_come_later() {
    let sequence = Sequencer::new();
    let scope = CancelScope::new();
    let mut block = Hand::new(sequence.at(0, async {
        checkpoint().await;
        "in its block"
    }));
    assert!(block.poll().is_pending());
    let mut cancelled = Hand::new(scope.run(sequence.at(1, async {})));
    let mut waiting = Hand::new(sequence.at(2, async {}));
    assert!(cancelled.settle().is_pending() && waiting.settle().is_pending());

    scope.cancel();
    assert_eq!(cancelled.go_on(), Poll::Ready(None));
    assert!(
        waiting.is_woken(),
        "nobody waits for a turn that never comes"
    );
    let message = panic_of(|| waiting.finish());
    assert!(message.contains("point 1"), "{message}");
    let message = panic_of(|| Hand::new(sequence.at(5, async {})).finish());
    assert!(message.contains("the sequence is broken"), "{message}");
    assert_eq!(block.finish(), "in its block", "who has begun goes on");
}

#[test]
fn a_block_that_is_cancelled_or_panics_has_ended_and_the_next_one_s_turn_comes() {
    let sequence = Sequencer::new();
    let mut third = Hand::new(sequence.at(2, async { "third" }));
    assert!(third.settle().is_pending());
    let mut first = Hand::new(sequence.at(0, sleep_forever()));
    assert!(first.settle().is_pending());
    drop(first);
    assert!(!third.is_woken());
    let message = panic_of(|| Hand::new(sequence.at(1, async { panic!("in the block") })).finish());
    assert_eq!(message, "in the block");
    assert!(third.is_woken());
    assert_eq!(third.finish(), "third");
}

#[test]
fn a_block_that_is_never_polled_takes_no_point() {
    let sequence = Sequencer::new();
    drop(sequence.at(0, async {}));
    Hand::new(sequence.at(0, async {})).finish();
}

#[test]
fn a_sequence_loses_nothing_wherever_it_is_dropped_or_cancelled() {
    let polls = end_at_every_poll(|drops| async move {
        let sequence = Sequencer::new();
        let sequence = &sequence;
        open_nursery(async |n| {
            for point in [1, 0] {
                let value = drops.value();
                n.spawn(sequence.at(point, async move {
                    turns(2).await;
                    drop(value);
                }));
            }
        })
        .await;
    });
    assert!(polls >= 4, "{polls}");
}

// ---- Assertions on checkpoints.

#[test]
fn a_future_that_waits_passes_and_its_value_is_returned() {
    let value = Hand::new(assert_checkpoints(async {
        checkpoint().await;
        5
    }));
    assert_eq!(value.finish(), 5);
}

#[test]
fn a_future_that_never_waits_fails_where_checkpoints_are_asserted() {
    let message = panic_of(|| Hand::new(assert_checkpoints(async {})).finish());
    assert!(message.contains("without having waited"), "{message}");
    assert!(
        message.contains("tests/testing.rs"),
        "it says where: {message}"
    );
    // It is a cancel point if the caller is cancelled, but lets nobody run if not: half a checkpoint.
    panic_of(|| Hand::new(assert_checkpoints(checkpoint_if_cancelled())).finish());
}

#[test]
fn waiting_where_nothing_can_be_cancelled_is_no_checkpoint() {
    let message = panic_of(|| Hand::new(assert_checkpoints(shield(checkpoint()))).finish());
    assert!(message.contains("behind a shield"), "{message}");
    panic_of(|| Hand::new(assert_checkpoints(on_cancel(checkpoint(), async {}))).finish());
    // One checkpoint is enough, before or after the shield.
    for before in [true, false] {
        let both = assert_checkpoints(async {
            match before {
                true => (checkpoint().await, shield(checkpoint()).await),
                false => (shield(checkpoint()).await, checkpoint().await),
            }
        });
        Hand::new(both).finish();
    }
    // A shield around the assertion hides the future from others, but is not its own doing.
    Hand::new(shield(assert_checkpoints(checkpoint()))).finish();
}

#[test]
fn a_future_that_does_not_wait_passes_where_no_checkpoint_may_be() {
    let event = Event::new();
    event.set();
    Hand::new(assert_no_checkpoints(event.wait())).finish();
    assert_eq!(Hand::new(assert_no_checkpoints(async { 5 })).finish(), 5);
    Hand::new(assert_no_checkpoints(checkpoint_if_cancelled())).finish();
    assert_eq!(
        Hand::new(assert_no_checkpoints(CancelScope::new().run(async { 5 }))).finish(),
        Some(5)
    );
}

#[test]
fn a_future_that_waits_fails_at_once_where_no_checkpoint_may_be() {
    let message = panic_of(|| Hand::new(assert_no_checkpoints(checkpoint())).finish());
    assert!(message.contains("the future waits"), "{message}");
    assert!(
        message.contains("tests/testing.rs"),
        "it says where: {message}"
    );
    panic_of(|| Hand::new(assert_no_checkpoints(shield(checkpoint()))).finish());
    panic_of(|| {
        assert!(
            Hand::new(assert_no_checkpoints(sleep_forever()))
                .poll()
                .is_ready()
        )
    });
}

#[test]
fn a_future_s_own_panic_goes_through_both_assertions() {
    let boom = || async { panic!("boom") };
    let checked = panic_of(|| Hand::new(assert_checkpoints(boom())).finish());
    let unchecked = panic_of(|| Hand::new(assert_no_checkpoints(boom())).finish());
    assert_eq!((checked.as_str(), unchecked.as_str()), ("boom", "boom"));
}

#[test]
fn a_future_that_is_cancelled_in_an_assertion_is_not_judged() {
    let polls = end_at_every_poll(|drops| {
        assert_checkpoints(async move {
            let value = drops.value();
            shield(turns(2)).await;
            turns(2).await;
            drop(value);
        })
    });
    assert_eq!(polls, 4);
}

// ---- What the crate's own functions are, by these tools.

#[test]
fn only_an_operation_that_has_to_wait_is_a_checkpoint() {
    let clock = MockClock::autojump();
    with_clock(
        &clock,
        open_nursery(async |n| {
            assert_checkpoints(checkpoint()).await;
            assert_checkpoints(sleep(Duration::ZERO)).await;
            assert_checkpoints(sleep(SECOND)).await;
            assert_checkpoints(seedbed::sleep_until(current_time() - SECOND)).await;
            assert_no_checkpoints(open_nursery(async |_: seedbed::Nursery<'_>| {})).await;
            let event = Event::new();
            let later = event.clone();
            n.spawn(async move { later.set() });
            assert_checkpoints(event.wait()).await;
            assert_no_checkpoints(event.wait()).await;
        }),
    );
}

#[test]
fn a_task_of_the_run_is_never_polled_while_another_one_holds_the_turn() {
    let ran = AtomicBool::new(false);
    let seen = &ran;
    run(open_nursery(async |n| {
        n.spawn(async move { seen.store(true, SeqCst) });
        assert_no_checkpoints(async { assert!(!seen.load(SeqCst)) }).await;
        assert_checkpoints(checkpoint()).await;
        assert!(seen.load(SeqCst));
    }));
}
