//! When a block ends, and which tasks can spawn into it.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::Poll;

use crate::log::Log;
use crate::log::panic_of;
use crate::polling::{Drops, Hand, turns};
use seedbed::nursery::Started;
use seedbed::sync::Event;
use seedbed::time::sleep_forever;
use seedbed::{CancelScope, Nursery, checkpoint, open_nursery};

#[test]
fn a_block_waits_for_its_children_after_the_body_has_ended_and_returns_the_body_s_value() {
    let (open, drops) = (&Event::new(), &Drops::new());
    let mut block = Hand::new(open_nursery(|n| async move {
        for _ in 0..3 {
            let value = drops.value();
            n.spawn(async move {
                open.wait().await;
                drop(value);
            });
        }
        "body"
    }));
    assert!(block.settle().is_pending());
    assert_eq!(drops.alive(), 3);
    open.set();
    assert_eq!(block.go_on(), Poll::Ready("body"));
    drops.assert_all_dropped();
}

#[test]
fn a_block_without_children_ends_in_the_poll_in_which_its_body_ends() {
    let mut block = Hand::new(open_nursery(|_| async { 3 }));
    assert_eq!(block.poll(), Poll::Ready(3));
}

#[test]
fn ending_a_block_is_not_a_cancel_point() {
    let scope = CancelScope::new();
    scope.cancel();
    let empty = scope.run(open_nursery(|_| async { 1 }));
    assert_eq!(Hand::new(empty).finish(), Some(1));

    let scope = CancelScope::new();
    scope.cancel();
    let with_a_child_that_need_not_wait = scope.run(open_nursery(|n| async move {
        n.spawn(async {});
        2
    }));
    assert_eq!(Hand::new(with_a_child_that_need_not_wait).finish(), Some(2));
}

#[test]
fn both_closure_forms_work_and_children_borrow_what_outlives_the_block() {
    let data = vec![1, 2, 3];
    let sum = AtomicUsize::new(0);
    let (data, sum) = (&data, &sum);
    Hand::new(open_nursery(|n| async move {
        for number in data {
            n.spawn(async move { sum.fetch_add(*number, SeqCst) });
        }
    }))
    .finish();
    Hand::new(open_nursery(async |n| {
        for number in data {
            n.spawn(async { sum.fetch_add(*number, SeqCst) });
        }
    }))
    .finish();
    assert_eq!(sum.load(SeqCst), 12);
}

#[test]
fn a_child_is_not_polled_before_spawn_returns_and_children_take_turns() {
    let log = &Log::default();
    Hand::new(open_nursery(|n| async move {
        for (one, two) in [("a1", "a2"), ("b1", "b2")] {
            n.spawn(async move {
                log.add(one);
                checkpoint().await;
                log.add(two);
            });
        }
        log.add("spawned");
    }))
    .finish();
    assert_eq!(log.take(), ["spawned", "a1", "b1", "a2", "b2"]);
}

#[test]
fn a_child_that_is_always_ready_starves_neither_its_siblings_nor_the_body() {
    let turns_taken = &AtomicUsize::new(0);
    Hand::new(open_nursery(|n| async move {
        n.spawn(async {
            loop {
                turns_taken.fetch_add(1, SeqCst);
                checkpoint().await;
            }
        });
        turns(10).await;
        n.cancel();
    }))
    .finish();
    assert!(turns_taken.load(SeqCst) < 20);
}

#[test]
fn a_task_with_a_handle_can_spawn_also_after_the_body_has_ended() {
    let log = &Log::default();
    Hand::new(open_nursery(|n| async move {
        let handle = n.clone();
        n.spawn(async move {
            turns(3).await;
            let (late, spawner) = (handle.clone(), handle.spawner());
            handle.spawn(async move {
                log.add("child of a child");
                late.spawn(async { log.add("grandchild") });
            });
            spawner.spawn(async { log.add("through a spawner") });
        });
        log.add("body ended");
    }))
    .finish();
    assert_eq!(
        log.take(),
        [
            "body ended",
            "child of a child",
            "through a spawner",
            "grandchild"
        ]
    );
}

#[test]
fn a_block_that_has_ended_refuses_children_and_gives_the_future_back() {
    let (mut kept, drops) = (None, Drops::new());
    Hand::new(open_nursery(|n: Nursery<'_, i32>| {
        kept = Some(n.clone());
        async { 1 }
    }))
    .finish();
    let n = kept.unwrap();
    let value = drops.value();
    let refused = n.spawn_if_open(async move { value }).unwrap_err();
    assert!(n.spawner().spawn_if_open(async {}).is_err());
    assert_eq!(drops.alive(), 1);
    drop(refused.into_future());
    drops.assert_all_dropped();
    assert!(panic_of(|| n.spawn(async {})).starts_with("the nursery is closed to new children"));
    assert!(
        panic_of(|| Hand::new(n.start(|_: Started<()>| async {})).finish())
            .starts_with("the nursery is closed")
    );
    n.terminate(2); // does nothing
    assert!(format!("{n:?}").contains("closed: true"));
}

#[test]
fn a_block_that_was_dropped_refuses_children() {
    let mut kept = None;
    let mut block = Hand::new(open_nursery(|n| {
        kept = Some(n.clone());
        sleep_forever()
    }));
    assert!(block.settle().is_pending());
    drop(block);
    assert!(kept.unwrap().spawn_if_open(async {}).is_err());
}

#[test]
fn many_children_come_and_go_in_any_order() {
    let count = &AtomicUsize::new(0);
    Hand::new(open_nursery(|n| async move {
        for child in 0..1000 {
            n.spawn(async move {
                turns(child * 7 % 13).await;
                count.fetch_add(1, SeqCst);
            });
        }
    }))
    .finish();
    assert_eq!(count.load(SeqCst), 1000);
}

#[test]
fn blocks_nest_and_cancelling_the_outermost_reaches_every_leaf() {
    fn nest<'a>(depth: usize, drops: &'a Drops) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(open_nursery(move |n| async move {
            let value = drops.value();
            if depth > 0 {
                n.spawn(nest(depth - 1, drops));
                n.spawn(sleep_forever());
            }
            sleep_forever().await;
            drop(value);
        }))
    }
    let drops = &Drops::new();
    let mut block = Hand::new(open_nursery(|n| async move {
        n.spawn(nest(100, drops));
        turns(500).await;
        n.cancel();
    }));
    assert!(block.settle().is_ready());
    assert_eq!((drops.made(), drops.alive()), (101, 0));
}
