//! Children that an executor polls: they belong to the nursery as any other. Most tests run the executor by hand, on this
//! thread, so that each step is the test's; those at the end use real threads.

#[path = "common/polling.rs"]
mod polling;

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, Mutex};
use std::task::Poll;
use std::time::Duration;

use futures_lite::future::poll_once;
use polling::{Drops, Hand, OnDrop, end_at_every_poll, turns};
use seedbed::sync::Event;
use seedbed::testing::MockClock;
use seedbed::{
    CancelScope, Nursery, RemoteChild, RunBuilder, StartError, Started, TreeVar, checkpoint,
    current_effective_deadline, current_time, fail_after, move_on_after, on_cancel, on_executor,
    open_local_nursery, open_nursery, run, shield, sleep, sleep_forever, try_open_nursery,
};

type Executor = Arc<smol::Executor<'static>>;

fn executor() -> Executor {
    Arc::default()
}

/// Runs the executor on this thread until it has nothing to do.
fn tick(executor: &Executor) {
    while executor.try_tick() {}
}

/// Polls `future`, and has the executor do what there is, in turns until both wait.
fn settle<T>(executor: &Executor, future: &mut Hand<'_, T>) -> Poll<T> {
    loop {
        if let Poll::Ready(value) = future.settle() {
            return Poll::Ready(value);
        }
        tick(executor);
        if !future.is_woken() {
            return Poll::Pending;
        }
    }
}

/// A future that has the executor do something after each of its polls, and so needs no thread for it.
async fn beside<F: Future>(executor: Executor, future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|cx| {
        let polled = future.as_mut().poll(cx);
        if polled.is_pending() && executor.try_tick() {
            cx.waker().wake_by_ref();
        }
        polled
    })
    .await
}

/// Runs an executor on threads while `act` does.
fn on_threads<T>(threads: usize, act: impl FnOnce(Executor) -> T) -> T {
    let (executor, done) = (executor(), Event::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| smol::block_on(executor.run(done.wait())));
        }
        let _done = OnDrop(|| done.set());
        act(executor.clone())
    })
}

#[track_caller]
fn panic_of<T>(act: impl FnOnce() -> T) -> String {
    let Err(payload) = catch_unwind(AssertUnwindSafe(act)) else {
        panic!("expected a panic")
    };
    match payload.downcast::<String>() {
        Ok(message) => *message,
        Err(payload) => payload.downcast::<&str>().unwrap().to_string(),
    }
}

// ---- What it shares with every other child.

#[test]
fn the_executor_polls_the_child_and_the_block_waits_for_it() {
    let (executor, open, drops) = (executor(), Event::new(), Drops::new());
    let (on, wait, value) = (executor.clone(), open.clone(), drops.value());
    let mut block = Hand::new(open_nursery(|n| async move {
        n.spawn_on(&on, async move {
            wait.wait().await;
            drop(value);
        });
        "body"
    }));
    assert!(block.settle().is_pending());
    assert!(settle(&executor, &mut block).is_pending());
    open.set();
    assert_eq!(drops.alive(), 1, "nobody has polled it yet");
    tick(&executor);
    drops.assert_all_dropped();
    assert_eq!(block.go_on(), Poll::Ready("body"));
    assert!(executor.is_empty());
}

#[test]
fn the_task_gives_the_result_and_ends_that_one_child() {
    let executor = executor();
    let on = executor.clone();
    let block = beside(
        executor.clone(),
        open_nursery(|n| async move {
            assert_eq!(n.spawn_on(&on, async { 5 }).await, 5);
            assert_eq!(n.spawn_on(&on, async { 6 }).outcome().await, Some(6));
            let (one, other) = (n.spawn_on(&on, sleep_forever()), n.spawn_on(&on, turns(9)));
            turns(5).await;
            assert_eq!(one.cancel().await, None);
            assert!(!other.is_finished());
            other.await;
        }),
    );
    Hand::new(block).finish();
    tick(&executor);
    assert!(executor.is_empty());
}

