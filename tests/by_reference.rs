//! Futures that are polled first here and then there: by reference under time limits, in a
//! `FuturesUnordered`, in a `Shared`, and outside of any run first.
//!
//! Each belongs to the code that polls it now. One whose content a scope has dropped that has ended
//! since panics with the reason. Such futures used to be pending forever.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::mpsc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use seedbed::nursery::{Started, on_executor};
use seedbed::sync::Event;
use seedbed::testing::MockClock;
use seedbed::time::sleep_forever;
use seedbed::{
    CancelScope, RunBuilder, checkpoint, move_on_after, on_cancel, open_nursery, run, shield,
    sleep, thread,
};

const SECOND: Duration = Duration::from_secs(1);

/// The longest time that a test waits for a run that should end at once.
const HANG: Duration = Duration::from_secs(60);

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How a run has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Done,
    /// It has panicked because a future had outlived the scope that cancelled it.
    Outlived,
}

/// Has `run` called on a thread of its own, and returns how it ended. Fails if it hangs.
fn ended(run: impl FnOnce() + Send + 'static) -> Ended {
    let (sender, ended) = mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        let _sender = sender; // dropped at the end, also after a panic
        run();
    });
    let Err(mpsc::RecvTimeoutError::Disconnected) = ended.recv_timeout(HANG) else {
        panic!("the run hangs");
    };
    match thread.join() {
        Ok(()) => Ended::Done,
        Err(payload) => {
            let message = payload.downcast_ref::<String>().map_or("", String::as_str);
            assert!(message.contains("by a scope that has ended"), "{message}");
            Ended::Outlived
        }
    }
}

/// Runs `main` with a virtual clock; see [`ended`].
fn ended_virtually<F: Future<Output = ()> + Send + 'static>(main: F) -> Ended {
    ended(move || RunBuilder::new().clock(MockClock::autojump()).run(main))
}

