//! Scopes and shields in their first poll, during which they have a node in the tree only if they
//! need one. This must not be observable.

#[path = "common/polling.rs"]
mod polling;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Barrier;
use std::task::Poll;
use std::time::Duration;

use polling::{Hand, end_at_every_poll, turns};
use seedbed::cancel::{checkpoint_if_cancelled, current_effective_deadline};
use seedbed::sync::Event;
use seedbed::testing::MockClock;
use seedbed::time::{current_time, sleep_forever};
use seedbed::{CancelScope, RunBuilder, checkpoint, move_on_after, open_nursery, run, shield};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_body_that_cancels_its_own_scope_finds_itself_cancelled_at_once() {
    let scope = CancelScope::new();
    let handle = scope.clone();
    let ended = run(scope.run(async {
        handle.cancel();
        checkpoint_if_cancelled().await;
        unreachable!("it is cancelled");
    }));
    assert_eq!(ended, None);
}

#[test]
fn the_outermost_of_the_scopes_that_were_cancelled_absorbs_though_none_had_waited() {
    let [outer, middle, inner] = [(); 3].map(|()| CancelScope::new());
    let (cancel_middle, cancel_inner) = (middle.clone(), inner.clone());
    let ended = run(outer.run(async {
        let ended = middle
            .run(async {
                let inner = inner.run(async {
                    cancel_inner.cancel();
                    cancel_middle.cancel();
                    checkpoint().await;
                });
                inner.await;
                unreachable!("the scope around absorbs");
            })
            .await;
        assert_eq!(ended, None::<()>);
        "went on"
    }));
    assert_eq!(ended, Some("went on"));
}

#[test]
fn a_shield_in_its_first_poll_shields_its_future() {
    let outer = CancelScope::new();
    outer.cancel();
    let value = run(outer.run(shield(async {
        checkpoint_if_cancelled().await;
        assert_eq!(current_effective_deadline(), None);
        "not cancelled"
    })));
    assert_eq!(value, Some("not cancelled"));
}

#[test]
fn a_shield_set_on_a_scope_by_its_own_body_hides_it_before_it_waits() {
    let [outer, inner] = [(); 2].map(|()| CancelScope::new());
    let (cancel_outer, handle) = (outer.clone(), inner.clone());
    let value = run(outer.run(async {
        let inside = inner.run(async {
            handle.set_shield(true);
            cancel_outer.cancel();
            checkpoint_if_cancelled().await;
            checkpoint().await;
            "finished"
        });
        inside.await
    }));
    assert_eq!(value, Some(Some("finished")));
}

#[test]
fn a_time_limit_set_by_the_body_counts_from_there() {
    let clock = MockClock::autojump();
    let passed = RunBuilder::new().clock(clock.clone()).run(async {
        let scope = CancelScope::new();
        let handle = scope.clone();
        let ended = scope.run(async {
            clock.jump(3 * SECOND);
            handle.set_timeout(SECOND);
            let deadline = current_time() + SECOND;
            assert_eq!(handle.deadline(), Some(deadline));
            assert_eq!(current_effective_deadline(), Some(deadline));
            // It passes while the body is busy.
            clock.jump(2 * SECOND);
            sleep_forever().await;
        });
        assert_eq!(ended.await, None);
        clock.elapsed()
    });
    assert_eq!(passed, 5 * SECOND, "nobody had to wait");
}

#[test]
fn a_time_limit_set_by_another_thread_is_by_the_run_s_clock() {
    let clock = MockClock::autojump();
    RunBuilder::new().clock(clock.clone()).run(async {
        clock.jump(1000 * SECOND);
        let scope = CancelScope::new();
        let handle = scope.clone();
        let deadline = scope.run(async {
            std::thread::scope(|threads| {
                threads.spawn(|| handle.set_timeout(SECOND));
            });
            handle.deadline()
        });
        assert_eq!(deadline.await, Some(Some(current_time() + SECOND)));
    });
}