#[test]
fn every_kind_of_nursery_takes_such_children_also_one_that_lends_to_its_other_children() {
    let executor = executor();
    let text = String::from("lent");
    let block = beside(executor.clone(), async {
        let (text, on) = (&text, &executor);
        let length = open_nursery(|n| async move {
            let here = n.spawn(async move { text.len() });
            here.await + n.spawn_on(on, async { 1 }).await
        });
        assert_eq!(length.await, 5);
        let local =
            open_local_nursery(|n| async move { n.spawn(on_executor(on, async { 2 })).await });
        assert_eq!(local.await, 2);
        let through_a_spawner =
            open_nursery(|n| async move { n.spawner().spawn(on_executor(on, async { 3 })).await });
        assert_eq!(through_a_spawner.await, 3);
        assert_eq!(on_executor(on, async { 4 }).await, 4);
    });
    Hand::new(block).finish();
}

#[test]
fn any_executor_is_one_as_a_closure_smol_s_global_one_too() {
    let global = |child: RemoteChild| smol::spawn(child).detach();
    run(open_nursery(|n| async move {
        let here = std::thread::current().id();
        let there = n.spawn_on(&global, async { std::thread::current().id() });
        assert_ne!(there.await, here);
    }));
}

#[test]
fn an_error_of_such_a_child_ends_the_block_and_is_its_result() {
    let executor = executor();
    let (on, drops) = (executor.clone(), Drops::new());
    let value = drops.value();
    let block = try_open_nursery(|n: Nursery<'_, Result<(), &str>>| async move {
        assert_eq!(n.try_spawn_on(&on, async { Ok(3) }).await, Some(3));
        n.try_spawn_on(&on, async {
            checkpoint().await;
            Err::<(), _>("failed")
        });
        n.spawn_on(&on, async move {
            let _value = value;
            sleep_forever().await
        });
        sleep_forever().await;
        Ok(())
    });
    assert_eq!(Hand::new(beside(executor, block)).finish(), Err("failed"));
    drops.assert_all_dropped();
}

#[test]
fn start_works_with_such_a_child() {
    let executor = executor();
    let on = &executor;
    let block = open_nursery(|n| async move {
        let started = n.start(|started: Started<_>| {
            on_executor(on, async move {
                started.send("ready");
                sleep_forever().await
            })
        });
        assert_eq!(started.await, Ok("ready"));
        let exited = n.start(|started: Started<()>| {
            on_executor(on, async move {
                checkpoint().await;
                drop(started);
                7
            })
        });
        assert_eq!(exited.await, Err(StartError::Exited(7)));
        n.cancel();
    });
    Hand::new(beside(executor.clone(), block)).finish();
}

#[test]
fn a_block_with_such_children_may_itself_be_a_task_of_the_executor_and_so_may_theirs() {
    on_threads(2, |executor| {
        let on = executor.clone();
        let block = open_nursery(|n| async move {
            let inner = on.clone();
            let child = open_nursery(|n| async move {
                let grandchildren = [(); 10].map(|()| n.spawn_on(&inner, turns(3)));
                for grandchild in grandchildren {
                    grandchild.await;
                }
                10
            });
            n.spawn_on(&on, child).await
        });
        assert_eq!(smol::block_on(executor.spawn(block)), 10);
    });
}

static USER: TreeVar<&str> = TreeVar::new();

#[test]
fn it_has_the_variables_scopes_and_deadlines_of_where_the_nursery_was_opened_on_every_thread() {
    on_threads(1, |executor| {
        run(async {
            let opened = USER.scope("opened", async {
                let deadline = current_time() + Duration::from_secs(3600);
                let scope = CancelScope::new();
                scope.set_deadline(Some(deadline));
                let block = scope.run(open_nursery(|n| async move {
                    let child = async {
                        checkpoint().await;
                        (USER.get(), current_effective_deadline())
                    };
                    let spawned = USER.scope("spawned", async {
                        let child = n.spawn_on(&executor, child);
                        assert_eq!(child.await, (Some("opened"), Some(deadline)));
                    });
                    spawned.await
                }));
                block.await.unwrap();
            });
            opened.await
        });
    });
}

