//! Service nurseries, in which the body ends first, and daemons, which end with the body.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::task::Poll;

use crate::log::Log;
use crate::log::panic_of;
use crate::polling::{Drops, Hand, OnDrop, end_at_every_poll, turns};
use seedbed::cancel::checkpoint_if_cancelled;
use seedbed::nursery::{
    LocalNursery, StartError, Started, open_local_nursery, try_open_local_nursery,
};
use seedbed::sync::{Event, channel};
use seedbed::time::sleep_forever;
use seedbed::{
    CancelScope, Nursery, checkpoint, move_on_after, on_cancel, open_nursery, shield,
    try_open_nursery,
};

/// Waits forever, and records when it is dropped.
async fn waits_forever(log: &Log, what: &'static str) {
    let _end = OnDrop(|| log.add(what));
    sleep_forever().await
}

/// Waits forever, and records its name in a clean-up that waits once.
async fn cleans_up(log: &Log, what: &'static str) {
    on_cancel(sleep_forever(), async {
        checkpoint().await;
        log.add(what)
    })
    .await
}

#[test]
fn however_the_block_is_cancelled_the_body_ends_first_and_then_the_children() {
    for how in ["scope", "terminate", "panic", "child"] {
        let (log, scope, stop) = (&Log::default(), &CancelScope::new(), &Event::new());
        let mut block = Hand::new(
            scope.run(
                open_nursery(|n| async move {
                    n.spawn(waits_forever(log, "plain child"));
                    n.spawn(open_nursery(move |n| async move {
                        drop(n.spawn(waits_forever(log, "grandchild")))
                    }));
                    let end = n.clone();
                    n.spawn(async move {
                        stop.wait().await;
                        match how {
                            "terminate" => end.cancel(),
                            "panic" => panic!("on purpose"),
                            "child" => scope.cancel(),
                            _ => sleep_forever().await,
                        }
                        waits_forever(log, "child").await
                    });
                    turns(3).await;
                    on_cancel(waits_forever(log, "body"), async {
                        log.add("clean-up");
                        turns(3).await;
                        log.add("cleaned up");
                    })
                    .await;
                })
                .service(),
            ),
        );
        assert!(block.settle().is_pending());
        stop.set();
        match how {
            "scope" => {
                scope.cancel();
                assert_eq!(block.go_on(), Poll::Ready(None));
            }
            "child" => assert_eq!(block.go_on(), Poll::Ready(None)),
            "panic" => assert_eq!(panic_of(|| block.go_on()), "on purpose"),
            _ => assert_eq!(block.go_on(), Poll::Ready(Some(()))),
        }
        let said = log.take();
        assert_eq!(said[..3], ["body", "clean-up", "cleaned up"], "{how}");
        assert!(
            said.contains(&"plain child") && said.contains(&"grandchild"),
            "{how}: {said:?}"
        );
    }
}

#[test]
fn an_error_of_a_child_ends_the_body_first_and_is_the_block_s() {
    let log = &Log::default();
    let block = try_open_nursery(|n: Nursery<'_, Result<(), &str>>| async move {
        n.spawn(waits_forever(log, "child"));
        n.try_spawn(async {
            checkpoint().await;
            Err::<(), _>("failed")
        });
        cleans_up(log, "body").await;
        Ok(())
    })
    .service();
    assert_eq!(Hand::new(block).finish(), Err("failed"));
    assert_eq!(log.take(), ["body", "child"]);
}

/// The purpose of service nurseries.
#[test]
fn a_cancelled_body_can_use_the_services_in_its_clean_up() {
    let (scope, heard) = (CancelScope::new(), &Log::default());
    let (send, receive) = channel(0);
    let mut block = Hand::new(
        scope.run(
            open_nursery(|n| async move {
                let service = n.spawn(async move {
                    while let Ok(word) = receive.recv().await {
                        heard.add(word);
                    }
                });
                on_cancel(sleep_forever(), async move {
                    send.send("goodbye").await.unwrap();
                    send.close();
                    service.await;
                    heard.add("the end");
                })
                .await;
            })
            .service(),
        ),
    );
    assert!(block.settle().is_pending());
    scope.cancel();
    assert_eq!(block.go_on(), Poll::Ready(None));
    assert_eq!(heard.take(), ["goodbye", "the end"]);
}

