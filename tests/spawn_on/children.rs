//! Properties that children on an executor share with all children.

use std::task::Poll;
use std::time::Duration;

use crate::polling::{Drops, Hand, turns};
use crate::{executor, on_threads, settle, tick, with_executor};
use seedbed::cancel::current_effective_deadline;
use seedbed::nursery::{
    RemoteChild, StartError, Started, TreeVar, on_executor, open_local_nursery,
};
use seedbed::sync::Event;
use seedbed::testing::MockClock;
use seedbed::time::{current_time, sleep_forever};
use seedbed::{
    CancelScope, Nursery, RunBuilder, checkpoint, fail_after, move_on_after, open_nursery, run,
    sleep, try_open_nursery,
};

// ---- Blocks, results, errors, scopes.

#[test]
fn the_executor_polls_the_child_and_the_block_waits_for_it() {
    let (executor, open, drops) = (executor(), Event::new(), Drops::new());
    let (on, wait, value) = (executor.clone(), open.clone(), drops.value());
    let mut block = Hand::new(open_nursery(|n| async move {
        n.spawn_on(&on, async move {
            wait.wait().await;
            drop(value);
        });
        "body"
    }));
    assert!(block.settle().is_pending());
    assert!(settle(&executor, &mut block).is_pending());
    open.set();
    assert_eq!(drops.alive(), 1, "nobody has polled it yet");
    tick(&executor);
    drops.assert_all_dropped();
    assert_eq!(block.go_on(), Poll::Ready("body"));
    assert!(executor.is_empty());
}

#[test]
fn the_task_returns_the_result_and_cancels_that_one_child() {
    let executor = executor();
    let on = executor.clone();
    let block = with_executor(
        executor.clone(),
        open_nursery(|n| async move {
            assert_eq!(n.spawn_on(&on, async { 5 }).await, 5);
            assert_eq!(n.spawn_on(&on, async { 6 }).outcome().await, Some(6));
            let (one, other) = (n.spawn_on(&on, sleep_forever()), n.spawn_on(&on, turns(9)));
            turns(5).await;
            assert_eq!(one.cancel().await, None);
            assert!(!other.is_finished());
            other.await;
        }),
    );
    Hand::new(block).finish();
    tick(&executor);
    assert!(executor.is_empty());
}

#[test]
fn every_kind_of_nursery_has_such_children_also_one_whose_other_children_borrow() {
    let executor = executor();
    let text = String::from("lent");
    let block = with_executor(executor.clone(), async {
        let (text, on) = (&text, &executor);
        let length = open_nursery(|n| async move {
            let here = n.spawn(async move { text.len() });
            here.await + n.spawn_on(on, async { 1 }).await
        });
        assert_eq!(length.await, 5);
        let local =
            open_local_nursery(|n| async move { n.spawn(on_executor(on, async { 2 })).await });
        assert_eq!(local.await, 2);
        let through_a_spawner =
            open_nursery(|n| async move { n.spawner().spawn(on_executor(on, async { 3 })).await });
        assert_eq!(through_a_spawner.await, 3);
        assert_eq!(on_executor(on, async { 4 }).await, 4);
    });
    Hand::new(block).finish();
}

#[test]
fn any_executor_can_be_used_as_a_closure_also_smol_s_global_one() {
    let global = |child: RemoteChild| smol::spawn(child).detach();
    run(open_nursery(|n| async move {
        let here = std::thread::current().id();
        let there = n.spawn_on(&global, async { std::thread::current().id() });
        assert_ne!(there.await, here);
    }));
}

#[test]
fn an_error_of_such_a_child_ends_the_block_and_is_its_result() {
    let executor = executor();
    let (on, drops) = (executor.clone(), Drops::new());
    let value = drops.value();
    let block = try_open_nursery(|n: Nursery<'_, Result<(), &str>>| async move {
        assert_eq!(n.try_spawn_on(&on, async { Ok(3) }).await, Some(3));
        n.try_spawn_on(&on, async {
            checkpoint().await;
            Err::<(), _>("failed")
        });
        n.spawn_on(&on, async move {
            let _value = value;
            sleep_forever().await
        });
        sleep_forever().await;
        Ok(())
    });
    assert_eq!(
        Hand::new(with_executor(executor, block)).finish(),
        Err("failed")
    );
    drops.assert_all_dropped();
}

