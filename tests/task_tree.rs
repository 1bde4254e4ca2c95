//! Who is who: numbers, names, parents, and the tree of all tasks. Polled by hand or in a run; no test sleeps.

#[path = "common/polling.rs"]
mod polling;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, mpsc};
use std::task::Poll;

use polling::{Hand, OnDrop, turns};
use seedbed::sync::Event;
use seedbed::testing::{
    Sequencer, assert_checkpoints, assert_no_checkpoints, wait_all_tasks_blocked,
};
use seedbed::{
    Nursery, NurseryInfo, StartError, TaskInfo, checkpoint, current_root_task, current_task,
    on_cancel, open_local_nursery, open_nursery, run, shield, sleep_forever, spawn_system_task,
    task_tree, task_trees, thread, try_open_local_nursery, try_open_nursery,
};

fn names(tasks: &[TaskInfo]) -> Vec<&str> {
    tasks.iter().map(TaskInfo::name).collect()
}

/// The tree that the caller is in, without the numbers.
fn drawn() -> String {
    without_numbers(&task_tree().expect("called in a task").to_string())
}

fn without_numbers(tree: &str) -> String {
    let without = |line: &str| match line.rsplit_once(" #") {
        Some((line, number)) => {
            assert!(number.parse::<u64>().is_ok(), "{number}");
            line.to_string()
        }
        None => line.to_string(),
    };
    tree.lines().map(without).collect::<Vec<_>>().join("\n")
}

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
fn what_a_child_drops_when_it_is_cancelled_is_dropped_in_that_child() {
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
fn children_that_are_dropped_with_the_block_are_dropped_in_their_own_names() {
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
            assert_eq!(drawn(), "nursery\n└─ outside");
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
fn a_task_without_a_name_is_called_after_the_function_that_it_came_from() {
    run(async {
        assert_eq!(
            current_task().unwrap().name(),
            "task_tree::a_task_without_a_name_is_called_after_the_function_that_it_came_from"
        );
        open_nursery(|n| async move {
            assert_eq!(n.spawn(work()).info().name(), "task_tree::work");
            let name = n.spawn(with_argument(5)).info();
            assert!(
                name.name().starts_with("task_tree::with_argument"),
                "{name}"
            );
            let on_smol = |child| smol::spawn(child).detach();
            assert_eq!(
                n.spawn_on(&on_smol, work()).info().name(),
                "task_tree::work"
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
                name.name().starts_with("task_tree::a_task_without"),
                "{name}"
            );
            Ok::<(), ()>(())
        })
        .await
        .unwrap();
    });
}

#[test]
fn system_tasks_and_what_tests_wrap_around_a_future_are_called_after_the_function_too() {
    run(open_nursery(async |n| {
        assert_eq!(spawn_system_task(work()).info().name(), "task_tree::work");
        let in_sequence = n.spawn(Sequencer::new().at(0, work()));
        assert_eq!(in_sequence.info().name(), "task_tree::work");
        let waits = n.spawn(assert_checkpoints(checkpoint()));
        assert_eq!(waits.info().name(), n.spawn(checkpoint()).info().name());
        let does_not = n.spawn(assert_no_checkpoints(work()));
        assert_eq!(does_not.info().name(), "task_tree::work");
    }));
}

#[test]
fn a_handle_with_a_name_gives_it_to_what_is_put_in_with_it_however_that_is_done() {
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
            assert_eq!(n.spawn(work()).info().name(), "task_tree::work");
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

// ---- Up and down the tree.

#[test]
fn a_nursery_s_children_are_those_who_have_not_ended_polled_or_not_in_the_order_of_spawning() {
    run(open_nursery(|n| async move {
        let gate = Event::new();
        let waits = |gate: &Event| {
            let gate = gate.clone();
            async move { gate.wait().await }
        };
        assert!(n.children().is_empty());
        let _a = n.named("a").spawn(waits(&gate));
        let b = n.named("b").spawn(waits(&gate));
        assert_eq!(names(&n.children()), ["a", "b"], "before their first polls");
        wait_all_tasks_blocked().await;
        n.named("c").spawn(waits(&gate));
        assert_eq!(
            names(&n.children()),
            ["a", "b", "c"],
            "some polled, some not"
        );
        b.cancel().await;
        assert_eq!(names(&n.children()), ["a", "c"]);
        gate.set();
        wait_all_tasks_blocked().await;
        assert!(n.children().is_empty());
    }));
}

/// The siblings in a task's first poll, and in its second.
async fn seen(n: Nursery<'_>) -> (Vec<TaskInfo>, Vec<TaskInfo>) {
    let first = n.children();
    turns(1).await;
    (first, n.children())
}

#[test]
fn a_child_sees_itself_and_its_siblings_also_those_whose_turn_comes_later() {
    run(open_nursery(|n| async move {
        let (a, b, c) = (
            n.named("a").spawn(seen(n.clone())),
            n.named("b").spawn(seen(n.clone())),
            n.named("c").spawn(async {}),
        );
        let (a, b) = (a.await, b.await);
        assert_eq!(
            names(&a.0),
            ["a", "b", "c"],
            "a runs, b and c wait for their turns"
        );
        assert_eq!(names(&b.0), ["a", "b", "c"], "b runs");
        assert_eq!(names(&a.1), ["a", "b"], "c has ended");
        assert_eq!(names(&b.1), ["b"]);
        assert!(c.is_finished());
    }));
}

#[test]
fn links_upwards_outlive_the_tasks_and_nurseries_that_they_lead_to() {
    let (grandchild, nursery) = run(open_nursery(|n| async move {
        let child = n.named("child").spawn(open_nursery(|inner| async move {
            let grandchild = inner.named("grandchild").spawn(async {});
            (grandchild.info(), inner.info())
        }));
        child.await
    }));
    let child = grandchild.parent().unwrap();
    assert_eq!(
        names(&[grandchild.clone(), child.clone()]),
        ["grandchild", "child"]
    );
    assert_eq!(grandchild.nursery(), Some(nursery.clone()));
    assert_eq!(nursery.opener(), Some(child.clone()));
    assert!(nursery.children().is_empty());
    assert!(child.nurseries().is_empty());
    assert_eq!(child.parent().unwrap().parent(), None);
}

#[test]
fn a_task_s_nurseries_are_those_that_it_has_open_the_outer_ones_first() {
    fn open(task: &TaskInfo) -> Vec<NurseryInfo> {
        task.nurseries()
    }
    run(async {
        let root = &current_task().unwrap();
        assert!(open(root).is_empty());
        open_nursery(|outer| async move {
            let child = outer.spawn(open_nursery(|n| async move {
                assert_eq!(current_task().unwrap().nurseries(), [n.info()]);
                sleep_forever().await
            }));
            let child_s = child.info();
            open_nursery(|inner| async move {
                assert_eq!(open(root), [outer.info(), inner.info()]);
                turns(2).await;
                assert_eq!(open(root).len(), 2, "the child's is not the root's");
                assert_eq!(open(&child_s).len(), 1);
                assert_eq!(open(&child_s)[0].opener(), Some(child_s.clone()));
                child.cancel().await;
                assert!(open(&child_s).is_empty());
                outer.cancel();
            })
            .await;
        })
        .await;
        assert!(open(root).is_empty());
    });
}

#[test]
fn a_child_that_is_being_started_belongs_to_its_nursery_from_the_beginning() {
    // In Trio it belongs to a nursery of `start`'s until it says that it has started.
    run(open_nursery(|n| async move {
        let info = n.info();
        let child = |gate: Event| {
            let n = n.named("starting");
            async move {
                n.start(|started| async move {
                    let before = current_task().unwrap().nursery();
                    gate.wait().await;
                    started.send(before);
                    sleep_forever().await
                })
                .await
            }
        };
        let gate = Event::new();
        let starts = n.named("starter").spawn(child(gate.clone()));
        wait_all_tasks_blocked().await;
        assert_eq!(names(&n.children()), ["starter", "starting"]);
        gate.set();
        let before: Result<_, StartError<()>> = starts.await;
        assert_eq!(before, Ok(Some(info)));
        assert_eq!(names(&n.children()), ["starting"]);
        n.cancel();
    }));
}

// ---- The whole tree.

#[test]
fn the_tree_is_drawn_with_all_names_and_shows_who_waits_for_whom() {
    async fn connection(number: usize) {
        open_nursery(|n| async move {
            n.named("reader").spawn(sleep_forever());
            n.named(format!("writer {number}")).spawn(shield(turns(20)));
        })
        .await
    }
    run(open_nursery(|n| async move {
        let first = n.named("connection").spawn(connection(1));
        n.named("idle").spawn(sleep_forever());
        n.named("connection").spawn(connection(2));
        turns(3).await;
        let tree = task_tree().unwrap();
        let mut drawn = without_numbers(&tree.to_string());
        let root = drawn.lines().next().unwrap().to_string();
        assert_eq!(root, tree.tasks().next().unwrap().name());
        drawn.replace_range(..root.len(), "root");
        let expected = "\
root
└─ nursery
   ├─ connection
   │  └─ nursery
   │     ├─ reader
   │     └─ writer 1
   ├─ idle
   └─ connection
      └─ nursery
         ├─ reader
         └─ writer 2";
        assert_eq!(drawn, expected);
        drop(first);
        n.cancel();
        n.spawn(async {
            let drawn = task_tree().unwrap().to_string();
            assert!(drawn.contains("└─ nursery, cancelled"), "{drawn}");
        });
    }));
}

#[test]
fn the_tree_is_the_same_for_everybody_in_it_and_has_nobody_of_another_run() {
    fn drawn_by(who: &'static str) -> String {
        run(open_nursery(|n| async move {
            n.named(who).spawn(open_nursery(|n| async move {
                n.named("below").spawn(sleep_forever());
                sleep_forever().await
            }));
            turns(3).await;
            let body = task_tree().unwrap();
            let child = n.spawn(async { task_tree().unwrap() }).await;
            assert!(body.tasks().eq(child.tasks().take(3)), "{child}");
            assert_eq!(child.tasks().count(), 4, "and the one who asks");
            let drawn = without_numbers(&body.to_string());
            n.terminate(drawn.clone());
            drawn
        }))
    }
    let other = std::thread::spawn(|| drawn_by("left"));
    let here = drawn_by("right");
    let there = other.join().unwrap();
    assert!(here.contains("right") && !here.contains("left"), "{here}");
    assert!(
        there.contains("left") && !there.contains("right"),
        "{there}"
    );
}

#[test]
fn a_tree_of_many_levels_is_drawn_and_dropped() {
    fn nest(depth: usize) -> std::pin::Pin<Box<dyn Future<Output = usize> + Send>> {
        Box::pin(open_nursery(move |n| async move {
            match depth {
                0 => task_tree().unwrap().tasks().count(),
                _ => n.spawn(nest(depth - 1)).await,
            }
        }))
    }
    let run_deep = || run(nest(200));
    let deep = std::thread::Builder::new().stack_size(64 << 20);
    assert_eq!(deep.spawn(run_deep).unwrap().join().unwrap(), 201);
}

// ---- From other threads.

#[test]
fn another_thread_sees_the_whole_tree_while_the_run_waits() {
    let (send, receive) = mpsc::channel();
    run(open_nursery(|n| async move {
        n.named("seen from afar")
            .spawn(open_nursery(|n| async move {
                n.named("and below").spawn(sleep_forever());
            }));
        let children = n.clone();
        let looks = thread::run_sync(move || {
            let trees: Vec<String> = task_trees().iter().map(ToString::to_string).collect();
            send.send(trees).unwrap();
        });
        n.spawn(async move {
            wait_all_tasks_blocked().await;
            looks.await;
            children.cancel();
        });
    }));
    let trees = receive.recv().unwrap();
    let ours: Vec<_> = trees
        .iter()
        .filter(|tree| tree.contains("seen from afar"))
        .collect();
    // The waiting thread may have been quicker than the run, which then was still polling.
    let [ours] = ours[..] else {
        assert!(
            trees.iter().any(|tree| tree.contains("being polled")),
            "{trees:?}"
        );
        return;
    };
    assert!(ours.contains("and below"), "{ours}");
}

#[test]
fn of_a_nursery_that_is_being_polled_another_thread_sees_those_who_have_nurseries() {
    run(open_nursery(|n| async move {
        n.named("has a nursery").spawn(open_nursery(|n| async move {
            n.named("rests").spawn(sleep_forever());
        }));
        n.named("has none").spawn(sleep_forever());
        wait_all_tasks_blocked().await;
        // This task blocks its thread: what the tree of a hanging program looks like.
        let id = current_task().unwrap().id();
        let look = move || {
            let tree = task_trees()
                .into_iter()
                .find(|t| t.tasks().next().unwrap().id() == id);
            without_numbers(&tree.unwrap().to_string())
        };
        let drawn = std::thread::spawn(look).join().unwrap();
        let below = drawn.split_once('\n').unwrap().1;
        let expected = "\
└─ nursery, being polled: only those of its children are known that have nurseries
   └─ has a nursery
      └─ nursery
         └─ rests";
        assert_eq!(below, expected);
        n.cancel();
    }));
}

#[test]
fn another_thread_that_asks_for_the_children_waits_for_the_poll_to_end() {
    run(open_nursery(|n| async move {
        n.named("sleeper").spawn(sleep_forever());
        let (about_to_ask, asks) = mpsc::channel();
        let handle = n.info();
        let thread = std::thread::spawn(move || {
            about_to_ask.send(()).unwrap();
            handle.children().len()
        });
        asks.recv().unwrap();
        wait_all_tasks_blocked().await;
        // If it has not asked before, it will while the run waits for this job.
        let seen = thread::run_sync(move || thread.join().unwrap()).await;
        assert_eq!(seen, 1);
        n.cancel();
    }));
}

#[test]
fn nurseries_come_and_go_on_many_threads_while_others_look() {
    let (stop, stopped) = (Arc::new(()), Arc::new(()));
    let looks = Arc::downgrade(&stop);
    let looker = std::thread::spawn(move || {
        let mut seen = 0;
        while looks.strong_count() > 0 {
            for tree in task_trees() {
                seen += tree.tasks().count();
                _ = tree.to_string();
            }
        }
        seen
    });
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let stopped = stopped.clone();
            std::thread::spawn(move || {
                for _ in 0..300 {
                    smol::block_on(open_nursery(|n| async move {
                        for _ in 0..5 {
                            n.spawn(open_nursery(|n| async move {
                                n.spawn(turns(2));
                                n.spawn(turns(1));
                            }));
                        }
                        assert!(n.children().len() <= 5);
                        turns(2).await;
                        assert!(n.children().len() <= 5);
                    }));
                }
                drop(stopped);
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(Arc::strong_count(&stopped), 1);
    drop(stop);
    looker.join().unwrap();
}

// ---- What does not leak.

#[test]
fn a_block_that_is_dropped_before_it_has_ended_is_no_longer_in_the_tree() {
    run(async {
        let root = current_task().unwrap();
        let mut block = Box::pin(open_nursery(|n| async move {
            n.spawn(sleep_forever());
            sleep_forever().await
        }));
        assert!(futures_lite::future::poll_once(&mut block).await.is_none());
        assert_eq!(root.nurseries().len(), 1);
        drop(block);
        assert!(root.nurseries().is_empty());
    });
}

#[test]
fn what_is_kept_of_a_task_is_not_what_it_owned() {
    let drops = polling::Drops::new();
    let value = drops.value();
    let info = run(open_nursery(|n| async move {
        n.named("gone").spawn(async move { drop(value) }).info()
    }));
    drops.assert_all_dropped();
    assert_eq!(info.name(), "gone");
    assert!(info.to_string().starts_with("gone #"));
    assert!(format!("{info:?}").contains("gone"));
}
