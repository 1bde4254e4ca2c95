//! Maps: what becomes of the items, whatever happens to their workers and to the map.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::future::IntoFuture;
use std::io::Write;
use std::panic::{AssertUnwindSafe, panic_any};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::common;
use crate::common::{children, poll_with_yields, test, with_workers, workers};
use crate::polling::Hand;
use futures_lite::{FutureExt, StreamExt};
use rustix::process::{Pid, Signal, kill_process};
use seedbed::worker::{SharedBytes, WorkerErrorKind};
use seedbed::{CancelScope, CapacityLimiter, WorkerConfig, map_sync, open_nursery, sleep};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

fn double(n: u64) -> u64 {
    2 * n
}

fn pid_of_item(_: u64) -> u32 {
    std::process::id()
}

/// A file to which jobs append the numbers of their items.
struct Log {
    folder: tempfile::TempDir,
}

impl Log {
    fn new() -> Self {
        Log {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// The path of a file that tells jobs something by its existence.
    fn sign(&self) -> PathBuf {
        self.folder.path().join("sign")
    }

    /// Returns the items that were begun, in any order.
    fn items(&self) -> Vec<u64> {
        let text = std::fs::read_to_string(self.path()).unwrap_or_default();
        text.lines().map(|line| line.parse().unwrap()).collect()
    }

    #[track_caller]
    fn assert_each_begun_once(&self, items: impl Iterator<Item = u64>) {
        let mut begun = self.items();
        begun.sort_unstable();
        assert_eq!(begun, items.collect::<Vec<_>>());
    }
}

fn note(log: &Path, item: u64) {
    let mut log = OpenOptions::new()
        .append(true)
        .create(true)
        .open(log)
        .unwrap();
    log.write_all(format!("{item}\n").as_bytes()).unwrap();
}

fn wait_for(sign: &Path) {
    while !sign.exists() {
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Notes its item; then aborts, never ends, or returns the item.
fn work((log, item, deed): (PathBuf, u64, Deed)) -> u64 {
    note(&log, item);
    match deed {
        Deed::Return => {}
        Deed::Crash => std::process::abort(),
        Deed::CrashFirst(marker) => {
            if !marker.exists() {
                File::create(marker).unwrap();
                std::process::abort();
            }
        }
        Deed::Hang => loop {
            std::thread::park();
        },
        Deed::WaitFor(sign) => wait_for(&sign),
    }
    item
}

#[derive(Clone, Serialize, Deserialize)]
enum Deed {
    Return,
    Crash,
    CrashFirst(PathBuf),
    Hang,
    WaitFor(PathBuf),
}

/// Makes items of which one does something else than return.
fn items(log: &Log, count: u64, other: u64, deed: Deed) -> Vec<(PathBuf, u64, Deed)> {
    let item = |n| {
        let deed = if n == other {
            deed.clone()
        } else {
            Deed::Return
        };
        (log.path(), n, deed)
    };
    (0..count).map(item).collect()
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

fn a_crash_costs_the_item_that_it_struck() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        for struck in [0, 4, 9] {
            let log = Log::new();
            let map = workers
                .map_sync(work, items(&log, 10, struck, Deed::Crash))
                .chunk(10);
            let results = map.collect().await;
            for (index, result) in results.iter().enumerate() {
                match result {
                    Ok(item) => assert_eq!(*item, index as u64),
                    Err(error) => {
                        assert_eq!((index as u64, error.item()), (struck, Some(index)));
                        assert_eq!(error.kind(), WorkerErrorKind::Broken);
                        assert_eq!(error.exit().unwrap().signal(), Some(6));
                        let text = error.to_string();
                        assert!(
                            text.starts_with(&format!("item {struck} of job `")),
                            "{text}"
                        );
                    }
                }
            }
            assert!(results[struck as usize].is_err());
            log.assert_each_begun_once(0..10);
        }
    }));
}

fn a_time_out_costs_the_item_that_it_struck() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let limit = Duration::from_secs(1); // enough for the other items on a busy machine
        for (count, chunk) in [(10, 10), (3, 1)] {
            let log = Log::new();
            let items = items(&log, count, 1, Deed::Hang);
            let map = workers.map_sync(work, items).chunk(chunk).time_limit(limit);
            let results = map.collect().await;
            let errors: Vec<_> = results
                .iter()
                .filter_map(|result| result.as_ref().err())
                .collect();
            assert_eq!(errors.len(), 1, "{errors:?}");
            assert_eq!(errors[0].kind(), WorkerErrorKind::TimedOut);
            assert_eq!(errors[0].item(), Some(1));
            assert!(errors[0].ran_for().unwrap() >= limit);
            log.assert_each_begun_once(0..count);
        }
    }));
}

