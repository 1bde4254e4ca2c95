//! Scopes, shields, clean-up and time limits: who is cancelled, who waits, who absorbs. No test sleeps: what is not
//! polled by hand runs in virtual time.

#[path = "common/polling.rs"]
mod polling;

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Mutex;
use std::task::Poll;
use std::time::Duration;

use futures_lite::future::{poll_once, race, zip};
use polling::{Drops, Hand, OnDrop, end_at_every_poll, turns};
use seedbed::sync::Event;
use seedbed::testing::{MockClock, wait_all_tasks_blocked};
use seedbed::{
    CancelScope, RunBuilder, TooSlow, checkpoint, checkpoint_if_cancelled,
    current_effective_deadline, current_time, fail_after, fail_at, move_on_after, move_on_at,
    on_cancel, open_nursery, shield, sleep, sleep_forever, sleep_until,
};

const SECOND: Duration = Duration::from_secs(1);

/// Runs in virtual time, and returns how much of it that took.
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

// ---- Scopes.

#[test]
fn cancelling_drops_the_body_at_the_await_where_it_waits() {
    let drops = Drops::new();
    let (scope, handle) = scope();
    let value = drops.value();
    let mut run = Hand::new(scope.run(async move {
        sleep_forever().await;
        drop(value);
    }));
    assert!(run.settle().is_pending());
    handle.cancel();
    assert!(run.is_woken(), "before `cancel` returns");
    assert_eq!(drops.alive(), 1, "but it is dropped by whoever polls");
    assert_eq!(run.go_on(), Poll::Ready(None));
    drops.assert_all_dropped();
}

#[test]
fn the_body_is_not_polled_again_once_it_is_cancelled() {
    let polls = Cell::new(0);
    let (scope, handle) = scope();
    let mut run = Hand::new(scope.run(std::future::poll_fn(|_| {
        polls.set(polls.get() + 1);
        Poll::<()>::Pending
    })));
    assert!(run.settle().is_pending());
    handle.cancel();
    assert_eq!(run.go_on(), Poll::Ready(None));
    assert_eq!(polls.get(), 1);
}

#[test]
fn a_body_that_need_not_wait_keeps_its_value_however_early_the_scope_was_cancelled() {
    let (scope, handle) = scope();
    let value = scope.run(async move {
        handle.cancel();
        assert!(handle.is_cancelled());
        1
    });
    assert_eq!(Hand::new(value).finish(), Some(1));
    assert!(scope.is_cancelled());
}

#[test]
fn a_scope_that_was_cancelled_before_runs_its_body_to_the_first_wait() {
    let reached = Cell::new(0);
    let scope = CancelScope::new();
    scope.cancel();
    let run = scope.run(async {
        reached.set(1);
        checkpoint().await;
        reached.set(2);
    });
    assert_eq!((Hand::new(run).finish(), reached.get()), (None, 1));
}

#[test]
fn cancelling_twice_or_after_the_end_does_nothing_more() {
    let (scope, handle) = scope();
    assert_eq!(Hand::new(scope.run(async { 1 })).finish(), Some(1));
    assert!(!handle.is_cancelled());
    handle.cancel();
    handle.cancel();
    assert!(handle.is_cancelled());
}

#[test]
fn a_scope_runs_one_future() {
    let scope = CancelScope::new();
    let unused = scope.run(async {});
    drop(unused); // was never polled
    Hand::new(scope.run(async {})).finish();
    let again = Hand::new(scope.run(async {}));
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| again.finish()));
    let message = panic.unwrap_err();
    assert!(
        message
            .downcast_ref::<&str>()
            .unwrap()
            .contains("a second time")
    );
}

#[test]
fn a_scope_that_runs_takes_no_second_future_and_goes_on_undisturbed() {
    let scope = CancelScope::new();
    let run = scope.run(async {
        let second = Hand::new(scope.run(async {}));
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| second.finish()));
        assert!(panic.is_err());
        checkpoint().await;
        scope.cancel();
        checkpoint().await;
    });
    assert_eq!(Hand::new(run).finish(), None);
    assert!(scope.is_cancelled());
}

