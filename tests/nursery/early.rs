//! Ending a block early: `terminate`, `cancel`, scopes around it.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use crate::log::Log;
use crate::polling::{Drops, Hand, OnDrop, turns};
use seedbed::nursery::TreeVar;
use seedbed::sync::Event;
use seedbed::time::sleep_forever;
use seedbed::{CancelScope, checkpoint, open_nursery, shield};

#[test]
fn terminate_drops_body_and_children_where_they_wait_and_gives_the_block_its_value() {
    let drops = &Drops::new();
    let block = open_nursery(|n| async move {
        for _ in 0..3 {
            let value = drops.value();
            n.spawn(async move {
                sleep_forever().await;
                drop(value);
            });
        }
        let n2 = n.clone();
        n.spawn(async move {
            turns(2).await;
            n2.terminate(7);
        });
        let _value = drops.value();
        sleep_forever().await;
        unreachable!()
    });
    assert_eq!(Hand::new(block).finish(), 7);
    drops.assert_all_dropped();
}

#[test]
fn the_first_terminate_replaces_a_value_that_the_body_has_returned() {
    let drops = &Drops::new();
    let block = open_nursery(|n| async move {
        let (early, late) = (n.clone(), n.clone());
        n.spawn(async move {
            checkpoint().await;
            early.terminate((2, drops.value()));
            late.terminate((3, drops.value()));
        });
        (1, drops.value())
    });
    let (value, counted) = Hand::new(block).finish();
    assert_eq!((value, drops.alive()), (2, 1));
    drop(counted);
}

#[test]
fn a_body_that_terminates_the_block_and_returns_has_terminated_it() {
    let block = open_nursery(|n| async move {
        n.terminate(1);
        2
    });
    assert_eq!(Hand::new(block).finish(), 1);
}

#[test]
fn a_child_of_a_cancelled_nursery_still_runs_to_its_first_wait() {
    let log = &Log::default();
    Hand::new(open_nursery(|n| async move {
        n.cancel();
        n.spawn(async {
            log.add("child began");
            checkpoint().await;
            log.add("not reached");
        });
        log.add("body goes on up to here");
        checkpoint().await;
        log.add("not reached");
    }))
    .finish();
    assert_eq!(log.take(), ["body goes on up to here", "child began"]);
}

#[test]
fn cancelled_siblings_are_dropped_at_once_while_a_shielded_one_ends_its_section() {
    let (open, log) = (&Event::new(), &Log::default());
    let mut block = Hand::new(open_nursery(|n| async move {
        n.spawn(async {
            let _gone = OnDrop(|| log.add("plain child gone"));
            sleep_forever().await
        });
        n.spawn(async {
            let _gone = OnDrop(|| log.add("shielded child gone"));
            shield(async {
                open.wait().await;
                log.add("section ended");
            })
            .await;
            checkpoint().await;
            log.add("not reached");
        });
        let _gone = OnDrop(|| log.add("body gone"));
        checkpoint().await;
        n.cancel();
        checkpoint().await;
        log.add("not reached");
    }));
    assert!(block.settle().is_pending());
    let mut gone = log.take();
    gone.sort_unstable();
    assert_eq!(gone, ["body gone", "plain child gone"]);
    open.set();
    assert!(block.go_on().is_ready());
    assert_eq!(log.take(), ["section ended", "shielded child gone"]);
}

#[test]
fn a_cancelled_scope_around_a_terminated_block_still_absorbs() {
    let scope = CancelScope::new();
    let outer = scope.clone();
    let block = open_nursery(|n| async move {
        n.spawn(sleep_forever());
        checkpoint().await;
        n.terminate(1);
        outer.cancel();
        sleep_forever().await;
        2
    });
    assert_eq!(Hand::new(scope.run(block)).finish(), None);
}

#[test]
fn children_have_the_scopes_and_variables_of_the_place_where_the_nursery_was_opened() {
    static NAME: TreeVar<&str> = TreeVar::new();
    let log = &Log::default();
    let block = NAME.scope(
        "opener",
        open_nursery(|n| async move {
            let inner = CancelScope::new();
            let spawns = NAME.scope("spawner", async {
                n.spawn(async {
                    log.add(NAME.get().unwrap());
                    checkpoint().await;
                    log.add("goes on");
                });
                inner.cancel();
                sleep_forever().await;
            });
            assert_eq!(inner.run(spawns).await, None);
        }),
    );
    Hand::new(block).finish();
    assert_eq!(log.take(), ["opener", "goes on"]);
}

/// A cancelled block once went through all its children in each poll, so that 8,000 shielded
/// children that ended one by one took seconds. This test counts polls instead of time: each child
/// is polled a bounded number of times, and the block ends.
#[test]
fn shielded_children_of_a_cancelled_block_end_one_by_one_without_being_polled_over_and_over() {
    let children = 2_000;
    let (polls, gates): (AtomicUsize, Vec<_>) = (
        AtomicUsize::new(0),
        (0..children).map(|_| Event::new()).collect(),
    );
    let (polls, gates) = (&polls, &gates);
    let mut block = Hand::new(open_nursery(|n| async move {
        for gate in gates {
            let mut section = Box::pin(shield(gate.wait()));
            n.spawn(std::future::poll_fn(move |cx| {
                polls.fetch_add(1, SeqCst);
                section.as_mut().poll(cx)
            }));
        }
        turns(2).await;
        n.cancel();
        sleep_forever().await
    }));
    assert!(block.settle().is_pending());
    for gate in &gates[..children - 1] {
        gate.set();
        assert!(block.go_on().is_pending());
    }
    gates[children - 1].set();
    assert!(block.go_on().is_ready());
    assert!(polls.load(SeqCst) <= 4 * children);
}
