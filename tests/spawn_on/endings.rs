//! Blocks that end at any poll, and under stress.

use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use crate::polling::{Drops, Hand, end_at_every_poll, turns};
use crate::{executor, on_threads, with_executor};
use seedbed::time::sleep_forever;
use seedbed::{CancelScope, move_on_after, on_cancel, open_nursery, run, shield};

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
        with_executor(executor, block).await;
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
            // The threads drop the children that they are polling.
            while drops.alive() > 0 {
                std::thread::yield_now();
            }
        }
    });
}
