//! Deadlines, time limits and sleeps.

use std::time::Duration;

use crate::{SECOND, scope, virtually};
use futures_lite::future::{poll_once, zip};
use seedbed::cancel::{TooSlowError, current_effective_deadline, fail_at, move_on_at};
use seedbed::testing::{MockClock, wait_all_tasks_blocked};
use seedbed::time::{current_time, sleep_forever, sleep_until};
use seedbed::{
    CancelScope, RunBuilder, checkpoint, fail_after, move_on_after, open_nursery, shield, sleep,
};

#[test]
fn a_deadline_ends_the_body_when_it_passes_and_not_before() {
    assert_eq!(
        virtually(move_on_after(5 * SECOND, sleep_forever())),
        (None, 5 * SECOND)
    );
    assert_eq!(
        virtually(move_on_after(5 * SECOND, sleep(4 * SECOND))),
        (Some(()), 4 * SECOND)
    );
    assert_eq!(
        virtually(async { move_on_at(current_time() + SECOND, sleep_forever()).await }),
        (None, SECOND)
    );
    let (real, began) = (Duration::from_millis(5), std::time::Instant::now());
    assert_eq!(seedbed::run(move_on_after(real, sleep_forever())), None);
    assert!(began.elapsed() >= real, "never early");
}

#[test]
fn a_relative_deadline_counts_from_the_first_poll() {
    virtually(async {
        let limited = fail_after(5 * SECOND, sleep(4 * SECOND));
        sleep(10 * SECOND).await;
        assert_eq!(limited.await, Ok(()));

        let scope = CancelScope::new();
        scope.set_timeout(SECOND);
        assert_eq!(scope.deadline(), None);
        sleep(10 * SECOND).await;
        let began = current_time();
        let handle = scope.clone();
        let body = async move {
            assert_eq!(handle.deadline(), Some(began + SECOND));
            sleep_forever().await
        };
        assert_eq!(scope.run(body).await, None);
        assert_eq!(current_time() - began, SECOND);
    });
}

#[test]
fn a_deadline_that_has_passed_lets_the_body_run_to_its_first_wait() {
    virtually(async {
        assert_eq!(move_on_after(Duration::ZERO, async { 1 }).await, Some(1));
        assert_eq!(fail_after(Duration::ZERO, async { 1 }).await, Ok(1));
        assert_eq!(move_on_at(current_time(), checkpoint()).await, None);
        assert_eq!(move_on_at(current_time(), sleep(SECOND)).await, None);
        let scope = CancelScope::new();
        scope.set_deadline(Some(current_time()));
        assert!(scope.is_cancelled());
        scope.set_deadline(None);
        assert!(scope.is_cancelled(), "never goes back");
    });
}

#[test]
fn a_deadline_that_passes_while_the_body_is_busy_is_noticed_at_the_next_wait() {
    let clock = MockClock::new();
    RunBuilder::new().clock(clock.clone()).run(async {
        let limited = move_on_after(SECOND, async {
            clock.jump(2 * SECOND);
            checkpoint().await;
        });
        assert_eq!(limited.await, None);
        let completes = fail_after(SECOND, async {
            clock.jump(2 * SECOND);
            7
        });
        assert_eq!(completes.await, Ok(7));
    });
}

#[test]
fn deadlines_are_moved_during_a_sleep_and_from_anywhere() {
    virtually(async {
        let (scope, handle) = scope();
        let began = current_time();
        let ended = open_nursery(|n| async move {
            n.spawn(async move {
                handle.set_timeout(10 * SECOND);
                sleep(SECOND).await;
                handle.set_deadline(None);
                sleep(20 * SECOND).await;
                for _ in 0..2000 {
                    handle.set_timeout(5 * SECOND);
                    handle.set_timeout(50 * SECOND);
                }
                handle.set_timeout(3 * SECOND);
            });
            scope.run(sleep_forever()).await
        })
        .await;
        assert_eq!((ended, current_time() - began), (None, 24 * SECOND));

        let (scope, handle) = self::scope();
        let body = async {
            handle.set_timeout(SECOND);
            assert!(!handle.is_cancelled());
            handle.set_deadline(Some(current_time()));
            checkpoint().await;
        };
        assert_eq!(scope.run(body).await, None);
    });
}

#[test]
fn a_deadline_that_is_moved_at_every_turn_fires_where_it_was_left() {
    let (ended, time) = virtually(async {
        let (scope, handle) = scope();
        let moves = async {
            for round in 0..2000 {
                handle.set_timeout(SECOND * (round % 7 + 1));
                checkpoint().await;
            }
            handle.set_timeout(3 * SECOND);
            sleep_forever().await
        };
        scope.run(moves).await
    });
    assert_eq!((ended, time), (None, 3 * SECOND));
}

#[test]
fn a_deadline_that_has_passed_unseen_may_still_be_moved_but_asking_whether_it_has_decides() {
    let clock = MockClock::new();
    RunBuilder::new().clock(clock.clone()).run(async {
        for asks in [false, true] {
            let (scope, handle) = scope();
            handle.set_timeout(SECOND);
            let body = async {
                clock.jump(2 * SECOND);
                if asks {
                    assert!(handle.is_cancelled());
                }
                handle.set_deadline(None);
                checkpoint().await;
                "went on"
            };
            assert_eq!(scope.run(body).await, (!asks).then_some("went on"));
            assert_eq!(handle.is_cancelled(), asks);
        }
    });
}

