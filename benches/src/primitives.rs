//! What the small things cost: a scope, a shield, a tree variable, a limiter. Informational.
//!
//! One sample is a thousand of them in a row, so that reading the clock does not count.

use std::{sync::Arc, time::Duration};

use crate::{
    measure::{Comparison, Samples},
    options::Options,
};

const ROUNDS: (usize, usize) = (20, 50);
const OPERATIONS: u64 = 1_000;

/// Prints the sections.
pub fn compare(options: &Options) {
    Comparison::new(
        "primitives/scope",
        ROUNDS,
        "futures-util abortable",
        |samples| {
            smol_round(samples, abortable);
        },
    )
    .beside("smol future::or Timer", |samples| {
        smol_round(samples, smol_timeout)
    })
    .beside("the bare await", |samples| smol_round(samples, nothing))
    .run(options);

    let semaphore = async_lock::Semaphore::new(1);
    let shared = Arc::new(async_lock::Semaphore::new(1));
    Comparison::new(
        "primitives/limiter",
        ROUNDS,
        "async-lock Semaphore",
        |samples| {
            smol_round(samples, async || drop(semaphore.acquire().await));
        },
    )
    .beside("async-lock Semaphore in an Arc", |samples| {
        smol_round(samples, async || drop(shared.acquire_arc().await));
    })
    .run(options);
}

/// Samples of `operation`, each a thousand in a row, under smol's `block_on`.
fn smol_round(samples: &mut Samples, operation: impl AsyncFn()) {
    smol::block_on(async {
        for _ in 0..samples.wanted() {
            samples.time(OPERATIONS, repeat(&operation)).await;
        }
    });
}

async fn repeat(operation: &impl AsyncFn()) {
    for _ in 0..OPERATIONS {
        operation().await;
    }
}

/// The work inside a scope or a shield: an await that does not wait.
async fn nothing() {
    std::hint::black_box(());
}

/// futures-util's cancellable future, without cancelling it.
async fn abortable() {
    let (work, _handle) = futures_util::future::abortable(nothing());
    let _never_aborted = work.await;
}

/// smol's idiom for a timeout, without reaching it.
async fn smol_timeout() {
    let timeout = async {
        smol::Timer::after(Duration::from_secs(60)).await;
    };
    smol::future::or(nothing(), timeout).await;
}