#[test]
fn children_do_not_see_the_cancellation_while_the_body_lives() {
    let (scope, open, log) = (&CancelScope::new(), &Event::new(), &Log::default());
    let mut block = Hand::new(
        scope.run(
            open_nursery(|n| async move {
                let service = n.clone();
                n.spawn(async move {
                    open.wait().await;
                    checkpoint_if_cancelled().await;
                    log.add("not cancelled");
                    service.spawn(async {
                        checkpoint().await;
                        log.add("nor is who is spawned now");
                    });
                });
                shield(async {
                    open.wait().await;
                    turns(4).await;
                })
                .await;
                n.spawn(async {
                    log.add("the last one runs to its first wait");
                    checkpoint().await;
                    unreachable!("the body has ended by then");
                });
            })
            .service(),
        ),
    );
    assert!(block.settle().is_pending());
    scope.cancel();
    assert!(block.go_on().is_pending());
    open.set();
    assert_eq!(block.go_on(), Poll::Ready(None));
    assert_eq!(
        log.take(),
        [
            "not cancelled",
            "nor is who is spawned now",
            "the last one runs to its first wait"
        ]
    );
}

#[test]
fn a_shield_in_a_child_is_waited_for_after_the_body_has_ended() {
    let (scope, open, log) = (&CancelScope::new(), &Event::new(), &Log::default());
    let mut block = Hand::new(
        scope.run(
            open_nursery(|n| async move {
                n.spawn(async {
                    shield(open.wait()).await;
                    waits_forever(log, "child").await
                });
                waits_forever(log, "body").await
            })
            .service(),
        ),
    );
    assert!(block.settle().is_pending());
    scope.cancel();
    assert!(block.go_on().is_pending());
    assert_eq!(log.take(), ["body"]);
    open.set();
    assert_eq!(block.go_on(), Poll::Ready(None));
    assert_eq!(log.take(), ["child"]);
}

#[test]
fn one_child_can_be_cancelled_at_any_time_also_by_the_clean_up_of_a_cancelled_body() {
    let (scope, log) = (CancelScope::new(), &Log::default());
    let mut block = Hand::new(
        scope.run(
            open_nursery(|n| async move {
                let [first, second, third] =
                    ["first", "second", "third"].map(|name| n.spawn(waits_forever(log, name)));
                turns(2).await;
                assert_eq!(first.cancel().await, None);
                on_cancel(sleep_forever(), async {
                    assert_eq!(second.cancel().await, None);
                    assert!(!third.is_finished());
                    log.add("body");
                })
                .await;
            })
            .service(),
        ),
    );
    assert!(block.settle().is_pending());
    assert_eq!(log.take(), ["first"]);
    scope.cancel();
    assert_eq!(block.go_on(), Poll::Ready(None));
    assert_eq!(log.take(), ["second", "body", "third"]);
}

#[test]
fn a_child_is_cancelled_with_its_starter_until_it_has_started_and_shielded_from_then_on() {
    let (scope, log) = (CancelScope::new(), &Log::default());
    let mut block = Hand::new(
        scope.run(
            open_nursery(|n| async move {
                let started = n.start(|started: Started<_>| async move {
                    started.send(1);
                    waits_forever(log, "started").await
                });
                assert_eq!(started.await, Ok(1));
                n.start(|_started: Started<()>| waits_forever(log, "starting"))
                    .await
                    .unwrap();
                unreachable!("it never starts");
            })
            .service(),
        ),
    );
    assert!(block.settle().is_pending());
    scope.cancel();
    assert_eq!(block.go_on(), Poll::Ready(None));
    assert_eq!(log.take(), ["starting", "started"]);

    // Another task than the child may report that the child has started.
    let (send, receive) = channel(0);
    let block = open_nursery(|n| async move {
        n.spawn(async move {
            let started: Started<&str> = receive.recv().await.unwrap();
            started.send("by another");
        });
        let child = n.start(|started| async move {
            assert!(send.send(started).await.is_ok());
            sleep_forever().await
        });
        assert_eq!(child.await, Ok("by another"));
        let exited = n.start(|_started: Started<()>| async { 5 }).await;
        assert_eq!(exited, Err(StartError::Exited(5)));
        n.cancel();
    })
    .service();
    Hand::new(block).finish();
}