#[test]
fn a_scope_cancelled_by_another_thread_while_it_is_first_polled_ends_at_its_first_wait() {
    for round in 0..200 {
        let scope = CancelScope::new();
        let (handle, start) = (scope.clone(), Barrier::new(2));
        let ended = std::thread::scope(|threads| {
            threads.spawn(|| {
                start.wait();
                handle.cancel();
            });
            run(scope.run(async {
                start.wait();
                match round % 3 {
                    0 => sleep_forever().await,
                    1 => open_nursery(async |n| n.spawn(sleep_forever()).await).await,
                    _ => loop {
                        checkpoint_if_cancelled().await;
                    },
                }
            }))
        });
        assert_eq!(ended, None);
    }
}

#[test]
fn a_nursery_in_a_scope_in_a_shield_that_are_all_first_polled_together_is_below_them() {
    let (outer, inner) = (CancelScope::new(), CancelScope::new());
    let (cancel_outer, cancel_inner) = (outer.clone(), inner.clone());
    let go_on = Event::new();
    let mut run = Hand::new(outer.run(shield(inner.run(open_nursery(async |n| {
        n.spawn(sleep_forever());
        go_on.wait().await;
    })))));
    assert!(run.settle().is_pending());
    cancel_outer.cancel();
    assert!(run.settle().is_pending(), "the shield hides the block");
    cancel_inner.cancel();
    assert_eq!(run.settle(), Poll::Ready(Some(None)));
}

#[test]
fn a_body_that_panics_in_its_first_poll_restores_the_position_of_the_thread() {
    for nested in [false, true] {
        let ended = RunBuilder::new().clock(MockClock::autojump()).run(async {
            let outer = CancelScope::new();
            let handle = outer.clone();
            let inside = outer.run(async {
                let broken = CancelScope::new().run(shield(async {
                    if nested {
                        // Adds their nodes to the tree.
                        move_on_after(SECOND, async {
                            assert!(current_effective_deadline().is_some());
                        })
                        .await;
                    }
                    panic!("in the first poll");
                }));
                let mut broken = Box::pin(broken);
                std::future::poll_fn(|cx| {
                    let poll = || Future::poll(broken.as_mut(), cx).map(drop);
                    assert!(catch_unwind(AssertUnwindSafe(poll)).is_err());
                    Poll::Ready(())
                })
                .await;
                drop(broken);
                // The position is here, and not in a shield.
                handle.cancel();
                sleep_forever().await;
            });
            inside.await
        });
        assert_eq!(ended, None);
    }
}

#[test]
fn a_scope_that_is_run_twice_panics_only_in_the_second_run() {
    run(async {
        let scope = CancelScope::new();
        let handle = scope.clone();
        let ended = scope.run(async {
            let again = handle.run(async {});
            let mut again = Box::pin(again);
            std::future::poll_fn(|cx| {
                let poll = || Future::poll(again.as_mut(), cx);
                assert!(catch_unwind(AssertUnwindSafe(poll)).is_err());
                Poll::Ready(())
            })
            .await;
            drop(again);
            drop(handle.run(async {}));
            handle.cancel();
            sleep_forever().await;
        });
        assert_eq!(ended.await, None);
    });
}

#[test]
fn a_thread_outside_of_any_run_is_left_as_it_was() {
    for waits in [false, true] {
        let work = CancelScope::new().run(shield(async move {
            if waits {
                turns(1).await;
            }
            1
        }));
        assert_eq!(Hand::new(work).finish(), Some(1));
        assert_eq!(current_effective_deadline(), None);
        // A new tree, not that of before.
        assert_eq!(
            Hand::new(CancelScope::new().run(async { 2 })).finish(),
            Some(2)
        );
    }
}

#[test]
fn nodes_that_are_added_late_are_removed_wherever_the_work_ends() {
    end_at_every_poll(|_| async {
        let inside = CancelScope::new().run(shield(async {
            CancelScope::new().run(async {}).await;
            CancelScope::new().run(turns(2)).await;
            shield(turns(1)).await;
        }));
        inside.await;
    });
}