#[test]
fn a_scope_is_set_up_in_one_task_and_run_in_another() {
    virtually(async {
        let (scope, handle) = scope();
        let ended = open_nursery(|n| async move {
            handle.set_shield(true);
            handle.set_timeout(SECOND);
            let runs = n.spawn(async move {
                sleep(5 * SECOND).await;
                let began = current_time();
                (scope.run(sleep_forever()).await, current_time() - began)
            });
            runs.await
        });
        assert_eq!(ended.await, (None, SECOND));
    });
}

#[test]
fn of_two_cancelled_scopes_the_outer_one_absorbs() {
    let (outer, inner, log) = (CancelScope::new(), CancelScope::new(), Cell::new(""));
    let run = outer.run(async {
        let ended = inner
            .run(async {
                inner.cancel();
                outer.cancel();
                sleep_forever().await
            })
            .await;
        log.set("the inner one absorbed");
        ended
    });
    assert_eq!(Hand::new(run).finish(), None);
    assert_eq!(log.get(), "");
}

#[test]
fn an_inner_scope_absorbs_alone_and_an_outer_one_that_is_cancelled_then_waits_for_the_next_await() {
    let (outer, inner, log) = (CancelScope::new(), CancelScope::new(), Cell::new(""));
    let run = outer.run(async {
        inner.cancel();
        assert_eq!(inner.run(sleep_forever()).await, None);
        outer.cancel();
        log.set("goes on up to here");
        checkpoint().await;
        log.set("not reached");
    });
    assert_eq!(Hand::new(run).finish(), None);
    assert_eq!(log.get(), "goes on up to here");
}

#[test]
fn the_outer_scope_absorbs_also_if_it_is_cancelled_while_the_inner_body_is_dropped() {
    let (outer, inner) = (CancelScope::new(), CancelScope::new());
    let cancel = outer.clone();
    let run = outer.run(async {
        let body = async {
            let _cancels = OnDrop(|| cancel.cancel());
            sleep_forever().await
        };
        inner.cancel();
        assert_eq!(inner.run(body).await, None, "decided before the drop");
        checkpoint().await;
        unreachable!()
    });
    assert_eq!(Hand::new(run).finish(), None::<()>);
}

#[test]
fn a_deep_chain_of_scopes_is_cancelled_from_the_top_in_one_go() {
    fn nest(depth: usize) -> Pin<Box<dyn Future<Output = ()>>> {
        match depth {
            0 => Box::pin(sleep_forever()),
            _ => Box::pin(async move {
                let inner = CancelScope::new().run(nest(depth - 1));
                inner.await;
                unreachable!("the outermost scope absorbs");
            }),
        }
    }
    let (scope, handle) = scope();
    let mut run = Hand::new(scope.run(nest(1000)));
    assert!(run.settle().is_pending());
    handle.cancel();
    assert_eq!(run.go_on(), Poll::Ready(None));
}

