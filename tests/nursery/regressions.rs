//! Regression tests. Each one begins with the bug that it has found.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use crate::log::panic_of;
use crate::polling::{Drops, Hand, Wakes, turns};
use seedbed::cancel::checkpoint_if_cancelled;
use seedbed::sync::Event;
use seedbed::time::sleep_forever;
use seedbed::{CancelScope, checkpoint, on_cancel, open_nursery, shield, try_open_nursery};

/// A child that was cancelled before its first poll had no node, so the scopes that it opened in
/// that poll did not see the cancellation: `on_cancel` kept the child alive and waited for a
/// wake-up that never came.
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

/// For the same reason, lowering the shield did not wake the child: nothing below it was known to
/// be cancelled.
#[test]
fn a_child_that_is_cancelled_before_its_first_poll_ends_when_its_shield_is_lowered() {
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

/// For the same reason, an operation that checks for cancellation before it begins was not
/// cancelled.
#[test]
fn a_child_that_is_cancelled_before_its_first_poll_sees_that_in_its_first_poll() {
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

/// After the poll of a child, the thread's position stayed at that child's node while other
/// children were dropped. If the node was removed, a scope that a `Drop` polled became its own
/// parent, and the tree hung with its lock held.
#[test]
fn a_scope_that_is_opened_while_a_child_is_dropped_gets_the_right_parent() {
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

/// A block that had panicked deferred the scopes around it for as long as its future was kept.
#[test]
fn a_block_that_has_panicked_does_not_defer_outer_scopes_while_its_future_is_kept() {
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

/// The error of a body that ends without waiting was lost if a scope around it was cancelled, but a
/// value was not.
#[test]
fn the_error_of_a_body_that_does_not_wait_survives_a_cancelled_scope_as_a_value_does() {
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

/// A waker that panicked in the poll of a block made the block lose the children that were ready
/// next. They were dropped with their last handle, which may be after the end of the values that
/// they borrow.
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

/// A panic in the waker of a task's awaiter made the block drop a result that belonged to the task.
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

/// A task that was awaited and then dropped left the awaiter's waker in its child. With two
/// children that had awaited each other, or one that had awaited itself, that was a cycle, and
/// their memory was never freed.
#[test]
fn a_dropped_task_drops_the_waker_of_its_awaiter() {
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

// ---- Errors and wake-ups.

/// In Trio an error passes through a scope that absorbs a cancellation. Here that scope dropped the
/// block, and the error with it.
#[test]
fn an_error_is_not_lost_if_the_scope_around_the_block_is_cancelled_too() {
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

/// A child's node had no waker, so the end of the last shield below it did not wake the child. This
/// is harmless if the child itself polls the shield. But a shield that one child has polled first
/// may be finished by another child.
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
