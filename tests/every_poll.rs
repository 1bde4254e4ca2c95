//! Ends every kind of future at each of its pending polls, once by dropping it and once by
//! cancelling a scope around it, and checks that nothing is left. Blocks, `start` and tasks have
//! this in `nursery.rs`, scopes and shields in `cancel/`, tree variables in `tree_var.rs`, signals
//! in `signals.rs`, worker calls in `workers/cancel.rs`.

mod common;
#[path = "common/poll_times.rs"]
mod poll_times;
#[path = "common/polling.rs"]
mod polling;

use std::future::{Future, IntoFuture, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use common::{children, test};
use poll_times::poll_times;
use polling::{Drops, OnDrop, end_at_every_poll, turns};
use seedbed::cancel::{checkpoint_if_cancelled, fail_at, move_on_at};
use seedbed::nursery::{open_local_nursery, try_open_local_nursery};
use seedbed::process::{Command, run_process};
use seedbed::sync::{Condvar, Event, Mutex, RwLock, Semaphore, channel, unbounded};
use seedbed::testing::{MockClock, wait_all_tasks_blocked};
use seedbed::time::{current_time, sleep_until};
use seedbed::{
    CancelScope, CapacityLimiter, RunBuilder, WorkerConfig, checkpoint, fail_after, move_on_after,
    open_nursery, run, shield, sleep, thread,
};

const SECOND: Duration = Duration::from_secs(1);

/// Ends the future that `make` makes of a new state at each pending poll. When the future is
/// dropped, `is_idle` must return true: no task uses the state or waits for it.
fn leaves<S: Clone, F: Future>(
    state: impl Fn() -> S,
    is_idle: impl Fn(&S) -> bool,
    make: impl Fn(S, Drops) -> F,
) {
    let polls = end_at_every_poll(|drops| {
        let state = state();
        let (used, is_idle, make) = (state.clone(), &is_idle, &make);
        async move {
            let _check = OnDrop(|| assert!(is_idle(&state), "something is left"));
            make(used, drops).await;
        }
    });
    assert!(polls > 2, "{polls} pending polls are not worth the name");
}

// ---- Primitives.

#[test]
fn acquiring_from_a_limiter_ended_at_any_point_leaves_no_token_and_no_waiter() {
    let idle = |limiter: &CapacityLimiter| {
        (limiter.borrowed(), limiter.statistics().waiting) == (0, 0) && limiter.total() == Some(2)
    };
    leaves(
        || CapacityLimiter::new(2),
        idle,
        |limiter, drops| {
            open_nursery(async move |n| {
                for _ in 0..5 {
                    let (limiter, value) = (limiter.clone(), drops.value());
                    n.spawn(async move {
                        let _token = limiter.acquire().await;
                        let _value = value;
                        turns(2).await;
                    });
                }
            })
        },
    );
}

#[test]
fn acquiring_from_a_semaphore_ended_at_any_point_loses_no_permit() {
    let idle =
        |semaphore: &Semaphore| (semaphore.value(), semaphore.statistics().waiting) == (2, 0);
    leaves(
        || Semaphore::bounded(2, 2),
        idle,
        |semaphore, drops| {
            open_nursery(async move |n| {
                for _ in 0..5 {
                    let (semaphore, value) = (semaphore.clone(), drops.value());
                    n.spawn(async move {
                        let _permit = semaphore.acquire().await;
                        let _value = value;
                        turns(2).await;
                    });
                }
            })
        },
    );
}

#[test]
fn acquiring_a_lock_ended_at_any_point_leaves_it_free() {
    let idle = |lock: &Mutex<u32>| !lock.is_locked() && lock.statistics().waiting == 0;
    leaves(
        || Mutex::new(0),
        idle,
        |lock, drops| {
            open_nursery(async move |n| {
                for _ in 0..4 {
                    let (lock, value) = (lock.clone(), drops.value());
                    n.spawn(async move {
                        let mut guard = lock.lock().await;
                        let _value = value;
                        turns(2).await;
                        *guard += 1;
                    });
                }
            })
        },
    );
}

#[test]
fn reading_and_writing_under_a_rw_lock_ended_at_any_point_leaves_it_free() {
    for read_biased in [false, true] {
        let make = move || {
            if read_biased {
                RwLock::new_read_biased(0)
            } else {
                RwLock::new(0)
            }
        };
        leaves(
            make,
            |lock: &RwLock<u32>| {
                let now = lock.statistics();
                !now.writing && [now.readers, now.waiting_readers, now.waiting_writers] == [0; 3]
            },
            |lock, drops| {
                open_nursery(async move |n| {
                    for child in 0..6 {
                        let (lock, value) = (lock.clone(), drops.value());
                        n.spawn(async move {
                            let _value = value;
                            if child % 3 == 1 {
                                *lock.write().await += 1;
                            } else {
                                let guard = lock.read().await;
                                turns(2).await;
                                assert!(*guard < 3);
                            }
                            turns(1).await;
                        });
                    }
                })
            },
        );
    }
}

#[test]
fn waiting_for_a_condition_ended_at_any_point_leaves_its_lock_free_and_no_waiter() {
    let idle = |condition: &Condvar<u32>| {
        !condition.mutex().is_locked() && condition.statistics().waiting == 0
    };
    leaves(
        || Condvar::new(0),
        idle,
        |condition, drops| {
            open_nursery(async move |n| {
                for wanted in 1..4 {
                    let (condition, value) = (condition.clone(), drops.value());
                    n.spawn(async move {
                        let _value = value;
                        let mut guard = condition.lock().await;
                        while *guard < wanted {
                            guard = condition.wait(guard).await;
                            turns(1).await;
                        }
                    });
                }
                for _ in 0..3 {
                    turns(2).await;
                    let mut guard = condition.lock().await;
                    *guard += 1;
                    condition.notify_all(&guard);
                }
            })
        },
    );
}

#[test]
fn waiting_for_an_event_ended_at_any_point_leaves_no_waiter() {
    leaves(
        Event::new,
        |event: &Event| event.statistics().waiting == 0,
        |event, drops| {
            open_nursery(async move |n| {
                for _ in 0..3 {
                    let (event, value) = (event.clone(), drops.value());
                    n.spawn(async move {
                        event.wait().await;
                        turns(1).await;
                        drop(value);
                    });
                }
                turns(2).await;
                event.set();
            })
        },
    );
}

#[test]
fn sending_and_receiving_ended_at_any_point_leave_no_value_and_no_waiter() {
    for capacity in [Some(0), Some(1), Some(2), None] {
        end_at_every_poll(|drops| {
            let (sender, receiver) = capacity.map_or_else(unbounded, channel);
            open_nursery(async move |n| {
                let (statistics, watched) = (receiver.clone(), drops.clone());
                let _check = OnDrop(move || {
                    let left = statistics.statistics();
                    assert_eq!((left.waiting_senders, left.waiting_receivers), (0, 0));
                    // A value that was sent and not received is dropped with the channel.
                    assert_eq!(watched.alive(), left.buffered);
                });
                open_nursery(async |inner| {
                    for _ in 0..3 {
                        let (sender, drops) = (sender.clone(), drops.clone());
                        inner.spawn(async move {
                            for _ in 0..2 {
                                drop(sender.send(drops.value()).await);
                                turns(1).await;
                            }
                        });
                    }
                    for _ in 0..2 {
                        let receiver = receiver.clone();
                        inner.spawn(async move {
                            for _ in 0..3 {
                                drop(receiver.recv().await);
                                turns(1).await;
                            }
                        });
                    }
                })
                .await;
                drop(n);
            })
        });
    }
}

// ---- Local blocks, checkpoints and time.

#[test]
fn a_local_block_that_is_ended_at_any_point_leaves_nothing() {
    end_at_every_poll(|drops| {
        let shared = Rc::new(drops);
        open_local_nursery(async move |n| {
            let task = n.spawn({
                let shared = shared.clone();
                async move {
                    let value = shared.value();
                    turns(3).await;
                    value
                }
            });
            n.spawn(try_open_local_nursery({
                let shared = shared.clone();
                async move |n| {
                    let drops = shared.clone();
                    n.try_spawn(async move {
                        turns(1).await;
                        Err::<(), _>(drops.value())
                    });
                    let _value = shared.value();
                    turns(9).await;
                    Ok(())
                }
            }));
            turns(1).await;
            drop(task.outcome().await);
        })
    });
}

#[test]
fn checkpoints_ended_at_any_point_leave_nothing() {
    let polls = end_at_every_poll(|drops| async move {
        let _value = drops.value();
        checkpoint().await;
        checkpoint_if_cancelled().await;
        shield(checkpoint()).await;
        checkpoint().await;
    });
    assert_eq!(polls, 3);
}

/// Ends the future at each pending poll, each time in a run with a virtual clock, which advances
/// when all tasks are blocked. A dropped future must not leave its deadline: the clock must not
/// advance to it.
fn end_at_every_poll_in_a_run<F: Future>(make: impl Fn(Drops) -> F) {
    let in_a_run = |ended: &dyn Fn(Drops) -> bool| {
        let drops = Drops::new();
        let goes_on = ended(drops.clone());
        drops.assert_all_dropped();
        goes_on
    };
    let virtually = || RunBuilder::new().clock(MockClock::autojump());
    let dropped = |times| {
        in_a_run(&|drops| {
            let future = poll_times(make(drops.clone()), times);
            virtually().run(async {
                let done = future.await.is_some();
                drops.assert_all_dropped();
                let before = current_time();
                sleep(SECOND / 1000).await;
                assert_eq!(current_time() - before, SECOND / 1000);
                done
            })
        })
    };
    let cancelled = |times| {
        in_a_run(&|drops| {
            let scope = CancelScope::new();
            virtually().run(async {
                let mut future = Box::pin(scope.run(make(drops)));
                let mut polls = 0;
                let value = poll_fn(|cx| {
                    let polled = future.as_mut().poll(cx);
                    polls += 1;
                    if polls == times && polled.is_pending() {
                        scope.cancel();
                    }
                    polled
                });
                let value = value.await;
                value.is_some() && polls < times
            })
        })
    };
    let count = (1..1000).position(dropped);
    assert!(count.is_some_and(|count| count > 2), "{count:?} polls");
    assert!((1..1000).any(cancelled));
}

#[test]
fn sleeps_and_time_limits_ended_at_any_point_leave_nothing() {
    end_at_every_poll_in_a_run(|drops| async move {
        let work = async |seconds: u32| {
            let _value = drops.value();
            sleep(seconds * SECOND).await;
            turns(1).await;
        };
        sleep_until(current_time() + SECOND).await;
        assert!(move_on_after(SECOND, work(2)).await.is_none());
        assert!(
            move_on_at(current_time() + 3 * SECOND, work(1))
                .await
                .is_some()
        );
        assert!(fail_after(SECOND, work(2)).await.is_err());
        assert!(fail_at(current_time() + 2 * SECOND, work(1)).await.is_ok());
        shield(work(1)).await;
    });
}

#[test]
fn waiting_until_all_are_blocked_ended_at_any_point_leaves_no_waiter() {
    end_at_every_poll_in_a_run(|drops| async move {
        open_nursery(async |n| {
            let value = drops.value();
            n.spawn(async move {
                sleep(SECOND).await;
                drop(value);
            });
            wait_all_tasks_blocked().await;
            turns(2).await;
            wait_all_tasks_blocked().await;
        })
        .await;
    });
}

// ---- Threads and processes.

/// Cancels a scope around the future at its `times`-th pending poll. Returns false if the future
/// had fewer.
async fn cancelled_when_pending<F: IntoFuture>(
    make: impl FnOnce() -> F,
    times: usize,
) -> (Option<F::Output>, bool) {
    let scope = CancelScope::new();
    let mut future = pin!(scope.run(make().into_future()));
    let mut pending = 0;
    let value = poll_fn(|cx| {
        let polled = future.as_mut().poll(cx);
        pending += usize::from(polled.is_pending());
        if polled.is_pending() && pending == times {
            scope.cancel();
        }
        polled
    });
    (value.await, pending >= times)
}

#[test]
fn a_thread_call_cancelled_at_any_point_is_over_when_its_scope_is_left() {
    for abandon in [false, true] {
        for times in 1.. {
            let limiter = CapacityLimiter::new(1);
            let ends = Arc::new(AtomicUsize::new(0));
            let counts = ends.clone();
            let (value, cancelled) = run(cancelled_when_pending(
                || {
                    let call = thread::run_sync(move || {
                        let asked = thread::call_async_in_task(|| turns(3)).is_ok();
                        counts.fetch_add(1, SeqCst);
                        asked
                    });
                    call.limiter(&limiter).abandon_on_cancel(abandon)
                },
                times,
            ));
            if !abandon {
                // The call waited for the thread, and kept its value although the scope was
                // cancelled.
                assert_eq!((ends.load(SeqCst), limiter.borrowed()), (1, 0));
                assert!(value.is_some());
            }
            if !cancelled {
                assert_eq!(value, Some(true));
                break;
            }
        }
    }
}

#[test]
fn a_wait_for_a_supervised_process_that_is_dropped_takes_nothing_from_others() {
    // The process does not wake the future while it runs, so the future is pending once.
    for times in 0..2 {
        test(open_nursery(async move |n| {
            let mut sleep = Command::new("sleep");
            sleep.arg("1000");
            let started = n.start(|started| run_process(sleep).supervise(started));
            let process = started.await.unwrap();
            assert!(poll_times(process.wait(), times).await.is_none());
            process.terminate();
            assert!(!process.wait().await.unwrap().success());
        }));
    }
}

#[test]
fn shutting_a_context_down_dropped_or_cancelled_at_any_point_still_ends_its_workers() {
    for cancel in [false, true] {
        for times in 1.. {
            let done = test(async move {
                let config = WorkerConfig::new();
                seedbed::open_worker_context(config, async |workers| {
                    workers.run_sync(common::pid, ()).await.unwrap();
                    if cancel {
                        !cancelled_when_pending(|| workers.shutdown(), times).await.1
                    } else {
                        poll_times(workers.shutdown(), times).await.is_some()
                    }
                })
                .await
            });
            if done {
                break;
            }
        }
    }
}

#[test]
fn a_context_block_cancelled_at_any_point_has_no_workers_when_its_scope_is_left() {
    for scoped in [false, true] {
        for times in 1.. {
            let cancelled = test(async move {
                let block = async {
                    let config = WorkerConfig::new();
                    if scoped {
                        seedbed::cache_scope(config, seedbed::run_sync(common::pid, ())).await
                    } else {
                        seedbed::open_worker_context(config, async |workers| {
                            workers.run_sync(common::pid, ()).await
                        })
                        .await
                    }
                };
                let (_value, cancelled) = cancelled_when_pending(|| block, times).await;
                assert_eq!(children(), Vec::<u32>::new());
                cancelled
            });
            if !cancelled {
                break;
            }
        }
    }
}
