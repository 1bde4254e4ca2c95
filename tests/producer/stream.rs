//! The stream of `spawn_producer`: it owns a task of a nursery, and ends only when that has ended.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Mutex;
use std::task::Poll;

use futures_lite::StreamExt;
use futures_lite::future::poll_once;
use seedbed::nursery::Spawner;
use seedbed::sync::{Event, ProducedStream, Producer, ProducerError, spawn_producer};
use seedbed::testing::wait_all_tasks_blocked;
use seedbed::time::sleep_forever;
use seedbed::{
    CancelScope, Nursery, RunBuilder, checkpoint, on_cancel, open_nursery, run, shield, sleep,
};

use crate::polling::{Drops, Hand, OnDrop, end_at_every_poll, turns};
use crate::{SECOND, virtually};

/// A log that producers and their receivers write.
#[derive(Default)]
struct Log(Mutex<Vec<&'static str>>);

impl Log {
    fn push(&self, entry: &'static str) {
        self.0.lock().unwrap().push(entry);
    }

    #[track_caller]
    fn assert(&self, entries: &[&str]) {
        assert_eq!(*self.0.lock().unwrap(), entries);
    }
}

/// A producer of numbers without an end.
async fn count(mut numbers: Producer<u32>) -> Result<(), &'static str> {
    for n in 0.. {
        numbers.send(n).await;
    }
    unreachable!("there is always a next number");
}

#[test]
fn values_are_made_on_request_and_the_end_comes_after_them() {
    let log = &Log::default();
    run(open_nursery(async |n: Nursery<'_, _>| {
        let mut stream = spawn_producer(&n.spawner(), async |mut values: Producer<u32>| {
            for value in 1..=2 {
                log.push("makes a value");
                values.send(value).await;
            }
            Ok::<(), ()>(())
        });
        wait_all_tasks_blocked().await;
        log.assert(&[]);
        assert_eq!(stream.next().await, Some(Ok(1)));
        wait_all_tasks_blocked().await;
        log.assert(&["makes a value"]);
        assert_eq!(stream.next().await, Some(Ok(2)));
        assert_eq!(stream.next().await, None);
        assert_eq!(stream.next().await, None);
    }));
}

#[test]
fn a_stream_ends_only_when_its_producer_has_ended() {
    let (log, go) = (&Log::default(), &Event::new());
    run(open_nursery(async |n: Nursery<'_, _>| {
        let mut stream = spawn_producer(&n.spawner(), async |mut values: Producer<u32>| {
            values.send(1).await;
            drop(values);
            go.wait().await;
            log.push("has ended");
            Ok::<(), ()>(())
        });
        assert_eq!(stream.next().await, Some(Ok(1)));
        assert_eq!(poll_once(stream.next()).await, None);
        wait_all_tasks_blocked().await;
        assert_eq!(poll_once(stream.next()).await, None, "it still runs");
        go.set();
        assert_eq!(stream.next().await, None);
        log.assert(&["has ended"]);
    }));
}

#[test]
fn an_error_of_the_producer_is_the_last_item() {
    run(open_nursery(async |n: Nursery<'_, _>| {
        let mut stream = spawn_producer(&n.spawner(), async |mut values: Producer<u32>| {
            values.send(1).await;
            Err("no more")
        });
        assert_eq!(stream.next().await, Some(Ok(1)));
        assert_eq!(
            stream.next().await,
            Some(Err(ProducerError::Failed("no more")))
        );
        assert_eq!(stream.next().await, None);
    }));
}

#[test]
fn dropping_the_stream_cancels_the_producer_and_the_nursery_waits_for_its_clean_up() {
    let log = &Log::default();
    virtually(async {
        open_nursery(async |n: Nursery<'_, _>| {
            let mut stream = spawn_producer(&n.spawner(), async |mut values: Producer<u32>| {
                values.send(1).await;
                let clean_up = async {
                    sleep(SECOND).await;
                    log.push("cleaned up");
                };
                on_cancel(sleep_forever(), clean_up).await;
                Ok::<(), ()>(())
            });
            assert_eq!(stream.next().await, Some(Ok(1)));
            assert_eq!(poll_once(stream.next()).await, None);
            wait_all_tasks_blocked().await;
            drop(stream);
            log.push("dropped");
        })
        .await;
        log.push("the block has ended");
    });
    log.assert(&["dropped", "cleaned up", "the block has ended"]);
}