/// Each item takes an eighth of its limit, and all together take more than it.
fn time_limits_are_those_of_single_items() {
    fn take(time: Duration) {
        std::thread::sleep(time);
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let limit = Duration::from_secs(2);
        let items = vec![limit / 8; 10];
        let map = workers.map_sync(take, items).chunk(30).time_limit(limit);
        map.limiter(&CapacityLimiter::new(1))
            .try_collect()
            .await
            .unwrap();
    }));
}

fn a_struck_item_is_run_again_as_often_as_the_map_says() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let log = Log::new();
        let list = || items(&log, 5, 2, Deed::CrashFirst(log.sign()));
        let map = workers.map_sync(work, list()).chunk(5).retry(1);
        assert_eq!(map.try_collect().await.unwrap(), [0, 1, 2, 3, 4]);
        let mut begun = log.items();
        begun.sort_unstable();
        assert_eq!(begun, [0, 1, 2, 2, 3, 4]);

        let log = Log::new();
        let map = workers
            .map_sync(work, items(&log, 2, 1, Deed::Crash))
            .retry(2);
        let results = map.collect().await;
        assert_eq!(results[0].as_ref().unwrap(), &0);
        assert_eq!(
            results[1].as_ref().unwrap_err().kind(),
            WorkerErrorKind::Broken
        );
        assert_eq!(log.items().iter().filter(|item| **item == 1).count(), 3);
    }));
}

fn a_large_item_is_run_again_too() {
    fn crash_first((marker, text): (PathBuf, String)) -> usize {
        if !marker.exists() {
            File::create(marker).unwrap();
            std::process::abort();
        }
        text.len()
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        for size in [100_000, 3 << 20] {
            let log = Log::new();
            let item = (log.sign(), "x".repeat(size));
            let map = workers.map_sync(crash_first, [item]).retry(1);
            assert_eq!(map.try_collect().await.unwrap(), [size]);
        }
    }));
}

fn a_panic_is_the_error_of_its_item_and_the_worker_stays() {
    fn blow_up(item: u64) -> u32 {
        match item {
            3 => panic!("out of paint"),
            5 => panic_any(42u64),
            6 => panic!("{}", "long ".repeat(100_000)),
            _ => std::process::id(),
        }
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let one = CapacityLimiter::new(1);
        let results = workers
            .map_sync(blow_up, 0..10)
            .limiter(&one)
            .collect()
            .await;
        let pids: BTreeSet<u32> = results.iter().flatten().copied().collect();
        assert_eq!((pids.len(), workers.statistics().started), (1, 1));
        let error = results[3].as_ref().unwrap_err();
        assert_eq!(
            (error.kind(), error.item()),
            (WorkerErrorKind::Panicked, Some(3))
        );
        assert_eq!(error.panic().unwrap().message(), "out of paint");
        assert!(results[5].is_err());
        let long = results[6].as_ref().unwrap_err();
        assert!(long.panic().unwrap().message().starts_with("long long"));
        assert_eq!(results.iter().filter(|result| result.is_err()).count(), 3);
    }));
}

/// Can be encoded or decoded in some cases only.
#[derive(Debug, PartialEq)]
struct Picky(u64);

const NOT_ENCODED: u64 = 13;
const NOT_DECODED: u64 = 17;

impl Serialize for Picky {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 == NOT_ENCODED {
            return Err(serde::ser::Error::custom("thirteen is unlucky"));
        }
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Picky {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u64::deserialize(deserializer)? {
            NOT_DECODED => Err(serde::de::Error::custom("seventeen is too much")),
            n => Ok(Picky(n)),
        }
    }
}

