//! Calling into a run: the order of calls, that none which was accepted is lost, who gets the panic of one, what
//! threads wait for, and what a run tells about itself.

#[path = "common/panics.rs"]
mod panics;
#[path = "common/polling.rs"]
mod polling;

use std::cell::Cell;
use std::future::pending;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use panics::{message, panic_of};
use polling::{OnDrop, turns};
use seedbed::sync::Event;
use seedbed::testing::{MockClock, wait_all_tasks_blocked};
use seedbed::{
    EnterError, RunBuilder, RunHandle, RunVar, TreeVar, checkpoint, current_clock, current_run,
    current_statistics, current_time, fail_after, in_run, in_task, open_nursery, run, shield,
    sleep, sleep_forever, spawn_system_task, thread,
};

const SECOND: Duration = Duration::from_secs(1);

/// What happened, in order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn add(&self, what: impl ToString) {
        self.0.lock().unwrap().push(what.to_string());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// Puts in a call that adds to the log.
fn soon(handle: &RunHandle, log: &Log, what: &'static str) {
    let log = log.clone();
    handle.run_sync_soon(move || log.add(what)).unwrap();
}

// ---- The handle.

#[test]
fn handles_are_equal_if_they_are_of_the_same_run() {
    let (one, same) = run(async { (current_run(), current_run().clone()) });
    assert_eq!(one, same);
    assert_ne!(one, run(async { current_run() }));
}

#[test]
fn a_handle_is_send_sync_and_static() {
    fn check<T: Send + Sync + Clone + 'static>() {}
    check::<RunHandle>();
}

#[test]
fn outside_of_a_run_there_is_no_current_run_and_that_is_said() {
    let said = panic_of(current_run);
    assert!(said.contains("not polled by seedbed::run"), "{said}");
    let said = run(async { std::thread::spawn(|| panic_of(current_run)).join() }).unwrap();
    assert!(said.contains("has to be given the RunHandle"), "{said}");
    // A nursery that another executor polls is in no run either.
    let other = open_nursery(|n| async move { n.spawn(async { (in_run(), in_task()) }).await });
    assert_eq!(smol::block_on(other), (false, false));
}

#[test]
fn code_is_in_a_run_if_the_run_polls_it_and_in_a_task_unless_it_is_a_call() {
    let here = || (in_run(), in_task());
    assert_eq!(here(), (false, false));
    run(open_nursery(|n| async move {
        assert_eq!(here(), (true, true));
        assert_eq!(n.spawn(async move { here() }).await, (true, true));
        assert_eq!(spawn_system_task(async move { here() }).await, (true, true));
        assert_eq!(thread::run_sync(here).await, (false, false));
        let host = thread::run_sync(move || thread::run_sync_in_host(here));
        assert_eq!(host.await, Ok((true, true)));
        let handle = current_run();
        let call = thread::run_sync(move || handle.run_sync(here).unwrap());
        assert_eq!(call.await, (true, false));
    }));
    assert_eq!(here(), (false, false));
}

// ---- run_sync_soon.

#[test]
fn calls_happen_in_order_on_the_run_s_thread_in_the_run() {
    static COLOUR: TreeVar<&str> = TreeVar::new();
    let log = Log::default();
    run(COLOUR.scope("red", async {
        let here = std::thread::current().id();
        for number in 0..100 {
            let log = log.clone();
            let call = move || {
                assert_eq!(std::thread::current().id(), here);
                assert!(in_run() && !in_task());
                assert_eq!(COLOUR.get(), None);
                log.add(number);
            };
            current_run().run_sync_soon(call).unwrap();
        }
        assert!(log.take().is_empty(), "not before the caller waits");
        checkpoint().await;
        let expected: Vec<_> = (0..100).map(|number| number.to_string()).collect();
        assert_eq!(log.take(), expected);
    }));
}

