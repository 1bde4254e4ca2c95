//! Executors, threads, wakers, and blocks that are dropped or forgotten.

use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Context, Poll, Waker};

use crate::polling::{Drops, Hand, OnDrop, Wakes, turns};
use seedbed::nursery::{open_local_nursery, try_open_local_nursery};
use seedbed::sync::Event;
use seedbed::time::sleep_forever;
use seedbed::{CancelScope, Nursery, checkpoint, on_cancel, open_nursery, shield};

#[test]
fn a_block_runs_inside_smol_spawn_and_moves_between_threads() {
    let executor = smol::Executor::new();
    let count = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let count = count.clone();
            executor.spawn(async move {
                let local = AtomicUsize::new(0);
                let counter = &local;
                open_nursery(async |n| {
                    for number in 0..20 {
                        n.spawn(async move {
                            for _ in 0..number {
                                smol::future::yield_now().await;
                            }
                            counter.fetch_add(1, SeqCst);
                        });
                    }
                })
                .await;
                count.fetch_add(local.into_inner(), SeqCst);
            })
        })
        .collect();
    let done = Event::new();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| smol::block_on(executor.run(done.wait())));
        }
        smol::block_on(async {
            for task in tasks {
                task.await;
            }
        });
        done.set();
    });
    assert_eq!(count.load(SeqCst), 400);
}

#[test]
fn another_crate_s_select_that_drops_a_block_drops_its_children_shields_included() {
    let drops = &Drops::new();
    let race = futures_lite::future::race(
        open_nursery(|n| async move {
            let values = (drops.value(), drops.value());
            n.spawn(async move {
                let value = values.0;
                shield(sleep_forever()).await;
                drop(value);
            });
            n.spawn(on_cancel(
                async move {
                    let _value = values.1;
                    sleep_forever().await
                },
                async { unreachable!("the clean-up is for cancellation") },
            ));
            sleep_forever().await;
            "block"
        }),
        async {
            turns(5).await;
            "other"
        },
    );
    assert_eq!(Hand::new(race).finish(), "other");
    assert_eq!(drops.made(), 2);
    drops.assert_all_dropped();
}

#[test]
fn spurious_polls_and_changing_wakers_are_harmless_and_the_newest_waker_is_woken() {
    let open = &Event::new();
    let mut block = pin!(open_nursery(|n| async move {
        n.spawn(async {
            open.wait().await;
        });
    }));
    let mut last = None;
    for _ in 0..10 {
        let (wakes, waker) = Wakes::new();
        for _ in 0..3 {
            assert!(
                block
                    .as_mut()
                    .poll(&mut Context::from_waker(&waker))
                    .is_pending()
            );
        }
        last = Some(wakes);
    }
    open.set();
    assert_eq!(last.unwrap().count(), 1);
    assert!(
        block
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_ready()
    );
}

#[test]
fn one_wake_up_polls_one_child() {
    let polls = &AtomicUsize::new(0);
    let events: Vec<_> = (0..10).map(|_| Event::new()).collect();
    let events = &events;
    let mut block = Hand::new(open_nursery(|n| async move {
        for event in events {
            let mut wait = event.wait();
            n.spawn(std::future::poll_fn(move |cx| {
                polls.fetch_add(1, SeqCst);
                Pin::new(&mut wait).poll(cx)
            }));
        }
    }));
    assert!(block.settle().is_pending());
    for event in events {
        let before = polls.load(SeqCst);
        event.set();
        event.set();
        let _ = block.go_on();
        assert_eq!(polls.load(SeqCst), before + 1);
    }
}

/// Gives its waker away and waits forever.
fn gives_its_waker(to: &Mutex<Vec<Waker>>) -> impl Future<Output = ()> + Send {
    std::future::poll_fn(|cx| {
        to.lock().unwrap().push(cx.waker().clone());
        Poll::Pending
    })
}

/// Uses these wakers on several threads while `act` runs.
fn hammer<T>(wakers: Vec<Waker>, act: impl FnOnce() -> T) -> T {
    let (stop, begun) = (&AtomicBool::new(false), &Barrier::new(3));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let wakers = wakers.clone();
            scope.spawn(move || {
                begun.wait();
                while !stop.load(SeqCst) {
                    wakers.iter().for_each(Waker::wake_by_ref);
                }
                // One waker is consumed, and one is dropped unused.
                let mut wakers = wakers;
                drop(wakers.pop());
                wakers.into_iter().for_each(Waker::wake);
            });
        }
        drop(wakers);
        begun.wait();
        let _stop = OnDrop(|| stop.store(true, SeqCst));
        act()
    })
}

