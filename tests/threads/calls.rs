//! Calls: values, panics, tokens and cancellation.

use std::collections::HashSet;
use std::future::IntoFuture;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};

use crate::poll_times::poll_times;
use crate::{job, wait_until_unused};
use futures_lite::FutureExt;
use seedbed::nursery::TreeVar;
use seedbed::testing::wait_all_tasks_blocked;
use seedbed::thread::{self, CancelledError, call_async_in_task, call_in_task, check_cancelled};
use seedbed::{CancelScope, CapacityLimiter, checkpoint, on_cancel, open_nursery, run, shield};

#[test]
fn a_value_comes_back_from_another_thread() {
    run(async {
        let here = std::thread::current().id();
        let there = thread::run_sync(|| std::thread::current().id()).await;
        assert_ne!(here, there);
    });
}

#[test]
fn others_go_on_meanwhile() {
    let barrier = Arc::new(Barrier::new(3));
    run(open_nursery(|n| async move {
        for _ in 0..3 {
            let barrier = barrier.clone();
            n.spawn(async move { thread::run_sync(move || barrier.wait()).await });
        }
    }));
}

#[test]
fn a_panic_goes_on_in_the_caller_and_the_thread_is_used_again() {
    let limiter = CapacityLimiter::new(1);
    for _ in 0..3 {
        let limiter = limiter.clone();
        let caught = std::panic::catch_unwind(move || {
            run(async {
                thread::run_sync(|| panic!("on purpose"))
                    .limiter(&limiter)
                    .await
            })
        });
        assert_eq!(
            *caught.unwrap_err().downcast::<&str>().unwrap(),
            "on purpose"
        );
    }
    assert_eq!(limiter.borrowed(), 0);
    assert_eq!(run(async { thread::run_sync(|| 1).await }), 1);
}

#[test]
fn a_cancelled_caller_starts_no_thread() {
    run(async {
        let ran = Arc::new(AtomicBool::new(false));
        let runs = ran.clone();
        let scope = CancelScope::new();
        scope.cancel();
        assert!(
            scope
                .run(thread::run_sync(move || runs.store(true, SeqCst)))
                .await
                .is_none()
        );
        assert!(!ran.load(SeqCst));
    });
}

#[test]
fn waiting_for_the_limiter_is_a_cancel_point() {
    run(open_nursery(|n| async move {
        let limiter = CapacityLimiter::new(0);
        let waiting = n.spawn(thread::run_sync(|| ()).limiter(&limiter).into_future());
        wait_all_tasks_blocked().await;
        assert_eq!(limiter.statistics().waiting, 1);
        assert_eq!(waiting.cancel().await, None);
        assert_eq!(limiter.statistics().waiting, 0);
    }));
}

#[test]
fn a_cancelled_caller_waits_for_the_thread_and_gets_the_value() {
    run(open_nursery(|n| async move {
        let (work, begun, let_go) = job();
        let scope = CancelScope::new();
        let inner = scope.clone();
        let child = n.spawn(async move {
            inner
                .run(async {
                    let value = thread::run_sync(work).await;
                    // The task ends at its next await that waits.
                    let late = Arc::new(AtomicBool::new(false));
                    let reached = late.clone();
                    let rest = on_cancel(checkpoint(), async move { reached.store(true, SeqCst) });
                    assert_eq!(value, "done");
                    rest.await;
                    unreachable!("cancelled")
                })
                .await
        });
        begun.recv().await.unwrap();
        scope.cancel();
        wait_all_tasks_blocked().await;
        let_go.send(()).unwrap();
        assert_eq!(child.await, None::<()>);
    }));
}

#[test]
fn an_abandoned_thread_keeps_its_token_until_it_ends() {
    let limiter = CapacityLimiter::new(2);
    let (work, begun, let_go) = job();
    run(async {
        let scope = CancelScope::new();
        let call = thread::run_sync(work)
            .limiter(&limiter)
            .abandon_on_cancel(true);
        let cancel = async {
            begun.recv().await.unwrap();
            scope.cancel();
        };
        let (value, ()) = smol::future::zip(scope.run(call), cancel).await;
        assert_eq!(value, None);
        assert_eq!(limiter.borrowed(), 1);
    });
    // The run has ended; the thread has not.
    assert_eq!(limiter.borrowed(), 1);
    drop(let_go);
    wait_until_unused(&limiter);
}

