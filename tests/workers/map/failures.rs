//! Items that crash, fail or reach their time limit, and workers that end: each costs the items in
//! progress only.

use std::collections::BTreeSet;
use std::fs::File;
use std::panic::panic_any;
use std::path::PathBuf;
use std::time::Duration;

use super::{Deed, Log, double, items, note, until_begun, work};
use crate::common::{test, with_workers, workers};
use rustix::process::{Pid, Signal, kill_process};
use seedbed::worker::WorkerErrorKind;
use seedbed::{CapacityLimiter, WorkerConfig, open_nursery};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

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

suite!(
    a_crash_costs_the_item_that_it_struck,
    a_time_out_costs_the_item_that_it_struck,
    time_limits_are_those_of_single_items,
    a_struck_item_is_run_again_as_often_as_the_map_says,
    a_large_item_is_run_again_too,
    a_panic_is_the_error_of_its_item_and_the_worker_stays,
    a_value_that_cannot_be_encoded_or_decoded_is_the_error_of_its_item,
    a_job_that_forks_and_returns_twice_ends_once,
    every_item_ends_once_while_workers_are_killed_at_random,
    killing_all_workers_of_a_context_costs_the_items_in_progress,
    each_item_of_a_map_in_a_closed_context_is_an_error,
    workers_that_cannot_be_started_are_errors_of_the_items,
);
