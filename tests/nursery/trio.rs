//! Cases of Trio's own tests that no other file covers: shields around blocks, errors together with
//! panics, unusual starts.

use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use seedbed::nursery::{StartError, Started};
use seedbed::sync::Event;
use seedbed::time::sleep_forever;
use seedbed::{
    CancelScope, Nursery, checkpoint, move_on_after, on_cancel, open_nursery, shield,
    try_open_nursery,
};

use super::polling::{Drops, Hand, OnDrop, turns};
use crate::log::panic_of;
use crate::start::cancelled_soon;

// ---- A block and the scopes around it.

/// Trio sets `nursery.cancel_scope.shield`. Here the scope is around the block.
#[test]
fn a_shield_around_a_block_keeps_its_children_until_it_is_lowered() {
    let (outer, shielded, drops) = (CancelScope::new(), CancelScope::new(), &Drops::new());
    shielded.set_shield(true);
    let mut run = Hand::new(outer.run(shielded.run(open_nursery(|n| async move {
        let value = drops.value();
        n.spawn(async move {
            sleep_forever().await;
            drop(value);
        });
    }))));
    outer.cancel();
    assert!(run.settle().is_pending());
    assert_eq!(drops.alive(), 1);
    shielded.set_shield(false);
    assert_eq!(run.go_on(), Poll::Ready(None));
    drops.assert_all_dropped();
}

/// In Trio the parent's own `Cancelled`, while it waits at the end of the block, is not recorded.
/// Here the end of a shield once woke its child, which had just ended. The block was polled again
/// because of that, and was dropped with its value.
#[test]
fn a_block_that_is_cancelled_while_it_joins_keeps_its_value_if_every_child_finishes() {
    for beside in [false, true] {
        let (scope, open, log) = (CancelScope::new(), &Event::new(), &Mutex::new(Vec::new()));
        let mut run = Hand::new(scope.run(async move {
            let value = open_nursery(|n| async move {
                n.spawn(shield(open.wait()));
                if beside {
                    n.spawn(sleep_forever());
                }
                "value"
            })
            .await;
            log.lock().unwrap().push(value);
            value
        }));
        assert!(run.settle().is_pending());
        scope.cancel();
        assert!(run.go_on().is_pending());
        open.set();
        // If a child is dropped because of the cancellation, the block has no value.
        assert_eq!(run.go_on(), Poll::Ready((!beside).then_some("value")));
        assert_eq!(log.lock().unwrap().len(), usize::from(!beside));
    }
}

#[test]
fn the_values_of_a_child_are_dropped_when_it_ends_and_not_with_the_block() {
    let drops = &Drops::new();
    Hand::new(open_nursery(|n| async move {
        let value = drops.value();
        let ends = n.spawn(async move {
            checkpoint().await;
            drop(value);
        });
        let value = drops.value();
        let cancelled = n.spawn(async move {
            let _value = value;
            sleep_forever().await
        });
        checkpoint().await;
        ends.await;
        assert_eq!(drops.alive(), 1);
        assert_eq!(cancelled.cancel().await, None);
        drops.assert_all_dropped();
    }))
    .finish();
}

/// Trio documents, but does not test, that the scopes of the spawning task do not apply to the
/// child.
#[test]
fn a_deadline_or_shield_of_the_spawner_does_not_apply_to_the_child() {
    let (scope, drops) = (CancelScope::new(), &Drops::new());
    let mut run = Hand::new(scope.run(open_nursery(|n| async move {
        shield(async {
            let value = drops.value();
            n.spawn(async move {
                let _value = value;
                sleep_forever().await
            });
        })
        .await;
        let mut child = None;
        let spawns = async {
            child = Some(n.spawn(async { seedbed::cancel::current_effective_deadline() }));
        };
        move_on_after(Duration::from_secs(3600), spawns).await;
        assert_eq!(child.unwrap().await, None);
        sleep_forever().await
    })));
    assert!(run.settle().is_pending());
    assert_eq!(drops.alive(), 1);
    scope.cancel();
    assert_eq!(run.go_on(), Poll::Ready(None::<()>));
    drops.assert_all_dropped();
}

// ---- Panics.

