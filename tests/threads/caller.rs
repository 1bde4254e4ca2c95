//! Calls from a thread into the task that waits for it.

use std::future::IntoFuture;
use std::time::Duration;

use seedbed::sync::Event;
use seedbed::testing::MockClock;
use seedbed::thread::{self, CancelledError, call_async_in_task, call_in_task, check_cancelled};
use seedbed::time::{current_time, sleep_forever};
use seedbed::{
    CancelScope, CapacityLimiter, RunBuilder, checkpoint, move_on_after, on_cancel, open_nursery,
    run, sleep,
};

#[test]
fn a_future_from_a_thread_runs_in_the_callers_task_and_time() {
    let clock = MockClock::autojump();
    RunBuilder::new().clock(clock.clone()).run(async {
        let began = current_time();
        let ended = thread::run_sync(|| {
            call_async_in_task(|| async {
                let slept =
                    move_on_after(Duration::from_secs(60), sleep(Duration::from_secs(3600)));
                assert!(slept.await.is_none());
                current_time()
            })
        });
        assert_eq!(ended.await.unwrap() - began, Duration::from_secs(60));
    });
    assert_eq!(clock.elapsed(), Duration::from_secs(60));
}

/// The thread could have the job before the call was in the scope tree, and then was not told.
#[test]
fn a_job_that_cancels_its_caller_is_told_so_at_once() {
    run(async {
        for _ in 0..200 {
            let scope = CancelScope::new();
            let cancel = scope.clone();
            let call = thread::run_sync(move || {
                cancel.cancel();
                check_cancelled()
            });
            assert_eq!(scope.run(call).await, Some(Err(CancelledError)));
        }
    });
}

#[test]
fn a_future_from_a_thread_is_cancelled_with_the_caller_and_shields_in_it_are_honoured() {
    run(open_nursery(|n| async move {
        let (inside, cleaned) = (Event::new(), Event::new());
        let (set, clean) = (inside.clone(), cleaned.clone());
        let scope = CancelScope::new();
        let inner = scope.clone();
        let child = n.spawn(async move {
            let call = thread::run_sync(|| {
                let cancelled = call_async_in_task(|| async move {
                    set.set();
                    let clean_up = async move {
                        checkpoint().await;
                        clean.set();
                    };
                    on_cancel(sleep_forever(), clean_up).await
                });
                // The thread may continue, and the task still serves requests that need not wait.
                (
                    cancelled,
                    call_in_task(|| 5),
                    call_async_in_task(|| async { 6 }),
                )
            });
            inner.run(call).await
        });
        inside.wait().await;
        scope.cancel();
        assert_eq!(child.await, Some((Err(CancelledError), Ok(5), Ok(6))));
        assert!(cleaned.is_set());
    }));
}

#[test]
fn a_panic_in_the_run_goes_on_in_the_thread() {
    run(async {
        let caught = thread::run_sync(|| {
            let call = std::panic::catch_unwind(|| call_in_task(|| panic!("in a call")));
            let future = std::panic::catch_unwind(|| {
                call_async_in_task(|| async {
                    checkpoint().await;
                    panic!("in a future")
                })
            });
            let text = |caught: Result<Result<(), _>, Box<dyn std::any::Any + Send>>| {
                *caught.unwrap_err().downcast::<&str>().unwrap()
            };
            (text(call), text(future))
        });
        assert_eq!(caught.await, ("in a call", "in a future"));
    });
}

#[test]
#[should_panic(
    expected = "thread::check_cancelled was called on a thread that is not running a job"
)]
fn a_foreign_thread_has_no_caller_to_ask_about() {
    _ = check_cancelled();
}

#[test]
fn many_threads_that_come_back_while_they_are_cancelled_all_end() {
    run(async {
        let scope = CancelScope::new();
        let limiter = &CapacityLimiter::new(20);
        let handle = &scope;
        let all = scope.run(open_nursery(|n| async move {
            for number in 0..50 {
                let handle = handle.clone();
                let call = thread::run_sync(move || {
                    if number == 10 {
                        handle.cancel();
                    }
                    while call_async_in_task(checkpoint).is_ok() {}
                });
                n.spawn(call.limiter(limiter).into_future());
            }
        }));
        assert_eq!(all.await, None);
        assert_eq!(limiter.borrowed(), 0);
    });
}

#[test]
fn what_a_thread_has_done_in_the_run_may_call_another_thread() {
    run(async {
        let calls = thread::run_sync(|| {
            let outer = std::thread::current().id();
            let inner = call_async_in_task(|| async {
                thread::run_sync(|| std::thread::current().id()).await
            });
            (outer, inner.unwrap())
        });
        let (outer, inner) = calls.await;
        assert_ne!(outer, inner);
    });
}

#[test]
fn only_a_thread_of_a_call_has_a_host_to_ask() {
    fn refused(ask: fn()) {
        let payload = std::panic::catch_unwind(ask).unwrap_err();
        let message = payload.downcast::<String>().unwrap();
        assert!(
            message.contains("on a thread that is not running a job"),
            "{message}"
        );
    }
    let ask = [
        (|| _ = call_in_task(|| ())) as fn(),
        || _ = call_async_in_task(checkpoint),
        || _ = check_cancelled(),
    ];
    for ask in ask {
        refused(ask);
        // The thread of the run itself has no calling task either.
        run(async { refused(ask) });
        run(async { thread::run_sync(move || call_in_task(move || refused(ask))).await }).unwrap();
    }
}