#[test]
fn a_blocked_run_is_woken_by_a_call_from_another_thread() {
    run(async {
        let (handle, called) = (current_run(), Event::new());
        let (blocked, is_blocked) = mpsc::channel::<()>();
        let set = called.clone();
        let caller = std::thread::spawn(move || {
            is_blocked.recv().unwrap();
            handle.run_sync_soon(move || set.set()).unwrap();
        });
        wait_all_tasks_blocked().await;
        blocked.send(()).unwrap();
        called.wait().await;
        caller.join().unwrap();
    });
}

#[test]
fn a_call_comes_before_a_jump_of_the_clock() {
    let clock = MockClock::autojump();
    let seen = clock.clone();
    RunBuilder::new().clock(clock).run(async {
        let called = Event::new();
        let set = called.clone();
        let call = move || {
            assert_eq!(seen.elapsed(), Duration::ZERO);
            set.set();
        };
        current_run().run_sync_soon(call).unwrap();
        fail_after(SECOND, called.wait()).await.unwrap();
    });
}

#[test]
fn a_thousand_calls_that_wait_happen_in_order() {
    let log = Log::default();
    run(async {
        let (handle, calls) = (current_run(), log.clone());
        // The run's thread waits, so they all pile up.
        let caller = std::thread::spawn(move || {
            for number in 0..1000 {
                let log = calls.clone();
                handle.run_sync_soon(move || log.add(number)).unwrap();
            }
        });
        caller.join().unwrap();
        assert_eq!(current_statistics().run_sync_soon_queue_size, 1000);
        checkpoint().await;
        assert_eq!(current_statistics().run_sync_soon_queue_size, 0);
    });
    let expected: Vec<_> = (0..1000).map(|number| number.to_string()).collect();
    assert_eq!(log.take(), expected);
}

#[test]
fn calls_from_many_threads_keep_each_thread_s_order_and_do_not_hold_up_tasks() {
    const THREADS: usize = 4;
    const CALLS: usize = 500;
    run(async {
        let next: Arc<[AtomicUsize; THREADS]> = Arc::default();
        for number in 0..THREADS {
            let (handle, next) = (current_run(), next.clone());
            std::thread::spawn(move || {
                for expected in 0..CALLS {
                    let next = next.clone();
                    let call = move || assert_eq!(next[number].fetch_add(1, SeqCst), expected);
                    handle.run_sync_soon(call).unwrap();
                }
            });
        }
        while next.iter().any(|next| next.load(SeqCst) < CALLS) {
            checkpoint().await;
        }
    });
}

#[test]
fn a_call_that_is_put_in_by_a_call_waits_until_tasks_had_their_turn() {
    let log = Log::default();
    run(async {
        let (handle, calls) = (current_run(), log.clone());
        let again = handle.clone();
        let first = move || {
            calls.add("first");
            soon(&again, &calls, "put in by the first");
        };
        handle.run_sync_soon(first).unwrap();
        soon(&handle, &log, "second");
        checkpoint().await;
        assert_eq!(log.take(), ["first", "second"]);
        checkpoint().await;
        assert_eq!(log.take(), ["put in by the first"]);
    });
}

#[test]
fn a_call_that_puts_itself_in_again_starves_nobody_and_is_refused_in_the_end() {
    #[derive(Clone, Default)]
    struct Count {
        calls: Arc<AtomicUsize>,
        refused: Arc<AtomicBool>,
    }
    fn again(handle: RunHandle, count: Count) {
        count.calls.fetch_add(1, SeqCst);
        let refused = count.refused.clone();
        let next = handle.clone();
        if let Err(finished) = handle.run_sync_soon(move || again(next, count)) {
            refused.store(true, SeqCst);
            assert_eq!(finished.to_string(), "the run that this was for has ended");
        }
    }
    let count = Count::default();
    let seen = count.clone();
    run(async {
        again(current_run(), count);
        turns(20).await;
        assert!(seen.calls.load(SeqCst) >= 20);
        assert!(!seen.refused.load(SeqCst));
    });
    assert!(seen.refused.load(SeqCst));
}

