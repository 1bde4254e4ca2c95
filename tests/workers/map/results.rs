//! The results of maps: their order, when they are delivered, and which workers make them.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs::File;
use std::future::IntoFuture;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::{Deed, Log, double, items, wait_for, work};
use crate::common;
use crate::common::{children, test, with_workers};
use crate::polling::Hand;
use futures_lite::{FutureExt, StreamExt};
use seedbed::worker::SharedBytes;
use seedbed::{CapacityLimiter, WorkerConfig, map_sync, open_nursery, sleep};

fn pid_of_item(_: u64) -> u32 {
    std::process::id()
}

fn results_come_in_the_order_of_their_items() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        for count in [0, 1, 2, 3, 50, 20_000] {
            let doubled = workers.map_sync(double, 0..count).try_collect().await;
            let expected: Vec<u64> = (0..count).map(double).collect();
            assert!(doubled.unwrap() == expected, "{count} items");
        }
        assert!(workers.statistics().idle_workers > 0);
        assert_eq!(workers.statistics().running_workers, 0);
    }));
}

fn unordered_results_come_with_the_indices_of_their_items() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let map = workers.map_sync(double, 100..5000).unordered();
        let mut doubled = map.try_collect().await.unwrap();
        doubled.sort_unstable();
        let expected: Vec<_> = (0..4900).map(|n| (n, double(n as u64 + 100))).collect();
        assert!(doubled == expected);
    }));
}

fn plain_maps_use_the_current_context() {
    test(async {
        let config = WorkerConfig::new().worker_type(common::worker_type());
        let pids = seedbed::cache_scope(config, async {
            let pids = map_sync(pid_of_item, 0..10).try_collect().await.unwrap();
            assert!(seedbed::worker::default_context_statistics().started > 0);
            pids
        });
        assert!(!pids.await.contains(&std::process::id()));
    });
}

fn every_size_of_chunk_gives_the_same_results() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let expected: Vec<u64> = (0..1000).map(double).collect();
        for chunk in [1, 2, 7, 999, 1000, 1_000_000] {
            let doubled = workers.map_sync(double, 0..1000).chunk(chunk).try_collect();
            assert!(doubled.await.unwrap() == expected, "chunks of {chunk}");
        }
    }));
}

fn items_may_borrow_and_the_future_may_be_sent_to_another_thread() {
    fn length(word: String) -> usize {
        word.len()
    }
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let words = ["mandrake".to_owned(), "nettle".to_owned()];
        let map = workers.map_sync(length, words.iter().cloned());
        assert_eq!(is_send(map.try_collect()).await.unwrap(), [8, 6]);
        let spawned = smol::spawn(async move {
            let sum = AtomicU64::new(0);
            let map = workers.map_sync(double, 0..10);
            map.for_each(async |doubled| {
                sum.fetch_add(doubled.unwrap(), Ordering::Relaxed);
            })
            .await;
            let last = workers.map_sync(double, 0..10);
            let last = last.open(async |results| results.last().await);
            (sum.into_inner(), last.await.unwrap().unwrap())
        });
        assert_eq!(spawned.await, (90, 18));
    }));
}

fn an_endless_iterator_is_pulled_as_fast_as_results_are_taken() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let pulled = AtomicUsize::new(0);
        let items = (0..).inspect(|_| {
            pulled.fetch_add(1, Ordering::Relaxed);
        });
        let limiter = CapacityLimiter::new(2);
        let map = workers.map_sync(double, items).chunk(3).limiter(&limiter);
        map.open(async |mut results| {
            for taken in 1..500 {
                assert_eq!(
                    results.next().await.unwrap().unwrap(),
                    2 * (taken as u64 - 1)
                );
                // Two workers, with 16 items each.
                assert!(pulled.load(Ordering::Relaxed) <= taken + 32);
                if taken % 50 == 0 {
                    // However long the block does other things.
                    let before = workers
                        .run_sync(double, 1)
                        .limiter(&CapacityLimiter::new(1));
                    assert_eq!(before.await.unwrap(), 2);
                    for _ in 0..100 {
                        smol::future::yield_now().await;
                    }
                    assert!(pulled.load(Ordering::Relaxed) <= taken + 32);
                }
            }
        })
        .await;
        assert_eq!(limiter.borrowed(), 0);
    }));
}

/// Regression: once its window had been full, a map polled itself again and again.
fn a_map_whose_window_is_full_sleeps() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let (taken, two) = (Cell::new(0), CapacityLimiter::new(2));
        let map = workers.map_sync(double, 0..).chunk(1).limiter(&two);
        let mut map = Hand::new(map.open(async |mut results| {
            for _ in 0..100 {
                results.next().await.unwrap().unwrap();
                taken.set(taken.get() + 1);
                smol::future::yield_now().await; // the map is polled with a full window now and then
            }
            std::future::pending::<()>().await
        }));
        while taken.get() < 100 || two.borrowed() > 0 {
            assert!(map.settle().is_pending()); // fails if the map wakes itself all the time
            smol::future::yield_now().await;
        }
        assert!(map.settle().is_pending());
        assert!(!map.is_woken());
    }));
}

