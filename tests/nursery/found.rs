//! Bugs that were found by these tests: each test opens with its story.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use crate::polling::{Drops, Hand, Wakes, turns};
use crate::said::panic_of;
use seedbed::cancel::checkpoint_if_cancelled;
use seedbed::sync::Event;
use seedbed::time::sleep_forever;
use seedbed::{CancelScope, checkpoint, on_cancel, open_nursery, shield, try_open_nursery};

/// A child that was cancelled before it was first polled had no node yet, so what it opened in its first poll did not
/// see the cancellation: `on_cancel` kept it alive and waited for a wake-up that never came.
#[test]
fn a_child_that_is_cancelled_before_its_first_poll_still_cleans_up() {
    let cleaned = &AtomicBool::new(false);
    Hand::new(open_nursery(|n| async move {
        let work = on_cancel(sleep_forever(), async {
            checkpoint().await;
            cleaned.store(true, SeqCst)
        });
        assert_eq!(n.spawn(work).cancel().await, None);
        assert!(cleaned.load(SeqCst));
    }))
    .finish();
}

/// The same bug: taking the shield down woke nobody, because nothing below it was known to be cancelled.
#[test]
fn a_child_that_is_cancelled_before_its_first_poll_ends_when_its_shield_comes_down() {
    let shielded = CancelScope::new();
    shielded.set_shield(true);
    let run = shielded.clone();
    let mut block = Hand::new(open_nursery(|n| async move {
        n.spawn(async move { run.run(sleep_forever()).await })
            .cancel()
            .await
    }));
    assert!(block.settle().is_pending());
    shielded.set_shield(false);
    assert_eq!(block.go_on(), Poll::Ready(None));
}

/// The same bug: an operation that asks whether it is cancelled before it begins was told that it is not.
#[test]
fn a_child_that_is_cancelled_before_its_first_poll_knows_it_in_that_poll() {
    let touched = &AtomicBool::new(false);
    Hand::new(open_nursery(|n| async move {
        let child = n.spawn(async {
            checkpoint_if_cancelled().await;
            touched.store(true, SeqCst)
        });
        assert_eq!(child.cancel().await, None);
    }))
    .finish();
    assert!(!touched.load(SeqCst));
}

/// After a child was polled, the thread still stood at that child's node while others were dropped. If the node was
/// gone, a scope that a `Drop` polled became its own parent, and the tree hung with its lock held.
#[test]
fn a_scope_that_is_opened_while_a_child_is_dropped_finds_its_place() {
    struct CleansUp;
    impl Drop for CleansUp {
        fn drop(&mut self) {
            smol::block_on(shield(async {}));
        }
    }
    Hand::new(open_nursery(|n| async move {
        n.spawn(shield(checkpoint()));
        let child = n.spawn(async {
            let _cleans_up = CleansUp;
            sleep_forever().await
        });
        checkpoint().await;
        assert_eq!(child.cancel().await, None);
    }))
    .finish();
}

/// A block that had panicked went on holding the scopes around it for as long as its future was kept.
#[test]
fn a_block_that_has_panicked_holds_nobody_though_its_future_is_kept() {
    let scope = CancelScope::new();
    let body = async {
        let mut block = Box::pin(open_nursery(|_| async { panic!("on purpose") }));
        let panicked = std::future::poll_fn(|cx| Poll::Ready(panic_of(|| block.as_mut().poll(cx))));
        assert_eq!(panicked.await, "on purpose");
        scope.cancel();
        sleep_forever().await;
        drop(block);
    };
    assert_eq!(Hand::new(scope.run(body)).finish(), None);
}

/// The error of a body that ends without waiting was lost if a scope around was cancelled, though a value was not.
#[test]
fn the_error_of_a_body_that_need_not_wait_survives_a_cancelled_scope_as_a_value_does() {
    let scope = CancelScope::new();
    scope.cancel();
    let block = try_open_nursery(|_| async { Err::<(), _>(1) });
    assert_eq!(Hand::new(scope.run(block)).finish(), Some(Err(1)));
}

/// Panics when it is woken for the first time.
#[derive(Default)]
struct PanicsOnce(AtomicBool);

impl Wake for PanicsOnce {
    fn wake(self: Arc<Self>) {
        if !self.0.swap(true, SeqCst) {
            panic!("a waker's");
        }
    }
}

