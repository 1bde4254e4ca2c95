//! Panics of children, bodies, results and drops.

use std::task::Poll;

use crate::log::Log;
use crate::log::panic_of;
use crate::polling::{Drops, Hand, OnDrop, turns};
use seedbed::sync::Event;
use seedbed::time::sleep_forever;
use seedbed::{CancelScope, Nursery, checkpoint, open_nursery, shield};

#[test]
fn a_panic_in_a_child_ends_the_others_and_is_resumed_by_the_block_when_all_have_ended() {
    let (open, drops) = (&Event::new(), &Drops::new());
    let mut block = Hand::new(open_nursery(|n| async move {
        let value = drops.value();
        n.spawn(async move {
            shield(open.wait()).await;
            drop(value);
        });
        let value = drops.value();
        n.spawn(async move {
            sleep_forever().await;
            drop(value);
        });
        n.spawn(async {
            checkpoint().await;
            panic!("on purpose");
        });
        let _value = drops.value();
        sleep_forever().await;
    }));
    assert!(block.settle().is_pending(), "it waits for the shield");
    assert_eq!(drops.alive(), 1);
    open.set();
    assert_eq!(panic_of(|| block.go_on()), "on purpose");
    drops.assert_all_dropped();
}

#[test]
fn a_panic_in_the_body_ends_the_children() {
    let drops = &Drops::new();
    let mut block = Hand::new(open_nursery(|n| async move {
        let value = drops.value();
        n.spawn(async move {
            sleep_forever().await;
            drop(value);
        });
        checkpoint().await;
        panic!("body");
    }));
    assert_eq!(panic_of(|| block.settle()), "body");
    drops.assert_all_dropped();
}

#[test]
fn a_panic_in_the_closure_that_opens_the_block_goes_to_the_caller() {
    let mut block = Hand::new(open_nursery(|_: Nursery<'_, ()>| {
        if true {
            panic!("opening");
        }
        sleep_forever()
    }));
    assert_eq!(panic_of(|| block.settle()), "opening");
}

struct PanicsOnDrop(&'static str);

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        panic!("{}", self.0);
    }
}

#[test]
fn a_panic_while_a_cancelled_child_is_dropped_is_a_child_s_panic() {
    let drops = &Drops::new();
    let mut block = Hand::new(open_nursery(|n| async move {
        for _ in 0..2 {
            let value = drops.value();
            n.spawn(async move {
                sleep_forever().await;
                drop(value);
            });
            n.spawn(async {
                let _bomb = PanicsOnDrop("dropped");
                sleep_forever().await
            });
        }
        checkpoint().await;
        n.cancel();
        sleep_forever().await
    }));
    assert_eq!(panic_of(|| block.settle()), "dropped");
    drops.assert_all_dropped();
}

#[test]
fn of_two_panics_the_first_is_resumed() {
    let mut block = Hand::new(open_nursery(|n| async move {
        for name in ["first", "second"] {
            n.spawn(async move {
                if true {
                    panic!("{name}")
                }
            });
        }
        sleep_forever().await
    }));
    assert_eq!(panic_of(|| block.settle()), "first");

    // A child that panics, and then once more while it is dropped.
    let mut block = Hand::new(open_nursery(|n| async move {
        let bomb = PanicsOnDrop("dropped");
        let mut polled = false;
        n.spawn(std::future::poll_fn(move |_| {
            let _bomb = &bomb;
            assert!(std::mem::replace(&mut polled, true), "polled");
            Poll::<()>::Pending
        }));
    }));
    assert_eq!(panic_of(|| block.settle()), "polled");
}

#[test]
fn a_panic_in_the_drop_of_an_unused_result_is_the_block_s_or_the_task_s() {
    let mut block = Hand::new(open_nursery(|n| async move {
        drop(n.spawn(async { PanicsOnDrop("unwanted result") }));
        sleep_forever().await
    }));
    assert_eq!(panic_of(|| block.settle()), "unwanted result");

    Hand::new(open_nursery(|n| async move {
        let task = n.spawn(async { PanicsOnDrop("dropped with the task") });
        checkpoint().await;
        assert_eq!(panic_of(|| drop(task)), "dropped with the task");
    }))
    .finish();
}

#[test]
fn a_panic_passes_through_blocks_and_scopes_even_if_a_scope_is_cancelled() {
    let drops = &Drops::new();
    let scope = CancelScope::new();
    let cancel = scope.clone();
    let mut outer = Hand::new(scope.run(open_nursery(|outer| async move {
        let value = drops.value();
        outer.spawn(async move {
            sleep_forever().await;
            drop(value);
        });
        outer.spawn(open_nursery(move |inner| async move {
            inner.spawn(async move {
                checkpoint().await;
                cancel.cancel();
                panic!("deep inside");
            });
            let value = drops.value();
            inner.spawn(async move {
                shield(turns(5)).await;
                drop(value);
            });
        }));
        sleep_forever().await
    })));
    assert_eq!(panic_of(|| outer.settle()), "deep inside");
    drops.assert_all_dropped();
}

#[test]
fn dropping_a_block_from_outside_drops_all_children_even_if_one_drop_panics() {
    let drops = &Drops::new();
    let mut block = Hand::new(open_nursery(|n| async move {
        for _ in 0..3 {
            let value = drops.value();
            n.spawn(async move {
                let _value = value;
                let _bomb = PanicsOnDrop("dropped");
                shield(sleep_forever()).await
            });
        }
        let _value = drops.value();
        sleep_forever().await
    }));
    assert!(block.settle().is_pending());
    assert_eq!(drops.alive(), 4);
    assert_eq!(panic_of(|| drop(block)), "dropped");
    drops.assert_all_dropped();
}

#[test]
fn a_child_that_spawns_while_it_is_dropped_is_part_of_the_cancelled_block_or_told_that_it_has_ended()
 {
    let log = &Log::default();
    Hand::new(open_nursery(|n| async move {
        let handle = n.clone();
        n.spawn(async move {
            let _spawns = OnDrop(|| {
                handle.spawn(async {
                    log.add("ran to its first wait");
                    checkpoint().await;
                    log.add("not reached");
                });
            });
            sleep_forever().await
        });
        checkpoint().await;
        n.cancel();
    }))
    .finish();
    assert_eq!(log.take(), ["ran to its first wait"]);

    let mut block = Hand::new(open_nursery(|n| async move {
        let handle = n.clone();
        n.spawn(async move {
            let _spawns = OnDrop(|| assert!(handle.spawn_if_open(sleep_forever()).is_err()));
            sleep_forever().await
        });
        sleep_forever().await
    }));
    assert!(block.settle().is_pending());
    drop(block);
}