#[test]
fn dropped_at_every_poll_the_thread_goes_on_and_gives_its_token_back() {
    let limiter = CapacityLimiter::new(1);
    for abandon in [false, true] {
        for times in 0.. {
            let (ran, runs) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let (counts, ends) = (ran.clone(), runs.clone());
            let done = run(async {
                let call = thread::run_sync(move || {
                    counts.fetch_add(1, SeqCst);
                    // This returns with and without a waiting task.
                    let asked = call_async_in_task(checkpoint).is_ok();
                    ends.fetch_add(1, SeqCst);
                    asked
                });
                let call = call.limiter(&limiter).abandon_on_cancel(abandon);
                poll_times(call.into_future(), times).await
            });
            wait_until_unused(&limiter);
            assert_eq!(ran.load(SeqCst), runs.load(SeqCst));
            assert_eq!(ran.load(SeqCst), usize::from(times > 0));
            if let Some(asked) = done {
                assert!(asked);
                break;
            }
        }
    }
}

#[test]
fn a_token_is_given_back_before_the_result_is_there() {
    run(async {
        let limiter = CapacityLimiter::new(1);
        for _ in 0..100 {
            let seen = limiter.clone();
            assert_eq!(
                thread::run_sync(move || seen.borrowed())
                    .limiter(&limiter)
                    .await,
                1
            );
            assert_eq!(limiter.borrowed(), 0);
        }
    });
}

#[test]
fn a_thread_sees_that_its_caller_is_cancelled() {
    run(open_nursery(|n| async move {
        let (work, begun, let_go) = job();
        let scope = CancelScope::new();
        let inner = scope.clone();
        let child = n.spawn(async move {
            inner
                .run(thread::run_sync(move || {
                    let before = check_cancelled();
                    work();
                    (before, check_cancelled())
                }))
                .await
        });
        begun.recv().await.unwrap();
        // It holds as soon as `cancel` has returned.
        scope.cancel();
        let_go.send(()).unwrap();
        assert_eq!(child.await, Some((Ok(()), Err(CancelledError))));
    }));
}

#[test]
fn a_thread_sees_that_its_caller_is_gone() {
    let (sender, receiver) = channel();
    let (work, begun, let_go) = job();
    run(async {
        let call = thread::run_sync(move || {
            work();
            sender
                .send((
                    check_cancelled(),
                    call_in_task(|| ()),
                    call_async_in_task(checkpoint),
                ))
                .unwrap();
        });
        // A race of another crate, which drops the loser.
        let call = async {
            call.await;
            Ok(())
        };
        smol::future::or(call, begun.recv()).await.unwrap();
    });
    let_go.send(()).unwrap();
    assert_eq!(
        receiver.recv().unwrap(),
        (
            Err(CancelledError),
            Err(CancelledError),
            Err(CancelledError)
        )
    );
}

#[test]
fn a_shield_around_the_call_hides_the_cancellation_from_the_thread() {
    run(async {
        let scope = CancelScope::new();
        scope.cancel();
        let seen = scope.run(shield(thread::run_sync(check_cancelled).into_future()));
        assert_eq!(seen.await, Some(Ok(())));
    });
}

#[test]
fn the_thread_has_the_callers_tree_variables_and_leaves_none_behind() {
    static USER: TreeVar<&str> = TreeVar::new();
    run(async {
        let limiter = CapacityLimiter::new(1);
        let seen = USER.scope(
            "ada",
            thread::run_sync(|| (USER.get(), call_in_task(|| USER.get()))).into_future(),
        );
        assert_eq!(seen.await, (Some("ada"), Ok(Some("ada"))));
        for _ in 0..10 {
            assert_eq!(
                thread::run_sync(|| USER.get()).limiter(&limiter).await,
                None
            );
        }
    });
}

#[test]
fn a_thread_is_used_again_while_it_is_warm() {
    run(async {
        // Other tests use the cache too, and may add a thread after the one that was just used. So
        // the next thread is not determined, but among a thousand calls, one thread is used twice.
        let mut seen = HashSet::new();
        for _ in 0..1000 {
            if !seen.insert(thread::run_sync(|| std::thread::current().id()).await) {
                return;
            }
        }
        panic!("no thread was used again");
    });
}