fn workers_go_on_while_a_slow_consumer_has_results_to_take() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let log = Log::new();
        let items = items(&log, 30, u64::MAX, Deed::Return);
        let map = workers.map_sync(work, items).chunk(1);
        let map = map.limiter(&CapacityLimiter::new(2));
        map.open(async |mut results| {
            results.next().await.unwrap().unwrap();
            // All of them fit into the window.
            while log.items().len() < 30 {
                smol::Timer::after(Duration::from_micros(200)).await;
            }
            assert_eq!(results.count().await, 29);
        })
        .await;
    }));
}

fn a_stream_of_items_may_wait_for_the_results() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let (send, receive) = smol::channel::unbounded();
        send.send(1).await.unwrap();
        let map = workers.map_sync(double, receive);
        let sum = map.open(async |mut results| {
            let mut sum = 0;
            for n in 2..=10 {
                sum += results.next().await.unwrap().unwrap();
                send.send(n).await.unwrap(); // only now is there another item
            }
            drop(send);
            sum + results.next().await.unwrap().unwrap() + results.count().await as u64
        });
        assert_eq!(sum.await, 110);
    }));
}

fn a_result_is_delivered_before_the_rest_of_its_chunk_has_run() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let log = Log::new();
        let items = items(&log, 10, 3, Deed::WaitFor(log.sign()));
        let map = workers.map_sync(work, items).chunk(10);
        let results = Mutex::new(Vec::new());
        map.for_each(async |result| {
            let mut results = results.lock().unwrap();
            results.push(result.unwrap());
            if results.len() == 3 {
                File::create(log.sign()).unwrap();
            }
        })
        .await;
        assert_eq!(results.into_inner().unwrap(), (0..10).collect::<Vec<_>>());
    }));
}

/// If the items behind the slow one stayed with its worker, the map would not end.
fn items_behind_a_slow_one_are_run_by_other_workers() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let log = Log::new();
        let items = items(&log, 2000, 700, Deed::WaitFor(log.sign()));
        let map = workers.map_sync(work, items).unordered();
        let map = map.limiter(&CapacityLimiter::new(2));
        let mut indices = BTreeSet::new();
        map.open(async |mut results| {
            while let Some((index, result)) = results.next().await {
                assert_eq!(result.unwrap(), index as u64);
                assert!(indices.insert(index));
                if indices.len() == 1999 {
                    assert!(!indices.contains(&700));
                    File::create(log.sign()).unwrap();
                }
            }
        })
        .await;
        assert_eq!(indices.len(), 2000);
        log.assert_each_begun_once(0..2000);
    }));
}

fn maps_use_as_many_workers_as_their_limiter_allows() {
    fn meet((folder, me): (PathBuf, u64)) -> u32 {
        File::create(folder.join(me.to_string())).unwrap();
        (0..3).for_each(|other: u64| wait_for(&folder.join(other.to_string())));
        std::process::id()
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let folder = tempfile::tempdir().unwrap();
        let items = (0..3).map(|n| (folder.path().to_owned(), n));
        let limiter = CapacityLimiter::new(3);
        let pids = workers
            .map_sync(meet, items)
            .limiter(&limiter)
            .try_collect();
        let pids: BTreeSet<u32> = pids.await.unwrap().into_iter().collect();
        assert_eq!((pids.len(), limiter.borrowed()), (3, 0));
    }));
}

fn large_items_and_results_are_mapped_like_small_ones() {
    fn repeat((text, times): (String, usize)) -> String {
        text.repeat(times)
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let sizes = [
            1, 20_000, 3, 300_000, 16_384, 16_370, 0, 5_000_000, 70_000, 2,
        ];
        for times in [1, 3] {
            let items = sizes.map(|size| ("x".repeat(size), times));
            let results = workers.map_sync(repeat, items).try_collect().await.unwrap();
            assert!(
                results
                    .iter()
                    .map(String::len)
                    .eq(sizes.map(|size| size * times))
            );
        }
        // Small items with results that are large, in one chunk.
        let items = (0..50).map(|n| ("ab".to_owned(), if n % 7 == 0 { 50_000 } else { n }));
        let lengths: Vec<_> = items.clone().map(|(_, n)| 2 * n).collect();
        let results = workers
            .map_sync(repeat, items)
            .chunk(50)
            .try_collect()
            .await
            .unwrap();
        assert!(results.iter().map(String::len).eq(lengths));
    }));
}

