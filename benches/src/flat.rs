//! Things that must not make a call slower: workers in the cache, and callers that wait for the
//! limiter.
//!
//! Each section compares seedbed with many of them to seedbed with one; the ratio should be one.

use std::cell::Cell;

use seedbed::worker::WorkerType::ForkServer;
use seedbed::{CancelScope, CapacityLimiter};

use crate::{
    child::{Gathering, attend},
    jobs::{self, successor},
    measure::{Comparison, Samples},
    options::Options,
};

const ROUNDS: (usize, usize) = (10, 500);
const WORKERS: usize = 100;
const CALLERS: usize = 10_000;
/// The least number of callers for which the queue is never empty. A served caller first wakes the
/// others, and only then queues again. Calls without a wait in between share a turn of the run's
/// loop, which would measure something else.
const FEW_CALLERS: usize = 2;
/// The greatest accepted ratio of many to one.
const FLAT: f64 = 1.1;

/// Prints the sections, for workers on `core`.
pub fn compare(options: &Options, core: usize) {
    Comparison::new(
        "flat/cache",
        ROUNDS,
        "seedbed, 100 workers in the cache",
        |s| seedbed::run(with_cached(s, WORKERS, core)),
    )
    .beside_within(FLAT, "seedbed itself, 1 worker in the cache", |s| {
        seedbed::run(with_cached(s, 1, core))
    })
    .run(options);

    Comparison::new(
        "flat/limiter",
        ROUNDS,
        "seedbed, 10,000 callers wait",
        |s| seedbed::run(with_waiting(s, CALLERS, core)),
    )
    .beside_within(FLAT, "seedbed itself, 2 callers wait", |s| {
        seedbed::run(with_waiting(s, FEW_CALLERS, core))
    })
    .run(options);
}

/// Takes samples of a call with this many workers in the cache.
async fn with_cached(samples: &mut Samples, workers: usize, core: usize) {
    let config = jobs::config(ForkServer, Some(core)).no_idle_timeout();
    seedbed::open_worker_context(config, |context| async move {
        let gathering = Gathering::new("cache");
        let unlimited = CapacityLimiter::unlimited();
        seedbed::open_nursery(async |n| {
            for _ in 0..workers {
                let job = context.run_sync(attend, gathering.name().to_owned());
                let job = job.limiter(&unlimited).into_future();
                drop(n.spawn(async { job.await.expect("the worker attends") }));
            }
            gathering.of(workers).await;
        })
        .await;
        for number in 0..100 {
            let answer = context.run_sync(successor, number).await;
            answer.expect("the worker answers");
        }
        assert_eq!(context.statistics().idle_workers, workers);
        for number in 0..samples.wanted() as u64 {
            let answer = samples.time(1, context.run_sync(successor, number)).await;
            assert_eq!(answer.expect("the worker answers"), number + 1);
        }
    })
    .await;
}

/// Takes samples of the time from the end of one call to the end of the next, while this many
/// callers wait for the only token. A served caller queues again at the end.
async fn with_waiting(samples: &mut Samples, callers: usize, core: usize) {
    let limiter = CapacityLimiter::new(1);
    let config = jobs::config(ForkServer, Some(core));
    let calls = async {
        // The worker and the queue of callers exist before the first sample.
        seedbed::run_sync(successor, 0)
            .await
            .expect("the worker answers");
        let held = limiter.acquire().await;
        let (samples, last) = (Cell::new(Some(samples)), Cell::new(None));
        let enough = CancelScope::new();
        let line = seedbed::nursery::open_local_nursery(async |n| {
            for _ in 0..=callers {
                drop(n.spawn(async {
                    loop {
                        let call = seedbed::run_sync(successor, 7).limiter(&limiter);
                        assert_eq!(call.await.expect("the worker answers"), 8);
                        let now = std::time::Instant::now();
                        let Some(taking) = samples.take() else { return };
                        if let Some(last) = last.replace(Some(now)) {
                            taking.record(now - last, 1);
                        }
                        if !taking.is_full() {
                            samples.set(Some(taking));
                        } else {
                            enough.cancel();
                        }
                    }
                }));
            }
            while limiter.statistics().waiting <= callers {
                seedbed::checkpoint().await;
            }
            drop(held);
        });
        enough.run(line).await;
    };
    seedbed::cache_scope(config, calls).await;
}
