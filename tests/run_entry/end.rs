//! The end of a run, and calls that are queued then.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::time::Duration;

use crate::panics::panic_of;
use crate::polling::{OnDrop, turns};
use crate::{Log, SECOND, soon};
use seedbed::run::{
    EnterError, RunHandle, RunVar, current_run, current_statistics, spawn_system_task,
};
use seedbed::time::sleep_forever;
use seedbed::{RunBuilder, checkpoint, run, shield, sleep};

#[test]
fn accepted_calls_happen_although_the_main_future_panics() {
    let log = Log::default();
    let said = panic_of(|| {
        run(async {
            soon(&current_run(), &log, "called");
            panic!("the main future's");
        })
    });
    assert_eq!(said, "the main future's");
    assert_eq!(log.take(), ["called"]);
}

#[test]
fn a_run_ends_in_order_main_future_system_tasks_calls() {
    let log = Log::default();
    run(async {
        let handle = current_run();
        let (ends, of_task) = (log.clone(), log.clone());
        let from_task = handle.clone();
        spawn_system_task(async move {
            let _end = OnDrop(|| {
                soon(&from_task, &of_task, "call of the system task's end");
                of_task.add("system task");
            });
            sleep_forever().await;
        });
        checkpoint().await;
        let _end = OnDrop(|| {
            soon(&handle, &ends, "call of the main future's end");
            ends.add("main future");
        });
    });
    let expected = [
        "main future",
        "system task",
        "call of the main future's end",
        "call of the system task's end",
    ];
    assert_eq!(log.take(), expected);
}

#[test]
fn a_call_that_panics_cancels_the_run_and_the_panic_comes_out_when_all_have_ended() {
    let log = Log::default();
    let said = panic_of(|| {
        run(async {
            let handle = current_run();
            let (of_task, of_main) = (log.clone(), log.clone());
            spawn_system_task(async move {
                let _end = OnDrop(|| of_task.add("system task cancelled"));
                sleep_forever().await;
            });
            checkpoint().await;
            handle.call_soon(|| panic!("the call's")).unwrap();
            soon(&handle, &log, "the next call");
            let _end = OnDrop(|| of_main.add("main future cancelled"));
            shield(async {
                turns(3).await;
                of_main.add("shielded");
            })
            .await;
            sleep_forever().await;
        })
    });
    assert_eq!(said, "the call's");
    let expected = [
        "the next call",
        "system task cancelled",
        "shielded",
        "main future cancelled",
    ];
    assert_eq!(log.take(), expected);
}

#[test]
fn a_call_that_panics_after_all_tasks_have_ended_still_panics_the_run_and_later_calls_happen() {
    let log = Log::default();
    let said = panic_of(|| {
        run(async {
            let handle = current_run();
            handle.call_soon(|| panic!("the late call's")).unwrap();
            handle.call_soon(|| panic!("a second one's")).unwrap();
            soon(&handle, &log, "the last call");
            // A value that is not returned, with a destructor that panics as well.
            OnDrop(|| {
                log.add("value dropped");
                panic!("the destructor's");
            })
        })
    });
    assert_eq!(said, "the late call's");
    assert_eq!(log.take(), ["the last call", "value dropped"]);
}

/// A clock that panics.
#[derive(Debug)]
struct BrokenClock(AtomicBool);

impl seedbed::time::Clock for BrokenClock {
    fn now(&self) -> std::time::Instant {
        assert!(!self.0.load(SeqCst), "the clock is broken");
        std::time::Instant::now()
    }

    fn real_time_until(&self, _: std::time::Instant) -> Option<Duration> {
        self.0.store(true, SeqCst);
        Some(Duration::ZERO)
    }
}

#[test]
fn if_the_loop_itself_panics_everything_is_dropped_and_no_thread_waits_forever() {
    type Kept = (RunHandle, Arc<dyn Send + Sync>);
    static KEPT: RunVar<Kept> = RunVar::new();
    let (handles, take) = mpsc::channel::<RunHandle>();
    let asker = std::thread::spawn(move || take.recv().unwrap().call_async(pending::<()>));
    let dropped = Arc::new(AtomicUsize::new(0));
    let said = panic_of(|| {
        let count = dropped.clone();
        let count = move || {
            OnDrop({
                let count = count.clone();
                move || _ = count.fetch_add(1, SeqCst)
            })
        };
        RunBuilder::new()
            .clock(BrokenClock(AtomicBool::new(false)))
            .run(async move {
                let of_task = count();
                spawn_system_task(async move {
                    let _end = of_task;
                    sleep_forever().await;
                });
                let _end = count();
                handles.send(current_run()).unwrap();
                KEPT.set((current_run(), Arc::new(count())));
                while current_statistics().system_tasks < 2 {
                    checkpoint().await;
                }
                sleep(SECOND).await;
            });
    });
    assert_eq!(said, "the clock is broken");
    assert_eq!(dropped.load(SeqCst), 3);
    assert_eq!(asker.join().unwrap(), Err(EnterError::Cancelled));
    assert_eq!(run(async { 1 }), 1, "the thread may run again");
}
