//! Shields, and clean-up, which is shielded.

use std::cell::Cell;
use std::sync::Mutex;
use std::task::Poll;

use crate::polling::{Drops, Hand, OnDrop, end_at_every_poll, turns};
use crate::{SECOND, scope, virtually};
use futures_lite::future::zip;
use seedbed::cancel::checkpoint_if_cancelled;
use seedbed::sync::Event;
use seedbed::time::sleep_forever;
use seedbed::{CancelScope, checkpoint, move_on_after, on_cancel, open_nursery, shield, sleep};

// ---- Shields.

#[test]
fn a_shield_keeps_its_future_alive_and_scopes_in_it_work_as_usual() {
    let (outer, inner) = (CancelScope::new(), CancelScope::new());
    let open = Event::new();
    let reached = Cell::new(0);
    let mut run = Hand::new(outer.run(async {
        shield(async {
            assert_eq!(inner.run(sleep_forever()).await, None);
            reached.set(1);
            open.wait().await;
            reached.set(2);
        })
        .await;
        reached.set(3);
        checkpoint().await;
        reached.set(4);
    }));
    outer.cancel();
    assert!(run.settle().is_pending());
    inner.cancel();
    assert!(run.go_on().is_pending());
    assert_eq!(reached.get(), 1);
    open.set();
    assert_eq!(run.go_on(), Poll::Ready(None));
    assert_eq!(reached.get(), 3);
}

#[test]
fn scopes_next_to_a_shield_are_dropped_at_once_and_a_plain_branch_lives_as_long_as_the_shield() {
    let (outer, open) = (CancelScope::new(), Event::new());
    let log = Mutex::new(Vec::new());
    let gone = |what: &'static str| {
        OnDrop({
            let log = &log;
            move || log.lock().unwrap().push(what)
        })
    };
    let mut run = Hand::new(outer.run(async {
        let beside = CancelScope::new();
        let scoped = beside.run(async {
            let _gone = gone("scope beside");
            sleep_forever().await
        });
        let plain = async {
            let _gone = gone("plain branch");
            sleep_forever().await
        };
        zip(zip(scoped, plain), shield(open.wait())).await;
    }));
    assert!(run.settle().is_pending());
    outer.cancel();
    assert!(run.go_on().is_pending());
    assert_eq!(*log.lock().unwrap(), ["scope beside"]);
    open.set();
    assert_eq!(run.go_on(), Poll::Ready(None));
    assert_eq!(log.lock().unwrap().len(), 2);
}

#[test]
fn putting_up_and_taking_down_a_shield_on_a_running_scope_takes_effect_at_once() {
    let (outer, inner) = (CancelScope::new(), CancelScope::new());
    let mut run = Hand::new(outer.run(inner.run(sleep_forever())));
    inner.set_shield(true);
    assert!(run.settle().is_pending());
    inner.set_shield(false);
    inner.set_shield(true);
    outer.cancel();
    assert!(run.go_on().is_pending());
    inner.set_shield(false);
    assert!(run.is_woken());
    // Up again before the scope is polled, so it has no effect.
    inner.set_shield(true);
    assert!(run.go_on().is_pending());
    inner.set_shield(false);
    assert_eq!(run.go_on(), Poll::Ready(None));
}

#[test]
fn a_shielded_scope_that_is_cancelled_itself_absorbs_though_one_around_it_is_cancelled() {
    let (outer, inner) = (CancelScope::new(), CancelScope::new());
    inner.set_shield(true);
    let reached = Cell::new(false);
    let run = outer.run(async {
        outer.cancel();
        inner.cancel();
        assert_eq!(inner.run(sleep_forever()).await, None);
        reached.set(true);
        checkpoint().await;
        unreachable!()
    });
    assert_eq!(Hand::new(run).finish(), None::<()>);
    assert!(reached.get());
}

/// Trio: "unshield while cancel propagating". A future that was dropped stays dropped, and
/// no scope waits for it forever.
#[test]
fn a_shield_that_comes_too_late_leaves_no_scope_waiting_for_a_dropped_future() {
    let (outer, middle, inner) = (CancelScope::new(), CancelScope::new(), CancelScope::new());
    let open = Event::new();
    let raise = middle.clone();
    let mut run = Hand::new(outer.run(async {
        let ended = middle
            .run(zip(
                inner.run(async {
                    let _raises = OnDrop(|| raise.set_shield(true));
                    sleep_forever().await
                }),
                shield(open.wait()),
            ))
            .await;
        (ended, checkpoint().await)
    }));
    assert!(run.settle().is_pending());
    outer.cancel();
    assert!(run.go_on().is_pending(), "it waits for the shield");
    open.set();
    assert!(run.go_on().is_ready());
}