#[test]
fn after_the_body_has_returned_the_block_waits_for_the_children_which_can_be_cancelled() {
    let (scope, log, open) = (CancelScope::new(), &Log::default(), &Event::new());
    let mut block = Hand::new(
        open_nursery(|n| async move {
            n.spawn(open.wait());
            "body"
        })
        .service(),
    );
    assert!(block.settle().is_pending());
    open.set();
    assert_eq!(block.go_on(), Poll::Ready("body"));

    let mut block = Hand::new(
        scope.run(
            open_nursery(|n| async move {
                n.spawn(waits_forever(log, "plain"));
                n.spawn(cleans_up(log, "cleans up"));
            })
            .service(),
        ),
    );
    assert!(block.settle().is_pending());
    scope.cancel();
    assert_eq!(block.go_on(), Poll::Ready(None));
    assert_eq!(log.take(), ["plain", "cleans up"]);
}

/// tricycle's `BackgroundObject(daemon=True)`.
#[test]
fn daemons_are_cancelled_when_the_body_has_returned_and_its_value_is_the_block_s() {
    let log = &Log::default();
    let block = open_nursery(|n| async move {
        n.spawn(waits_forever(log, "child"));
        n.spawn(cleans_up(log, "cleans up"));
        checkpoint().await;
        log.add("body");
        5
    })
    .service();
    assert_eq!(Hand::new(block.daemon()).finish(), 5);
    assert_eq!(log.take(), ["body", "child", "cleans up"]);

    // A body that returns without waiting keeps its value.
    let plain = open_nursery(|n| async move {
        n.spawn(waits_forever(log, "child"));
        6
    });
    assert_eq!(Hand::new(plain.daemon()).finish(), 6);

    // A panic of the body is resumed.
    let panics = open_nursery(|n: Nursery<'_, ()>| async move {
        n.spawn(waits_forever(log, "child"));
        panic!("on purpose")
    });
    assert_eq!(
        panic_of(|| Hand::new(panics.daemon()).finish()),
        "on purpose"
    );
}

#[test]
fn outer_scopes_wait_for_a_service_block_and_scopes_in_a_child_work() {
    let (scope, log) = (CancelScope::new(), &Log::default());
    let block = scope.run(
        open_nursery(|n| async move {
            let inner = CancelScope::new();
            let handle = inner.clone();
            let child = n.spawn(async move { inner.run(waits_forever(log, "inner scope")).await });
            checkpoint().await;
            handle.cancel();
            assert_eq!(child.await, None);
            let limit = move_on_after(std::time::Duration::ZERO, waits_forever(log, "deadline"));
            assert_eq!(n.spawn(limit).await, None);
        })
        .service(),
    );
    assert_eq!(Hand::new(block).finish(), Some(()));
    assert_eq!(log.take(), ["inner scope", "deadline"]);
}

#[test]
fn dropping_the_block_drops_the_body_then_the_children_at_once() {
    let log = &Log::default();
    let mut block = Hand::new(
        open_nursery(|n| async move {
            n.spawn(shield(waits_forever(log, "child")));
            let handle = n.clone();
            let _closed = OnDrop(|| assert!(handle.spawn_if_open(async {}).is_err()));
            shield(waits_forever(log, "body")).await
        })
        .service(),
    );
    assert!(block.settle().is_pending());
    drop(block);
    assert_eq!(log.take(), ["body", "child"]);
}