fn a_value_that_cannot_be_encoded_or_decoded_is_the_error_of_its_item() {
    fn kinds<T>(results: &[Result<T, seedbed::WorkerError>]) -> Vec<(usize, WorkerErrorKind)> {
        let errors = results.iter().filter_map(|result| result.as_ref().err());
        errors
            .map(|error| (error.item().unwrap(), error.kind()))
            .collect()
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let there = workers.map_sync(|picky: Picky| picky.0, (0..20).map(Picky));
        let expected = [
            (13, WorkerErrorKind::EncodeArgument),
            (17, WorkerErrorKind::DecodeArgument),
        ];
        assert_eq!(kinds(&there.collect().await), expected);
        let back = workers.map_sync(Picky, 0..20);
        let expected = [
            (13, WorkerErrorKind::EncodeResult),
            (17, WorkerErrorKind::DecodeResult),
        ];
        assert_eq!(kinds(&back.collect().await), expected);
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

/// The parent of the worker must not be told about items by a copy of the worker.
fn a_job_that_forks_and_returns_twice_ends_once() {
    fn fork(item: u64) -> u64 {
        if item == 2 {
            // SAFETY: the copy only returns from here, and is ended by the library then.
            let pid = unsafe { libc::fork() };
            if pid > 0 {
                // SAFETY: it waits for the child that was just made.
                unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
            }
        }
        item
    }
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let map = workers.map_sync(fork, 0..5).chunk(5);
        assert_eq!(map.try_collect().await.unwrap(), [0, 1, 2, 3, 4]);
    }));
}

async fn until_begun(log: &Log, items: usize) {
    while log.items().len() < items {
        smol::Timer::after(Duration::from_micros(200)).await;
    }
}

fn a_cancelled_map_waits_for_the_items_in_progress_and_begins_no_other() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let log = Log::new();
        let waiting = (0..).map(|n| (log.path(), n, Deed::WaitFor(log.sign())));
        let (scope, one) = (CancelScope::new(), CapacityLimiter::new(1));
        open_nursery(async |n| {
            let map = workers.map_sync(work, waiting).limiter(&one).chunk(7);
            let map = n.spawn(scope.run(map.collect()));
            until_begun(&log, 1).await;
            scope.cancel();
            for _ in 0..100 {
                smol::future::yield_now().await;
            }
            assert_eq!(workers.statistics().running_workers, 1);
            File::create(log.sign()).unwrap();
            assert!(map.await.is_none());
            assert_eq!((one.borrowed(), workers.statistics().idle_workers), (0, 1));
        })
        .await;
        log.assert_each_begun_once(0..1);
    }));
}

fn a_cancelled_map_that_may_kill_ends_with_its_workers() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let log = Log::new();
        let hanging = (0..).map(|n| (log.path(), n, Deed::Hang));
        let (scope, two) = (CancelScope::new(), CapacityLimiter::new(2));
        open_nursery(async |n| {
            let map = workers
                .map_sync(work, hanging)
                .limiter(&two)
                .kill_on_cancel(true);
            let map = n.spawn(scope.run(map.collect()));
            until_begun(&log, 2).await;
            scope.cancel();
            assert!(map.await.is_none());
            assert_eq!(common::workers(), []);
            assert_eq!(two.borrowed(), 0);
        })
        .await;
    }));
}

fn an_already_cancelled_map_pulls_nothing_and_touches_no_worker() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let scope = CancelScope::new();
        scope.cancel();
        let items = (0..).inspect(|_| unreachable!("nothing is pulled"));
        let map = workers.map_sync(double, items).collect();
        assert!(scope.run(map).await.is_none());
        assert_eq!(workers.statistics().started, 0);
    }));
}

fn a_block_that_ends_early_leaves_no_item_in_progress() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let first = workers
            .map_sync(double, 7..)
            .open(async |mut results| results.next().await);
        assert_eq!(first.await.unwrap().unwrap(), 14);
        assert_eq!(workers.statistics().running_workers, 0);
        // The stream may leave the block, and has ended.
        let mut left = workers
            .map_sync(double, 0..)
            .open(async |results| results)
            .await;
        assert_eq!(workers.statistics().running_workers, 0);
        assert!(left.next().await.is_none());
        // And it may be dropped in the block: the map stops while the block goes on.
        workers
            .map_sync(double, 0..)
            .open(async |mut results| {
                results.next().await.unwrap().unwrap();
                drop(results);
                while workers.statistics().running_workers > 0 {
                    smol::Timer::after(Duration::from_micros(200)).await;
                }
            })
            .await;
        let log = Log::new();
        let killed = workers
            .map_sync(work, items(&log, 9, 1, Deed::Hang))
            .kill_on_cancel(true);
        let first = killed.open(async |mut results| {
            let first = results.next().await;
            until_begun(&log, 2).await;
            first
        });
        assert_eq!(first.await.unwrap().unwrap(), 0);
        assert_eq!(workers.statistics().running_workers, 0);
    }));
}