#[test]
fn a_panic_with_any_payload_is_resumed_unchanged() {
    let block = AssertUnwindSafe(|| {
        Hand::new(open_nursery(|n| async move {
            n.spawn(async { panic_any(42_u8) });
            sleep_forever().await
        }))
        .finish()
    });
    let payload: Result<(), _> = catch_unwind(block);
    assert_eq!(*payload.unwrap_err().downcast::<u8>().unwrap(), 42);
}

#[test]
fn a_panic_in_a_clean_up_is_resumed_when_the_others_have_ended() {
    let (drops, open) = (&Drops::new(), &Event::new());
    let mut block = Hand::new(open_nursery(|n| async move {
        let value = drops.value();
        n.spawn(shield(async move {
            open.wait().await;
            drop(value);
        }));
        n.spawn(on_cancel(sleep_forever(), async {
            checkpoint().await;
            panic!("cleaning up");
        }));
        checkpoint().await;
        n.cancel();
    }));
    assert!(block.settle().is_pending());
    assert_eq!(drops.alive(), 1);
    open.set();
    assert_eq!(panic_of(|| block.go_on()), "cleaning up");
    drops.assert_all_dropped();
}

/// In Trio both are raised in a group. Here a panic is a bug and takes precedence, and the error
/// goes to the hook.
#[test]
fn a_panic_takes_precedence_over_an_error_which_goes_to_the_hook() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hook = heard.clone();
    let mut block = Hand::new(try_open_nursery(|n| async move {
        n.on_late_error(move |error| hook.lock().unwrap().push(error));
        n.try_spawn(async { Err::<(), _>("an error") });
        n.spawn(shield(async {
            turns(3).await;
            panic!("a panic");
        }));
        sleep_forever().await;
        Ok(())
    }));
    assert_eq!(panic_of(|| block.settle()), "a panic");
    assert_eq!(*heard.lock().unwrap(), ["an error"]);
}

#[test]
fn a_late_error_without_a_hook_is_logged() {
    let warnings = crate::warnings::Log::new("seedbed::nursery", tracing::Level::WARN);
    tracing::subscriber::with_default(warnings.clone(), || {
        for (before, panics) in [false, true].into_iter().enumerate() {
            let mut block = Hand::new(try_open_nursery(|n| async move {
                n.try_spawn(async { Err::<(), _>("first") });
                n.try_spawn(shield(async move {
                    checkpoint().await;
                    assert!(!panics, "a panic");
                    Err::<(), _>("second")
                }));
                Ok(())
            }));
            if panics {
                assert_eq!(panic_of(|| block.settle()), "a panic")
            } else {
                assert_eq!(block.settle(), Poll::Ready(Err("first")))
            }
            assert_eq!(warnings.events().len(), before + 1);
        }
    });
}

// ---- Starting.

#[test]
fn a_start_that_fails_before_the_child_has_started_returns_the_error_and_the_block_goes_on() {
    let block = try_open_nursery(|n: Nursery<'_, Result<&str, &str>>| async move {
        let other = n.spawn(turns(9));
        let failed = n.start(async |_: Started<()>| {
            checkpoint().await;
            Err::<(), _>("no port")
        });
        assert_eq!(failed.await, Err(StartError::Exited(Err("no port"))));
        other.await;
        Ok("unharmed")
    });
    assert_eq!(Hand::new(block).finish(), Ok("unharmed"));
}

/// `start` drops the result of a child that has started. In Trio an error of that child ends the
/// nursery.
#[test]
fn an_error_after_the_start_ends_the_block_with_try_start_and_one_before_does_not() {
    for errs_at_once in [true, false] {
        let block = try_open_nursery(|n: Nursery<'_, Result<(), &str>>| async move {
            let failed = n.try_start(async |_: Started<()>| Err::<(), _>("before"));
            assert_eq!(failed.await, Err(StartError::Exited(Err("before"))));
            let ended = n.try_start(async |_: Started<()>| Ok("without"));
            assert_eq!(ended.await, Err(StartError::Exited(Ok("without"))));
            let started = n.try_start(async move |started: Started<_>| {
                started.send(1);
                if !errs_at_once {
                    turns(3).await;
                }
                Err::<(), _>("after")
            });
            if errs_at_once {
                // The child may fail before the value is received.
                let _ = started.await;
            } else {
                assert_eq!(started.await, Ok(1));
            }
            sleep_forever().await;
            Ok(())
        });
        assert_eq!(Hand::new(block).finish(), Err("after"));
    }
}