/// The thread that polls such a child may be inside of another tree: that is none of the child's business, nor the other
/// way round.
#[test]
fn the_place_of_the_thread_that_polls_it_is_put_back() {
    let executor = executor();
    let on = executor.clone();
    let mut block = Hand::new(open_nursery(|n| async move {
        n.spawn_on(&on, async { assert_eq!(USER.get(), None) });
    }));
    assert!(block.settle().is_pending());
    let elsewhere = USER.scope("elsewhere", async {
        tick(&executor);
        assert_eq!(USER.get(), Some("elsewhere"));
        let scope = CancelScope::new();
        scope.cancel();
        assert_eq!(scope.run(sleep_forever()).await, None);
    });
    Hand::new(elsewhere).finish();
    assert!(block.go_on().is_ready());
}

// ---- Cancellation.

#[test]
fn a_cancelled_child_that_waits_is_dropped_here_though_nobody_runs_the_executor() {
    let executor = executor();
    let (on, drops, scope) = (executor.clone(), Drops::new(), CancelScope::new());
    let value = drops.value();
    let mut block = Hand::new(scope.run(open_nursery(|n| async move {
        n.spawn_on(&on, async move {
            let _value = value;
            sleep_forever().await
        });
    })));
    assert!(settle(&executor, &mut block).is_pending());
    scope.cancel();
    assert_eq!(block.go_on(), Poll::Ready(None));
    drops.assert_all_dropped();
    tick(&executor);
    assert!(
        executor.is_empty(),
        "the executor is told that it can let go"
    );
}

#[test]
fn a_child_that_is_cancelled_before_its_first_poll_is_dropped_without_having_run() {
    let executor = executor();
    let (on, drops, scope) = (executor.clone(), Drops::new(), CancelScope::new());
    scope.cancel();
    let value = drops.value();
    let mut block = Hand::new(scope.run(open_nursery(|n| async move {
        n.spawn_on(&on, async move {
            let _value = value;
            unreachable!("cancelled before")
        });
    })));
    assert_eq!(block.settle(), Poll::Ready(None));
    drops.assert_all_dropped();
    tick(&executor);
}

#[test]
fn a_value_that_it_has_returned_is_kept_though_the_scope_is_cancelled_before_the_block_takes_it() {
    let executor = executor();
    let (on, scope) = (executor.clone(), CancelScope::new());
    let cancel = scope.clone();
    let child = async move {
        cancel.cancel();
        "finished"
    };
    let mut work = Hand::new(scope.run(on_executor(&on, child)));
    assert_eq!(settle(&executor, &mut work), Poll::Ready(Some("finished")));
}

#[test]
fn a_shield_in_it_makes_the_block_wait_and_the_clean_up_after_it_runs() {
    let executor = executor();
    let (on, open, scope) = (executor.clone(), Event::new(), CancelScope::new());
    let (wait, cleaned) = (open.clone(), Arc::new(AtomicBool::new(false)));
    let clean = cleaned.clone();
    let mut block = Hand::new(scope.run(open_nursery(|n| async move {
        n.spawn_on(&on, async move {
            shield(wait.wait()).await;
            on_cancel(sleep_forever(), async move {
                checkpoint().await;
                clean.store(true, SeqCst)
            })
            .await
        });
    })));
    assert!(settle(&executor, &mut block).is_pending());
    scope.cancel();
    assert!(settle(&executor, &mut block).is_pending());
    open.set();
    assert_eq!(settle(&executor, &mut block), Poll::Ready(None));
    assert!(cleaned.load(SeqCst));
}

