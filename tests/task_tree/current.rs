//! The current task, and names of tasks.

use std::collections::HashSet;
use std::sync::Mutex;
use std::task::Poll;

use crate::drawn;
use crate::polling::{Hand, OnDrop, turns};
use seedbed::nursery::{
    TaskInfo, current_root_task, current_task, open_local_nursery, task_tree,
    try_open_local_nursery,
};
use seedbed::run::spawn_system_task;
use seedbed::testing::{Sequencer, assert_checkpoints, assert_no_checkpoints};
use seedbed::time::sleep_forever;
use seedbed::{checkpoint, on_cancel, open_nursery, run, thread, try_open_nursery};

// ---- The current task.

#[test]
fn outside_of_any_task_there_is_none() {
    assert!(current_task().is_none());
    assert!(current_root_task().is_none());
    assert!(task_tree().is_none());
    run(async {
        assert!(current_task().is_some());
        let elsewhere = thread::run_sync(|| (current_task().is_none(), task_tree().is_none()));
        assert_eq!(
            elsewhere.await,
            (true, true),
            "a job's thread is in no task"
        );
    });
    assert!(current_task().is_none(), "the run has ended");
}

#[test]
fn a_run_s_future_is_the_root_task_which_has_no_parent_and_no_nursery() {
    run(async {
        let root = current_task().unwrap();
        assert_eq!(current_root_task(), Some(root.clone()));
        assert_eq!(root.parent(), None);
        assert_eq!(root.nursery(), None);
        open_nursery(|n| async move {
            n.spawn(async move {
                assert_ne!(current_task(), Some(root.clone()));
                assert_eq!(current_root_task(), Some(root));
            });
        })
        .await;
    });
}

#[test]
fn the_body_of_a_nursery_belongs_to_the_task_that_opened_it_and_each_child_is_a_task() {
    run(async {
        let root = current_task();
        let opener = root.clone();
        open_nursery(|n| async move {
            assert_eq!(current_task(), opener);
            let one = n.spawn(async {
                let before = current_task();
                turns(2).await;
                assert_eq!(current_task(), before, "still the same after a wait");
                before
            });
            let two = n.spawn(async { current_task() });
            let (one_s, two_s) = (one.info(), two.info());
            assert_eq!(one.await, Some(one_s.clone()));
            assert_eq!(current_task(), opener, "also after a wait");
            assert_eq!(two.await, Some(two_s.clone()));
            assert_ne!(one_s, two_s);
            assert_eq!(one_s.parent(), opener);
            assert_eq!(one_s.nursery(), two_s.nursery());
            assert_eq!(one_s.nursery().unwrap().opener(), opener);
        })
        .await;
        assert_eq!(current_task(), root);
    });
}

#[test]
fn the_current_task_is_right_again_after_a_child_has_panicked() {
    run(async {
        let root = current_task();
        let block = open_nursery(|n| async move {
            n.spawn(async { panic!("on purpose") });
            sleep_forever().await
        });
        let mut block = Box::pin(block);
        let ended = std::future::poll_fn(|cx| {
            let poll = std::panic::AssertUnwindSafe(|| block.as_mut().poll(cx));
            match std::panic::catch_unwind(poll) {
                Ok(Poll::Pending) => Poll::Pending,
                Ok(Poll::Ready(())) => Poll::Ready(false),
                Err(_) => Poll::Ready(true),
            }
        });
        assert!(ended.await);
        assert_eq!(current_task(), root);
    });
    assert!(current_task().is_none());
}