/// Only the user's nested futures may use stack: here each scope's future lies beside the others, and the scopes nest.
#[test]
fn a_hundred_thousand_nested_scopes_are_cancelled_and_dropped_on_a_small_stack() {
    const DEPTH: usize = 100_000;
    type Run = Pin<Box<dyn Future<Output = Option<()>>>>;

    /// At its second poll, opens the scope below this one and leaves it to the list.
    fn opens_the_next(made: Rc<RefCell<Vec<Run>>>) -> impl Future<Output = ()> {
        let mut polls = 0;
        std::future::poll_fn(move |cx| {
            polls += 1;
            if polls == 2 {
                let mut next: Run = Box::pin(CancelScope::new().run(opens_the_next(made.clone())));
                assert!(next.as_mut().poll(cx).is_pending());
                made.borrow_mut().push(next);
            }
            Poll::Pending
        })
    }

    for inside_out in [true, false] {
        let test = move || {
            let made = Rc::new(RefCell::new(Vec::new()));
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            let (scope, handle) = scope();
            let mut outermost: Run = Box::pin(scope.run(opens_the_next(made.clone())));
            for _ in 0..2 {
                assert!(outermost.as_mut().poll(&mut context).is_pending());
            }
            let mut runs = Vec::new();
            while runs.len() < DEPTH {
                runs.append(&mut made.borrow_mut());
                let innermost: &mut Run = runs.last_mut().unwrap();
                assert!(innermost.as_mut().poll(&mut context).is_pending());
            }
            handle.cancel();
            let innermost = runs.last_mut().unwrap();
            assert!(
                innermost.as_mut().poll(&mut context).is_pending(),
                "absorbed above"
            );
            assert_eq!(outermost.as_mut().poll(&mut context), Poll::Ready(None));
            if inside_out {
                runs.reverse();
            }
            runs.into_iter().for_each(drop);
        };
        let thread = std::thread::Builder::new()
            .stack_size(256 * 1024)
            .spawn(test);
        thread.unwrap().join().unwrap();
    }
}

#[test]
fn a_scope_may_be_cancelled_from_another_thread() {
    for _ in 0..200 {
        let (scope, handle) = scope();
        let thread = std::thread::spawn(move || handle.cancel());
        assert_eq!(smol::block_on(scope.run(sleep_forever())), None);
        thread.join().unwrap();
    }
}

#[test]
fn scopes_beside_a_cancelled_one_are_untouched() {
    let (first, second) = (CancelScope::new(), CancelScope::new());
    let open = Event::new();
    let mut both = Hand::new(zip(
        first.run(sleep_forever()),
        second.run(async {
            open.wait().await;
            2
        }),
    ));
    assert!(both.settle().is_pending());
    first.cancel();
    assert!(both.go_on().is_pending());
    open.set();
    assert_eq!(both.go_on(), Poll::Ready((None, Some(2))));
}

#[test]
fn a_scope_works_on_an_executor_that_seedbed_knows_nothing_of() {
    let (scope, handle) = scope();
    smol::block_on(async {
        let task = smol::spawn(async move { scope.run(sleep_forever()).await });
        handle.cancel();
        assert_eq!(task.await, None);
    });
}

#[test]
fn a_scope_that_a_foreign_select_drops_leaves_the_others_in_order() {
    let (outer, inner) = (CancelScope::new(), CancelScope::new());
    let run = outer.run(async {
        race(
            async { inner.run(shield(sleep_forever())).await.is_some() },
            async {
                turns(2).await;
                true
            },
        )
        .await;
        inner.cancel(); // has ended
        outer.cancel(); // and no shield is left to wait for
        sleep_forever().await
    });
    assert_eq!(Hand::new(run).finish(), None);
}

#[test]
fn a_cancelled_future_is_dropped_inside_out() {
    let log = Mutex::new(Vec::new());
    let (outer, handle) = scope();
    let mut run = Hand::new(outer.run(async {
        let _outer = OnDrop(|| log.lock().unwrap().push("outer"));
        CancelScope::new()
            .run(async {
                let _inner = OnDrop(|| log.lock().unwrap().push("inner"));
                sleep_forever().await
            })
            .await;
    }));
    assert!(run.settle().is_pending());
    handle.cancel();
    assert_eq!(run.go_on(), Poll::Ready(None));
    drop(run);
    assert_eq!(*log.lock().unwrap(), ["inner", "outer"]);
}

// ---- Checkpoints.

#[test]
fn every_wait_in_a_cancelled_scope_ends_it_and_code_between_waits_is_never_interrupted() {
    for what in 0..5 {
        let (scope, handle) = scope();
        let passed = Cell::new(0);
        let run = scope.run(async {
            checkpoint().await;
            checkpoint_if_cancelled().await;
            handle.cancel();
            passed.set(1);
            async {}.await; // need not wait
            shield(checkpoint()).await; // waits, shielded
            passed.set(2);
            match what {
                0 => checkpoint().await,
                1 => checkpoint_if_cancelled().await,
                2 => sleep(Duration::ZERO).await,
                3 => Event::new().wait().await,
                _ => sleep_forever().await,
            }
            passed.set(3);
        });
        assert_eq!(smol::block_on(run), None);
        assert_eq!(passed.get(), 2);
    }
}