fn the_first_error_ends_a_map_that_tries_to_collect() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let endless = workers.map_sync(|n: u64| 1000 / (500 - n), 0..);
        let error = endless.try_collect().await.unwrap_err();
        assert_eq!(
            (error.kind(), error.item()),
            (WorkerErrorKind::Panicked, Some(500))
        );
        assert_eq!(workers.statistics().running_workers, 0);
    }));
}

fn a_panic_of_the_block_or_the_iterator_is_resumed_when_nothing_runs_any_more() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let body = workers.map_sync(double, 0..).for_each(async |doubled| {
            assert_ne!(doubled.unwrap(), 40, "on purpose");
        });
        let panic = AssertUnwindSafe(body).catch_unwind().await.unwrap_err();
        assert!(
            panic
                .downcast_ref::<String>()
                .unwrap()
                .contains("on purpose")
        );
        assert_eq!(workers.statistics().running_workers, 0);

        let items = (0..).inspect(|n| assert_ne!(*n, 70, "on purpose, too"));
        let iterator = workers.map_sync(double, items).collect();
        let panic = AssertUnwindSafe(iterator).catch_unwind().await.unwrap_err();
        assert!(
            panic
                .downcast_ref::<String>()
                .unwrap()
                .contains("on purpose, too")
        );
        assert_eq!(workers.statistics().running_workers, 0);
    }));
}

/// Ends a map at each of its pending polls in turn: drops it, or cancels a scope around it.
fn end_at_every_poll(kill: bool, is_cancelled: bool) {
    test(async {
        for polls in 1..150 {
            let config = WorkerConfig::new();
            let is_over = with_workers(config, async |workers| {
                let item = |n: usize| "x".repeat(if n.is_multiple_of(9) { 20_000 } else { n });
                let map = workers.map_sync(|text: String| text.len(), (0..15).map(item));
                let map = map.kill_on_cancel(kill).chunk(4).collect();
                let scope = CancelScope::new();
                let mut map = Box::pin(scope.run(map));
                if poll_with_yields(&mut map, polls).await {
                    return true;
                }
                if is_cancelled {
                    scope.cancel();
                    // The last item may have ended just before.
                    let results = map.await;
                    assert!(results.is_none_or(|results| results.len() == 15));
                    assert_eq!(workers.statistics().running_workers, 0);
                }
                false
            });
            if is_over.await {
                break;
            }
        }
    });
}

fn a_map_may_be_dropped_at_every_pending_poll() {
    end_at_every_poll(false, false);
}

fn a_killable_map_may_be_dropped_at_every_pending_poll() {
    end_at_every_poll(true, false);
}

fn a_map_may_be_cancelled_at_every_pending_poll() {
    end_at_every_poll(false, true);
}

fn a_killable_map_may_be_cancelled_at_every_pending_poll() {
    end_at_every_poll(true, true);
}

fn every_item_ends_once_while_workers_are_killed_at_random() {
    fn note_and_double((log, item): (PathBuf, u64)) -> u64 {
        note(&log, item);
        double(item)
    }
    test(with_workers(WorkerConfig::new(), |context| async move {
        const COUNT: u64 = 4000;
        let log = Log::new();
        let items = (0..COUNT).map(|n| (log.path(), n));
        let two = CapacityLimiter::new(2);
        let map = context.map_sync(note_and_double, items).limiter(&two);
        let results = open_nursery(async |n| {
            n.spawn(async {
                for round in 0_u64.. {
                    smol::Timer::after(Duration::from_micros(500 + 611 * (round % 7))).await;
                    for pid in workers() {
                        let pid = Pid::from_raw(pid.cast_signed()).unwrap();
                        let _ = kill_process(pid, Signal::KILL); // it may have ended
                    }
                }
            });
            let results = map.collect().await;
            n.terminate(results);
            std::future::pending().await
        })
        .await;
        let mut broken = 0;
        for (index, result) in results.iter().enumerate() {
            match result {
                Ok(doubled) => assert_eq!(*doubled, 2 * index as u64),
                Err(error) => {
                    assert_eq!(error.item(), Some(index));
                    broken += 1;
                }
            }
        }
        assert_eq!(results.len() as u64, COUNT);
        let begun = log.items();
        let once: BTreeSet<u64> = begun.iter().copied().collect();
        assert_eq!(once.len(), begun.len(), "an item has begun twice");
        assert!(begun.len() as u64 + broken >= COUNT);
    }));
}