#[test]
fn after_the_end_of_the_run_a_call_is_given_back() {
    let handle = run(async { current_run() });
    let called = Arc::new(AtomicBool::new(false));
    let set = called.clone();
    let refused = handle.run_sync_soon(move || set.store(true, SeqCst));
    assert!(!called.load(SeqCst));
    refused.unwrap_err().into_inner()();
    assert!(called.load(SeqCst));
}

// ---- run_sync_soon_once.

#[test]
fn a_call_that_waits_already_is_not_put_in_again_and_keeps_its_place() {
    let log = Log::default();
    run(async {
        let handle = current_run();
        let [one, two] = ["one", "two"].map(|what| {
            let log = log.clone();
            Arc::new(move || log.add(what))
        });
        handle.run_sync_soon_once(&one).unwrap();
        soon(&handle, &log, "between");
        handle.run_sync_soon_once(&two).unwrap();
        for _ in 0..10 {
            handle.run_sync_soon_once(&one).unwrap();
        }
        assert_eq!(current_statistics().run_sync_soon_queue_size, 3);
        turns(2).await;
        assert_eq!(log.take(), ["one", "between", "two"]);
        // It has happened, so it may be put in again.
        handle.run_sync_soon_once(&one).unwrap();
        turns(2).await;
        assert_eq!(log.take(), ["one"]);
        assert_eq!(Arc::strong_count(&one), 1, "nothing is left behind");
    });
}

#[test]
fn a_call_that_has_started_may_put_itself_in_again() {
    type Call = Box<dyn Fn() + Send + Sync>;
    let calls = Arc::new(AtomicUsize::new(0));
    let count = calls.clone();
    run(async {
        let handle = current_run();
        let call: Arc<Call> = Arc::new_cyclic(|itself: &Weak<Call>| {
            let itself = itself.clone();
            Box::new(move || {
                if count.fetch_add(1, SeqCst) < 2 {
                    // Once, although it is put in twice.
                    let itself = itself.upgrade().unwrap();
                    handle.run_sync_soon_once(&itself).unwrap();
                    handle.run_sync_soon_once(&itself).unwrap();
                }
            })
        });
        current_run().run_sync_soon_once(&call).unwrap();
        turns(10).await;
    });
    assert_eq!(calls.load(SeqCst), 3);
}

#[test]
fn after_the_end_a_call_with_a_key_is_given_back() {
    let handle = run(async { current_run() });
    let call = Arc::new(|| {});
    let refused = handle.run_sync_soon_once(&call).unwrap_err();
    assert!(Arc::ptr_eq(&refused.into_inner(), &call));
}

// ---- The end.

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
fn a_call_that_panics_cancels_everybody_and_the_panic_comes_out_when_all_have_ended() {
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
            handle.run_sync_soon(|| panic!("the call's")).unwrap();
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
            handle.run_sync_soon(|| panic!("the late call's")).unwrap();
            handle.run_sync_soon(|| panic!("a second one's")).unwrap();
            soon(&handle, &log, "the last call");
            // A value that nobody gets, with a destructor that panics as well.
            OnDrop(|| {
                log.add("value dropped");
                panic!("the destructor's");
            })
        })
    });
    assert_eq!(said, "the late call's");
    assert_eq!(log.take(), ["the last call", "value dropped"]);
}

/// A clock that cannot go on.
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
fn if_the_loop_itself_panics_what_is_left_is_dropped_and_no_thread_waits_for_ever() {
    type Kept = (RunHandle, Arc<dyn Send + Sync>);
    static KEPT: RunVar<Kept> = RunVar::new();
    let (handles, take) = mpsc::channel::<RunHandle>();
    let asker = std::thread::spawn(move || take.recv().unwrap().run(pending::<()>));
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

// ---- run_sync and run: threads that wait.

#[test]
fn a_thread_has_a_function_called_in_the_run_and_gets_its_value() {
    run(async {
        let (handle, here) = (current_run(), std::thread::current().id());
        let call = move || handle.run_sync(|| (std::thread::current().id(), in_run()));
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
                // Also this is in the run.
                let began = current_time();
                async move {
                    sleep(5 * SECOND).await;
                    assert_eq!(current_time() - began, 5 * SECOND);
                    (std::thread::current().id(), in_task(), COLOUR.get())
                }
            };
            let value = thread::run_sync(move || handle.run(make)).await;
            assert_eq!(value, Ok((here, true, None)));
        }));
    assert_eq!(clock.elapsed(), 5 * SECOND);
}