#[test]
fn scopes_that_are_opened_in_it_nest_below_and_the_outermost_that_is_cancelled_absorbs() {
    let executor = executor();
    let (on, inner, outer) = (executor.clone(), CancelScope::new(), CancelScope::new());
    let (both, alone) = ((inner.clone(), outer.clone()), CancelScope::new());
    let work = outer.run(on_executor(&on, async move {
        alone.cancel();
        assert_eq!(alone.run(sleep_forever()).await, None);
        both.0.cancel();
        both.1.cancel();
        both.0.run(sleep_forever()).await;
        unreachable!("the outer scope absorbs")
    }));
    assert_eq!(Hand::new(beside(executor.clone(), work)).finish(), None);
    assert!(inner.is_cancelled());
}

#[test]
fn a_child_that_is_cancelled_while_another_thread_polls_it_is_dropped_there_after_that_poll() {
    on_threads(1, |executor| {
        let (drops, scope) = (Drops::new(), CancelScope::new());
        let (began, begin) = channel();
        let (cancelled, go_on) = channel();
        let (dropped, where_) = channel();
        let value = drops.value();
        let mut block = Box::pin(scope.run(open_nursery(|n| async move {
            n.spawn_on(&executor, async move {
                let _value = value;
                let _here = OnDrop(|| dropped.send(std::thread::current().id()).unwrap());
                began.send(()).unwrap();
                go_on.recv().unwrap();
                sleep_forever().await
            });
        })));
        assert!(smol::block_on(poll_once(&mut block)).is_none());
        begin.recv().unwrap();
        scope.cancel();
        assert!(
            smol::block_on(poll_once(&mut block)).is_none(),
            "it is being polled"
        );
        assert_eq!(drops.alive(), 1);
        cancelled.send(()).unwrap();
        assert_eq!(smol::block_on(&mut block), None);
        drops.assert_all_dropped();
        assert_ne!(where_.recv().unwrap(), std::thread::current().id());
    });
}

#[test]
fn cancelling_from_the_child_s_thread_ends_the_block() {
    on_threads(2, |executor| {
        run(open_nursery(|n: Nursery<'static, ()>| async move {
            let end = n.clone();
            n.spawn_on(&executor, sleep_forever());
            n.spawn_on(&executor, async move {
                checkpoint().await;
                end.cancel();
                sleep_forever().await
            });
            sleep_forever().await
        }));
    });
}

#[test]
fn dropping_the_block_drops_such_a_child_at_once_shields_included() {
    let executor = executor();
    let (on, drops) = (executor.clone(), Drops::new());
    let values = [drops.value(), drops.value()];
    let mut block = Hand::new(open_nursery(|n| async move {
        for value in values {
            n.spawn_on(&on, async move {
                let _value = value;
                shield(sleep_forever()).await
            });
        }
    }));
    assert!(settle(&executor, &mut block).is_pending());
    drop(block);
    drops.assert_all_dropped();
    tick(&executor);
    assert!(executor.is_empty());
}

/// The scope around does not end before that poll does, if it is cancelled; no shield below matters any more.
#[test]
fn dropping_the_block_while_another_thread_polls_the_child_drops_it_at_the_end_of_that_poll() {
    for ends in [false, true] {
        on_threads(1, |executor| {
            let drops = Drops::new();
            let (began, begin) = channel();
            let (let_go, go_on) = channel();
            let (gone, is_gone) = channel();
            let value = drops.value();
            let mut block = Hand::new(open_nursery(|n| async move {
                n.spawn_on(&executor, async move {
                    let _gone = OnDrop(|| gone.send(()).unwrap());
                    let _value = value;
                    shield(async move {
                        began.send(()).unwrap();
                        go_on.recv().unwrap();
                        if !ends {
                            sleep_forever().await
                        }
                    })
                    .await;
                });
            }));
            assert!(block.settle().is_pending());
            begin.recv().unwrap();
            drop(block);
            assert_eq!(drops.alive(), 1);
            let_go.send(()).unwrap();
            is_gone.recv().unwrap();
            drops.assert_all_dropped();
        });
    }
}

// ---- Panics, and executors that let their children down.

