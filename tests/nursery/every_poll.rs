//! Blocks that are dropped or cancelled at each pending poll.

use std::sync::Arc;

use crate::polling::{end_at_every_poll, turns};
use seedbed::nursery::Started;
use seedbed::time::sleep_forever;
use seedbed::{on_cancel, open_nursery, shield, try_open_nursery};

#[test]
fn a_block_that_is_ended_at_any_point_leaves_nothing() {
    let polls = end_at_every_poll(|drops| {
        let drops = Arc::new(drops);
        async move {
            let _outer = drops.value();
            open_nursery(async |n| {
                let _body = drops.value();
                for child in 0..4 {
                    let drops = drops.clone();
                    n.spawn(async move {
                        let value = drops.value();
                        turns(child).await;
                        shield(turns(2)).await;
                        on_cancel(turns(2), {
                            let value = drops.value();
                            async move {
                                turns(2).await;
                                drop(value);
                            }
                        })
                        .await;
                        value
                    });
                }
                turns(2).await;
                n.spawn({
                    let drops = drops.clone();
                    open_nursery(|n| async move {
                        let value = drops.value();
                        n.spawn(turns(3));
                        turns(2).await;
                        drop(value);
                    })
                });
            })
            .await;
            turns(1).await;
        }
    });
    assert!(polls > 5);
}

#[test]
fn a_fallible_block_that_is_ended_at_any_point_leaves_nothing() {
    for fails in [None, Some(0), Some(2), Some(9)] {
        end_at_every_poll(|drops| async move {
            let drops = &drops;
            let result = try_open_nursery(|n| async move {
                for child in 0..4 {
                    n.try_spawn(async move {
                        let value = drops.value();
                        turns(child).await;
                        if fails == Some(child) {
                            Err(drops.value())
                        } else {
                            Ok(value)
                        }
                    });
                }
                turns(2).await;
                let late = n.try_spawn(shield(async move {
                    turns(2).await;
                    Ok(drops.value())
                }));
                late.await;
                if fails == Some(9) {
                    Err(drops.value())
                } else {
                    Ok(drops.value())
                }
            });
            assert_eq!(result.await.is_err(), fails.is_some());
        });
    }
}

#[test]
fn a_start_that_is_ended_at_any_point_leaves_nothing() {
    for starts in [true, false] {
        end_at_every_poll(|drops| async move {
            let drops = &drops;
            open_nursery(|n| async move {
                let child = async move |started: Started<_>| {
                    let value = drops.value();
                    turns(2).await;
                    if starts {
                        started.send(drops.value());
                    } else {
                        drop(started);
                    }
                    turns(2).await;
                    value
                };
                let result = n.start(child).await;
                assert_eq!(result.is_ok(), starts);
                turns(1).await;
            })
            .await;
        });
    }
}

#[test]
fn a_task_s_cancel_that_is_ended_at_any_point_leaves_nothing() {
    end_at_every_poll(|drops| async move {
        let drops = &drops;
        open_nursery(|n| async move {
            let task = n.spawn(async {
                let _value = drops.value();
                shield(turns(2)).await;
                on_cancel(sleep_forever(), async {
                    let _value = drops.value();
                    turns(2).await;
                })
                .await
            });
            turns(1).await;
            assert_eq!(task.cancel().await, None);
            let done = n.spawn(async { drops.value() });
            turns(1).await;
            assert!(done.cancel().await.is_some());
        })
        .await;
    });
}