#[test]
fn the_panic_of_what_a_thread_wanted_is_that_thread_s_and_harms_nobody_else() {
    run(async {
        let handle = current_run();
        let said = smol::unblock(move || {
            [
                panic_of(|| handle.run_sync(|| panic!("the function's"))),
                panic_of(|| handle.run(|| async { panic!("the future's") })),
                panic_of(|| handle.run::<_, std::future::Ready<()>>(|| panic!("the maker's"))),
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
fn on_the_thread_of_the_run_itself_waiting_panics_instead_of_waiting_for_ever() {
    run(async {
        let handle = current_run();
        let said = panic_of(|| handle.run_sync(|| {}));
        assert!(said.contains("RunHandle::run_sync was called on the thread of the run itself"));
        let said = panic_of(|| handle.run(|| async {}));
        assert!(said.contains("RunHandle::run was called on the thread of the run itself"));
    });
}

#[test]
fn after_the_end_of_the_run_nothing_is_called_nor_run() {
    let handle = run(async { current_run() });
    // On the thread that was the run's, and on another one.
    let check = move || {
        let refused = handle.run_sync(|| 5).unwrap_err();
        assert_eq!(refused.into_inner()(), 5);
        let result = handle.run(|| async { unreachable!() });
        assert_eq!(result, Err::<(), _>(EnterError::Finished));
    };
    check();
    std::thread::spawn(check).join().unwrap();
}

#[test]
fn what_a_thread_waits_for_is_cancelled_when_the_main_future_ends() {
    let asker = run(async {
        let (handle, running) = (current_run(), Event::new());
        let set = running.clone();
        let asker = std::thread::spawn(move || {
            handle.run(|| async move {
                set.set();
                sleep_forever().await;
            })
        });
        running.wait().await;
        asker
    });
    assert_eq!(asker.join().unwrap(), Err(EnterError::Cancelled));
}

/// The function that waits for its turn is called although its caller's run is over in all other respects.
#[test]
fn what_a_thread_waits_for_happens_also_if_it_was_accepted_last() {
    let (begun, has_begun) = mpsc::channel();
    let asker = run(async {
        let handle = current_run();
        let asker = std::thread::spawn(move || {
            handle
                .run_sync_soon(move || begun.send(()).unwrap())
                .unwrap();
            handle.run_sync(|| 5)
        });
        // Blocks the run until the thread has put in at least its first call.
        while current_statistics().run_sync_soon_queue_size < 2 {
            std::thread::yield_now();
        }
        asker
    });
    assert_eq!(asker.join().unwrap().unwrap(), 5);
    has_begun.recv().unwrap();
}

/// A thread for which a system task waits, shielded, when the main future has ended.
#[test]
fn while_the_run_ends_a_thread_s_host_still_serves_it_and_a_future_is_run_to_its_first_wait() {
    let (answers, take) = mpsc::channel();
    run(async {
        let (handle, begun) = (current_run(), Event::new());
        let set = begun.clone();
        let (main_ended, has_ended) = mpsc::channel::<()>();
        spawn_system_task(thread::run_sync(move || {
            set.set();
            // Let go by the end of the sender.
            _ = has_ended.recv();
            let at_once = handle.run(|| async { 1 });
            let never = handle.run(sleep_forever);
            let host = thread::run_sync_in_host(|| 2);
            answers.send((at_once, never, host)).unwrap();
        }));
        begun.wait().await;
        // Dropped after the call below has been made, which is after the main future's end.
        let late = current_run();
        let again = late.clone();
        late.run_sync_soon(move || {
            again.run_sync_soon(move || drop(main_ended)).unwrap();
        })
        .unwrap();
    });
    let expected = (Ok(1), Err(EnterError::Cancelled), Ok(2));
    assert_eq!(take.recv().unwrap(), expected);
}

#[test]
fn a_thread_s_host_tells_it_which_run_it_works_for() {
    run(async {
        let there = thread::run_sync(|| thread::run_sync_in_host(current_run));
        assert_eq!(there.await, Ok(current_run()));
        let there = thread::run_sync(|| thread::run_in_host(|| async { current_run() }));
        assert_eq!(there.await, Ok(current_run()));
    });
}

#[test]
fn threads_that_have_something_done_in_each_other_s_runs_do_not_block_each_other() {
    let (to_other, from_one) = mpsc::channel::<RunHandle>();
    let other = std::thread::spawn(move || {
        run(async {
            let one = from_one.recv().unwrap();
            let here = current_run();
            smol::unblock(move || one.run(|| async move { current_run() != here })).await
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

// ---- What a run tells about itself.

#[test]
fn statistics_tell_of_system_tasks_calls_deadlines_and_threads() {
    RunBuilder::new().clock(MockClock::new()).run(async {
        let rest = current_statistics();
        assert_eq!(rest.system_tasks, 0);
        assert_eq!(rest.run_sync_soon_queue_size, 0);
        assert_eq!(rest.time_to_next_deadline, None);
        assert_eq!(rest.active_threads, 0);

        current_run().run_sync_soon(|| {}).unwrap();
        current_run().run_sync_soon(|| {}).unwrap();
        assert_eq!(current_statistics().run_sync_soon_queue_size, 2);

        let task = spawn_system_task(sleep_forever());
        assert_eq!(current_statistics().system_tasks, 1);
        task.cancel().await;
        assert_eq!(current_statistics().system_tasks, 0);
        assert_eq!(current_statistics().run_sync_soon_queue_size, 0);

        let five = fail_after(5 * SECOND, async {
            fail_after(8 * SECOND, checkpoint()).await.unwrap();
            current_statistics().time_to_next_deadline
        });
        assert_eq!(five.await.unwrap(), Some(5 * SECOND));
        assert_eq!(current_statistics().time_to_next_deadline, None);

        let handle = current_run();
        let there = thread::run_sync(move || handle.statistics().active_threads);
        assert_eq!(there.await, 1);
        assert_eq!(current_statistics(), rest);
    });
}

#[test]
fn the_statistics_of_a_run_that_has_ended_say_that_nothing_is_left() {
    let handle = run(async {
        spawn_system_task(sleep_forever());
        current_run().run_sync_soon(|| {}).unwrap();
        current_run()
    });
    let left = handle.statistics();
    assert_eq!((left.system_tasks, left.run_sync_soon_queue_size), (0, 0));
    assert_eq!((left.time_to_next_deadline, left.active_threads), (None, 0));
}

#[test]
fn the_current_clock_is_the_run_s_and_outside_the_system_s() {
    let clock = MockClock::new();
    clock.jump(100 * SECOND);
    RunBuilder::new().clock(clock).run(async {
        let clock = current_clock();
        assert_eq!(clock.now(), current_time());
        assert_eq!(clock.real_time_until(current_time() + SECOND), None);
    });
    let outside = current_clock();
    assert!(outside.real_time_until(outside.now() + SECOND) <= Some(SECOND));
}

/// Guards what the tests above rely on: a panic's payload comes out of a run as it is.
#[test]
fn the_payload_of_a_call_s_panic_comes_out_as_it_is() {
    let caught = std::panic::catch_unwind(|| {
        run(async {
            let call = || resume_unwind(Box::new(Cell::new(5)));
            current_run().run_sync_soon(call).unwrap();
            sleep_forever().await;
        });
    });
    let payload = caught.unwrap_err();
    assert_eq!(payload.downcast::<Cell<i32>>().unwrap().get(), 5);
    assert_eq!(message(Box::new("a text")), "a text");
}
