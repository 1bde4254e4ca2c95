//! Nurseries, scopes and jobs in other runtimes: smol's executor, tokio's two, and their `select!`.
//!
//! No test waits for time to pass: tasks yield to each other, and wait for each other.

mod common;
#[path = "common/polling.rs"]
mod polling;

use std::future::{Future, pending};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use polling::Drops;
use seedbed::nursery::TreeVar;
use seedbed::sync::{Event, channel};
use seedbed::time::sleep_forever;
use seedbed::{
    CancelScope, checkpoint, move_on_after, on_cancel, open_nursery, run, run_sync, shield, thread,
};
use tokio::runtime::Builder;

/// Runs a future on a tokio runtime of one thread.
fn in_tokio<T>(future: impl Future<Output = T>) -> T {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.expect("tokio can start").block_on(future)
}

/// Runs a future as a task of a tokio runtime of two threads.
fn on_two_threads_of_tokio<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> T {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("tokio can start");
    runtime.block_on(async { tokio::spawn(future).await.expect("the task does not panic") })
}

/// A block that borrows, waits and joins, for each runtime to run.
async fn sum_of_squares(numbers: &[u64]) -> u64 {
    let (sender, receiver) = channel(0);
    open_nursery(|n| async move {
        for number in numbers {
            let sender = sender.clone();
            n.spawn(async move {
                checkpoint().await;
                sender.send(number * number).await.expect("it is received");
            });
        }
        drop(sender);
        let mut sum = 0;
        while let Ok(square) = receiver.recv().await {
            sum += square;
        }
        sum
    })
    .await
}

#[test]
fn a_nursery_runs_inside_of_a_task_of_smol() {
    let sum = smol::block_on(smol::spawn(async {
        let numbers: Vec<u64> = (1..=100).collect();
        sum_of_squares(&numbers).await
    }));
    assert_eq!(sum, 338_350);
}

#[test]
fn a_nursery_runs_inside_of_tokio_on_one_thread() {
    let numbers: Vec<u64> = (1..=100).collect();
    assert_eq!(in_tokio(sum_of_squares(&numbers)), 338_350);
}

#[test]
fn a_nursery_runs_inside_of_a_task_of_tokio_on_several_threads() {
    let sum = on_two_threads_of_tokio(async {
        let numbers: Vec<u64> = (1..=100).collect();
        sum_of_squares(&numbers).await
    });
    assert_eq!(sum, 338_350);
}

/// Tasks on other threads wake the children of one block all the time, while the block moves
/// between threads.
#[test]
fn children_are_woken_by_other_threads_of_a_foreign_runtime() {
    let heard = on_two_threads_of_tokio(async {
        let heard = AtomicUsize::new(0);
        let heard = &heard;
        open_nursery(|n| async move {
            for _ in 0..200 {
                let (sender, receiver) = tokio::sync::oneshot::channel();
                n.spawn(async move {
                    receiver.await.expect("it is sent");
                    heard.fetch_add(1, SeqCst);
                });
                tokio::spawn(async move {
                    tokio::task::yield_now().await;
                    sender.send(()).expect("it is awaited");
                });
            }
        })
        .await;
        heard.load(SeqCst)
    });
    assert_eq!(heard, 200);
}

#[test]
fn a_deadline_of_ours_ends_a_future_of_tokio() {
    let value = in_tokio(async {
        let late = tokio::time::sleep(Duration::from_secs(3600));
        move_on_after(Duration::from_millis(1), late).await
    });
    assert_eq!(value, None);
}

#[test]
fn timers_of_tokio_work_inside_of_a_run_that_has_entered_tokio() {
    let tokio = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("tokio can start");
    let _entered = tokio.enter();
    run(open_nursery(|n| async move {
        let timer = n.spawn(tokio::time::sleep(Duration::from_millis(1)));
        timer.await;
        let task = n.spawn(tokio::spawn(async { 3 }));
        assert_eq!(task.await.expect("it ends"), 3);
    }));
}

#[test]
fn a_select_that_drops_a_block_drops_everything_in_it_shields_included() {
    let drops = &Drops::new();
    in_tokio(async {
        let block = open_nursery(|n| async move {
            let values = (drops.value(), drops.value());
            n.spawn(async move {
                let _value = values.0;
                shield(sleep_forever()).await
            });
            n.spawn(on_cancel(
                async move {
                    let _value = values.1;
                    sleep_forever().await
                },
                async { unreachable!("the clean-up is for cancellation") },
            ));
        });
        tokio::select! {
            biased;
            () = block => unreachable!("it cannot end"),
            () = turns(5) => {}
        }
    });
    assert_eq!(drops.made(), 2);
    drops.assert_all_dropped();
}

#[test]
fn a_select_whose_branch_is_cancelled_and_awaited_lets_clean_up_run() {
    let cleaned = &AtomicUsize::new(0);
    in_tokio(async {
        let scope = CancelScope::new();
        let mut work = pin!(scope.run(on_cancel(sleep_forever(), async {
            turns(3).await;
            cleaned.fetch_add(1, SeqCst);
        })));
        tokio::select! {
            biased;
            _ = &mut work => unreachable!("nobody has cancelled it"),
            () = turns(5) => scope.cancel(),
        }
        assert_eq!(work.await, None);
    });
    assert_eq!(cleaned.load(SeqCst), 1);
}