/// A name, a function that makes a future, and how a run ends that awaits it by reference under
/// time limits which are too short.
type Case = (&'static str, fn() -> Work, Ended);

/// Each of these takes five virtual seconds.
fn naps() -> [Case; 9] {
    [
        ("sleep", || Box::pin(sleep(5 * SECOND)), Ended::Done),
        (
            "scope",
            || Box::pin(CancelScope::new().run(sleep(5 * SECOND)).map(drop)),
            Ended::Done,
        ),
        (
            "time limit",
            || Box::pin(move_on_after(100 * SECOND, sleep(5 * SECOND)).map(drop)),
            Ended::Done,
        ),
        (
            "shield",
            || Box::pin(shield(sleep(5 * SECOND))),
            Ended::Done,
        ),
        (
            "on_cancel",
            || Box::pin(on_cancel(sleep(5 * SECOND), sleep(SECOND))),
            Ended::Outlived,
        ),
        (
            "block",
            || {
                Box::pin(open_nursery(|n| async move {
                    n.spawn(sleep(5 * SECOND));
                    CancelScope::new().run(sleep(SECOND)).await;
                }))
            },
            Ended::Done,
        ),
        // The limit drops what is not shielded in the block, which therefore has no value.
        (
            "block with a shield",
            || {
                Box::pin(open_nursery(|n| async move {
                    n.spawn(shield(sleep(5 * SECOND)));
                    n.spawn(sleep(7 * SECOND));
                }))
            },
            Ended::Outlived,
        ),
        (
            "start",
            || {
                Box::pin(open_nursery(|n| async move {
                    let start = n.start(|started: Started<()>| async move {
                        sleep(5 * SECOND).await;
                        started.send(());
                    });
                    start.await.unwrap();
                }))
            },
            Ended::Outlived,
        ),
        (
            "child on an executor",
            || {
                let global = |child| smol::spawn(child).detach();
                Box::pin(on_executor(&global, sleep(5 * SECOND)))
            },
            Ended::Outlived,
        ),
    ]
}

#[test]
fn a_future_that_is_awaited_by_reference_under_one_time_limit_after_the_other() {
    for (name, work, expected) in naps() {
        let ended = ended_virtually(async move {
            let mut work = work();
            for _ in 0..20 {
                if move_on_after(SECOND, &mut work).await.is_some() {
                    return;
                }
            }
            panic!("{name} is not done in 20 seconds");
        });
        assert_eq!(ended, expected, "{name}");
    }
}

#[test]
fn the_items_of_a_set_whose_next_item_is_awaited_under_one_time_limit_after_the_other() {
    for (name, work, expected) in naps() {
        let ended = ended_virtually(async move {
            let mut set: FuturesUnordered<_> = (0..3).map(|_| work()).collect();
            for _ in 0..30 {
                if let Some(None) = move_on_after(SECOND, set.next()).await {
                    return;
                }
            }
            panic!("{name}: the set is not empty after 30 seconds");
        });
        assert_eq!(ended, expected, "{name}");
    }
}

#[test]
fn a_shared_future_of_two_tasks_of_which_the_one_that_polled_it_first_is_cancelled() {
    for (name, work, _) in naps() {
        for seed in 0..12 {
            // Whether it is done depends on which task polls it last before the cancellation.
            let _done_or_outlived = ended(move || {
                let clock = MockClock::autojump();
                RunBuilder::new()
                    .clock(clock)
                    .shuffle(seed)
                    .run(open_nursery(|n| async move {
                        let scope = CancelScope::new();
                        let shared = work().shared();
                        let (one, two, cancel) = (shared.clone(), shared, scope.clone());
                        n.spawn(async move { scope.run(one).await });
                        checkpoint().await;
                        n.spawn(two);
                        checkpoint().await;
                        cancel.cancel();
                    }));
            });
            _ = name;
        }
    }
}

#[test]
fn a_shared_scope_belongs_to_the_task_that_polled_it_last() {
    // The first task is cancelled after the second one has polled the scope.
    for seed in 0..20 {
        let ended = ended(move || {
            RunBuilder::new()
                .shuffle(seed)
                .run(open_nursery(|n| async move {
                    let (scope, open) = (CancelScope::new(), Event::new());
                    let inside = open.clone();
                    let shared = CancelScope::new()
                        .run(async move { inside.wait().await })
                        .shared();
                    let (one, two, cancel) = (shared.clone(), shared, scope.clone());
                    n.spawn(async move { scope.run(one).await });
                    checkpoint().await;
                    n.spawn(two);
                    checkpoint().await;
                    cancel.cancel();
                    checkpoint().await;
                    open.set();
                }));
        });
        assert_eq!(ended, Ended::Done, "seed {seed}");
    }
}

#[test]
fn a_future_that_was_polled_outside_of_any_run_first() {
    for (name, work, _) in naps() {
        let ended = ended(move || {
            let mut work = work();
            assert!(work.as_mut().now_or_never().is_none());
            run(async { move_on_after(Duration::from_millis(1), &mut work).await });
        });
        assert_eq!(ended, Ended::Done, "{name}");
    }
}

/// A thread waits for the value that it returns, or for its cancellation.
#[test]
fn a_thread_call_is_awaited_by_reference_under_one_time_limit_after_the_other() {
    for abandon in [false, true] {
        let ended = ended(move || {
            run(async move {
                let (go, wait) = mpsc::channel::<()>();
                let call = thread::run_sync(move || {
                    while !abandon && thread::check_cancelled().is_ok() {
                        std::thread::yield_now();
                    }
                    _ = wait.recv();
                });
                let mut call = Box::pin(call.abandon_on_cancel(abandon).into_future());
                let mut go = Some(go);
                for _ in 0..3 {
                    if !abandon {
                        // The first limit waits for the thread.
                        go = None;
                    }
                    let limit = Duration::from_millis(1);
                    if move_on_after(limit, &mut call).await.is_some() {
                        return;
                    }
                }
                drop(go);
                call.await;
            });
        });
        assert_eq!(ended, Ended::Done);
    }
}

/// They used to keep everything around them from being cancelled, up to the run.
#[test]
fn a_forgotten_shield_holds_up_no_scope_beyond_the_one_that_it_was_polled_in() {
    for (name, work, _) in naps() {
        let ended = ended_virtually(async move {
            let around = CancelScope::new();
            let cancel = around.clone();
            let ended = around.run(async move {
                CancelScope::new()
                    .run(async {
                        let mut work = work();
                        assert!(futures_lite::future::poll_once(&mut work).await.is_none());
                        std::mem::forget(work);
                    })
                    .await;
                cancel.cancel();
                sleep_forever().await
            });
            assert_eq!(ended.await, None, "{name}");
        });
        assert_eq!(ended, Ended::Done, "{name}");
    }
}

/// It used to wait for the rest of the set, which is polled by nothing.
#[test]
fn a_shielded_item_of_a_set_holds_up_no_scope_that_does_not_poll_it() {
    let ended = ended_virtually(async {
        let outer = CancelScope::new();
        outer.set_timeout(3 * SECOND);
        let mut set = FuturesUnordered::new();
        for seconds in [1, 100] {
            set.push(shield(sleep(seconds * SECOND)));
        }
        let ended = outer.run(async {
            // The limit waits for the shields in the set until the first one ends.
            assert_eq!(move_on_after(SECOND, set.next()).await, Some(Some(())));
            sleep_forever().await
        });
        assert_eq!(ended.await, None);
    });
    assert_eq!(ended, Ended::Done);
}

#[test]
fn a_future_that_waits_for_a_cancelled_scope_and_outlives_it_goes_on() {
    let ended = ended_virtually(async {
        let mut set = FuturesUnordered::new();
        set.push(Box::pin(async {
            seedbed::cancel::checkpoint_if_cancelled().await;
            sleep(SECOND).await;
        }));
        assert_eq!(move_on_after(Duration::ZERO, set.next()).await, None);
        assert_eq!(move_on_after(2 * SECOND, set.next()).await, Some(Some(())));
    });
    assert_eq!(ended, Ended::Done);
}

#[test]
fn a_shield_that_was_polled_elsewhere_first_holds_up_the_scope_that_polls_it_now() {
    let ended = ended_virtually(async {
        let mut shielded = Box::pin(shield(sleep(5 * SECOND)));
        assert!(
            futures_lite::future::poll_once(&mut shielded)
                .await
                .is_none()
        );
        assert_eq!(move_on_after(SECOND, shielded).await, Some(()));
    });
    assert_eq!(ended, Ended::Done);
}