#[test]
fn a_stream_that_is_dropped_unpolled_never_calls_its_producer() {
    run(open_nursery(async |n: Nursery<'_, _>| {
        let stream: ProducedStream<u32, ()> = spawn_producer(&n.spawner(), |_| async {
            unreachable!("no value is requested")
        });
        drop(stream);
    }));
}

#[test]
fn a_cancelled_producer_is_not_the_end_of_a_complete_stream() {
    let outcome = virtually(async {
        let scope = CancelScope::new();
        let (streams, received) = (Event::new(), Mutex::new(None));
        open_nursery(async |n: Nursery<'_, _>| {
            n.spawn(scope.run(open_nursery(async |inner: Nursery<'_, _>| {
                *received.lock().unwrap() = Some(spawn_producer(&inner.spawner(), count));
                streams.set();
                sleep_forever().await
            })));
            streams.wait().await;
            let mut stream = received.lock().unwrap().take().unwrap();
            assert_eq!(stream.next().await, Some(Ok(0)));
            scope.cancel();
            (stream.next().await, stream.next().await)
        })
        .await
    });
    assert_eq!(outcome, (Some(Err(ProducerError::Cancelled)), None));
}

#[test]
fn the_stream_of_a_cancelled_producer_waits_for_its_shield() {
    virtually(async {
        let (scope, log) = (&CancelScope::new(), &Log::default());
        let (begun, received) = (&Event::new(), &Mutex::new(None));
        open_nursery(async |n: Nursery<'_, _>| {
            n.spawn(scope.run(open_nursery(async |inner: Nursery<'_, _>| {
                let stream = spawn_producer(&inner.spawner(), async |_: Producer<u32>| {
                    scope.cancel();
                    shield(sleep(SECOND)).await;
                    log.push("the shield has ended");
                    checkpoint().await;
                    Ok::<(), ()>(())
                });
                *received.lock().unwrap() = Some(stream);
                begun.set();
                sleep_forever().await
            })));
            begun.wait().await;
            let mut stream = received.lock().unwrap().take().unwrap();
            assert_eq!(stream.next().await, Some(Err(ProducerError::Cancelled)));
            log.assert(&["the shield has ended"]);
        })
        .await
    });
}

#[test]
fn a_stream_that_leaves_a_daemon_block_says_that_it_is_incomplete() {
    let items = run(async {
        let block = open_nursery(|n: Nursery<'static, _>| async move {
            let mut stream = spawn_producer(&n.spawner(), count);
            assert_eq!(stream.next().await, Some(Ok(0)));
            stream
        });
        block.daemon().await.collect::<Vec<_>>().await
    });
    assert_eq!(items, [Err(ProducerError::Cancelled)]);
}

#[test]
fn a_panic_of_the_producer_is_one_of_the_nursery_and_the_stream_does_not_look_complete() {
    let seen = &Mutex::new(Vec::new());
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        run(open_nursery(async |n: Nursery<'_, _>| {
            let mut stream = spawn_producer(&n.spawner(), async |mut values: Producer<u32>| {
                values.send(1).await;
                if true {
                    panic!("in the producer");
                }
                Ok::<(), ()>(())
            });
            // The shield keeps the receiver after the panic has cancelled it.
            shield(async {
                while let Some(item) = stream.next().await {
                    seen.lock().unwrap().push(item);
                }
            })
            .await;
        }));
    }));
    let payload = outcome.expect_err("it panics");
    assert_eq!(payload.downcast_ref(), Some(&"in the producer"));
    assert_eq!(
        *seen.lock().unwrap(),
        [Ok(1), Err(ProducerError::Cancelled)]
    );
}

#[test]
#[should_panic(expected = "nursery")]
fn a_producer_of_a_block_that_has_ended_is_refused() {
    run(async {
        let spawner: Spawner<'static> = open_nursery(async |n| n.spawner()).await;
        _ = spawn_producer(&spawner, count);
    });
}