#[test]
fn outside_of_a_run_time_is_the_system_s() {
    let span = Duration::from_millis(2);
    let began = std::time::Instant::now();
    smol::block_on(async {
        let before = current_time();
        assert!(before >= began);
        assert_eq!(move_on_after(span, sleep_forever()).await, None);
        sleep(span).await;
        assert!(current_time() >= before + 2 * span);
    });
    assert!(began.elapsed() >= 2 * span);
}

#[test]
fn a_time_limit_too_long_to_be_represented_is_none() {
    let limited = move_on_after(Duration::MAX, sleep(SECOND));
    assert_eq!(virtually(limited), (Some(()), SECOND));
}

#[test]
fn after_its_end_a_scope_s_deadline_does_nothing() {
    virtually(async {
        let scope = CancelScope::new();
        scope.set_timeout(SECOND);
        assert_eq!(scope.run(async { 1 }).await, Some(1));
        sleep(2 * SECOND).await;
        assert!(!scope.is_cancelled());
        scope.cancel();
        assert!(scope.is_cancelled());
    });
}

#[test]
fn fail_after_fails_only_if_it_cut_its_body_off_and_an_outer_scope_wins() {
    virtually(async {
        let slow: TooSlowError = fail_after(SECOND, sleep_forever()).await.unwrap_err();
        assert!(slow.to_string().contains("time limit"));
        assert!(fail_at(current_time(), sleep_forever()).await.is_err());
        let outer = CancelScope::new();
        let both = outer.run(async {
            outer.set_deadline(Some(current_time() + SECOND));
            fail_at(current_time() + SECOND, sleep_forever()).await
        });
        assert_eq!(both.await, None);
    });
}

#[test]
fn a_deadline_fires_inside_of_a_shield_and_the_shield_holds_the_deadline_outside() {
    let shielded = shield(fail_after(SECOND, sleep_forever()));
    let (ended, time) = virtually(shielded);
    assert_eq!((ended.is_err(), time), (true, SECOND));
    let held = move_on_after(SECOND, async {
        shield(sleep(5 * SECOND)).await;
        checkpoint().await;
    });
    assert_eq!(virtually(held), (None, 5 * SECOND));
    let (scope, handle) = scope();
    scope.set_shield(true);
    scope.set_timeout(SECOND);
    handle.set_deadline(None);
    handle.set_timeout(2 * SECOND);
    let own = move_on_after(SECOND, async move { scope.run(sleep_forever()).await });
    assert_eq!(virtually(own), (Some(None), 2 * SECOND));
}

#[test]
fn the_effective_deadline_is_the_earliest_up_to_the_innermost_shield() {
    virtually(async {
        let at = |seconds| current_time() + seconds * SECOND;
        assert_eq!(current_effective_deadline(), None);
        move_on_at(at(9), async {
            assert_eq!(current_effective_deadline(), Some(at(9)));
            move_on_at(at(5), async {
                assert_eq!(current_effective_deadline(), Some(at(5)));
                move_on_at(at(7), async {
                    assert_eq!(current_effective_deadline(), Some(at(5)));
                    shield(async {
                        assert_eq!(current_effective_deadline(), None);
                        move_on_at(at(8), async {
                            assert_eq!(current_effective_deadline(), Some(at(8)));
                        })
                        .await;
                    })
                    .await;
                    open_nursery(|n| async move {
                        n.spawn(async move {
                            assert_eq!(current_effective_deadline(), Some(at(5)));
                        });
                    })
                    .await;
                })
                .await;
            })
            .await;
        })
        .await
        .unwrap();
        let (shielded, handle) = scope();
        handle.set_shield(true);
        handle.set_deadline(Some(at(4)));
        let inside = shielded.run(async { current_effective_deadline() });
        let seen = move_on_at(at(2), inside).await;
        assert_eq!(
            seen,
            Some(Some(Some(at(4)))),
            "its own counts, though it is shielded"
        );

        let (scope, handle) = scope();
        let seen = scope.run(async move {
            handle.cancel();
            current_effective_deadline()
        });
        assert_eq!(seen.await, Some(Some(current_time())));
    });
}

#[test]
fn sleeping_is_exact_in_virtual_time_and_a_sleep_that_is_over_still_waits_a_turn() {
    let (_, time) = virtually(async {
        let began = current_time();
        let mut zero = sleep(Duration::ZERO);
        assert!(poll_once(&mut zero).await.is_none());
        zero.await;
        let mut past = sleep_until(began);
        assert!(poll_once(&mut past).await.is_none());
        past.await;
        zip(sleep(3 * SECOND), sleep_until(began + 2 * SECOND)).await;
        assert_eq!(current_time() - began, 3 * SECOND);
        assert!(poll_once(sleep(100 * SECOND)).await.is_none());
        wait_all_tasks_blocked().await;
    });
    assert_eq!(time, 3 * SECOND, "a sleep that is dropped is forgotten");
}
