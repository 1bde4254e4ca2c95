//! The `Task` of one child: its result, and cancelling the child.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::Poll;

use crate::log::panic_of;
use crate::polling::{Drops, Hand, turns};
use seedbed::sync::Event;
use seedbed::time::sleep_forever;
use seedbed::{Task, checkpoint, open_nursery, shield};

#[test]
fn a_task_returns_the_child_s_result_whenever_it_is_awaited() {
    let block = open_nursery(|n| async move {
        let early = n.spawn(async { 1 });
        let late = n.spawn(async {
            turns(5).await;
            2
        });
        assert!(!early.is_finished());
        turns(2).await;
        assert!(early.is_finished() && !late.is_finished());
        (early.await, late.outcome().await)
    });
    assert_eq!(Hand::new(block).finish(), (1, Some(2)));
}

#[test]
fn dropping_a_task_has_no_effect_and_an_unused_result_is_dropped_once() {
    let (drops, done) = (&Drops::new(), &AtomicBool::new(false));
    Hand::new(open_nursery(|n| async move {
        // The task is dropped before the child ends, and after.
        drop(n.spawn(async {
            turns(3).await;
            done.store(true, SeqCst);
            drops.value()
        }));
        let task = n.spawn(async { drops.value() });
        turns(2).await;
        assert_eq!(drops.alive(), 1);
        drop(task);
        assert_eq!(drops.alive(), 0);
    }))
    .finish();
    assert!(done.load(SeqCst));
    assert_eq!((drops.made(), drops.alive()), (2, 0));
}

#[test]
fn cancelling_a_task_ends_that_one_child_and_waits_for_its_end() {
    let (drops, open) = (&Drops::new(), &Event::new());
    let mut block = Hand::new(open_nursery(|n| async move {
        let value = drops.value();
        let other = n.spawn(async { open.wait().await });
        let task = n.spawn(async move {
            shield(open.wait()).await;
            drop(value);
            7
        });
        checkpoint().await;
        let result = task.cancel().await;
        assert_eq!(drops.alive(), 0, "it is gone when `cancel` returns");
        other.await;
        result
    }));
    assert!(block.settle().is_pending());
    assert_eq!(drops.alive(), 1);
    open.set();
    // The child ends its shielded section first.
    assert_eq!(block.go_on(), Poll::Ready(Some(7)));
}

#[test]
fn cancelling_a_task_that_has_ended_returns_its_result_and_a_request_alone_cancels_too() {
    let block = open_nursery(|n| async move {
        let ended = n.spawn(async { 5 });
        let sleeps = n.spawn(sleep_forever());
        checkpoint().await;
        drop(sleeps.cancel());
        ended.cancel().await
    });
    assert_eq!(Hand::new(block).finish(), Some(5));
}

#[test]
fn awaiting_a_child_that_was_cancelled_panics_unless_the_awaiter_is_cancelled_too() {
    let block = open_nursery(|n| async move {
        let mut task = n.spawn(sleep_forever());
        checkpoint().await;
        let cancelled = n.spawn(async {});
        let cancel: Task<()> = std::mem::replace(&mut task, cancelled);
        assert_eq!(cancel.cancel().await, None);
    });
    Hand::new(block).finish();

    let says = panic_of(|| {
        Hand::new(open_nursery(|n| async move {
            let mut task = n.spawn(async { 1 });
            assert_eq!((&mut task).await, 1);
            task.await
        }))
        .finish()
    });
    assert!(says.starts_with("the awaited child of a nursery has no result"));

    // Both are children of the cancelled nursery: the awaiting child is dropped, and does not
    // panic.
    Hand::new(open_nursery(|n| async move {
        let sleeps = n.spawn(sleep_forever());
        n.spawn(sleeps);
        turns(3).await;
        n.cancel();
        sleep_forever().await
    }))
    .finish();
}

#[test]
fn a_child_may_be_cancelled_from_another_thread() {
    let (send, receive) = std::sync::mpsc::channel::<Task<()>>();
    let thread = std::thread::spawn(move || {
        let task = receive.recv().unwrap();
        smol::block_on(task.cancel())
    });
    let send = Mutex::new(send);
    smol::block_on(open_nursery(|n| async move {
        let task = n.spawn(sleep_forever());
        send.lock().unwrap().send(task).unwrap();
    }));
    assert_eq!(thread.join().unwrap(), None);
}
