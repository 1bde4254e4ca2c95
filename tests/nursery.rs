//! Nurseries: who lives how long, who ends whom, what the block returns. Polled by hand; no test sleeps or has a timeout.

#[path = "common/polling.rs"]
mod polling;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use polling::{Drops, Hand, OnDrop, end_at_every_poll, turns};
use seedbed::sync::Event;
use seedbed::{
    CancelScope, Nursery, StartError, Started, Task, TreeVar, checkpoint, checkpoint_if_cancelled,
    on_cancel, open_local_nursery, open_nursery, shield, sleep_forever, try_open_local_nursery,
    try_open_nursery,
};

/// What a panic said.
fn message(payload: Box<dyn std::any::Any + Send>) -> String {
    match payload.downcast::<String>() {
        Ok(message) => *message,
        Err(payload) => payload.downcast::<&str>().map_or_else(
            |_| "not a string".to_string(),
            |message| message.to_string(),
        ),
    }
}

/// Runs code that is expected to panic, and returns what it said.
#[track_caller]
fn panic_of<T>(act: impl FnOnce() -> T) -> String {
    match catch_unwind(AssertUnwindSafe(act)) {
        Ok(_) => panic!("expected a panic"),
        Err(payload) => message(payload),
    }
}

// ---- Bugs that were found by these tests.

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
        let (wakes, waker) = polling::Wakes::new();
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

// ---- How long a block lasts.

