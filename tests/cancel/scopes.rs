//! Scopes: what is cancelled with one, where it is dropped, and which scope absorbs the
//! cancellation.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Mutex;
use std::task::Poll;
use std::time::Duration;

use crate::polling::{Drops, Hand, OnDrop, turns};
use crate::{SECOND, scope, virtually};
use futures_lite::future::{race, zip};
use seedbed::cancel::{checkpoint_if_cancelled, current_effective_deadline};
use seedbed::sync::Event;
use seedbed::testing::MockClock;
use seedbed::time::{current_time, sleep_forever};
use seedbed::{
    CancelScope, RunBuilder, checkpoint, fail_after, move_on_after, on_cancel, open_nursery,
    shield, sleep,
};

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
        inner.run(body).await;
        // The inner scope used to absorb, because that was decided before the drop.
        unreachable!("the outer scope absorbs")
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

/// The scopes nest, but each scope's future is stored in a list, because nested futures of the user
/// would overflow the stack.
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
            // The last future is in the list that it owns.
            drop(made.take());
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
fn siblings_of_a_cancelled_scope_are_not_cancelled() {
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
fn code_that_has_seen_its_cancellation_ends_although_a_shield_is_put_up_later() {
    let (outer, inner) = (CancelScope::new(), CancelScope::new());
    let open = Event::new();
    let mut run = Hand::new(outer.run(inner.run(zip(checkpoint_if_cancelled(), async {
        // Keeps everything alive for a while.
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

/// Trio expires deadlines once in each turn of its loop. So does a scope: code that never waits
/// never sees its deadline pass.
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
fn sleep_forever_is_ended_by_no_wake_up() {
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

// ---- Handles.

#[test]
fn a_scope_shows_its_state() {
    let scope = CancelScope::default();
    assert!(format!("{scope:?}").contains("not entered"));
    let handle = scope.clone();
    let run = scope.run(async move {
        assert!(format!("{handle:?}").contains("running"));
        handle.cancel();
        assert!(format!("{handle:?}").contains("cancelled: cancelled at tests/cancel/scopes.rs:"));
    });
    Hand::new(run).finish();
    assert!(format!("{scope:?}").contains("ended"));
}

#[test]
fn scopes_and_their_futures_may_cross_threads() {
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
