//! The cost of single operations: a scope, a shield, a tree variable, a limiter.
//!
//! One sample is a thousand operations in a row, so that reading the clock does not count.
//! Allocations are counted separately, once; their number is the same in every run.

use std::{future::poll_fn, pin::Pin, sync::Arc, task::Poll, time::Duration};

use seedbed::CancelScope;

use crate::{
    allocations,
    measure::{Comparison, Samples},
    options::Options,
};

const ROUNDS: (usize, usize) = (20, 50);
const OPERATIONS: u64 = 1_000;
const MINUTE: Duration = Duration::from_secs(60);

static OURS: seedbed::nursery::TreeVar<u64> = seedbed::nursery::TreeVar::new();

tokio::task_local! {
    static TOKIOS: u64;
}

/// Prints the sections.
pub fn compare(options: &Options) {
    Comparison::new("primitives/scope", ROUNDS, "seedbed CancelScope", |s| {
        our_round(s, async || {
            assert!(CancelScope::new().run(nothing()).await.is_some())
        });
    })
    .ours_within(Duration::from_nanos(60))
    .beside("futures-util abortable", |s| smol_round(s, abortable))
    .beside("the bare await", |s| smol_round(s, nothing))
    .run(options);

    Comparison::new("primitives/timeout", ROUNDS, "seedbed move_on_after", |s| {
        our_round(s, async || {
            assert!(seedbed::move_on_after(MINUTE, nothing()).await.is_some())
        });
    })
    .beside("smol future::or with a Timer", |s| {
        smol_round(s, smol_timeout)
    })
    .run(options);

    Comparison::new("primitives/shield", ROUNDS, "seedbed shield", |s| {
        our_round(s, async || seedbed::shield(nothing()).await);
    })
    .ours_within(Duration::from_nanos(40))
    .beside("the bare await", |s| smol_round(s, nothing))
    .run(options);

    Comparison::new("primitives/tree-var", ROUNDS, "seedbed TreeVar", |s| {
        let read = async || assert_eq!(OURS.get(), Some(1));
        seedbed::run(OURS.scope(1, repeatedly(s, read)));
    })
    .ours_within(Duration::from_nanos(10))
    .beside("tokio task_local", |s| {
        let read = async || assert_eq!(TOKIOS.get(), 1);
        smol::block_on(TOKIOS.scope(1, repeatedly(s, read)));
    })
    .run(options);

    compare_limiters(options);
    count_allocations(options);
}

fn compare_limiters(options: &Options) {
    let limiter = seedbed::sync::CapacityLimiter::new(1);
    let semaphore = async_lock::Semaphore::new(1);
    let shared = Arc::new(async_lock::Semaphore::new(1));
    Comparison::new(
        "primitives/limiter",
        ROUNDS,
        "seedbed CapacityLimiter",
        |s| {
            our_round(s, async || drop(limiter.acquire().await));
        },
    )
    .beside_within(1.0, "async-lock Semaphore", |s| {
        smol_round(s, async || drop(semaphore.acquire().await));
    })
    .beside("async-lock Semaphore in an Arc", |s| {
        smol_round(s, async || drop(shared.acquire_arc().await));
    })
    .run(options);

    Comparison::new(
        "primitives/limiter-1000-waiting",
        ROUNDS,
        "seedbed CapacityLimiter",
        |s| seedbed::run(hand_over(s, || limiter.acquire())),
    )
    .beside_within(2.0, "async-lock Semaphore", |s| {
        smol::block_on(hand_over(s, || semaphore.acquire()))
    })
    .beside("async-lock Semaphore in an Arc", |s| {
        smol::block_on(hand_over(s, || shared.acquire_arc()))
    })
    .run(options);
}

/// Takes samples of a thousand waiters for one token, which get it one after the other; per waiter.
/// One task polls all of them, so that only the waiting is measured.
async fn hand_over<F: Future>(samples: &mut Samples, acquire: impl Fn() -> F) {
    let mut waiters: Vec<Pin<Box<F>>> = Vec::with_capacity(OPERATIONS as usize);
    for _ in 0..samples.wanted() {
        let held = acquire().await;
        waiters.extend((0..OPERATIONS).map(|_| Box::pin(acquire())));
        let work = async {
            poll_fn(|cx| {
                for waiter in &mut waiters {
                    assert!(waiter.as_mut().poll(cx).is_pending());
                }
                Poll::Ready(())
            })
            .await;
            drop(held);
            for waiter in &mut waiters {
                drop(waiter.await);
            }
        };
        samples.time(OPERATIONS, work).await;
        waiters.clear();
    }
}

/// Prints the number of allocations of each operation.
fn count_allocations(options: &Options) {
    let limiter = seedbed::sync::CapacityLimiter::new(1);
    allocations::count(options, "a scope", async || {
        CancelScope::new().run(nothing()).await;
    });
    allocations::count(options, "a timeout", async || {
        seedbed::move_on_after(MINUTE, nothing()).await;
    });
    allocations::count(options, "a shield", async || {
        seedbed::shield(nothing()).await
    });
    allocations::count(options, "a limiter's token", async || {
        drop(limiter.acquire().await);
    });
    allocations::count(options, "a checkpoint", seedbed::checkpoint);
    allocations::count(options, "a nursery without children", async || {
        seedbed::open_nursery(async |_| ()).await
    });
}

/// Takes samples of a thousand calls of `operation` under `seedbed::run`.
fn our_round(samples: &mut Samples, operation: impl AsyncFn()) {
    seedbed::run(repeatedly(samples, operation));
}

/// Takes samples of a thousand calls of `operation` under smol's `block_on`.
fn smol_round(samples: &mut Samples, operation: impl AsyncFn()) {
    smol::block_on(repeatedly(samples, operation));
}

async fn repeatedly(samples: &mut Samples, operation: impl AsyncFn()) {
    for _ in 0..samples.wanted() {
        let thousand = async {
            for _ in 0..OPERATIONS {
                operation().await;
            }
        };
        samples.time(OPERATIONS, thousand).await;
    }
}

/// The work inside a scope or a shield: an await that is ready at once.
async fn nothing() {
    std::hint::black_box(());
}

/// Wraps the work in futures-util's cancellable future, which is not cancelled.
async fn abortable() {
    let (work, _handle) = futures_util::future::abortable(nothing());
    let _never_aborted = work.await;
}

/// Wraps the work in smol's idiom for a timeout, which is not reached. The timer is polled first,
/// so that it is set, as seedbed's is.
async fn smol_timeout() {
    let timeout = async {
        smol::Timer::after(MINUTE).await;
    };
    smol::future::or(timeout, nothing()).await;
}
