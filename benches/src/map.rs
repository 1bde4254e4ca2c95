//! Maps over many items with two workers: quick items, and items of a millisecond.

use std::cell::LazyCell;
use std::hint::black_box;
use std::time::{Duration, Instant};

use rayon::iter::{IntoParallelIterator, ParallelIterator};
use seedbed::CapacityLimiter;
use seedbed::worker::WorkerType::ForkServer;

use crate::{
    jobs::{self, successor},
    measure::{Comparison, Samples},
    options::Options,
};

const ROUNDS: (usize, usize) = (10, 1);
const WORKERS: usize = 2;
/// Items of a map over quick ones.
const QUICK: u64 = 1_000_000;
/// 8,300,000 items a second, the best figure of `multiprocessing.Pool(2).map`.
const GOAL: Duration = Duration::from_nanos(120);
/// Items of a map over those of a millisecond.
const SLOW: u64 = 200;
const MILLISECOND: Duration = Duration::from_millis(1);
/// How much slower than the ideal two processors are allowed to be.
const SPEED_UP_LOSS: f64 = 1.05;
/// 20 µs for each item of a millisecond.
const OVERHEAD: f64 = 1.02;

/// Prints the sections.
pub fn compare(options: &Options) {
    let threads = LazyCell::new(|| {
        let builder = rayon::ThreadPoolBuilder::new().num_threads(WORKERS);
        builder.build().expect("rayon starts two threads")
    });
    let pool = LazyCell::new(|| procspawn::Pool::new(WORKERS).expect("procspawn starts a pool"));
    Comparison::new("map/quick", ROUNDS, "seedbed map_sync, streaming", |s| {
        seedbed::run(our_round(s, WORKERS, QUICK, |number| number, successor));
    })
    .per_second()
    .ours_within(GOAL)
    .beside("rayon's threads, chunked, collected at the end", |s| {
        rayon_round(s, &threads, QUICK, |number| number, successor)
    })
    .beside("in the caller", |s| {
        caller_round(s, 1, QUICK, |number| number, successor)
    })
    .run(options);

    let steps = LazyCell::new(steps_of_a_millisecond);
    Comparison::new("map/1ms", ROUNDS, "seedbed map_sync, 2 workers", |s| {
        let steps = *steps;
        seedbed::run(our_round(s, WORKERS, SLOW, move |_| steps, compute));
    })
    .beside_within(
        SPEED_UP_LOSS,
        "the ideal: half of the time in the caller",
        |s| {
            let steps = *steps;
            caller_round(s, WORKERS as u64, SLOW, move |_| steps, compute)
        },
    )
    .beside("rayon's threads", |s| {
        let steps = *steps;
        rayon_round(s, &threads, SLOW, move |_| steps, compute)
    })
    .beside("procspawn Pool(2), one call for each item", |s| {
        procspawn_round(s, &pool, *steps)
    })
    .run(options);

    Comparison::new(
        "map/1ms-one-worker",
        ROUNDS,
        "seedbed map_sync, 1 worker",
        |s| {
            let steps = *steps;
            seedbed::run(our_round(s, 1, SLOW, move |_| steps, compute));
        },
    )
    .beside_within(OVERHEAD, "in the caller", |s| {
        let steps = *steps;
        caller_round(s, 1, SLOW, move |_| steps, compute)
    })
    .run(options);
}

/// Computes for this many steps.
fn compute(steps: u64) -> u64 {
    let mut state = black_box(1_u64);
    for _ in 0..steps {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
    }
    black_box(state)
}

/// Returns how many steps take a millisecond here and now.
fn steps_of_a_millisecond() -> u64 {
    const STEPS: u64 = 10_000_000;
    compute(STEPS);
    let start = Instant::now();
    compute(STEPS);
    let share = MILLISECOND.as_secs_f64() / start.elapsed().as_secs_f64();
    (STEPS as f64 * share) as u64
}

async fn our_round<F>(
    samples: &mut Samples,
    workers: usize,
    items: u64,
    item: impl Fn(u64) -> u64 + Copy + Send,
    job: F,
) where
    F: Fn(u64) -> u64 + Copy + Send + Sync + 'static,
{
    let limiter = CapacityLimiter::new(workers);
    let batch = async |items| {
        let map = seedbed::map_sync(job, (0..items).map(item)).limiter(&limiter);
        let count = map.open(async |mut results| {
            let mut count = 0;
            while let Some(result) = futures_lite::StreamExt::next(&mut results).await {
                black_box(result.expect("a worker answers"));
                count += 1;
            }
            count
        });
        assert_eq!(count.await, items);
    };
    let batches = async {
        batch(2 * WORKERS as u64).await; // the workers exist now
        for _ in 0..samples.wanted() {
            samples.time(items, batch(items)).await;
        }
    };
    seedbed::cache_scope(jobs::config(ForkServer, None), batches).await;
}

fn rayon_round(
    samples: &mut Samples,
    threads: &rayon::ThreadPool,
    items: u64,
    item: impl Fn(u64) -> u64 + Sync + Send,
    job: impl Fn(u64) -> u64 + Sync + Send,
) {
    for _ in 0..samples.wanted() {
        samples.time_blocking(items, || {
            let all: Vec<u64> =
                threads.install(|| (0..items).into_par_iter().map(&item).map(&job).collect());
            black_box(all);
        });
    }
}

/// Works on all items in this thread. Each counts as `divisor` items.
fn caller_round(
    samples: &mut Samples,
    divisor: u64,
    items: u64,
    item: impl Fn(u64) -> u64,
    job: impl Fn(u64) -> u64,
) {
    for _ in 0..samples.wanted() {
        samples.time_blocking(divisor * items, || {
            (0..items).for_each(|number| _ = black_box(job(black_box(item(number)))));
        });
    }
}

fn procspawn_round(samples: &mut Samples, pool: &procspawn::Pool, steps: u64) {
    for _ in 0..samples.wanted() {
        samples.time_blocking(SLOW, || {
            let calls: Vec<_> = (0..SLOW).map(|_| pool.spawn(steps, compute)).collect();
            for call in calls {
                call.join().expect("the pool answers");
            }
        });
    }
}