#[test]
fn whoever_was_told_that_it_is_cancelled_ends_though_a_shield_is_put_up_later() {
    let (outer, inner) = (CancelScope::new(), CancelScope::new());
    let open = Event::new();
    let mut run = Hand::new(outer.run(inner.run(zip(checkpoint_if_cancelled(), async {
        // Keeps everything alive for now.
        shield(open.wait()).await;
        sleep_forever().await
    }))));
    outer.cancel();
    assert!(run.settle().is_pending());
    inner.set_shield(true);
    assert!(run.go_on().is_pending());
    open.set();
    assert_eq!(run.go_on(), Poll::Ready(None));
}

/// Trio expires deadlines once in each turn of its loop, and so does Rust's `await`: where nobody waits, nobody looks.
#[test]
fn checkpoint_if_cancelled_does_not_look_at_the_clock_but_a_checkpoint_does() {
    let clock = MockClock::new();
    RunBuilder::new().clock(clock.clone()).run(async {
        let reached = Cell::new(false);
        let limited = move_on_after(SECOND, async {
            clock.jump(2 * SECOND);
            checkpoint_if_cancelled().await;
            reached.set(true);
            checkpoint().await;
            unreachable!()
        });
        assert_eq!((limited.await, reached.get()), (None::<()>, true));
    });
}

#[test]
fn sleeping_for_ever_is_ended_by_no_wake_up() {
    let (scope, handle) = scope();
    let mut run = Hand::new(scope.run(sleep_forever()));
    for _ in 0..10 {
        assert!(run.poll().is_pending());
    }
    assert!(!run.is_woken());
    handle.cancel();
    assert_eq!(run.go_on(), Poll::Ready(None));
}

#[test]
fn outside_of_any_scope_nothing_is_cancelled() {
    Hand::new(async {
        checkpoint().await;
        checkpoint_if_cancelled().await;
        shield(checkpoint()).await;
        assert_eq!(current_effective_deadline(), None);
    })
    .finish();
}

// ---- Shields.

#[test]
fn a_shield_keeps_what_is_in_it_alive_and_its_scopes_work_as_usual() {
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
fn scopes_beside_a_shield_are_dropped_at_once_and_a_plain_branch_lives_as_long_as_the_shield() {
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
    // Up again before anybody has looked: nothing has happened.
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

/// Trio: "unshield while cancel propagating". What was dropped stays dropped, and nobody waits for it for ever.
#[test]
fn a_shield_that_comes_too_late_does_not_leave_anybody_waiting_for_what_is_gone() {
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

// ---- Time limits.

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
fn deadlines_are_moved_while_somebody_sleeps_and_by_whomever() {
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
        let slow: TooSlow = fail_after(SECOND, sleep_forever()).await.unwrap_err();
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

// ---- Handles.

#[test]
fn a_scope_shows_its_state() {
    let scope = CancelScope::default();
    assert!(format!("{scope:?}").contains("not entered"));
    let handle = scope.clone();
    let run = scope.run(async move {
        assert!(format!("{handle:?}").contains("running"));
        handle.cancel();
        assert!(format!("{handle:?}").contains("cancelled: cancelled at tests/cancel.rs:"));
    });
    Hand::new(run).finish();
    assert!(format!("{scope:?}").contains("ended"));
}

#[test]
fn what_must_cross_threads_does() {
    fn send<T: Send>(_: T) {}
    fn both<T: Send + Sync>(_: T) {}
    both(CancelScope::new());
    send(CancelScope::new().run(async {}));
    send(shield(async {}));
    send(on_cancel(async {}, async {}));
    send(fail_after(SECOND, sleep(SECOND)));
    send(open_nursery(|n| async move {
        n.spawn(async {});
    }));
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