#[test]
fn a_service_block_that_is_ended_at_any_point_leaves_nothing() {
    for daemon in [false, true] {
        let polls = end_at_every_poll(|drops: Drops| async move {
            let drops = &drops;
            let block = open_nursery(|n| async move {
                for child in 0..4 {
                    n.spawn(async move {
                        let value = drops.value();
                        turns(child).await;
                        shield(turns(2)).await;
                        let cleaned = drops.value();
                        on_cancel(turns(2), async move {
                            turns(2).await;
                            drop(cleaned);
                        })
                        .await;
                        value
                    });
                }
                let value = drops.value();
                turns(2).await;
                let cancelled = n.spawn(sleep_forever()).cancel();
                on_cancel(turns(3), async { drop(value) }).await;
                assert_eq!(cancelled.await, None);
                drops.value()
            })
            .service();
            if daemon {
                drop(block.daemon().await)
            } else {
                drop(block.await)
            }
        });
        assert!(polls > 5);
    }
}

/// Checks every combination of options for one way to open a block.
macro_rules! check_options {
    ($open:ident, $value:expr) => {
        for (service, daemon) in [(false, false), (false, true), (true, false), (true, true)] {
            let case = format!("{}, service {service}, daemon {daemon}", stringify!($open));
            let (log, scope, open) = (&Log::default(), CancelScope::new(), &Event::new());
            let block = $open(|n| async move {
                n.spawn(waits_forever(log, "child"));
                open.wait().await;
                log.add("body");
                $value
            });
            let block = if service { block.service() } else { block };
            let block = if daemon { block.daemon() } else { block };
            let mut block = Hand::new(scope.run(block));
            assert!(block.settle().is_pending(), "{case}");
            open.set();
            // A daemon ends with its body; any other child goes on.
            let returned = block.go_on();
            if daemon {
                assert_eq!(returned, Poll::Ready(Some($value)), "{case}");
            } else {
                assert!(returned.is_pending(), "{case}");
                scope.cancel();
                assert_eq!(block.go_on(), Poll::Ready(None), "{case}");
            }
            assert_eq!(log.take(), ["body", "child"], "{case}");

            let scope = CancelScope::new();
            let block = $open(|n| async move {
                n.spawn(waits_forever(log, "child"));
                waits_forever(log, "body").await;
                $value
            });
            let block = if service { block.service() } else { block };
            let block = if daemon { block.daemon() } else { block };
            let mut block = Hand::new(scope.run(block));
            assert!(block.settle().is_pending(), "{case}");
            scope.cancel();
            assert_eq!(block.go_on(), Poll::Ready(None), "{case}");
            let expected = if service {
                ["body", "child"]
            } else {
                ["child", "body"]
            };
            assert_eq!(log.take(), expected, "{case}");
        }
    };
}

#[test]
fn service_and_daemon_can_be_combined_with_each_other_in_every_kind_of_block() {
    check_options!(open_nursery, 5);
    check_options!(open_local_nursery, 5);
    check_options!(try_open_nursery, Ok::<_, &str>(5));
    check_options!(try_open_local_nursery, Ok::<_, &str>(5));
}

#[test]
fn a_body_whose_error_comes_after_the_outcome_waits_for_the_cancellation_in_every_kind_of_block() {
    for (service, daemon) in [(false, false), (false, true), (true, false), (true, true)] {
        let late = Arc::new(AtomicU32::new(0));
        let seen = late.clone();
        let block = try_open_local_nursery(async |n: LocalNursery<'_, Result<u8, u32>>| {
            n.on_late_error(move |error| seen.store(error, Relaxed));
            n.spawn(sleep_forever());
            n.terminate(Ok(1));
            Err(2)
        });
        let block = if service { block.service() } else { block };
        let block = if daemon { block.daemon() } else { block };
        assert_eq!(Hand::new(block).finish(), Ok(1));
        assert_eq!(late.load(Relaxed), 2);
    }
}