/// More than the ring of results holds.
fn results_that_fill_the_ring_while_nobody_takes_them_wait() {
    fn repeat(n: usize) -> Vec<u8> {
        vec![7; n]
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let sizes = (0..500).map(|n| 12_000 + 8 * n);
        let results = workers
            .map_sync(repeat, sizes.clone())
            .chunk(100)
            .try_collect();
        let results = results.await.unwrap();
        assert!(results.iter().map(Vec::len).eq(sizes));
    }));
}

fn shared_memory_is_passed_in_items_and_results() {
    fn middle(bytes: SharedBytes) -> SharedBytes {
        bytes.slice(1..bytes.len() - 1)
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let items: Vec<_> = [&b"(one)"[..], b"<two>", b"[three]"]
            .map(|text| SharedBytes::copy_from(text).unwrap())
            .into();
        let results = workers
            .map_sync(middle, items.clone())
            .try_collect()
            .await
            .unwrap();
        let expected: [&[u8]; 3] = [b"one", b"two", b"three"];
        assert!(results.iter().map(|bytes| &bytes[..]).eq(expected));
    }));
}

fn workers_that_retire_or_are_limited_for_each_job_get_items_as_jobs() {
    test(async {
        let config = WorkerConfig::new().single_use();
        with_workers(config, |workers| async move {
            let pids = workers
                .map_sync(pid_of_item, 0..6)
                .try_collect()
                .await
                .unwrap();
            assert_eq!(pids.into_iter().collect::<BTreeSet<_>>().len(), 6);
            let log = Log::new();
            let crash = items(&log, 4, 2, Deed::Crash);
            let results = workers.map_sync(work, crash).collect().await;
            assert_eq!(results[2].as_ref().unwrap_err().item(), Some(2));
            assert_eq!(results.iter().flatten().count(), 3);
            let again = items(&log, 2, 1, Deed::CrashFirst(log.sign()));
            let results = workers.map_sync(work, again).retry(1).try_collect().await;
            assert_eq!(results.unwrap(), [0, 1]);
        })
        .await;
        let config = WorkerConfig::new().cpu_limit(Duration::from_secs(2));
        with_workers(config, |workers| async move {
            let doubled = workers.map_sync(double, 0..5).try_collect().await;
            assert_eq!(doubled.unwrap(), [0, 2, 4, 6, 8]);
        })
        .await;
    });
}

fn a_call_that_waits_for_the_limiter_of_an_endless_map_gets_its_turn() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let one = CapacityLimiter::new(1);
        let map = workers.map_sync(double, 0..).limiter(&one);
        map.open(async |mut results| {
            for _ in 0..3 {
                let call = workers.run_sync(double, 4).limiter(&one).into_future();
                let taking = async {
                    loop {
                        results.next().await.unwrap().unwrap();
                    }
                };
                assert_eq!(call.or(taking).await.unwrap(), 8);
            }
        })
        .await;
    }));
}

fn a_map_in_a_run_goes_on_while_its_loop_has_other_things_to_do() {
    test(async {
        let end = smol::unblock(|| {
            seedbed::run(with_workers(WorkerConfig::new(), |workers| async move {
                open_nursery(async |n| {
                    n.spawn(async {
                        loop {
                            sleep(Duration::from_micros(300)).await;
                        }
                    });
                    let doubled = workers.map_sync(double, 0..30_000).try_collect().await;
                    n.terminate(doubled.unwrap().len());
                    std::future::pending().await
                })
                .await
            }))
        });
        assert_eq!(end.await, 30_000);
        assert_eq!(children(), []);
    });
}

suite!(
    results_come_in_the_order_of_their_items,
    unordered_results_come_with_the_indices_of_their_items,
    plain_maps_use_the_current_context,
    every_size_of_chunk_gives_the_same_results,
    items_may_borrow_and_the_future_may_be_sent_to_another_thread,
    an_endless_iterator_is_pulled_as_fast_as_results_are_taken,
    a_map_whose_window_is_full_sleeps,
    workers_go_on_while_a_slow_consumer_has_results_to_take,
    a_stream_of_items_may_wait_for_the_results,
    a_result_is_delivered_before_the_rest_of_its_chunk_has_run,
    items_behind_a_slow_one_are_run_by_other_workers,
    maps_use_as_many_workers_as_their_limiter_allows,
    large_items_and_results_are_mapped_like_small_ones,
    results_that_fill_the_ring_while_nobody_takes_them_wait,
    shared_memory_is_passed_in_items_and_results,
    workers_that_retire_or_are_limited_for_each_job_get_items_as_jobs,
    a_call_that_waits_for_the_limiter_of_an_endless_map_gets_its_turn,
    a_map_in_a_run_goes_on_while_its_loop_has_other_things_to_do,
);