#[test]
fn a_name_is_the_systems_for_the_length_of_the_call() {
    fn name() -> String {
        std::fs::read_to_string("/proc/thread-self/comm")
            .unwrap()
            .trim_end()
            .to_string()
    }
    run(async {
        assert_eq!(
            thread::run_sync(name).name("a-name-that-is-too-long").await,
            "a-name-that-is-"
        );
        assert_eq!(thread::run_sync(name).name("cut\0here").await, "cut");
        assert_eq!(thread::run_sync(name).await, "seedbed-thread");
    });
}

#[test]
fn no_more_threads_run_than_the_limiter_allows_also_if_some_are_abandoned() {
    const MAX: usize = 3;
    let limiter = CapacityLimiter::new(MAX);
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (let_go, go) = channel::<()>();
    let go = Arc::new(std::sync::Mutex::new(go));
    run(async {
        let (limiter, running, most, go) = (&limiter, &running, &most, &go);
        open_nursery(|n| async move {
            for number in 0..2 * MAX {
                let (here, most, go) = (running.clone(), most.clone(), go.clone());
                let call = thread::run_sync(move || {
                    let now = here.fetch_add(1, SeqCst) + 1;
                    most.fetch_max(now, SeqCst);
                    _ = go.lock().unwrap().recv();
                    here.fetch_sub(1, SeqCst);
                });
                let call = call.limiter(limiter).abandon_on_cancel(number % 2 == 0);
                let task = n.spawn(call.into_future());
                if number == 0 {
                    while running.load(SeqCst) == 0 {
                        checkpoint().await;
                    }
                    // Abandoned; it counts while its thread runs.
                    assert_eq!(task.cancel().await, None);
                }
            }
            wait_all_tasks_blocked().await;
            let standing = limiter.statistics();
            assert_eq!((standing.borrowed, standing.waiting), (MAX, MAX));
            while running.load(SeqCst) < MAX {
                checkpoint().await;
            }
            drop(let_go);
        })
        .await;
    });
    wait_until_unused(&limiter);
    assert_eq!((most.load(SeqCst), running.load(SeqCst)), (MAX, 0));
}

#[test]
fn a_call_that_names_no_limiter_takes_a_token_of_the_default_one() {
    let borrowed = || thread::current_default_thread_limiter().borrowed();
    assert_eq!(thread::current_default_thread_limiter().total(), Some(40));
    assert!(run(async move { thread::run_sync(borrowed).await }) >= 1);
}

#[test]
fn what_the_function_owned_is_gone_before_its_value_is_there() {
    run(async {
        for _ in 0..100 {
            let owned = Arc::new(());
            let inside = owned.clone();
            thread::run_sync(move || drop(inside.clone())).await;
            assert_eq!(Arc::strong_count(&owned), 1);
        }
    });
}

#[test]
fn a_thread_that_is_abandoned_sees_it_and_may_panic_in_peace() {
    let limiter = CapacityLimiter::new(2);
    let (sender, receiver) = channel();
    let (work, begun, let_go) = job();
    run(async {
        let scope = CancelScope::new();
        let call = thread::run_sync(move || {
            work();
            sender.send(check_cancelled()).unwrap();
            panic!("nobody hears this");
        });
        let call = call.limiter(&limiter).abandon_on_cancel(true);
        let cancel = async {
            begun.recv().await.unwrap();
            scope.cancel();
        };
        let (value, ()) = smol::future::zip(scope.run(call), cancel).await;
        assert_eq!(value, None::<()>);
        let_go.send(()).unwrap();
    });
    assert_eq!(receiver.recv().unwrap(), Err(CancelledError));
    wait_until_unused(&limiter);
}