/// What happened, in order.
#[derive(Default)]
struct Log(Mutex<Vec<&'static str>>);

impl Log {
    fn add(&self, what: &'static str) {
        self.0.lock().unwrap().push(what);
    }

    fn take(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

#[test]
fn a_block_waits_for_its_children_though_the_body_has_ended_and_returns_the_body_s_value() {
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
fn a_block_without_children_ends_with_its_body_and_entering_it_is_no_wait() {
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
fn handles_may_be_passed_on_and_whoever_has_one_adds_siblings_also_after_the_body_has_ended() {
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
fn a_block_that_has_ended_takes_no_more_children_and_gives_the_future_back() {
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
fn a_block_that_was_dropped_takes_no_more_children() {
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

// ---- Ending early.

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
fn the_first_to_terminate_decides_also_over_the_value_that_the_body_has_returned() {
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
fn a_body_that_terminates_and_returns_has_terminated() {
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
fn cancelled_siblings_go_at_once_while_a_shielded_one_ends_its_section() {
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
fn a_scope_around_a_block_absorbs_also_when_the_block_was_ended_by_itself() {
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
fn children_have_the_scopes_and_variables_of_where_the_nursery_was_opened_not_the_spawner_s() {
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

// ---- Errors.

#[test]
fn the_first_error_of_a_child_ends_the_rest_and_is_the_block_s() {
    let drops = &Drops::new();
    let block = try_open_nursery(|n| async move {
        let value = drops.value();
        n.try_spawn(async move {
            sleep_forever().await;
            drop(value);
            Ok(())
        });
        n.try_spawn(async {
            turns(2).await;
            Err::<(), _>("child")
        });
        sleep_forever().await;
        Ok(1)
    });
    assert_eq!(Hand::new(block).finish(), Err("child"));
    drops.assert_all_dropped();
}

#[test]
fn the_body_s_error_ends_the_children_and_a_block_without_errors_returns_ok() {
    let drops = &Drops::new();
    let block = try_open_nursery(|n| async move {
        let value = drops.value();
        n.spawn(async move {
            sleep_forever().await;
            drop(value);
        });
        checkpoint().await;
        Err::<(), _>("body")?;
        Ok(())
    });
    assert_eq!(Hand::new(block).finish(), Err("body"));
    drops.assert_all_dropped();

    let fine = try_open_nursery(|n| async move {
        let five = n.try_spawn(async { Ok::<_, ()>(5) }).await;
        Ok(five)
    });
    assert_eq!(Hand::new(fine).finish(), Ok(Some(5)));
}

#[test]
fn errors_after_the_first_go_to_the_hook_in_order_and_none_is_lost() {
    let late = Arc::new(Mutex::new(Vec::new()));
    let hook = late.clone();
    let block = try_open_nursery(|n| async move {
        n.on_late_error(move |error| hook.lock().unwrap().push(error));
        for number in 1..=3 {
            n.try_spawn(shield(async move {
                turns(number).await;
                Err::<(), _>(number)
            }));
        }
        checkpoint().await;
        Err::<(), _>(0)
    });
    assert_eq!(Hand::new(block).finish(), Err(0));
    assert_eq!(*late.lock().unwrap(), [1, 2, 3]);
}

#[test]
fn the_body_s_error_after_a_child_s_is_late() {
    let late = Arc::new(Mutex::new(Vec::new()));
    let hook = late.clone();
    let block = try_open_nursery(|n| async move {
        n.on_late_error(move |error| hook.lock().unwrap().push(error));
        n.try_spawn(async { Err::<(), _>("child") });
        shield(turns(3)).await;
        Err::<(), _>("body")
    });
    assert_eq!(Hand::new(block).finish(), Err("child"));
    assert_eq!(*late.lock().unwrap(), ["body"]);
}

#[test]
fn a_child_s_error_replaces_a_value_that_the_body_has_returned() {
    let block = try_open_nursery(|n| async move {
        n.try_spawn(async {
            turns(2).await;
            Err::<(), _>("child")
        });
        Ok(1)
    });
    assert_eq!(Hand::new(block).finish(), Err("child"));
}

// ---- One child.

#[test]
fn a_task_gives_the_child_s_result_whenever_it_is_awaited() {
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
fn dropping_a_task_changes_nothing_and_a_result_that_nobody_takes_is_dropped_once() {
    let (drops, done) = (&Drops::new(), &AtomicBool::new(false));
    Hand::new(open_nursery(|n| async move {
        // The task goes before the child ends, and after.
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
fn cancelling_a_task_ends_that_one_child_and_waits_until_it_is_gone() {
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
    // It ends its shielded section, and then need not wait any more.
    assert_eq!(block.go_on(), Poll::Ready(Some(7)));
}

#[test]
fn cancelling_a_task_that_has_ended_gives_its_result_and_asking_suffices_without_waiting() {
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
    assert!(says.starts_with("the awaited child of a nursery is gone without a result"));

    // Both are children of the nursery that is cancelled: the one who waits is dropped, and nobody panics.
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

// ---- Start.

#[test]
fn start_returns_what_the_child_sends_and_the_child_goes_on_in_the_nursery() {
    let (open, log) = (&Event::new(), &Log::default());
    let mut block = Hand::new(open_nursery(|n| async move {
        let sent = n
            .start(|started| async move {
                turns(3).await;
                started.send(8080);
                open.wait().await;
                log.add("child ends");
            })
            .await;
        log.add("started");
        sent
    }));
    assert!(block.settle().is_pending());
    assert_eq!(log.take(), ["started"]);
    open.set();
    assert_eq!(block.go_on(), Poll::Ready(Ok(8080)));
    assert_eq!(log.take(), ["child ends"]);
}

#[test]
fn start_of_a_child_that_ends_without_having_started_gives_its_result_and_harms_nobody() {
    let block = open_nursery(|n| async move {
        let other = n.spawn(turns(20));
        let forgot = n.start(|_: Started<()>| async { 1 }).await;
        assert_eq!(forgot, Err(StartError::Exited(1)));
        let dropped = n.start(|started: Started<()>| async move {
            drop(started);
            turns(3).await;
            2
        });
        assert_eq!(dropped.await, Err(StartError::Exited(2)));
        assert!(!other.is_finished());
        other.await;
    });
    Hand::new(block).finish();
}

#[test]
fn a_child_that_starts_with_its_last_breath_has_started() {
    let block =
        open_nursery(|n| async move { n.start(|started| async move { started.send(1) }).await });
    assert_eq!(Hand::new(block).finish(), Ok(1));
}

#[test]
fn cancelling_start_cancels_the_child_that_has_not_started_and_waits_for_it() {
    let (open, log) = (&Event::new(), &Log::default());
    let mut block = Hand::new(open_nursery(|n| async move {
        let scope = CancelScope::new();
        let cancel = scope.clone();
        n.spawn(async move {
            turns(2).await;
            cancel.cancel();
        });
        let starts = n.start(|started: Started<()>| async move {
            shield(open.wait()).await;
            log.add("child: shielded section ended");
            started.send(()); // nobody waits any more
            checkpoint().await;
            log.add("not reached");
        });
        assert_eq!(scope.run(starts).await, None);
        log.add("start was cancelled");
    }));
    assert!(block.settle().is_pending());
    assert_eq!(log.take(), [""; 0]);
    open.set();
    assert!(block.go_on().is_ready());
    assert_eq!(
        log.take(),
        ["child: shielded section ended", "start was cancelled"]
    );
}

#[test]
fn dropping_start_from_outside_cancels_the_child_that_has_not_started() {
    let drops = &Drops::new();
    Hand::new(open_nursery(|n| async move {
        {
            let mut starts = Box::pin(n.start(|_: Started<()>| async {
                let _value = drops.value();
                sleep_forever().await
            }));
            futures_lite::future::poll_once(&mut starts).await;
            checkpoint().await;
            assert_eq!(drops.alive(), 1);
        }
        turns(2).await;
        assert_eq!(drops.alive(), 0);
    }))
    .finish();
}

#[test]
fn a_start_that_is_pending_keeps_the_nursery_open_though_its_body_has_ended() {
    let (open, given) = (&Event::new(), &Mutex::new(None));
    let mut outer = Hand::new(open_nursery(|outer| async move {
        let inner = outer.spawn(open_nursery(move |inner: Nursery<'_, ()>| async move {
            *given.lock().unwrap() = Some(inner);
            turns(2).await;
        }));
        checkpoint().await;
        let n = given.lock().unwrap().take().unwrap();
        let started = n.start(async |started: Started<i32>| {
            open.wait().await;
            started.send(1);
        });
        assert_eq!(started.await, Ok(1));
        inner.await;
        assert!(n.spawn_if_open(async {}).is_err());
    }));
    assert!(outer.settle().is_pending());
    open.set();
    assert!(outer.go_on().is_ready());
}

#[test]
fn start_in_a_nursery_that_is_cancelled_before_the_child_has_started_says_so() {
    let block = open_nursery(|outer| async move {
        let block = open_nursery(|n| async move {
            let target = n.clone();
            let started =
                outer.spawn(async move { target.start(|_: Started<()>| sleep_forever()).await });
            turns(3).await;
            n.terminate(Some(started));
            sleep_forever().await;
            None
        });
        block.await.unwrap().await
    });
    assert_eq!(Hand::new(block).finish(), Err(StartError::Cancelled));
}

#[test]
fn one_function_serves_under_start_and_when_awaited_directly() {
    async fn serve(started: Started<u8>) -> &'static str {
        started.send(1);
        "served"
    }
    assert_eq!(Hand::new(serve(Started::ignored())).finish(), "served");
    let block = open_nursery(|n| async move { n.start(serve).await });
    assert_eq!(Hand::new(block).finish(), Ok(1));
}

#[test]
fn a_panic_before_the_child_has_started_is_the_nursery_s() {
    let says = panic_of(|| {
        Hand::new(open_nursery(|n| async move {
            let starts = n.start(|_: Started<()>| async { panic!("in the child") });
            let result: Result<(), StartError<()>> = starts.await;
            unreachable!("{result:?}: the body is cancelled")
        }))
        .finish()
    });
    assert_eq!(says, "in the child");
}

// ---- Panics.

#[test]
fn a_panic_in_a_child_ends_the_others_and_goes_on_in_the_parent_when_all_are_gone() {
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
fn of_two_panics_the_first_goes_on() {
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
fn a_panic_of_a_result_that_nobody_takes_is_the_block_s_or_the_task_s() {
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
fn a_panic_passes_through_blocks_and_scopes_and_even_a_cancelled_scope_does_not_swallow_it() {
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
fn dropping_a_block_from_outside_drops_everybody_though_one_of_them_panics() {
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

// ---- Executors, threads, wakers.

#[test]
fn a_block_runs_inside_smol_spawn_and_moves_between_threads() {
    let executor = smol::Executor::new();
    let count = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let count = count.clone();
            executor.spawn(async move {
                let local = AtomicUsize::new(0);
                let counter = &local;
                open_nursery(async |n| {
                    for number in 0..20 {
                        n.spawn(async move {
                            for _ in 0..number {
                                smol::future::yield_now().await;
                            }
                            counter.fetch_add(1, SeqCst);
                        });
                    }
                })
                .await;
                count.fetch_add(local.into_inner(), SeqCst);
            })
        })
        .collect();
    let done = Event::new();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| smol::block_on(executor.run(done.wait())));
        }
        smol::block_on(async {
            for task in tasks {
                task.await;
            }
        });
        done.set();
    });
    assert_eq!(count.load(SeqCst), 400);
}

#[test]
fn a_foreign_select_that_drops_a_block_drops_all_that_is_in_it_shields_included() {
    let drops = &Drops::new();
    let race = futures_lite::future::race(
        open_nursery(|n| async move {
            let values = (drops.value(), drops.value());
            n.spawn(async move {
                let value = values.0;
                shield(sleep_forever()).await;
                drop(value);
            });
            n.spawn(on_cancel(
                async move {
                    let _value = values.1;
                    sleep_forever().await
                },
                async { unreachable!("the clean-up is for cancellation") },
            ));
            sleep_forever().await;
            "block"
        }),
        async {
            turns(5).await;
            "other"
        },
    );
    assert_eq!(Hand::new(race).finish(), "other");
    assert_eq!(drops.made(), 2);
    drops.assert_all_dropped();
}

#[test]
fn spurious_polls_and_changing_wakers_hurt_nobody_and_the_newest_waker_is_woken() {
    let open = &Event::new();
    let mut block = pin!(open_nursery(|n| async move {
        n.spawn(async {
            open.wait().await;
        });
    }));
    let mut last = None;
    for _ in 0..10 {
        let (wakes, waker) = polling::Wakes::new();
        for _ in 0..3 {
            assert!(
                block
                    .as_mut()
                    .poll(&mut Context::from_waker(&waker))
                    .is_pending()
            );
        }
        last = Some(wakes);
    }
    open.set();
    assert_eq!(last.unwrap().count(), 1);
    assert!(
        block
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_ready()
    );
}

#[test]
fn one_wake_up_polls_one_child() {
    let polls = &AtomicUsize::new(0);
    let events: Vec<_> = (0..10).map(|_| Event::new()).collect();
    let events = &events;
    let mut block = Hand::new(open_nursery(|n| async move {
        for event in events {
            let mut wait = event.wait();
            n.spawn(std::future::poll_fn(move |cx| {
                polls.fetch_add(1, SeqCst);
                Pin::new(&mut wait).poll(cx)
            }));
        }
    }));
    assert!(block.settle().is_pending());
    for event in events {
        let before = polls.load(SeqCst);
        event.set();
        event.set();
        let _ = block.go_on();
        assert_eq!(polls.load(SeqCst), before + 1);
    }
}

/// Gives its waker away and waits for ever.
fn gives_its_waker(to: &Mutex<Vec<Waker>>) -> impl Future<Output = ()> + Send {
    std::future::poll_fn(|cx| {
        to.lock().unwrap().push(cx.waker().clone());
        Poll::Pending
    })
}

/// Wakes all of these from several threads while `act` runs, and goes on until it has ended.
fn hammer<T>(wakers: Vec<Waker>, act: impl FnOnce() -> T) -> T {
    let (stop, begun) = (&AtomicBool::new(false), &Barrier::new(3));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let wakers = wakers.clone();
            scope.spawn(move || {
                begun.wait();
                while !stop.load(SeqCst) {
                    wakers.iter().for_each(Waker::wake_by_ref);
                }
                // By value, and dropped unused.
                let mut wakers = wakers;
                drop(wakers.pop());
                wakers.into_iter().for_each(Waker::wake);
            });
        }
        drop(wakers);
        begun.wait();
        let _stop = OnDrop(|| stop.store(true, SeqCst));
        act()
    })
}

#[test]
fn wakers_fire_on_other_threads_while_the_block_is_polled_cancelled_and_dropped() {
    for round in 0..60 {
        let (drops, wakers) = (&Drops::new(), &Mutex::new(Vec::new()));
        let (kept, scope) = (&Mutex::new(None), &CancelScope::new());
        let mut block = Hand::new(scope.run(open_nursery(|n: Nursery<'_, ()>| async move {
            *kept.lock().unwrap() = Some(n.clone());
            for child in 0..8 {
                let value = drops.value();
                n.spawn(async move {
                    let _value = value;
                    match child % 3 {
                        0 => gives_its_waker(wakers).await,
                        1 => {
                            on_cancel(gives_its_waker(wakers), async {
                                drop(drops.value());
                                turns(3).await
                            })
                            .await
                        }
                        _ => shield(turns(30)).await,
                    }
                });
            }
            gives_its_waker(wakers).await
        })));
        assert!(block.poll().is_pending());
        let fire = std::mem::take(&mut *wakers.lock().unwrap());
        hammer(fire, || {
            for _ in 0..10 {
                let _ = block.poll();
            }
            match round % 4 {
                0 => drop(block),
                1 => {
                    scope.cancel();
                    while block.poll().is_pending() {}
                }
                2 => {
                    let n = kept.lock().unwrap().take().unwrap();
                    n.cancel();
                    while block.poll().is_pending() {}
                }
                _ => {
                    scope.cancel();
                    let _ = block.poll();
                    drop(block);
                }
            }
            drops.assert_all_dropped();
        });
        drops.assert_all_dropped();
        // These were given away later, and fire after everything has ended.
        wakers.lock().unwrap().drain(..).for_each(Waker::wake);
    }
}

#[test]
fn a_forgotten_block_leaks_and_nothing_else() {
    let wakers = Arc::new(Mutex::new(Vec::new()));
    let drops = Drops::new();
    let (give, count, mut kept) = (wakers.clone(), drops.clone(), None);
    let mut block = Box::pin(open_nursery(|n: Nursery<'static, ()>| {
        kept = Some(n.clone());
        async move {
            for _ in 0..4 {
                let (give, value) = (give.clone(), count.value());
                n.spawn(async move {
                    let _value = value;
                    gives_its_waker(&give).await
                });
            }
        }
    }));
    let (_, waker) = polling::Wakes::new();
    assert!(
        block
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
    );
    std::mem::forget(block);
    let fire = std::mem::take(&mut *wakers.lock().unwrap());
    hammer(fire, || {
        // It takes children still, which are leaked too.
        let n = kept.take().unwrap();
        for _ in 0..10 {
            let value = drops.value();
            n.spawn(async move { value });
        }
        n.cancel();
    });
    assert_eq!((drops.made(), drops.alive()), (14, 14));
}

#[test]
fn children_are_put_in_from_many_threads_while_the_block_ends() {
    for _ in 0..30 {
        let drops = Drops::new();
        let count = drops.clone();
        std::thread::scope(|scope| {
            smol::block_on(open_nursery(|n| {
                for _ in 0..3 {
                    let (n, count) = (n.clone(), count.clone());
                    scope.spawn(move || {
                        for _ in 0..100 {
                            let value = count.value();
                            let child = n.spawn_if_open(async move {
                                checkpoint().await;
                                drop(value);
                            });
                            match child {
                                Ok(task) => drop(task.cancel()),
                                Err(closed) => return drop(closed.into_future()),
                            }
                        }
                    });
                }
                async move {
                    turns(20).await;
                    n.cancel();
                }
            }));
        });
        drops.assert_all_dropped();
    }
}

#[test]
fn a_local_nursery_takes_what_must_stay_on_this_thread() {
    let shared = std::rc::Rc::new(std::cell::Cell::new(1));
    let value = open_local_nursery(|n| {
        let shared = shared.clone();
        async move {
            let other = shared.clone();
            n.spawn(async move { other.set(other.get() + 1) }).await;
            shared.get()
        }
    });
    assert_eq!(Hand::new(value).finish(), 2);
    let failed: Result<(), &str> = Hand::new(try_open_local_nursery(|n| async move {
        n.try_spawn(async move {
            shared.set(9);
            Err::<(), _>("no")
        });
        sleep_forever().await;
        Ok(())
    }))
    .finish();
    assert_eq!(failed, Err("no"));
}

// ---- Dropped and cancelled at every pending poll.

#[test]
fn a_block_that_is_ended_at_any_point_leaves_nothing() {
    let polls = end_at_every_poll(|drops| {
        let drops = Arc::new(drops);
        async move {
            let _outer = drops.value();
            open_nursery(async |n| {
                let _body = drops.value();
                for child in 0..4 {
                    let drops = drops.clone();
                    n.spawn(async move {
                        let value = drops.value();
                        turns(child).await;
                        shield(turns(2)).await;
                        on_cancel(turns(2), {
                            let value = drops.value();
                            async move {
                                turns(2).await;
                                drop(value);
                            }
                        })
                        .await;
                        value
                    });
                }
                turns(2).await;
                n.spawn({
                    let drops = drops.clone();
                    open_nursery(|n| async move {
                        let value = drops.value();
                        n.spawn(turns(3));
                        turns(2).await;
                        drop(value);
                    })
                });
            })
            .await;
            turns(1).await;
        }
    });
    assert!(polls > 5);
}

#[test]
fn a_fallible_block_that_is_ended_at_any_point_leaves_nothing() {
    for fails in [None, Some(0), Some(2), Some(9)] {
        end_at_every_poll(|drops| async move {
            let drops = &drops;
            let result = try_open_nursery(|n| async move {
                for child in 0..4 {
                    n.try_spawn(async move {
                        let value = drops.value();
                        turns(child).await;
                        match fails == Some(child) {
                            true => Err(drops.value()),
                            false => Ok(value),
                        }
                    });
                }
                turns(2).await;
                let late = n.try_spawn(shield(async move {
                    turns(2).await;
                    Ok(drops.value())
                }));
                late.await;
                match fails == Some(9) {
                    true => Err(drops.value()),
                    false => Ok(drops.value()),
                }
            });
            assert_eq!(result.await.is_err(), fails.is_some());
        });
    }
}

#[test]
fn start_that_is_ended_at_any_point_leaves_nothing() {
    for starts in [true, false] {
        end_at_every_poll(|drops| async move {
            let drops = &drops;
            open_nursery(|n| async move {
                let child = async move |started: Started<_>| {
                    let value = drops.value();
                    turns(2).await;
                    if starts {
                        started.send(drops.value());
                    } else {
                        drop(started);
                    }
                    turns(2).await;
                    value
                };
                let result = n.start(child).await;
                assert_eq!(result.is_ok(), starts);
                turns(1).await;
            })
            .await;
        });
    }
}

#[test]
fn a_task_s_cancel_that_is_ended_at_any_point_leaves_nothing() {
    end_at_every_poll(|drops| async move {
        let drops = &drops;
        open_nursery(|n| async move {
            let task = n.spawn(async {
                let _value = drops.value();
                shield(turns(2)).await;
                on_cancel(sleep_forever(), async {
                    let _value = drops.value();
                    turns(2).await;
                })
                .await
            });
            turns(1).await;
            assert_eq!(task.cancel().await, None);
            let done = n.spawn(async { drops.value() });
            turns(1).await;
            assert!(done.cancel().await.is_some());
        })
        .await;
    });
}

/// A cancelled block looked at all its children whenever it was polled: 8,000 shielded children that ended one by one took
/// seconds. Counted here, so that no clock decides: each child is polled a bounded number of times, and the block ends.
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
