//! Waiting until all tasks are blocked.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::Waker;
use std::thread;
use std::time::{Duration, Instant};

use crate::panics::panic_of;
use crate::polling::turns;
use crate::{HOUR, MILLISECOND, SECOND, with_clock};
use seedbed::nursery::open_local_nursery;
use seedbed::sync::Event;
use seedbed::testing::{MockClock, wait_all_tasks_blocked};
use seedbed::time::{Clock, sleep_forever};
use seedbed::{CancelScope, RunBuilder, open_nursery, run, sleep};

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

/// The cushion is longer than each sleep, so each sleep starts it again.
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
                    // Shorter than all cushions. If the two short ones did not continue together,
                    // the second one would continue after this sleep.
                    wait_all_tasks_blocked().await;
                    log.borrow_mut().push("short again");
                }
            });
        }
    }));
    // The order of the two that were woken together is unspecified.
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

/// A clock that counts the ticks of the run.
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