#[test]
fn a_cancelled_child_is_the_current_task_while_its_values_are_dropped() {
    let seen = &Mutex::new(Vec::new());
    let record = |what| move || seen.lock().unwrap().push((what, current_task()));
    run(open_nursery(|n| async move {
        let sleeper = |what| {
            let on_drop = OnDrop(record(what));
            async move {
                let _on_drop = on_drop;
                sleep_forever().await
            }
        };
        let cancelled = n.spawn(sleeper("cancelled"));
        let cancelled_s = cancelled.info();
        turns(2).await;
        cancelled.cancel().await;
        let swept_s = n.spawn(sleeper("swept")).info();
        let cleaned = n.spawn(on_cancel(
            sleep_forever(),
            async move { record("clean-up")() },
        ));
        let cleaned_s = cleaned.info();
        turns(2).await;
        n.spawn(async move {
            turns(2).await;
            let mut seen = seen.lock().unwrap();
            assert_eq!(seen.remove(0), ("cancelled", Some(cancelled_s)));
            seen.push(("expected", Some(swept_s)));
            seen.push(("expected", Some(cleaned_s)));
        })
        .await;
        n.cancel();
    }));
    let seen = seen.lock().unwrap();
    let [(_, swept_s), (_, cleaned_s), rest @ ..] = &seen[..] else {
        panic!("{seen:?}")
    };
    let swept = ("swept", swept_s.clone());
    let cleaned = ("clean-up", cleaned_s.clone());
    assert_eq!(rest.len(), 2, "{rest:?}");
    assert!(rest.contains(&swept) && rest.contains(&cleaned), "{rest:?}");
}

#[test]
fn a_child_that_is_dropped_with_the_block_is_the_current_task_of_its_drop() {
    let seen = &Mutex::new(Vec::new());
    let expected = &Mutex::new(Vec::new());
    let mut block = Hand::new(open_nursery(|n| async move {
        for _ in 0..3 {
            let on_drop = OnDrop(move || seen.lock().unwrap().push(current_task().unwrap()));
            let child = n.spawn(async move {
                let _on_drop = on_drop;
                sleep_forever().await
            });
            expected.lock().unwrap().push(child.info());
        }
        sleep_forever().await
    }));
    assert!(block.settle().is_pending());
    drop(block);
    let seen: HashSet<TaskInfo> = seen.lock().unwrap().drain(..).collect();
    assert_eq!(seen, expected.lock().unwrap().drain(..).collect());
    assert_eq!(seen.len(), 3);
}

#[test]
fn outside_of_a_run_the_children_of_a_nursery_are_tasks_and_its_body_is_none() {
    let block = open_nursery(|n| async move {
        assert!(current_task().is_none());
        assert_eq!(n.info().opener(), None);
        let child = n.named("outside").spawn(async {
            let task = current_task().unwrap();
            assert_eq!(task.parent(), None);
            assert_eq!(current_root_task(), Some(task.clone()));
            assert_eq!(
                drawn(),
                "nursery, its body waits for another task\n└─ outside"
            );
            task
        });
        let info = child.info();
        assert_eq!(child.await, info);
        assert_eq!(drawn(), "nursery", "also the body is in the tree");
    });
    Hand::new(block).finish();
}

#[test]
fn a_child_on_an_executor_is_the_same_task_on_every_thread() {
    run(open_nursery(|n| async move {
        let on_smol = |child| smol::spawn(child).detach();
        let child = n.named("remote").spawn_on(&on_smol, async {
            let inner = open_nursery(|inner| async move {
                let grandchild = inner.spawn(async { current_task().unwrap().parent() });
                (inner.info().opener(), grandchild.await)
            });
            (current_task(), inner.await)
        });
        let info = Some(child.info());
        assert_eq!(child.await, (info.clone(), (info.clone(), info)));
    }));
}

// ---- Numbers and names.

#[test]
fn no_two_tasks_have_the_same_number_on_any_thread() {
    let on_a_thread = || {
        std::thread::spawn(|| {
            let mut ids = Vec::new();
            for _ in 0..3 {
                run(open_nursery(async |n| {
                    ids.push(current_task().unwrap().id());
                    ids.extend((0..1000).map(|_| n.spawn(async {}).info().id()));
                }));
            }
            assert!(ids.is_sorted(), "numbered in the order of spawning");
            ids
        })
    };
    let threads: Vec<_> = (0..4).map(|_| on_a_thread()).collect();
    let ids: Vec<_> = threads
        .into_iter()
        .flat_map(|t| t.join().unwrap())
        .collect();
    assert_eq!(ids.len(), 4 * 3 * 1001);
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
}

