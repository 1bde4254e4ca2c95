//! The tree of all tasks: how it is drawn, and reading it from other threads.

use std::sync::{Arc, mpsc};

use crate::polling::turns;
use crate::without_numbers;
use seedbed::nursery::{current_task, task_tree, task_trees};
use seedbed::testing::wait_all_tasks_blocked;
use seedbed::time::sleep_forever;
use seedbed::{open_nursery, run, shield, thread};

// ---- The whole tree.

#[test]
fn the_tree_is_drawn_with_all_names_and_nurseries() {
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
fn the_tree_is_the_same_for_every_task_in_it_and_has_no_task_of_another_run() {
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
    // The thread may have read the tree while the run was still polling.
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
fn another_thread_sees_the_children_with_nurseries_of_a_nursery_that_is_being_polled() {
    run(open_nursery(|n| async move {
        n.named("has a nursery").spawn(open_nursery(|n| async move {
            n.named("rests").spawn(sleep_forever());
        }));
        n.named("has none").spawn(sleep_forever());
        wait_all_tasks_blocked().await;
        // This task blocks its thread, like one of a program that hangs.
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
        // If the other thread has not asked yet, it asks while the run waits for this job.
        let seen = thread::run_sync(move || thread.join().unwrap()).await;
        assert_eq!(seen, 1);
        n.cancel();
    }));
}

#[test]
fn nurseries_open_and_end_on_many_threads_while_others_read_the_tree() {
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
                        assert!(n.info().children().len() <= 5);
                        turns(2).await;
                        assert!(n.info().children().len() <= 5);
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
