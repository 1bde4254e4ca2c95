//! Calls that are queued in a run: their order, and when they are made.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::panics::panic_of;
use crate::polling::turns;
use crate::{Log, SECOND, soon};
use seedbed::nursery::TreeVar;
use seedbed::run::{
    RunHandle, current_run, current_statistics, in_run, in_task, spawn_system_task,
};
use seedbed::sync::Event;
use seedbed::testing::{MockClock, wait_all_tasks_blocked};
use seedbed::{RunBuilder, checkpoint, fail_after, open_nursery, run, thread};

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
fn outside_of_a_run_current_run_panics_with_advice() {
    let said = panic_of(current_run);
    assert!(said.contains("not polled by seedbed::run"), "{said}");
    let said = run(async { std::thread::spawn(|| panic_of(current_run)).join() }).unwrap();
    assert!(said.contains("has to be given the RunHandle"), "{said}");
    // A nursery that another executor polls is not in a run either.
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
        let host = thread::run_sync(move || thread::call_in_task(here));
        assert_eq!(host.await, Ok((true, true)));
        let handle = current_run();
        let call = thread::run_sync(move || handle.call(here).unwrap());
        assert_eq!(call.await, (true, false));
    }));
    assert_eq!(here(), (false, false));
}

// ---- call_soon.

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
            current_run().call_soon(call).unwrap();
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
            handle.call_soon(move || set.set()).unwrap();
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
        current_run().call_soon(call).unwrap();
        fail_after(SECOND, called.wait()).await.unwrap();
    });
}

#[test]
fn a_thousand_calls_that_wait_happen_in_order() {
    let log = Log::default();
    run(async {
        let (handle, calls) = (current_run(), log.clone());
        // The run's thread is blocked, so all calls stay queued.
        let caller = std::thread::spawn(move || {
            for number in 0..1000 {
                let log = calls.clone();
                handle.call_soon(move || log.add(number)).unwrap();
            }
        });
        caller.join().unwrap();
        assert_eq!(current_statistics().queued_calls, 1000);
        checkpoint().await;
        assert_eq!(current_statistics().queued_calls, 0);
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
                    handle.call_soon(call).unwrap();
                }
            });
        }
        while next.iter().any(|next| next.load(SeqCst) < CALLS) {
            checkpoint().await;
        }
    });
}

#[test]
fn a_call_that_a_call_queues_waits_until_tasks_were_polled() {
    let log = Log::default();
    run(async {
        let (handle, calls) = (current_run(), log.clone());
        let again = handle.clone();
        let first = move || {
            calls.add("first");
            soon(&again, &calls, "put in by the first");
        };
        handle.call_soon(first).unwrap();
        soon(&handle, &log, "second");
        checkpoint().await;
        assert_eq!(log.take(), ["first", "second"]);
        checkpoint().await;
        assert_eq!(log.take(), ["put in by the first"]);
    });
}

#[test]
fn a_call_that_queues_itself_again_starves_no_task_and_is_refused_in_the_end() {
    #[derive(Clone, Default)]
    struct Count {
        calls: Arc<AtomicUsize>,
        refused: Arc<AtomicBool>,
    }
    fn again(handle: RunHandle, count: Count) {
        count.calls.fetch_add(1, SeqCst);
        let refused = count.refused.clone();
        let next = handle.clone();
        if let Err(finished) = handle.call_soon(move || again(next, count)) {
            refused.store(true, SeqCst);
            assert_eq!(finished.to_string(), "the run has ended");
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
    let refused = handle.call_soon(move || set.store(true, SeqCst));
    assert!(!called.load(SeqCst));
    refused.unwrap_err().into_inner()();
    assert!(called.load(SeqCst));
}

// ---- call_soon_once.

#[test]
fn a_queued_call_is_not_queued_again_and_keeps_its_position() {
    let log = Log::default();
    run(async {
        let handle = current_run();
        let [one, two] = ["one", "two"].map(|what| {
            let log = log.clone();
            Arc::new(move || log.add(what))
        });
        handle.call_soon_once(&one).unwrap();
        soon(&handle, &log, "between");
        handle.call_soon_once(&two).unwrap();
        for _ in 0..10 {
            handle.call_soon_once(&one).unwrap();
        }
        assert_eq!(current_statistics().queued_calls, 3);
        turns(2).await;
        assert_eq!(log.take(), ["one", "between", "two"]);
        // The call was made, so it may be queued again.
        handle.call_soon_once(&one).unwrap();
        turns(2).await;
        assert_eq!(log.take(), ["one"]);
        assert_eq!(Arc::strong_count(&one), 1, "nothing is left behind");
    });
}

#[test]
fn a_call_that_has_started_may_queue_itself_again() {
    type Call = Box<dyn Fn() + Send + Sync>;
    let calls = Arc::new(AtomicUsize::new(0));
    let count = calls.clone();
    run(async {
        let handle = current_run();
        let call: Arc<Call> = Arc::new_cyclic(|itself: &Weak<Call>| {
            let itself = itself.clone();
            Box::new(move || {
                if count.fetch_add(1, SeqCst) < 2 {
                    // Made once, although it is queued twice.
                    let itself = itself.upgrade().unwrap();
                    handle.call_soon_once(&itself).unwrap();
                    handle.call_soon_once(&itself).unwrap();
                }
            })
        });
        current_run().call_soon_once(&call).unwrap();
        turns(10).await;
    });
    assert_eq!(calls.load(SeqCst), 3);
}

#[test]
fn after_the_end_a_call_with_a_key_is_given_back() {
    let handle = run(async { current_run() });
    let call = Arc::new(|| {});
    let refused = handle.call_soon_once(&call).unwrap_err();
    assert!(Arc::ptr_eq(&refused.into_inner(), &call));
}