#[test]
fn wakers_fire_on_other_threads_while_the_block_is_polled_cancelled_and_dropped() {
    for round in 0..60 {
        let (drops, wakers) = (&Drops::new(), &Mutex::new(Vec::new()));
        let (kept, scope) = (&Mutex::new(None), &CancelScope::new());
        let mut block = Hand::new(scope.run(open_nursery(|n: Nursery<'_, ()>| async move {
            *kept.lock().unwrap() = Some(n.clone());
            for child in 0..8 {
                let value = drops.value();
                n.spawn(async move {
                    let _value = value;
                    match child % 3 {
                        0 => gives_its_waker(wakers).await,
                        1 => {
                            on_cancel(gives_its_waker(wakers), async {
                                drop(drops.value());
                                turns(3).await
                            })
                            .await
                        }
                        _ => shield(turns(30)).await,
                    }
                });
            }
            gives_its_waker(wakers).await
        })));
        assert!(block.poll().is_pending());
        let fire = std::mem::take(&mut *wakers.lock().unwrap());
        hammer(fire, || {
            for _ in 0..10 {
                let _ = block.poll();
            }
            match round % 4 {
                0 => drop(block),
                1 => {
                    scope.cancel();
                    while block.poll().is_pending() {}
                }
                2 => {
                    let n = kept.lock().unwrap().take().unwrap();
                    n.cancel();
                    while block.poll().is_pending() {}
                }
                _ => {
                    scope.cancel();
                    let _ = block.poll();
                    drop(block);
                }
            }
            drops.assert_all_dropped();
        });
        drops.assert_all_dropped();
        // These wakers are used after everything has ended.
        wakers.lock().unwrap().drain(..).for_each(Waker::wake);
    }
}

#[test]
fn a_forgotten_block_leaks_and_nothing_else() {
    let wakers = Arc::new(Mutex::new(Vec::new()));
    let drops = Drops::new();
    let (give, count, mut kept) = (wakers.clone(), drops.clone(), None);
    let mut block = Box::pin(open_nursery(|n: Nursery<'static, ()>| {
        kept = Some(n.clone());
        async move {
            for _ in 0..4 {
                let (give, value) = (give.clone(), count.value());
                n.spawn(async move {
                    let _value = value;
                    gives_its_waker(&give).await
                });
            }
        }
    }));
    let (_, waker) = Wakes::new();
    assert!(
        block
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
    );
    std::mem::forget(block);
    let fire = std::mem::take(&mut *wakers.lock().unwrap());
    hammer(fire, || {
        // The nursery still accepts children, which are leaked too.
        let n = kept.take().unwrap();
        for _ in 0..10 {
            let value = drops.value();
            n.spawn(async move { value });
        }
        n.cancel();
    });
    assert_eq!((drops.made(), drops.alive()), (14, 14));
}

#[test]
fn many_threads_spawn_children_while_the_block_ends() {
    for _ in 0..30 {
        let drops = Drops::new();
        let count = drops.clone();
        std::thread::scope(|scope| {
            smol::block_on(open_nursery(|n| {
                for _ in 0..3 {
                    let (n, count) = (n.clone(), count.clone());
                    scope.spawn(move || {
                        for _ in 0..100 {
                            let value = count.value();
                            let child = n.spawn_if_open(async move {
                                checkpoint().await;
                                drop(value);
                            });
                            match child {
                                Ok(task) => drop(task.cancel()),
                                Err(closed) => return drop(closed.into_future()),
                            }
                        }
                    });
                }
                async move {
                    turns(20).await;
                    n.cancel();
                }
            }));
        });
        drops.assert_all_dropped();
    }
}

#[test]
fn a_local_nursery_takes_futures_that_are_not_send() {
    let shared = std::rc::Rc::new(std::cell::Cell::new(1));
    let value = open_local_nursery(|n| {
        let shared = shared.clone();
        async move {
            let other = shared.clone();
            n.spawn(async move { other.set(other.get() + 1) }).await;
            shared.get()
        }
    });
    assert_eq!(Hand::new(value).finish(), 2);
    let failed: Result<(), &str> = Hand::new(try_open_local_nursery(|n| async move {
        n.try_spawn(async move {
            shared.set(9);
            Err::<(), _>("no")
        });
        sleep_forever().await;
        Ok(())
    }))
    .finish();
    assert_eq!(failed, Err("no"));
}