#[test]
fn a_panic_in_such_a_child_ends_the_others_and_goes_on_in_the_parent() {
    on_threads(1, |executor| {
        let drops = Drops::new();
        let values = [drops.value(), drops.value()];
        let said = panic_of(|| {
            run(open_nursery(|n| async move {
                let [one, other] = values;
                n.spawn(async move {
                    let _value = one;
                    sleep_forever().await
                });
                n.spawn_on(&executor, async move {
                    let _value = other;
                    checkpoint().await;
                    panic!("over there")
                });
                sleep_forever().await
            }))
        });
        assert_eq!(said, "over there");
        drops.assert_all_dropped();
    });
}

#[test]
fn a_panic_while_such_a_child_is_dropped_is_the_block_s() {
    let (executor, stop) = (executor(), Event::new());
    let (on, stopped) = (executor.clone(), stop.clone());
    let mut block = Hand::new(open_nursery(|n: Nursery<'_, ()>| async move {
        n.spawn_on(&on, async {
            let _panics = OnDrop(|| panic!("while dropped"));
            sleep_forever().await
        });
        stopped.wait().await;
        n.cancel();
    }));
    assert!(settle(&executor, &mut block).is_pending());
    stop.set();
    assert_eq!(panic_of(|| block.go_on()), "while dropped");
    drop(block);
    tick(&executor);
    assert!(executor.is_empty());
}

#[test]
fn an_executor_that_is_dropped_makes_the_block_panic_and_say_so() {
    for polled in [false, true] {
        let (on, drops) = (executor(), Drops::new());
        let value = drops.value();
        let mut block = Hand::new(open_nursery(|n| async move {
            n.spawn_on(&on, async move {
                let _value = value;
                sleep_forever().await
            });
            if polled {
                checkpoint().await;
                tick(&on);
            }
            drop(on);
            sleep_forever().await
        }));
        let said = panic_of(|| block.settle());
        assert!(
            said.starts_with("the executor that this child was put on was dropped"),
            "{said}"
        );
        drop(block);
        drops.assert_all_dropped();
    }
}

#[test]
fn an_executor_that_is_dropped_after_the_block_was_cancelled_harms_nobody() {
    let scope = CancelScope::new();
    let (executor, drops) = (executor(), Drops::new());
    let (on, value, open) = (executor.clone(), drops.value(), Event::new());
    let wait = open.clone();
    let mut block = Hand::new(scope.run(open_nursery(|n| async move {
        n.spawn_on(&on, async move {
            let _value = value;
            shield(wait.wait()).await
        });
        drop(on);
    })));
    assert!(settle(&executor, &mut block).is_pending());
    scope.cancel();
    assert!(block.go_on().is_pending(), "shielded");
    drop(executor);
    assert_eq!(block.go_on(), Poll::Ready(None));
    drops.assert_all_dropped();
}

#[test]
fn a_closed_nursery_refuses_such_a_child_and_the_executor_lets_it_go() {
    let (executor, drops, mut kept) = (executor(), Drops::new(), None);
    Hand::new(open_nursery(|n: Nursery<'static, ()>| {
        kept = Some(n.clone());
        async {}
    }))
    .finish();
    let (n, value) = (kept.unwrap(), drops.value());
    assert!(panic_of(|| n.spawn_on(&executor, async move { value })).contains("closed"));
    drops.assert_all_dropped();
    tick(&executor);
    assert!(executor.is_empty());
}

// ---- Time.

#[test]
fn its_sleeps_and_deadlines_are_the_run_s_and_a_virtual_clock_takes_it_for_blocked() {
    on_threads(1, |executor| {
        let hours = RunBuilder::new().clock(MockClock::autojump()).run(async {
            let begin = current_time();
            let (on, late) = (executor.clone(), Duration::from_secs(7200));
            let work = on_executor(&on, async move {
                assert_eq!(move_on_after(late, sleep_forever()).await, None);
                sleep(late).await;
            });
            work.await;
            let cut = fail_after(late, on_executor(&executor, sleep_forever()));
            assert!(cut.await.is_err());
            current_time() - begin
        });
        assert!(hours >= Duration::from_secs(3 * 7200));
    });
}

// ---- At every poll, and under stress.