#[test]
fn start_works_with_such_a_child() {
    let executor = executor();
    let on = &executor;
    let block = open_nursery(|n| async move {
        let started = n.start(|started: Started<_>| {
            on_executor(on, async move {
                started.send("ready");
                sleep_forever().await
            })
        });
        assert_eq!(started.await, Ok("ready"));
        let exited = n.start(|started: Started<()>| {
            on_executor(on, async move {
                checkpoint().await;
                drop(started);
                7
            })
        });
        assert_eq!(exited.await, Err(StartError::Exited(7)));
        n.cancel();
    });
    Hand::new(with_executor(executor.clone(), block)).finish();
}

#[test]
fn a_block_with_such_children_may_itself_be_a_task_of_the_executor_and_so_may_theirs() {
    on_threads(2, |executor| {
        let on = executor.clone();
        let block = open_nursery(|n| async move {
            let inner = on.clone();
            let child = open_nursery(|n| async move {
                let grandchildren = [(); 10].map(|()| n.spawn_on(&inner, turns(3)));
                for grandchild in grandchildren {
                    grandchild.await;
                }
                10
            });
            n.spawn_on(&on, child).await
        });
        assert_eq!(smol::block_on(executor.spawn(block)), 10);
    });
}

static USER: TreeVar<&str> = TreeVar::new();

#[test]
fn the_child_has_the_variables_scopes_and_deadlines_of_the_nursery_on_every_thread() {
    on_threads(1, |executor| {
        run(async {
            let opened = USER.scope("opened", async {
                let deadline = current_time() + Duration::from_secs(3600);
                let scope = CancelScope::new();
                scope.set_deadline(Some(deadline));
                let block = scope.run(open_nursery(|n| async move {
                    let child = async {
                        checkpoint().await;
                        (USER.get(), current_effective_deadline())
                    };
                    let spawned = USER.scope("spawned", async {
                        let child = n.spawn_on(&executor, child);
                        assert_eq!(child.await, (Some("opened"), Some(deadline)));
                    });
                    spawned.await
                }));
                block.await.unwrap();
            });
            opened.await
        });
    });
}

/// The thread that polls such a child may have a position in another scope tree. The two trees do
/// not affect each other.
#[test]
fn the_position_of_the_thread_that_polls_it_is_restored() {
    let executor = executor();
    let on = executor.clone();
    let mut block = Hand::new(open_nursery(|n| async move {
        n.spawn_on(&on, async { assert_eq!(USER.get(), None) });
    }));
    assert!(block.settle().is_pending());
    let elsewhere = USER.scope("elsewhere", async {
        tick(&executor);
        assert_eq!(USER.get(), Some("elsewhere"));
        let scope = CancelScope::new();
        scope.cancel();
        assert_eq!(scope.run(sleep_forever()).await, None);
    });
    Hand::new(elsewhere).finish();
    assert!(block.go_on().is_ready());
}

// ---- Time.

#[test]
fn its_sleeps_and_deadlines_use_the_run_s_clock_for_which_it_is_blocked() {
    on_threads(1, |executor| {
        let hours = RunBuilder::new().clock(MockClock::autojump()).run(async {
            let begin = current_time();
            let (on, late) = (executor.clone(), Duration::from_secs(7200));
            let work = on_executor(&on, async move {
                assert_eq!(move_on_after(late, sleep_forever()).await, None);
                sleep(late).await;
            });
            work.await;
            let cut = fail_after(late, on_executor(&executor, sleep_forever()));
            assert!(cut.await.is_err());
            current_time() - begin
        });
        assert!(hours >= Duration::from_secs(3 * 7200));
    });
}
