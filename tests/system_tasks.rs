//! System tasks: their scope, their end, and their panics.

#[path = "common/panics.rs"]
mod panics;
#[path = "common/polling.rs"]
mod polling;

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use panics::panic_of;
use polling::{Drops, OnDrop, turns};
use seedbed::cancel::{CancelSource, current_cancel_reason};
use seedbed::nursery::TreeVar;
use seedbed::run::{CtrlC, current_run, current_statistics, spawn_system_task};
use seedbed::sync::Event;
use seedbed::testing::{MockClock, wait_all_tasks_blocked};
use seedbed::time::{current_time, sleep_forever};
use seedbed::{
    CancelScope, RunBuilder, checkpoint, move_on_after, on_cancel, open_nursery, run, shield, sleep,
};

const SECOND: Duration = Duration::from_secs(1);

/// The events, in order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<&'static str>>>);

impl Log {
    fn add(&self, what: &'static str) {
        self.0.lock().unwrap().push(what);
    }

    fn take(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    /// Adds to the log when it is dropped.
    fn at_end(&self, what: &'static str) -> impl Drop + Send + use<> {
        let log = self.clone();
        OnDrop(move || log.add(what))
    }
}

// ---- Scope.

#[test]
fn a_system_task_runs_and_returns_its_value_to_the_task_that_awaits_it() {
    run(async {
        let task = spawn_system_task(async {
            checkpoint().await;
            5
        });
        assert!(!task.is_finished());
        assert_eq!(task.await, 5);
    });
}

#[test]
#[allow(clippy::async_yields_async)] // the handle is what is wanted
fn neither_the_nursery_nor_the_scope_of_the_caller_owns_it() {
    run(async {
        let scope = CancelScope::new();
        let spawner = scope.clone();
        let inside = scope.run(open_nursery(|n| async move {
            let child = n.spawn(async { spawn_system_task(sleep_forever()) });
            let task = child.await;
            spawner.cancel();
            task
        }));
        let task = inside.await.expect("it ended without waiting");
        turns(3).await;
        assert!(!task.is_finished());
        assert_eq!(current_statistics().system_tasks, 1);
        assert_eq!(task.cancel().await, None);
        assert_eq!(current_statistics().system_tasks, 0);
    });
}

#[test]
fn it_sees_no_tree_variable_of_the_caller() {
    static COLOUR: TreeVar<&str> = TreeVar::new();
    run(COLOUR.scope("red", async {
        // Nor one of the task that spawns the first system task.
        assert_eq!(spawn_system_task(async { COLOUR.get() }).await, None);
        let nested = async {
            let inner = COLOUR.scope("blue", async {
                spawn_system_task(async { COLOUR.get() }).await
            });
            (inner.await, COLOUR.get())
        };
        assert_eq!(spawn_system_task(nested).await, (None, None));
        assert_eq!(COLOUR.get(), Some("red"));
    }));
}

#[test]
fn system_tasks_of_one_run_are_not_seen_by_another() {
    run(async {
        spawn_system_task(sleep_forever());
        let other = std::thread::spawn(|| run(async { current_statistics().system_tasks }));
        assert_eq!(other.join().unwrap(), 0);
        assert_eq!(current_statistics().system_tasks, 1);
    });
}

#[test]
fn system_tasks_may_be_spawned_by_other_threads_by_calls_and_by_system_tasks() {
    run(async {
        let (handle, done) = (current_run(), Event::new());
        let set = done.clone();
        // The run is blocked when the thread spawns the first system task.
        let (blocked, is_blocked) = mpsc::channel::<()>();
        std::thread::spawn(move || {
            is_blocked.recv().unwrap();
            let in_call = handle.clone();
            let first = handle.spawn_system_task(async move {
                let call = move || {
                    let third = async move { spawn_system_task(async move { set.set() }).await };
                    in_call.spawn_system_task(third).unwrap();
                };
                current_run().call_soon(call).unwrap();
            });
            drop(first.unwrap());
        });
        wait_all_tasks_blocked().await;
        blocked.send(()).unwrap();
        done.wait().await;
    });
}

#[test]
fn a_system_task_sleeps_in_the_run_s_time_and_counts_for_wait_all_tasks_blocked() {
    let clock = MockClock::autojump();
    RunBuilder::new().clock(clock.clone()).run(async {
        let began = current_time();
        let (busy, is_done) = (Arc::new(AtomicBool::new(false)), Event::new());
        let (set, done) = (is_done.clone(), busy.clone());
        spawn_system_task(async move {
            turns(20).await;
            done.store(true, SeqCst);
            sleep(3 * SECOND).await;
            set.set();
        });
        wait_all_tasks_blocked().await;
        assert!(busy.load(SeqCst));
        is_done.wait().await;
        assert_eq!(current_time() - began, 3 * SECOND);
    });
    assert_eq!(clock.elapsed(), 3 * SECOND);
}

#[test]
fn neither_a_busy_main_future_nor_a_busy_system_task_starves_the_other() {
    run(async {
        let (seen, set) = (Event::new(), Event::new());
        let (main_seen, main_set) = (set.clone(), seen.clone());
        spawn_system_task(async move {
            while !main_seen.is_set() {
                checkpoint().await;
            }
            main_set.set();
            loop {
                checkpoint().await;
            }
        });
        turns(5).await;
        set.set();
        while !seen.is_set() {
            checkpoint().await;
        }
    });
}

// ---- The end.

#[test]
fn system_tasks_are_cancelled_when_the_main_future_has_ended_and_the_run_waits_for_them() {
    let (drops, log) = (Drops::new(), Log::default());
    let value = run(async {
        for _ in 0..3 {
            let value = drops.value();
            spawn_system_task(async move {
                sleep_forever().await;
                drop(value);
            });
        }
        let of_task = log.clone();
        spawn_system_task(on_cancel(sleep_forever(), async move {
            sleep(Duration::from_millis(1)).await;
            of_task.add("system task cleaned up");
        }));
        checkpoint().await;
        let _end = log.at_end("main future ended");
        7
    });
    assert_eq!(value, 7);
    drops.assert_all_dropped();
    assert_eq!(log.take(), ["main future ended", "system task cleaned up"]);
}

#[test]
fn a_system_task_that_was_not_polled_yet_runs_to_its_first_wait() {
    let log = Log::default();
    run(async {
        let of_task = log.clone();
        spawn_system_task(async move {
            of_task.add("begun");
            let _end = of_task.at_end("cancelled");
            sleep_forever().await;
        });
    });
    assert_eq!(log.take(), ["begun", "cancelled"]);
}

#[test]
fn while_system_tasks_end_others_may_be_spawned_and_end_too() {
    let log = Log::default();
    run(async {
        let of_task = log.clone();
        spawn_system_task(on_cancel(sleep_forever(), async move {
            let late = of_task.clone();
            spawn_system_task(async move {
                late.add("late one begun");
                let _end = late.at_end("late one cancelled");
                sleep_forever().await;
            });
            turns(3).await;
            of_task.add("cleaned up");
        }));
        checkpoint().await;
    });
    let expected = ["late one begun", "late one cancelled", "cleaned up"];
    assert_eq!(log.take(), expected);
}

#[test]
fn when_all_have_ended_a_system_task_is_refused_and_given_back() {
    let (answers, take) = mpsc::channel();
    for with_others in [false, true] {
        let answers = answers.clone();
        run(async move {
            if with_others {
                spawn_system_task(sleep_forever());
            }
            let handle = current_run();
            let late = move || {
                let refused = handle.spawn_system_task(async { 5 }).unwrap_err();
                let future = refused.into_inner();
                answers.send(smol::block_on(future)).unwrap();
                panic_of(|| spawn_system_task(async {}))
            };
            current_run().call_soon(move || _ = late()).unwrap();
        });
    }
    drop(answers);
    assert_eq!(take.iter().collect::<Vec<_>>(), [5, 5]);
}

#[test]
fn a_main_future_that_panics_cancels_the_system_tasks_and_its_panic_comes_out_after_they_have_ended()
 {
    let log = Log::default();
    let said = panic_of(|| {
        run(async {
            let of_task = log.clone();
            spawn_system_task(shield(async move {
                turns(5).await;
                of_task.add("shielded");
                panic!("a later one, which is only reported");
            }));
            checkpoint().await;
            let _end = log.at_end("main future");
            panic!("the main future's");
        })
    });
    assert_eq!(said, "the main future's");
    assert_eq!(log.take(), ["main future", "shielded"]);
}

#[test]
fn a_run_of_which_only_the_system_tasks_are_left_still_serves_them() {
    let clock = MockClock::autojump();
    let woken = Arc::new(AtomicBool::new(false));
    let set = woken.clone();
    RunBuilder::new()
        .clock(clock.clone())
        .ctrl_c(CtrlC::Leave)
        .run(async {
            spawn_system_task(shield(async move {
                sleep(5 * SECOND).await;
                let happened = Event::new();
                let tell = happened.clone();
                std::thread::spawn(move || tell.set());
                happened.wait().await;
                assert!(move_on_after(SECOND, sleep_forever()).await.is_none());
                set.store(true, SeqCst);
            }));
        });
    assert!(woken.load(SeqCst));
    assert_eq!(clock.elapsed(), 6 * SECOND);
}

#[test]
fn a_system_task_sees_that_it_is_cancelled_because_the_run_ends() {
    let (sources, take) = mpsc::channel();
    run(async {
        spawn_system_task(on_cancel(sleep_forever(), async move {
            let reason = current_cancel_reason().unwrap();
            sources.send(reason.source()).unwrap();
        }));
        checkpoint().await;
    });
    assert_eq!(take.recv(), Ok(CancelSource::Shutdown));
}

// ---- Panics.

#[test]
fn tasks_that_are_cancelled_by_a_panic_elsewhere_in_the_run_see_the_reason() {
    fn tell(sources: &mpsc::Sender<CancelSource>) -> impl Future<Output = ()> + Send + use<> {
        let sources = sources.clone();
        on_cancel(sleep_forever(), async move {
            let reason = current_cancel_reason().unwrap();
            sources.send(reason.source()).unwrap();
        })
    }
    let (sources, take) = mpsc::channel();
    for in_system_task in [true, false] {
        panic_of(|| {
            run(async {
                spawn_system_task(tell(&sources));
                if in_system_task {
                    spawn_system_task(async { panic!("the system task's") });
                } else {
                    let call = || panic!("the call's");
                    current_run().call_soon(call).unwrap();
                }
                tell(&sources).await;
            })
        });
    }
    drop(sources);
    assert_eq!(take.iter().collect::<Vec<_>>(), [CancelSource::Panic; 4]);
}

#[test]
fn a_system_task_that_panics_cancels_the_run_and_the_panic_comes_out_when_all_have_ended() {
    let log = Log::default();
    let said = panic_of(|| {
        run(async {
            let (one, other) = (log.clone(), log.clone());
            spawn_system_task(async move {
                let _end = one.at_end("system task cancelled");
                sleep_forever().await;
            });
            spawn_system_task(async move {
                checkpoint().await;
                other.add("panics");
                panic!("the system task's");
            });
            let _end = log.at_end("main future cancelled");
            shield(async {
                turns(5).await;
                log.add("main future shielded");
            })
            .await;
            sleep_forever().await;
        })
    });
    assert_eq!(said, "the system task's");
    let expected = [
        "panics",
        "system task cancelled",
        "main future shielded",
        "main future cancelled",
    ];
    assert_eq!(log.take(), expected);
}

#[test]
fn the_main_future_is_cancelled_by_a_panic_although_another_system_task_is_shielded() {
    let log = Log::default();
    let said = panic_of(|| {
        run(async {
            let (of_task, gone) = (log.clone(), Event::new());
            let main_is_gone = gone.clone();
            spawn_system_task(shield(async move {
                // This would wait forever if the main future waited for it.
                main_is_gone.wait().await;
                of_task.add("shielded");
            }));
            spawn_system_task(async { panic!("the system task's") });
            let _end = OnDrop(|| {
                log.add("main future cancelled");
                gone.set();
            });
            sleep_forever().await;
        })
    });
    assert_eq!(said, "the system task's");
    assert_eq!(log.take(), ["main future cancelled", "shielded"]);
}

#[test]
fn a_panic_of_a_system_task_s_destructor_comes_out_of_the_run() {
    let said = panic_of(|| {
        run(async {
            spawn_system_task(async {
                let _end = OnDrop(|| panic!("the destructor's"));
                sleep_forever().await;
            });
            checkpoint().await;
            "a value that nobody gets"
        })
    });
    assert_eq!(said, "the destructor's");
}

#[test]
fn a_task_that_awaits_a_system_task_that_panics_is_cancelled_and_the_panic_comes_out() {
    let said = panic_of(|| {
        run(async {
            let task = spawn_system_task(async { panic!("the system task's") });
            task.await;
        })
    });
    assert_eq!(said, "the system task's");
}

#[test]
fn after_a_panic_of_one_no_system_task_outlives_the_others() {
    let (answers, take) = mpsc::channel();
    let said = panic_of(|| {
        run(async {
            spawn_system_task(async { panic!("the system task's") });
            let handle = current_run();
            let _end = OnDrop(move || {
                // Refused, or cancelled in turn, but never left behind.
                let answers = answers.clone();
                let end = OnDrop(move || answers.send("gone").unwrap());
                let late = handle.spawn_system_task(async move {
                    let _end = end;
                    sleep_forever().await;
                });
                drop(late);
            });
            sleep_forever().await;
        })
    });
    assert_eq!(said, "the system task's");
    assert_eq!(take.iter().collect::<Vec<_>>(), ["gone"]);
}