#[test]
fn a_block_with_such_children_that_is_ended_at_any_poll_leaves_nothing() {
    let polls = end_at_every_poll(|drops| async move {
        let (executor, drops) = (executor(), Arc::new(drops));
        let on = executor.clone();
        let block = open_nursery(|n| async move {
            for child in 0..3 {
                let drops = drops.clone();
                n.spawn_on(&on, async move {
                    let value = drops.value();
                    turns(child).await;
                    shield(turns(1)).await;
                    let cleaned = drops.value();
                    on_cancel(turns(1), async move {
                        turns(1).await;
                        drop(cleaned);
                    })
                    .await;
                    value
                });
            }
            let value = drops.value();
            turns(2).await;
            assert!(
                n.spawn_on(&on, async move { value })
                    .outcome()
                    .await
                    .is_some()
            );
        });
        beside(executor, block).await;
    });
    assert!(polls > 5);
}

/// A number below `limit`.
fn pick(random: &Mutex<u64>, limit: u64) -> u64 {
    let mut state = random.lock().unwrap();
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 11) % limit
}

async fn child(seed: u64, drops: Drops, scopes: Arc<Vec<CancelScope>>) {
    let random = Mutex::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let _value = drops.value();
    for _ in 0..pick(&random, 6) {
        let value = drops.value();
        let some = pick(&random, scopes.len() as u64) as usize;
        match pick(&random, 8) {
            0 => scopes[some].cancel(),
            1 => shield(turns(3)).await,
            2 => {
                let inner = CancelScope::new();
                inner.cancel();
                inner.run(turns(2)).await;
            }
            3 => on_cancel(turns(2), async move { drop(value) }).await,
            4 => assert!(
                move_on_after(Duration::ZERO, sleep_forever())
                    .await
                    .is_none()
            ),
            5 => open_nursery(|n| async move { drop(n.spawn(turns(2))) }).await,
            6 => scopes[some].set_shield(pick(&random, 2) == 0),
            _ => turns(2).await,
        }
    }
}

#[test]
fn many_children_on_two_threads_that_cancel_each_other_leave_nothing() {
    on_threads(2, |executor| {
        for seed in 0..60 {
            let drops = Drops::new();
            let scopes: Arc<Vec<_>> = Arc::new((0..4).map(|_| CancelScope::new()).collect());
            run(async {
                let mut part = 0;
                open_nursery(|n| {
                    for scope in scopes.iter() {
                        let (executor, drops) = (executor.clone(), drops.clone());
                        let scopes = scopes.clone();
                        part += 1;
                        let first = seed * 1000 + part * 100;
                        n.spawn(async move {
                            let block = open_nursery(|n| async move {
                                for number in 0..20 {
                                    let (drops, scopes) = (drops.clone(), scopes.clone());
                                    let child = child(first + number, drops, scopes);
                                    let task = n.spawn_on(&executor, child);
                                    if number % 7 == 6 {
                                        task.cancel().await;
                                    }
                                }
                            });
                            scope.run(block).await
                        });
                    }
                    async {}
                })
                .await;
            });
            assert_eq!(drops.alive(), 0, "seed {seed}");
        }
    });
}

#[test]
fn blocks_that_are_dropped_while_two_threads_poll_their_children_leave_nothing() {
    on_threads(2, |executor| {
        for round in 0..100 {
            let (drops, begun) = (Drops::new(), Arc::new(Barrier::new(2)));
            let mut block = Hand::new(open_nursery(|n| {
                for number in 0..8 {
                    let (drops, scopes) = (drops.clone(), Arc::new(vec![CancelScope::new()]));
                    n.spawn_on(&executor, child(round * 8 + number, drops, scopes));
                }
                let begun = begun.clone();
                n.spawn_on(&executor, async move {
                    begun.wait();
                });
                sleep_forever()
            }));
            assert!(block.poll().is_pending());
            begun.wait();
            drop(block);
            // What was being polled is dropped by the threads.
            while drops.alive() > 0 {
                std::thread::yield_now();
            }
        }
    });
}