/// Its result is dropped by the thread, which continues.
#[test]
fn a_result_that_nobody_wants_and_that_panics_as_it_is_dropped_harms_nobody() {
    struct Bomb(Arc<AtomicBool>);
    impl Drop for Bomb {
        fn drop(&mut self) {
            self.0.store(true, SeqCst);
            panic!("dropped");
        }
    }
    let limiter = CapacityLimiter::new(1);
    let dropped = Arc::new(AtomicBool::new(false));
    let bomb = dropped.clone();
    let (work, begun, let_go) = job();
    run(async {
        let scope = CancelScope::new();
        let call = thread::run_sync(move || {
            work();
            Bomb(bomb)
        });
        let call = call.limiter(&limiter).abandon_on_cancel(true);
        let cancel = async {
            begun.recv().await.unwrap();
            scope.cancel();
        };
        let (value, ()) = smol::future::zip(scope.run(call), cancel).await;
        assert!(value.is_none());
        let_go.send(()).unwrap();
        while !dropped.load(SeqCst) {
            checkpoint().await;
        }
        assert_eq!(thread::run_sync(|| 5).limiter(&limiter).await, 5);
    });
}

/// Starts the thread of smol's reactor and waits until it is idle, because it could not start later
/// either.
fn warm_up() {
    drop(smol::Async::new(std::io::pipe().unwrap().0).unwrap());
    let rests = |task: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.contains("(async-io) S")
    };
    let tasks = || std::fs::read_dir("/proc/self/task").unwrap();
    while !tasks().any(|task| task.is_ok_and(rests)) {
        std::thread::yield_now();
    }
}

/// Runs in a process of its own that may map no more memory, so that a thread's stack cannot be
/// mapped.
#[test]
fn a_thread_that_cannot_be_started_is_a_panic_and_its_token_comes_back() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    const NAME: &str = "calls::a_thread_that_cannot_be_started_is_a_panic_and_its_token_comes_back";
    if std::env::var_os("SEEDBED_THREADS_TEST").is_none() {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", NAME, "--nocapture"]);
        // Without a backtrace, which needs memory.
        command
            .env("SEEDBED_THREADS_TEST", "1")
            .env("RUST_BACKTRACE", "0");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        return;
    }
    warm_up();
    let limiter = &CapacityLimiter::new(1);
    run(async {
        let before = rustix::process::getrlimit(Resource::As);
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: u64 = pages.split(' ').next().unwrap().parse().unwrap();
        let almost_nothing_more = Rlimit {
            // Enough memory for the error's text, and less than a stack needs.
            current: Some(pages * rustix::param::page_size() as u64 + (1 << 20)),
            maximum: before.maximum,
        };
        setrlimit(Resource::As, almost_nothing_more).unwrap();
        let call = AssertUnwindSafe(thread::run_sync(|| ()).limiter(limiter).into_future());
        let caught = call.catch_unwind().await;
        setrlimit(Resource::As, before).unwrap();
        let message = *caught.unwrap_err().downcast::<String>().unwrap();
        assert!(
            message.starts_with("thread::run_sync could not start a thread"),
            "{message}"
        );
        assert_eq!(limiter.borrowed(), 0);
        // With enough memory, calls work again.
        assert_eq!(thread::run_sync(|| 5).limiter(limiter).await, 5);
    });
}

#[test]
fn a_call_may_be_made_outside_of_a_run() {
    assert_eq!(smol::block_on(thread::run_sync(|| 5).into_future()), 5);
}

/// The thread used to end after it had become idle, and a later call waited for it forever.
#[test]
fn a_value_whose_drop_panics_with_a_payload_whose_drop_panics_harms_no_later_call() {
    struct Value;
    impl Drop for Value {
        fn drop(&mut self) {
            std::panic::panic_any(Payload)
        }
    }
    struct Payload;
    impl Drop for Payload {
        fn drop(&mut self) {
            panic!("a payload's drop")
        }
    }
    for _ in 0..10 {
        run(async {
            let (go, wait) = channel::<()>();
            let abandoned = thread::run_sync(move || {
                _ = wait.recv();
                Value
            });
            let call = abandoned.abandon_on_cancel(true).into_future();
            let scope = CancelScope::new();
            let cancel = scope.clone();
            let ended = scope.run(async move {
                let mut call = std::pin::pin!(call);
                assert!(futures_lite::future::poll_once(&mut call).await.is_none());
                cancel.cancel();
                call.await;
            });
            assert!(ended.await.is_none());
            drop(go);
            thread::wait_all_threads_completed().await;
            for _ in 0..5 {
                assert_eq!(thread::run_sync(|| 5).await, 5);
            }
        });
    }
}