fn killing_all_workers_of_a_context_costs_the_items_in_progress() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        let log = Log::new();
        let list = items(&log, 20, 0, Deed::CrashFirst(log.sign()));
        let list = list.into_iter().map(|(log, item, _)| (log, item));
        fn hang_at_first((log, item): (PathBuf, u64)) -> u64 {
            note(&log, item);
            if item == 0 {
                std::thread::park();
            }
            item
        }
        let one = CapacityLimiter::new(1);
        let map = workers
            .map_sync(hang_at_first, list)
            .limiter(&one)
            .chunk(20);
        let results = open_nursery(async |n| {
            n.spawn(async {
                until_begun(&log, 1).await;
                workers.kill_all();
            });
            map.collect().await
        })
        .await;
        assert_eq!(
            results[0].as_ref().unwrap_err().kind(),
            WorkerErrorKind::Broken
        );
        assert_eq!(results.iter().flatten().count(), 19);
        log.assert_each_begun_once(0..20);
    }));
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

fn each_item_of_a_map_in_a_closed_context_is_an_error() {
    test(with_workers(WorkerConfig::new(), |workers| async move {
        workers.shutdown().await.unwrap();
        let results = workers.map_sync(double, 0..5).collect().await;
        for (index, result) in results.iter().enumerate() {
            let error = result.as_ref().unwrap_err();
            assert_eq!(
                (error.kind(), error.item()),
                (WorkerErrorKind::Closed, Some(index))
            );
        }
        assert_eq!(results.len(), 5);
    }));
}

fn workers_that_cannot_be_started_are_errors_of_the_items() {
    let config = WorkerConfig::new().init(|| panic!("no"));
    test(with_workers(config, |workers| async move {
        let results = workers.map_sync(double, 0..5).collect().await;
        for (index, result) in results.iter().enumerate() {
            let error = result.as_ref().unwrap_err();
            assert_eq!(
                (error.kind(), error.item()),
                (WorkerErrorKind::Init, Some(index))
            );
        }
        assert_eq!(results.len(), 5);
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
    a_crash_costs_the_item_that_it_struck,
    a_time_out_costs_the_item_that_it_struck,
    time_limits_are_those_of_single_items,
    a_struck_item_is_run_again_as_often_as_the_map_says,
    a_large_item_is_run_again_too,
    a_panic_is_the_error_of_its_item_and_the_worker_stays,
    a_value_that_cannot_be_encoded_or_decoded_is_the_error_of_its_item,
    large_items_and_results_are_mapped_like_small_ones,
    results_that_fill_the_ring_while_nobody_takes_them_wait,
    shared_memory_is_passed_in_items_and_results,
    workers_that_retire_or_are_limited_for_each_job_get_items_as_jobs,
    a_job_that_forks_and_returns_twice_ends_once,
    a_cancelled_map_waits_for_the_items_in_progress_and_begins_no_other,
    a_cancelled_map_that_may_kill_ends_with_its_workers,
    an_already_cancelled_map_pulls_nothing_and_touches_no_worker,
    a_block_that_ends_early_leaves_no_item_in_progress,
    the_first_error_ends_a_map_that_tries_to_collect,
    a_panic_of_the_block_or_the_iterator_is_resumed_when_nothing_runs_any_more,
    a_map_may_be_dropped_at_every_pending_poll,
    a_killable_map_may_be_dropped_at_every_pending_poll,
    a_map_may_be_cancelled_at_every_pending_poll,
    a_killable_map_may_be_cancelled_at_every_pending_poll,
    every_item_ends_once_while_workers_are_killed_at_random,
    killing_all_workers_of_a_context_costs_the_items_in_progress,
    a_call_that_waits_for_the_limiter_of_an_endless_map_gets_its_turn,
    each_item_of_a_map_in_a_closed_context_is_an_error,
    workers_that_cannot_be_started_are_errors_of_the_items,
    a_map_in_a_run_goes_on_while_its_loop_has_other_things_to_do,
);
