//! A computation as ordinary expressions over values that are not there yet. Each expensive leaf is
//! a job that says what it needs; as many run at once as the machine has room for.
//!
//! Run it with `cargo run --example weighted_sum`.

use std::time::Duration;

use seedbed::delayed::{
    Cores, Delayed, JobError, Memory, Setup, allocation, delayed_val, each, try_open,
};

/// An expensive computation. It runs in a worker process, pinned to the cores that it got.
fn simulate(seed: u64, steps: u32) -> f64 {
    let cores = allocation()
        .expect("each simulation asks for a core")
        .cores();
    let threads = std::thread::available_parallelism().expect("Linux counts them");
    assert_eq!(cores.len(), threads.get());
    let step = |state: u64, _| {
        state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1)
    };
    let state = (0..steps).fold(seed, step);
    (state >> 40) as f64 / f64::from(1 << 24)
}

/// Returns the total and the mean.
fn weigh(samples: Vec<f64>) -> (f64, f64) {
    let total: f64 = samples.iter().sum();
    (total, total / samples.len() as f64)
}

/// Asks another service. It runs in this process, with all others at the same time.
async fn price(seed: u64) -> f64 {
    seedbed::sleep(Duration::from_millis(5)).await;
    1.0 + seed as f64 / 10.0
}

async fn weighted_sum(setup: Setup) -> Result<f64, JobError> {
    try_open(setup, async |jobs| {
        // Each handle names a kind of job, and carries the resources that such a job needs.
        let narrow = jobs.on(Cores(1) & Memory::mib(256)).retry(1);
        let wide = jobs.on(Cores(2) & Memory::mib(512) | Cores(1));
        let quick = jobs.time_limit(Duration::from_secs(5)).prioritized();
        let simulate_fine = |seed| narrow.call(simulate, (seed, 10_000));
        let simulate_coarse = |seed| wide.call(simulate, (seed, 100));
        let price = |seed| jobs.spawn(price(seed));

        // From here on, ordinary expressions. All that is called runs already.
        let mut total = delayed_val(0.0);
        for seed in 0..20 {
            total += simulate_fine(seed) * price(seed) * 0.5;
        }
        let coarse: Vec<Delayed<f64>> = (0..4).map(simulate_coarse).collect();
        let (sum, mean) = quick.then(each(coarse), weigh).unzip();
        let all = total - mean + sum / 2.0;
        println!("{}", jobs.statistics());
        all.await
    })
    .await
}

#[seedbed::main]
async fn main() -> Result<(), JobError> {
    // `SEEDBED_CONFIG` or `seedbed.toml` may give the jobs less than all cores and all memory.
    let sum = weighted_sum(Setup::from_env().name("weights")).await?;
    println!("The weighted sum is {sum:.3}.");
    Ok(())
}