async fn work() {}

async fn with_argument<T>(_: T) {}

#[test]
fn a_task_without_a_name_is_named_after_its_function() {
    run(async {
        assert_eq!(
            current_task().unwrap().name(),
            "task_tree::current::a_task_without_a_name_is_named_after_its_function"
        );
        open_nursery(|n| async move {
            assert_eq!(n.spawn(work()).info().name(), "task_tree::current::work");
            let name = n.spawn(with_argument(5)).info();
            assert!(
                name.name().starts_with("task_tree::current::with_argument"),
                "{name}"
            );
            let on_smol = |child| smol::spawn(child).detach();
            assert_eq!(
                n.spawn_on(&on_smol, work()).info().name(),
                "task_tree::current::work"
            );
            n.spawn(std::future::ready(1));
            let nobody = n.spawn(std::future::ready(1)).info();
            assert_eq!(nobody.name(), "core::future::ready::Ready<i32>");
        })
        .await;
        try_open_nursery(|n| async move {
            let child = n.try_spawn(async {
                work().await;
                Ok(())
            });
            let name = child.info();
            assert!(
                name.name()
                    .starts_with("task_tree::current::a_task_without"),
                "{name}"
            );
            Ok::<(), ()>(())
        })
        .await
        .unwrap();
    });
}

#[test]
fn system_tasks_and_futures_in_test_wrappers_are_named_after_the_function_too() {
    run(open_nursery(async |n| {
        assert_eq!(
            spawn_system_task(work()).info().name(),
            "task_tree::current::work"
        );
        let in_sequence = n.spawn(Sequencer::new().at(0, work()));
        assert_eq!(in_sequence.info().name(), "task_tree::current::work");
        let waits = n.spawn(assert_checkpoints(checkpoint()));
        assert_eq!(waits.info().name(), n.spawn(checkpoint()).info().name());
        let does_not = n.spawn(assert_no_checkpoints(work()));
        assert_eq!(does_not.info().name(), "task_tree::current::work");
    }));
}

#[test]
fn a_handle_with_a_name_gives_it_to_every_child_that_is_spawned_with_it() {
    run(async {
        open_nursery(|n| async move {
            let named = n.named("one");
            assert_eq!(named.spawn(work()).info().name(), "one");
            assert_eq!(named.clone().spawn(work()).info().name(), "one");
            assert_eq!(named.spawn_if_open(work()).unwrap().info().name(), "one");
            assert_eq!(named.spawner().spawn(work()).info().name(), "one");
            let on_smol = |child| smol::spawn(child).detach();
            assert_eq!(named.spawn_on(&on_smol, work()).info().name(), "one");
            assert_eq!(named.named("two").spawn(work()).info().name(), "two");
            assert_eq!(n.spawn(work()).info().name(), "task_tree::current::work");
            let spawner = n.spawner().named(format!("conn {}", 3));
            assert_eq!(spawner.spawn(work()).info().name(), "conn 3");
            let started = named.start(|started| async move {
                started.send(current_task().unwrap().name().to_string())
            });
            assert_eq!(started.await.unwrap(), "one");
        })
        .await;
        open_local_nursery(|n| async move {
            assert_eq!(n.named("local").spawn(work()).info().name(), "local");
        })
        .await;
        let local = try_open_local_nursery(|n| async move {
            let child = n.named("fallible").try_spawn(async { Ok(()) });
            assert_eq!(child.info().name(), "fallible");
            Ok::<(), ()>(())
        });
        local.await.unwrap();
    });
}

#[test]
fn a_future_that_is_refused_by_a_closed_nursery_comes_back_from_a_named_handle_too() {
    let mut kept = None;
    Hand::new(open_nursery(|n| {
        kept = Some(n.named("late"));
        async {}
    }))
    .finish();
    let refused = kept.unwrap().spawn_if_open(async { 5 }).unwrap_err();
    assert_eq!(Hand::new(refused.into_future()).finish(), 5);
}