#[test]
fn shields_are_toggled_and_scopes_cancelled_by_other_threads_while_they_are_polled() {
    for _ in 0..100 {
        let (outer, inner) = (CancelScope::new(), CancelScope::new());
        let drops = Drops::new();
        std::thread::scope(|threads| {
            threads.spawn(|| {
                for round in 0..50 {
                    inner.set_shield(round % 2 == 0);
                }
                inner.set_shield(false);
            });
            threads.spawn(|| outer.cancel());
            let body = outer.run(inner.run(open_nursery(|n| {
                let drops = &drops;
                async move {
                    for child in 0..3 {
                        let value = drops.value();
                        n.spawn(async move {
                            let _value = value;
                            match child {
                                0 => on_cancel(sleep_forever(), turns(2)).await,
                                1 => loop {
                                    shield(checkpoint()).await;
                                    checkpoint().await;
                                },
                                _ => sleep_forever().await,
                            }
                        });
                    }
                    loop {
                        turns(1).await;
                    }
                }
            })));
            let ended: Option<Option<()>> = smol::block_on(body);
            assert_eq!(ended, None);
        });
        drops.assert_all_dropped();
    }
}

// ---- Clean-up.

#[test]
fn on_cancel_drops_the_body_then_cleans_up_shielded_then_lets_the_cancellation_go_on() {
    let log = Mutex::new(Vec::new());
    let add = |what| log.lock().unwrap().push(what);
    let (scope, handle) = scope();
    let (open, passed) = (Event::new(), Cell::new(false));
    let mut run = Hand::new(scope.run(async {
        on_cancel(
            async {
                let _gone = OnDrop(|| add("body gone"));
                sleep_forever().await
            },
            async {
                add("clean-up begins");
                checkpoint_if_cancelled().await; // it is shielded
                open.wait().await;
                add("clean-up ends");
            },
        )
        .await;
        passed.set(true);
    }));
    assert!(run.settle().is_pending());
    handle.cancel();
    assert!(run.go_on().is_pending());
    assert_eq!(*log.lock().unwrap(), ["body gone", "clean-up begins"]);
    open.set();
    assert_eq!(run.go_on(), Poll::Ready(None));
    assert_eq!(log.lock().unwrap().len(), 3);
    assert!(!passed.get());
}

#[test]
fn on_cancel_of_a_body_that_completes_never_cleans_up() {
    let drops = Drops::new();
    let value = drops.value();
    let (scope, handle) = scope();
    let run = scope.run(on_cancel(
        async move {
            checkpoint().await;
            handle.cancel();
            5
        },
        async move {
            drop(value);
            unreachable!()
        },
    ));
    assert_eq!(Hand::new(run).finish(), Some(5));
    drops.assert_all_dropped();
}

#[test]
fn nested_clean_ups_run_from_the_inside_out() {
    let log = Mutex::new(Vec::new());
    let clean = |what| {
        let log = &log;
        async move {
            turns(2).await;
            log.lock().unwrap().push(what);
        }
    };
    let scope = CancelScope::new();
    scope.cancel();
    let run = scope.run(on_cancel(
        CancelScope::new().run(on_cancel(
            on_cancel(sleep_forever(), clean("innermost")),
            clean("middle"),
        )),
        clean("outermost"),
    ));
    assert_eq!(Hand::new(run).finish(), None);
    assert_eq!(*log.lock().unwrap(), ["innermost", "middle", "outermost"]);
}

#[test]
fn on_cancel_inside_of_a_shield_does_not_see_the_cancellation() {
    let (scope, open) = (CancelScope::new(), Event::new());
    scope.cancel();
    let mut run = Hand::new(scope.run(shield(on_cancel(
        async {
            open.wait().await;
            3
        },
        async { unreachable!() },
    ))));
    assert!(run.settle().is_pending());
    open.set();
    assert_eq!(run.go_on(), Poll::Ready(Some(3)));
}

#[test]
fn a_clean_up_may_have_scopes_blocks_and_time_limits_of_its_own() {
    let clean = async {
        assert_eq!(move_on_after(SECOND, sleep_forever()).await, None);
        open_nursery(|n| async move {
            n.spawn(sleep(SECOND));
        })
        .await;
        sleep(SECOND).await;
    };
    let (ended, time) = virtually(move_on_after(SECOND, on_cancel(sleep_forever(), clean)));
    assert_eq!((ended, time), (None, 4 * SECOND));
}

// ---- Dropped and cancelled at every pending poll.

#[test]
fn scopes_shields_and_clean_ups_that_are_ended_at_any_point_leave_nothing() {
    let polls = end_at_every_poll(|drops| async move {
        let drops = &drops;
        let work = async |turns_in_it| {
            let _value = drops.value();
            turns(turns_in_it).await;
        };
        CancelScope::new().run(work(2)).await;
        shield(work(2)).await;
        on_cancel(work(2), work(2)).await;
        on_cancel(on_cancel(work(1), work(2)), work(3)).await;
        let scope = CancelScope::new();
        scope
            .run(on_cancel(
                async {
                    turns(1).await;
                    scope.cancel();
                    work(5).await
                },
                work(3),
            ))
            .await;
        zip(
            shield(CancelScope::new().run(work(3))),
            on_cancel(work(4), work(2)),
        )
        .await;
    });
    assert!(polls > 10);
}
