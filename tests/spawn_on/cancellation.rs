//! Cancelling children that another thread may be polling.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::task::Poll;

use crate::polling::{Drops, Hand, OnDrop};
use crate::{executor, on_threads, settle, tick, with_executor};
use futures_lite::future::poll_once;
use seedbed::nursery::on_executor;
use seedbed::sync::Event;
use seedbed::time::sleep_forever;
use seedbed::{CancelScope, Nursery, checkpoint, on_cancel, open_nursery, run, shield};

#[test]
fn a_cancelled_child_that_waits_is_dropped_here_even_if_no_thread_runs_the_executor() {
    let executor = executor();
    let (on, drops, scope) = (executor.clone(), Drops::new(), CancelScope::new());
    let value = drops.value();
    let mut block = Hand::new(scope.run(open_nursery(|n| async move {
        n.spawn_on(&on, async move {
            let _value = value;
            sleep_forever().await
        });
    })));
    assert!(settle(&executor, &mut block).is_pending());
    scope.cancel();
    assert_eq!(block.go_on(), Poll::Ready(None));
    drops.assert_all_dropped();
    tick(&executor);
    assert!(
        executor.is_empty(),
        "the executor is told that it can let go"
    );
}

#[test]
fn a_child_that_is_cancelled_before_its_first_poll_is_dropped_without_having_run() {
    let executor = executor();
    let (on, drops, scope) = (executor.clone(), Drops::new(), CancelScope::new());
    scope.cancel();
    let value = drops.value();
    let mut block = Hand::new(scope.run(open_nursery(|n| async move {
        n.spawn_on(&on, async move {
            let _value = value;
            unreachable!("cancelled before")
        });
    })));
    assert_eq!(block.settle(), Poll::Ready(None));
    drops.assert_all_dropped();
    tick(&executor);
}

#[test]
fn a_returned_value_is_kept_if_the_scope_is_cancelled_before_the_block_takes_it() {
    let executor = executor();
    let (on, scope) = (executor.clone(), CancelScope::new());
    let cancel = scope.clone();
    let child = async move {
        cancel.cancel();
        "finished"
    };
    let mut work = Hand::new(scope.run(on_executor(&on, child)));
    assert_eq!(settle(&executor, &mut work), Poll::Ready(Some("finished")));
}

#[test]
fn a_shield_in_the_child_makes_the_block_wait_and_the_clean_up_after_it_runs() {
    let executor = executor();
    let (on, open, scope) = (executor.clone(), Event::new(), CancelScope::new());
    let (wait, cleaned) = (open.clone(), Arc::new(AtomicBool::new(false)));
    let clean = cleaned.clone();
    let mut block = Hand::new(scope.run(open_nursery(|n| async move {
        n.spawn_on(&on, async move {
            shield(wait.wait()).await;
            on_cancel(sleep_forever(), async move {
                checkpoint().await;
                clean.store(true, SeqCst)
            })
            .await
        });
    })));
    assert!(settle(&executor, &mut block).is_pending());
    scope.cancel();
    assert!(settle(&executor, &mut block).is_pending());
    open.set();
    assert_eq!(settle(&executor, &mut block), Poll::Ready(None));
    assert!(cleaned.load(SeqCst));
}

#[test]
fn scopes_in_the_child_are_below_the_nursery_s_and_the_outermost_cancelled_one_absorbs() {
    let executor = executor();
    let (on, inner, outer) = (executor.clone(), CancelScope::new(), CancelScope::new());
    let (both, alone) = ((inner.clone(), outer.clone()), CancelScope::new());
    let work = outer.run(on_executor(&on, async move {
        alone.cancel();
        assert_eq!(alone.run(sleep_forever()).await, None);
        both.0.cancel();
        both.1.cancel();
        both.0.run(sleep_forever()).await;
        unreachable!("the outer scope absorbs")
    }));
    assert_eq!(
        Hand::new(with_executor(executor.clone(), work)).finish(),
        None
    );
    assert!(inner.is_cancelled());
}

#[test]
fn a_child_that_is_cancelled_while_another_thread_polls_it_is_dropped_there_after_that_poll() {
    on_threads(1, |executor| {
        let (drops, scope) = (Drops::new(), CancelScope::new());
        let (began, begin) = channel();
        let (cancelled, go_on) = channel();
        let (dropped, where_) = channel();
        let value = drops.value();
        let mut block = Box::pin(scope.run(open_nursery(|n| async move {
            n.spawn_on(&executor, async move {
                let _value = value;
                let _here = OnDrop(|| dropped.send(std::thread::current().id()).unwrap());
                began.send(()).unwrap();
                go_on.recv().unwrap();
                sleep_forever().await
            });
        })));
        assert!(smol::block_on(poll_once(&mut block)).is_none());
        begin.recv().unwrap();
        scope.cancel();
        assert!(
            smol::block_on(poll_once(&mut block)).is_none(),
            "it is being polled"
        );
        assert_eq!(drops.alive(), 1);
        cancelled.send(()).unwrap();
        assert_eq!(smol::block_on(&mut block), None);
        drops.assert_all_dropped();
        assert_ne!(where_.recv().unwrap(), std::thread::current().id());
    });
}

#[test]
fn cancelling_from_the_child_s_thread_ends_the_block() {
    on_threads(2, |executor| {
        run(open_nursery(|n: Nursery<'static, ()>| async move {
            let end = n.clone();
            n.spawn_on(&executor, sleep_forever());
            n.spawn_on(&executor, async move {
                checkpoint().await;
                end.cancel();
                sleep_forever().await
            });
            sleep_forever().await
        }));
    });
}

#[test]
fn dropping_the_block_drops_the_child_at_once_shields_included() {
    let executor = executor();
    let (on, drops) = (executor.clone(), Drops::new());
    let values = [drops.value(), drops.value()];
    let mut block = Hand::new(open_nursery(|n| async move {
        for value in values {
            n.spawn_on(&on, async move {
                let _value = value;
                shield(sleep_forever()).await
            });
        }
    }));
    assert!(settle(&executor, &mut block).is_pending());
    drop(block);
    drops.assert_all_dropped();
    tick(&executor);
    assert!(executor.is_empty());
}

/// If the scope around the block is cancelled too, it does not end before that poll. Shields in the
/// child have no effect then.
#[test]
fn dropping_the_block_while_another_thread_polls_the_child_drops_it_at_the_end_of_that_poll() {
    for ends in [false, true] {
        on_threads(1, |executor| {
            let drops = Drops::new();
            let (began, begin) = channel();
            let (let_go, go_on) = channel();
            let (gone, is_gone) = channel();
            let value = drops.value();
            let mut block = Hand::new(open_nursery(|n| async move {
                n.spawn_on(&executor, async move {
                    let _gone = OnDrop(|| gone.send(()).unwrap());
                    let _value = value;
                    shield(async move {
                        began.send(()).unwrap();
                        go_on.recv().unwrap();
                        if !ends {
                            sleep_forever().await
                        }
                    })
                    .await;
                });
            }));
            assert!(block.settle().is_pending());
            begin.recv().unwrap();
            drop(block);
            assert_eq!(drops.alive(), 1);
            let_go.send(()).unwrap();
            is_gone.recv().unwrap();
            drops.assert_all_dropped();
        });
    }
}