#[test]
fn a_producer_has_blocks_of_its_own_which_end_with_the_stream() {
    let drops = Drops::new();
    run(open_nursery(async |n: Nursery<'_, _>| {
        let drops = &drops;
        let mut stream = spawn_producer(&n.spawner(), async move |mut values: Producer<u32>| {
            open_nursery(async |inner: Nursery<'_, _>| {
                for _ in 0..3 {
                    let value = drops.value();
                    inner.spawn(async move {
                        let _value = value;
                        sleep_forever().await
                    });
                }
                values.send(1).await;
                Ok::<(), ()>(())
            })
            .await
        });
        assert_eq!(stream.next().await, Some(Ok(1)));
        assert_eq!(drops.alive(), 3);
        drop(stream);
        wait_all_tasks_blocked().await;
        drops.assert_all_dropped();
    }));
}

#[test]
fn a_stream_may_be_polled_by_another_runtime() {
    let numbers = run(open_nursery(async |n: Nursery<'_, _>| {
        let stream = spawn_producer(&n.spawner(), count);
        let first = smol::spawn(stream.take(100).map(Result::unwrap).collect::<Vec<_>>());
        first.await
    }));
    assert_eq!(numbers, (0..100).collect::<Vec<_>>());
}

#[test]
fn a_cancelled_stream_never_looks_complete_in_any_order_of_the_tasks() {
    for seed in 0..50 {
        RunBuilder::new().shuffle(seed).run(async {
            let (scope, items) = (CancelScope::new(), &Mutex::new(Vec::new()));
            let cancelled = scope.run(open_nursery(async |n: Nursery<'_, ()>| {
                let stream = spawn_producer(&n.spawner(), count);
                // The shield keeps the receiver after the scope is cancelled.
                n.spawn(shield(async move {
                    let received = stream.collect::<Vec<_>>().await;
                    items.lock().unwrap().extend(received);
                }));
                turns(20).await;
                scope.cancel();
                sleep_forever().await
            }));
            assert!(cancelled.await.is_none());
            let last = items.lock().unwrap().last().copied();
            assert_eq!(last, Some(Err(ProducerError::Cancelled)), "seed {seed}");
        });
    }
}

#[test]
fn a_stream_loses_nothing_wherever_it_is_dropped_or_cancelled() {
    let polls = end_at_every_poll(|drops| async move {
        let drops = &drops;
        open_nursery(async |n: Nursery<'_, _>| {
            let mut stream = spawn_producer(&n.spawner(), async move |mut values| {
                let _here = drops.value();
                for _ in 0..3 {
                    turns(1).await;
                    values.send(drops.value()).await;
                }
                turns(1).await;
                Ok::<(), ()>(())
            });
            while let Some(value) = stream.next().await {
                turns(1).await;
                drop(value);
            }
        })
        .await;
    });
    assert!(polls > 5, "{polls}");
}

#[test]
fn a_stream_may_be_dropped_at_any_of_its_polls() {
    for last in 0..20 {
        let drops = Drops::new();
        let mut polls = 0;
        let mut block = Hand::new(open_nursery(async |n: Nursery<'_, _>| {
            let drops = &drops;
            let mut stream = spawn_producer(&n.spawner(), async move |mut values| {
                let _here = drops.value();
                let _gone = OnDrop(|| assert!(drops.alive() > 0));
                for _ in 0..3 {
                    turns(1).await;
                    values.send(drops.value()).await;
                }
                Ok::<(), ()>(())
            });
            // Spurious polls are counted too: dropped after the poll number `last`.
            std::future::poll_fn(|cx| {
                polls += 1;
                let polled = Pin::new(&mut stream).poll_next(cx);
                if polls > last || matches!(polled, Poll::Ready(None)) {
                    return Poll::Ready(());
                }
                cx.waker().wake_by_ref();
                Poll::Pending
            })
            .await;
            drop(stream);
        }));
        assert_eq!(block.settle(), Poll::Ready(()), "after poll {last}");
        drop(block);
        drops.assert_all_dropped();
    }
}