/// Losing branches, with shields in them, are dropped again and again between polls of the block
/// around them. The tree stays in order: cancelling it works, and no scope waits for a shield that
/// is gone.
#[test]
fn a_select_among_the_children_of_a_block_leaves_the_tree_in_order() {
    let drops = &Drops::new();
    in_tokio(open_nursery(|n| async move {
        let scope = CancelScope::new();
        let handle = scope.clone();
        let losing = n.spawn(scope.run(async move {
            for _ in 0..50 {
                let value = drops.value();
                let loser = open_nursery(|n| async move {
                    n.spawn(async move {
                        let _value = value;
                        shield(sleep_forever()).await
                    });
                });
                tokio::select! {
                    biased;
                    () = loser => unreachable!("it cannot end"),
                    () = turns(2) => {}
                }
            }
            handle.cancel();
            sleep_forever().await
        }));
        assert_eq!(losing.await, None);
    }));
    assert_eq!(drops.made(), 50);
    drops.assert_all_dropped();
}

/// The branches of a `select!` are one task, so they live as long as the shield among them.
#[test]
fn a_shield_in_one_branch_of_a_select_keeps_the_other_alive() {
    let log = in_tokio(async {
        let scope = CancelScope::new();
        let handle = scope.clone();
        let value = scope.run(async move {
            handle.cancel();
            let mut shielded = pin!(shield(turns(5)));
            let mut others = 0;
            loop {
                tokio::select! {
                    biased;
                    () = &mut shielded => break others,
                    () = turns(1) => others += 1,
                }
            }
        });
        value.await
    });
    assert!(log.is_some_and(|others| others > 0), "{log:?}");
}

#[test]
fn aborting_a_task_of_tokio_drops_the_block_in_it() {
    static DROPS: AtomicUsize = AtomicUsize::new(0);
    struct Guard;
    impl Drop for Guard {
        fn drop(&mut self) {
            DROPS.fetch_add(1, SeqCst);
        }
    }
    let begun = Event::new();
    let begin = begun.clone();
    in_tokio(async {
        let task = tokio::spawn(open_nursery(|n| async move {
            n.spawn(async move {
                let _guard = Guard;
                begin.set();
                pending::<()>().await
            });
        }));
        begun.wait().await;
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
    });
    assert_eq!(DROPS.load(SeqCst), 1);
}

#[test]
fn a_panic_of_a_child_goes_through_a_task_of_tokio() {
    let error = in_tokio(async {
        let task = tokio::spawn(open_nursery(|n| async move {
            n.spawn(sleep_forever());
            n.spawn(async {
                checkpoint().await;
                panic!("on purpose")
            });
        }));
        task.await.unwrap_err()
    });
    let panic = error.into_panic();
    assert_eq!(panic.downcast_ref(), Some(&"on purpose"));
}

#[test]
fn tasks_of_one_thread_do_not_see_each_other_s_tree_variables_and_scopes() {
    static NAME: TreeVar<usize> = TreeVar::new();
    in_tokio(async {
        let local = tokio::task::LocalSet::new();
        let tasks: Vec<_> = (0..5)
            .map(|name| {
                local.spawn_local(NAME.scope(name, async move {
                    let scope = CancelScope::new();
                    if name == 2 {
                        scope.cancel();
                    }
                    let value = scope.run(async move {
                        for _ in 0..10 {
                            assert_eq!(NAME.get(), Some(name));
                            tokio::task::yield_now().await;
                        }
                    });
                    value.await.is_none()
                }))
            })
            .collect();
        local.await;
        let mut cancelled = Vec::new();
        for task in tasks {
            cancelled.push(task.await.expect("it ends"));
        }
        assert_eq!(cancelled, [false, false, true, false, false]);
        assert_eq!(NAME.get(), None);
    });
}

#[test]
fn what_a_child_spawns_elsewhere_is_not_in_the_tree() {
    in_tokio(async {
        let scope = CancelScope::new();
        let handle = scope.clone();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let value = scope.run(async move {
            tokio::spawn(async move {
                turns(5).await;
                sender.send("still here").expect("it is awaited");
            });
            handle.cancel();
            sleep_forever().await
        });
        assert_eq!(value.await, None);
        assert_eq!(receiver.await, Ok("still here"));
    });
}

#[test]
fn threads_serve_a_task_of_tokio() {
    let value = on_two_threads_of_tokio(async {
        thread::run_sync(|| {
            thread::call_async_in_task(|| async { sum_of_squares(&[1, 2, 3]).await })
        })
        .await
    });
    assert_eq!(value, Ok(14));
}

#[test]
fn workers_serve_a_task_of_tokio() {
    seedbed::init();
    let _alone = common::alone();
    let value = on_two_threads_of_tokio(async { run_sync(u32::count_ones, 7).await });
    assert_eq!(value.expect("it is counted"), 3);
    common::end_default_workers();
}

#[test]
fn a_run_inside_of_a_task_of_tokio_has_a_tree_of_its_own() {
    // The hook of this test is here, and not at the `run` below, because workers of other tests may
    // come this way.
    seedbed::init();
    let value = in_tokio(async {
        let outer = CancelScope::new();
        outer.cancel();
        let inner = outer.run(async {
            run(async {
                checkpoint().await;
                5
            })
        });
        inner.await
    });
    assert_eq!(value, Some(5));
}

#[test]
fn a_foreign_executor_that_panics_in_the_middle_leaves_this_thread_usable() {
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        in_tokio(open_nursery(|n| async move {
            n.spawn(sleep_forever());
            checkpoint().await;
            panic!("on purpose")
        }))
    }));
    assert!(panicked.is_err());
    assert_eq!(in_tokio(sum_of_squares(&[1, 2])), 5);
}

/// Yields `count` times to the other tasks.
async fn turns(count: usize) {
    for _ in 0..count {
        tokio::task::yield_now().await;
    }
}
