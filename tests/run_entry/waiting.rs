//! Threads that call into a run and wait for the result.

use std::sync::mpsc;

use crate::SECOND;
use crate::panics::panic_of;
use crate::polling::turns;
use seedbed::nursery::TreeVar;
use seedbed::run::{
    EnterError, RunHandle, current_run, current_statistics, in_run, in_task, spawn_system_task,
};
use seedbed::sync::Event;
use seedbed::testing::MockClock;
use seedbed::time::{current_time, sleep_forever};
use seedbed::{RunBuilder, checkpoint, run, sleep, thread};

#[test]
fn a_thread_has_a_function_called_in_the_run_and_gets_its_value() {
    run(async {
        let (handle, here) = (current_run(), std::thread::current().id());
        let call = move || handle.call(|| (std::thread::current().id(), in_run()));
        let called = smol::unblock(move || call().unwrap()).await;
        assert_eq!(called, (here, true));
    });
}

#[test]
fn a_thread_has_a_future_run_as_a_system_task_and_gets_its_value() {
    static COLOUR: TreeVar<&str> = TreeVar::new();
    let clock = MockClock::autojump();
    RunBuilder::new()
        .clock(clock.clone())
        .run(COLOUR.scope("red", async {
            let (handle, here) = (current_run(), std::thread::current().id());
            let make = move || {
                // This closure is called in the run, too.
                let began = current_time();
                async move {
                    sleep(5 * SECOND).await;
                    assert_eq!(current_time() - began, 5 * SECOND);
                    (std::thread::current().id(), in_task(), COLOUR.get())
                }
            };
            let value = thread::run_sync(move || handle.call_async(make)).await;
            assert_eq!(value, Ok((here, true, None)));
        }));
    assert_eq!(clock.elapsed(), 5 * SECOND);
}

#[test]
fn a_panic_of_what_a_thread_calls_goes_to_that_thread_only() {
    run(async {
        let handle = current_run();
        let said = smol::unblock(move || {
            [
                panic_of(|| handle.call(|| panic!("the function's"))),
                panic_of(|| handle.call_async(|| async { panic!("the future's") })),
                panic_of(|| {
                    handle.call_async::<_, std::future::Ready<()>>(|| panic!("the maker's"))
                }),
            ]
        });
        assert_eq!(
            said.await,
            ["the function's", "the future's", "the maker's"]
        );
        turns(3).await;
    });
}

#[test]
fn on_the_thread_of_the_run_itself_waiting_panics_instead_of_blocking_forever() {
    run(async {
        let handle = current_run();
        let said = panic_of(|| handle.call(|| {}));
        assert!(said.contains("RunHandle::call was called on the thread of the run itself"));
        let said = panic_of(|| handle.call_async(|| async {}));
        assert!(said.contains("RunHandle::call_async was called on the thread of the run itself"));
    });
}

#[test]
fn after_the_end_of_the_run_nothing_is_called_nor_run() {
    let handle = run(async { current_run() });
    // On the run's former thread, and on another one.
    let check = move || {
        let refused = handle.call(|| 5).unwrap_err();
        assert_eq!(refused.into_inner()(), 5);
        let result = handle.call_async(|| async { unreachable!() });
        assert_eq!(result, Err::<(), _>(EnterError::Finished));
    };
    check();
    std::thread::spawn(check).join().unwrap();
}

#[test]
fn a_future_that_a_thread_waits_for_is_cancelled_when_the_main_future_ends() {
    let asker = run(async {
        let (handle, running) = (current_run(), Event::new());
        let set = running.clone();
        let asker = std::thread::spawn(move || {
            handle.call_async(|| async move {
                set.set();
                sleep_forever().await;
            })
        });
        running.wait().await;
        asker
    });
    assert_eq!(asker.join().unwrap(), Err(EnterError::Cancelled));
}

/// A queued function is called although the run has otherwise ended.
#[test]
fn a_call_that_a_thread_waits_for_is_made_also_if_it_was_accepted_last() {
    let (begun, has_begun) = mpsc::channel();
    let asker = run(async {
        let handle = current_run();
        let asker = std::thread::spawn(move || {
            handle.call_soon(move || begun.send(()).unwrap()).unwrap();
            handle.call(|| 5)
        });
        // Blocks the run until the thread has queued at least its first call.
        while current_statistics().queued_calls < 2 {
            std::thread::yield_now();
        }
        asker
    });
    assert_eq!(asker.join().unwrap().unwrap(), 5);
    has_begun.recv().unwrap();
}

/// A system task waits for the thread, shielded, when the main future has ended.
#[test]
fn while_the_run_ends_the_task_of_a_thread_still_serves_it_and_a_future_runs_to_its_first_wait() {
    let (answers, take) = mpsc::channel();
    run(async {
        let (handle, begun) = (current_run(), Event::new());
        let set = begun.clone();
        let (main_ended, has_ended) = mpsc::channel::<()>();
        spawn_system_task(thread::run_sync(move || {
            set.set();
            // Continues when the sender is dropped.
            _ = has_ended.recv();
            let at_once = handle.call_async(|| async { 1 });
            let never = handle.call_async(sleep_forever);
            let host = thread::call_in_task(|| 2);
            answers.send((at_once, never, host)).unwrap();
        }));
        begun.wait().await;
        // Dropped after the call below has been made, which is after the main future's end.
        let late = current_run();
        let again = late.clone();
        late.call_soon(move || {
            again.call_soon(move || drop(main_ended)).unwrap();
        })
        .unwrap();
    });
    let expected = (Ok(1), Err(EnterError::Cancelled), Ok(2));
    assert_eq!(take.recv().unwrap(), expected);
}

#[test]
fn a_thread_gets_the_current_run_from_the_task_that_waits_for_it() {
    run(async {
        let there = thread::run_sync(|| thread::call_in_task(current_run));
        assert_eq!(there.await, Ok(current_run()));
        let there = thread::run_sync(|| thread::call_async_in_task(|| async { current_run() }));
        assert_eq!(there.await, Ok(current_run()));
    });
}

#[test]
fn threads_that_call_into_each_other_s_runs_do_not_block_each_other() {
    let (to_other, from_one) = mpsc::channel::<RunHandle>();
    let other = std::thread::spawn(move || {
        run(async {
            let one = from_one.recv().unwrap();
            let here = current_run();
            smol::unblock(move || one.call_async(|| async move { current_run() != here })).await
        })
    });
    run(async {
        to_other.send(current_run()).unwrap();
        while !other.is_finished() {
            checkpoint().await;
        }
    });
    assert_eq!(other.join().unwrap(), Ok(true));
}
