//! Panics, and executors that drop their children.

use std::task::Poll;

use crate::panics::panic_of;
use crate::polling::{Drops, Hand, OnDrop};
use crate::{executor, on_threads, settle, tick};
use seedbed::sync::Event;
use seedbed::time::sleep_forever;
use seedbed::{CancelScope, Nursery, checkpoint, open_nursery, run, shield};

#[test]
fn a_panic_in_such_a_child_ends_the_others_and_is_resumed_by_the_block() {
    on_threads(1, |executor| {
        let drops = Drops::new();
        let values = [drops.value(), drops.value()];
        let said = panic_of(|| {
            run(open_nursery(|n| async move {
                let [one, other] = values;
                n.spawn(async move {
                    let _value = one;
                    sleep_forever().await
                });
                n.spawn_on(&executor, async move {
                    let _value = other;
                    checkpoint().await;
                    panic!("over there")
                });
                sleep_forever().await
            }))
        });
        assert_eq!(said, "over there");
        drops.assert_all_dropped();
    });
}

#[test]
fn a_panic_while_such_a_child_is_dropped_is_the_block_s() {
    let (executor, stop) = (executor(), Event::new());
    let (on, stopped) = (executor.clone(), stop.clone());
    let mut block = Hand::new(open_nursery(|n: Nursery<'_, ()>| async move {
        n.spawn_on(&on, async {
            let _panics = OnDrop(|| panic!("while dropped"));
            sleep_forever().await
        });
        stopped.wait().await;
        n.cancel();
    }));
    assert!(settle(&executor, &mut block).is_pending());
    stop.set();
    assert_eq!(panic_of(|| block.go_on()), "while dropped");
    drop(block);
    tick(&executor);
    assert!(executor.is_empty());
}

#[test]
fn an_executor_that_is_dropped_makes_the_block_panic_with_a_reason() {
    for polled in [false, true] {
        let (on, drops) = (executor(), Drops::new());
        let value = drops.value();
        let mut block = Hand::new(open_nursery(|n| async move {
            n.spawn_on(&on, async move {
                let _value = value;
                sleep_forever().await
            });
            if polled {
                checkpoint().await;
                tick(&on);
            }
            drop(on);
            sleep_forever().await
        }));
        let said = panic_of(|| block.settle());
        assert!(
            said.starts_with("the executor that this child was put on was dropped"),
            "{said}"
        );
        drop(block);
        drops.assert_all_dropped();
    }
}

#[test]
fn an_executor_that_is_dropped_after_the_block_was_cancelled_is_harmless() {
    let scope = CancelScope::new();
    let (executor, drops) = (executor(), Drops::new());
    let (on, value, open) = (executor.clone(), drops.value(), Event::new());
    let wait = open.clone();
    let mut block = Hand::new(scope.run(open_nursery(|n| async move {
        n.spawn_on(&on, async move {
            let _value = value;
            shield(wait.wait()).await
        });
        drop(on);
    })));
    assert!(settle(&executor, &mut block).is_pending());
    scope.cancel();
    assert!(block.go_on().is_pending(), "shielded");
    drop(executor);
    assert_eq!(block.go_on(), Poll::Ready(None));
    drops.assert_all_dropped();
}

#[test]
fn a_closed_nursery_refuses_such_a_child_and_the_executor_drops_it() {
    let (executor, drops, mut kept) = (executor(), Drops::new(), None);
    Hand::new(open_nursery(|n: Nursery<'static, ()>| {
        kept = Some(n.clone());
        async {}
    }))
    .finish();
    let (n, value) = (kept.unwrap(), drops.value());
    assert!(panic_of(|| n.spawn_on(&executor, async move { value })).contains("closed"));
    drops.assert_all_dropped();
    tick(&executor);
    assert!(executor.is_empty());
}