#[test]
fn the_error_of_a_child_whose_try_start_was_cancelled_ends_the_block() {
    let block = try_open_nursery(|n: Nursery<'_, Result<(), &str>>| async move {
        let scope = CancelScope::new();
        let cancel = scope.clone();
        let starts = n.try_start(async move |_: Started<()>| {
            cancel.cancel();
            shield(turns(2)).await;
            Err::<(), _>("nobody waits")
        });
        scope.run(starts).await;
        sleep_forever().await;
        Ok(())
    });
    assert_eq!(Hand::new(block).finish(), Err("nobody waits"));
}

#[test]
fn a_grandchild_may_start_a_child_that_outlives_its_own_nursery() {
    let (open, log) = (&Event::new(), &Mutex::new(Vec::new()));
    let mut block = Hand::new(open_nursery(|outer| async move {
        let target = outer.clone();
        let inner = outer.spawn(open_nursery(move |inner| async move {
            let grandchild = inner.spawn(async move {
                let serve = async move |started: Started<_>| {
                    let _gone = OnDrop(|| log.lock().unwrap().push("server gone"));
                    checkpoint().await;
                    started.send("up");
                    open.wait().await;
                };
                target.start(serve).await
            });
            assert_eq!(grandchild.await, Ok("up"));
            // Cancelling this block does not affect the server, which belongs to the outer block.
            inner.cancel();
            sleep_forever().await
        }));
        inner.await;
        log.lock().unwrap().push("inner block over");
    }));
    assert!(block.settle().is_pending());
    assert_eq!(*log.lock().unwrap(), ["inner block over"]);
    open.set();
    assert!(block.go_on().is_ready());
    assert_eq!(log.lock().unwrap().len(), 2);
}

/// Trio moves the child into the nursery at `started()` and then cancels it. Here it is in the
/// nursery from the beginning.
#[test]
fn start_in_a_cancelled_nursery_succeeds_if_the_child_starts_before_it_has_to_wait() {
    let log = &Mutex::new(Vec::new());
    let block = open_nursery(|outer| async move {
        let result = open_nursery(|n| async move {
            let target = n.clone();
            let starts = outer.spawn(async move {
                let soon = target.start(async |started: Started<_>| {
                    started.send(1);
                    checkpoint().await;
                    log.lock().unwrap().push("not reached");
                });
                let late = target.start(async |started: Started<i32>| {
                    checkpoint().await;
                    started.send(2);
                });
                (soon.await, late.await)
            });
            // Keeps the block open until both starts have returned.
            n.spawn(shield(turns(20)));
            n.terminate(Some(starts));
            sleep_forever().await;
            None
        });
        result.await.unwrap().await
    });
    assert_eq!(
        Hand::new(block).finish(),
        (Ok(1), Err(StartError::Cancelled))
    );
    assert!(log.lock().unwrap().is_empty());
}

/// In Trio `start` then returns the value, if the child ends without another checkpoint. Here the
/// task that called `start` was dropped, and so is the value.
#[test]
fn a_child_that_starts_after_its_start_was_cancelled_is_waited_for_and_its_value_is_dropped() {
    let (drops, open) = (&Drops::new(), &Event::new());
    let mut block = Hand::new(open_nursery(|n| async move {
        let scope = cancelled_soon(&n.spawner());
        let starts = n.start(async |started: Started<_>| {
            shield(open.wait()).await;
            started.send(drops.value());
            drops.value()
        });
        assert!(scope.run(starts).await.is_none());
        drops.made()
    }));
    assert!(block.settle().is_pending());
    open.set();
    assert_eq!(block.go_on(), Poll::Ready(2));
    drops.assert_all_dropped();
}

#[test]
fn a_pending_start_keeps_the_nursery_open_until_it_fails() {
    let (open, given) = (&Event::new(), &Mutex::new(None));
    let mut outer = Hand::new(open_nursery(|outer| async move {
        let inner = outer.spawn(open_nursery(move |inner: Nursery<'_, ()>| async move {
            *given.lock().unwrap() = Some(inner);
            checkpoint().await;
        }));
        checkpoint().await;
        let n = given.lock().unwrap().take().unwrap();
        let fails = n.start(async |_: Started<()>| {
            open.wait().await;
            "failed"
        });
        assert_eq!(fails.await, Err(StartError::Exited("failed")));
        inner.await;
    }));
    assert!(outer.settle().is_pending());
    open.set();
    assert!(outer.go_on().is_ready());
}