/// A waker that panics inside of the block's poll made the block lose the children that were ready next: they were
/// dropped with the last handle on them, which may be after what they borrow.
#[test]
fn a_waker_that_panics_does_not_let_a_child_outlive_the_block() {
    let drops = Drops::new();
    let mut kept = None;
    {
        let (keep, drops) = (&mut kept, &drops);
        let mut block = Hand::new(open_nursery(|n| async move {
            let waker = Waker::from(Arc::new(PanicsOnce::default()));
            let child = n.spawn(async move {
                let mut inner = Box::pin(on_cancel(sleep_forever(), async {}));
                std::future::poll_fn(|_| inner.as_mut().poll(&mut Context::from_waker(&waker)))
                    .await
            });
            turns(2).await;
            drop(child.cancel()); // which wakes what is in it, through that waker
            let value = drops.value();
            *keep = Some(n.spawn(async move {
                let _value = value;
                sleep_forever().await
            }));
            sleep_forever().await
        }));
        assert_eq!(panic_of(|| block.settle()), "a waker's");
    }
    drops.assert_all_dropped();
    drop(kept);
}

/// The waker of a task's awaiter that panics made the block drop a result that belonged to the task.
#[test]
fn a_waker_that_panics_does_not_take_the_result_from_a_task() {
    let drops = Drops::new();
    let mut kept = None;
    {
        let (keep, drops) = (&mut kept, &drops);
        let mut block = Hand::new(open_nursery(|n| async move {
            let waker = Waker::from(Arc::new(PanicsOnce::default()));
            let mut task = n.spawn(async move { drops.value() });
            assert!(
                Pin::new(&mut task)
                    .poll(&mut Context::from_waker(&waker))
                    .is_pending()
            );
            *keep = Some(task);
        }));
        assert_eq!(panic_of(|| block.settle()), "a waker's");
    }
    assert_eq!(drops.alive(), 1);
    assert!(Hand::new(kept.unwrap().outcome()).finish().is_some());
    drops.assert_all_dropped();
}

/// A task that had been awaited and was dropped left the awaiter's waker in its child. With two children that had waited
/// for each other, or one that had waited for itself, that was a cycle, and their memory was never freed.
#[test]
fn a_task_that_is_dropped_lets_go_of_who_awaited_it() {
    Hand::new(open_nursery(|n| async move {
        let (wakes, waker) = Wakes::new();
        let mut task = n.spawn(turns(3));
        assert!(
            Pin::new(&mut task)
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        );
        drop((task, waker));
        assert_eq!(Arc::strong_count(&wakes), 1);
    }))
    .finish();
}

// ---- What is not lost, and who is woken.

/// In Trio an error passes through a scope that absorbs a cancellation. The block was dropped by that scope, and the error
/// with it.
#[test]
fn an_error_is_not_lost_if_the_scope_around_is_cancelled_too() {
    let scope = &CancelScope::new();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hook = heard.clone();
    let block = try_open_nursery(|n| async move {
        n.on_late_error(move |error| hook.lock().unwrap().push(error));
        n.try_spawn(async {
            scope.cancel();
            Err::<(), _>("failed")
        });
        sleep_forever().await;
        Ok(())
    });
    match Hand::new(scope.run(block)).finish() {
        Some(result) => assert_eq!(result, Err("failed")),
        None => assert_eq!(*heard.lock().unwrap(), ["failed"]),
    }
}

/// A child's node had nobody to wake when the last shield below it ended. That was no matter while the child itself polled
/// the shield, but a shield that was first polled by one child may be finished by another.
#[test]
fn a_cancelled_child_ends_when_a_shield_that_it_began_is_finished_by_another() {
    let (open, slot) = (&Event::new(), &Mutex::new(None));
    let mut block = Hand::new(open_nursery(|n| async move {
        let begins = n.spawn(async {
            let mut section = Box::pin(shield(open.wait()));
            futures_lite::future::poll_once(&mut section).await;
            *slot.lock().unwrap() = Some(section);
            sleep_forever().await
        });
        turns(2).await;
        let section = slot.lock().unwrap().take().unwrap();
        n.spawn(section);
        begins.cancel().await
    }));
    assert!(block.settle().is_pending());
    open.set();
    assert!(block.go_on().is_ready());
}
