//! Delayed values: operators, jobs with resources next to plain calls, and grain's four patterns.
//!
//! `python/delayed.py` measures the same with dask and grain.

use std::time::Duration;

use seedbed::delayed::{Delayed, Jobs, Resources, delayed_val, each, open};
use seedbed::worker::WorkerType::ForkServer;
use seedbed::{CapacityLimiter, WorkerConfig, cache_scope, checkpoint, open_nursery, run_sync};

use crate::{
    child::allowed_cores,
    jobs::successor,
    measure::{Comparison, Samples, thread_time},
    options::Options,
};

const ROUNDS: (usize, usize) = (10, 1);
/// The number of operators in a sample.
const OPERATORS: u64 = 1_000_000;
/// The targets for one operator, built and reduced.
const WITH_NUMBER: Duration = Duration::from_nanos(100);
const AMONG_DELAYED: Duration = Duration::from_nanos(150);
/// The greatest accepted ratio of the cost of a job among many to that of one among few.
const FLAT: f64 = 1.1;
/// The number of jobs in grain's patterns.
const PATTERN: u64 = 300;

/// Prints the sections.
pub fn compare(options: &Options) {
    compare_operators(options);
    compare_jobs(options);
    compare_patterns(options);
}

/// Measures the building, the reduction and the dropping of an expression.
fn operators(samples: &mut Samples, operators: u64, build: impl FnOnce() -> Delayed<f64>) {
    let begun = thread_time();
    let value = smol::block_on(build().into_future());
    samples.record(thread_time() - begun, operators);
    std::hint::black_box(value.expect("numbers have sums"));
}

fn compare_operators(options: &Options) {
    Comparison::new("delayed/number", ROUNDS, "sum = sum + 1.0", |s| {
        operators(s, OPERATORS, || {
            (0..OPERATORS).fold(delayed_val(0.0), |sum, _| sum + 1.0)
        });
    })
    .ours_within(WITH_NUMBER)
    .beside_ours("seedbed itself: sum += 1.0", |s| {
        operators(s, OPERATORS, || {
            let mut sum = delayed_val(0.0);
            (0..OPERATORS).for_each(|_| sum += 1.0);
            sum
        });
    })
    .run(options);

    Comparison::new("delayed/delayed", ROUNDS, "sum += &value", |s| {
        operators(s, OPERATORS, || {
            let (mut sum, value) = (delayed_val(0.0), delayed_val(1.0));
            (0..OPERATORS).for_each(|_| sum += &value);
            sum
        });
    })
    .ours_within(AMONG_DELAYED)
    .beside_ours(
        "seedbed itself: sum += value * 2.0, a value for two operators",
        |s| {
            let values: Vec<_> = (0..OPERATORS / 2).map(|_| delayed_val(1.0)).collect();
            operators(s, OPERATORS, || {
                let mut sum = delayed_val(0.0);
                values.into_iter().for_each(|value| sum += value * 2.0);
                sum
            });
        },
    )
    .beside_ours("seedbed itself: values.sum()", |s| {
        let values: Vec<_> = (0..OPERATORS).map(|_| delayed_val(1.0)).collect();
        operators(s, OPERATORS, || values.into_iter().sum());
    })
    .run(options);
}

/// Runs `body` in a block with one core and forked workers.
fn in_block<R>(body: impl AsyncFnOnce(Jobs<'_>) -> R) -> R {
    let resources = Resources::none().cores(allowed_cores().last().copied());
    let config = WorkerConfig::new().worker_type(ForkServer);
    seedbed::run(cache_scope(
        config,
        open(resources, async |jobs| {
            let warm = jobs.call(successor, 1).await;
            assert_eq!(warm.expect("the worker answers"), 2);
            body(jobs).await
        }),
    ))
}

/// Takes a sample of this many calls, of which each gets a core, or a token of a limiter of one.
fn calls(samples: &mut Samples, count: u64, has_resources: bool) {
    in_block(async |jobs| {
        if has_resources {
            let total = samples.time(count, async {
                let values = (0..count).map(|number| jobs.call(successor, number));
                let values: Delayed<Vec<u64>> = values.collect();
                values.await.expect("the worker answers")
            });
            assert_eq!(total.await.len() as u64, count);
            return;
        }
        let limiter = CapacityLimiter::new(1);
        run_sync(successor, 1).await.expect("the worker answers");
        let block = open_nursery(async |n| {
            for number in 0..count {
                let call = run_sync(successor, number).limiter(&limiter).into_future();
                drop(n.spawn(async { call.await.expect("the worker answers") }));
            }
        });
        samples.time(count, block).await;
    });
}

fn compare_jobs(options: &Options) {
    // One after the other.
    let alone = |s: &mut Samples, has_resources: bool| {
        in_block(async |jobs| {
            for number in 0..s.wanted() as u64 {
                let answer = if has_resources {
                    let job = async { jobs.call(successor, number).await };
                    s.time(1, job).await.map_err(|error| error.to_string())
                } else {
                    let answer = s.time(1, run_sync(successor, number)).await;
                    answer.map_err(|error| error.to_string())
                };
                assert_eq!(answer, Ok(number + 1));
            }
        });
    };
    Comparison::new("delayed/job", (10, 500), "a job on a core", |s| {
        alone(s, true)
    })
    .beside("seedbed itself: run_sync", |s| alone(s, false))
    .run(options);
    for count in [100, 100_000] {
        let section = format!("delayed/{count}-queued");
        Comparison::new(section, (5, 1), "jobs on a core", |s| calls(s, count, true))
            .beside("seedbed itself: run_sync, a limiter of one", |s| {
                calls(s, count, false)
            })
            .run(options);
    }
    // By the time of the thread, because a short burst of jobs meets fewer other processes than a
    // long one.
    let growth = |s: &mut Samples, count: u64| {
        in_block(async |jobs| {
            let values = async {
                let values = (0..count).map(|number| jobs.call(successor, number));
                let values: Delayed<Vec<u64>> = values.collect();
                values.await.expect("the worker answers")
            };
            assert_eq!(s.thread_time(count, values).await.len() as u64, count);
        });
    };
    Comparison::new("delayed/growth", (5, 1), "100,000 jobs on a core", |s| {
        growth(s, 100_000);
    })
    .beside_within(FLAT, "seedbed itself: 100 jobs", |s| growth(s, 100))
    .run(options);
}

fn compare_patterns(options: &Options) {
    for (section, has_resources) in [("without", false), ("with", true)] {
        let pattern = |s: &mut Samples, is_parallel: bool| {
            let resources = Resources::none().amount("places", 1_000_000);
            seedbed::run(open(resources, async |jobs| {
                let jobs = if has_resources {
                    jobs.on(seedbed::delayed::Units("places", 1))
                } else {
                    jobs
                };
                let all = async {
                    if is_parallel {
                        let values: Vec<_> =
                            (0..PATTERN).map(|_| jobs.spawn(checkpoint())).collect();
                        each(values).await.expect("nothing fails");
                    } else {
                        for _ in 0..PATTERN {
                            jobs.spawn(checkpoint()).await.expect("nothing fails");
                        }
                    }
                };
                s.time(PATTERN, all).await;
            }));
        };
        Comparison::new(
            format!("delayed/{section}-resources"),
            (10, 10),
            "300 futures, all at once",
            |s| (0..s.wanted()).for_each(|_| pattern(s, true)),
        )
        .beside("seedbed itself: one after the other", |s| {
            (0..s.wanted()).for_each(|_| pattern(s, false));
        })
        .run(options);
    }
}
