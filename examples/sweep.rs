//! How do I call a function with many parameters, on all processors?
//!
//! This program runs a small simulation with ten thousand parameters. Each call is a child of one
//! nursery: the limiter lets as many run at once as there are processors, and the results come in
//! the order of the parameters. A parameter whose simulation crashes costs its own result only.
//!
//! ```text
//! cargo run --example sweep
//! ```

use seedbed::{WorkerError, open_nursery, run_sync};

const PARAMETERS: u64 = 10_000;

/// Returns how many steps the Collatz sequence takes from `start` to 1.
fn collatz_steps(start: u64) -> u32 {
    assert_ne!(start, 27, "this simulation does not like its parameter");
    let mut number = start;
    let mut steps = 0;
    while number != 1 {
        number = if number.is_multiple_of(2) {
            number / 2
        } else {
            3 * number + 1
        };
        steps += 1;
    }
    steps
}

#[seedbed::main]
async fn main() {
    let results: Vec<Result<u32, WorkerError>> = open_nursery(async |n| {
        let calls: Vec<_> = (1..=PARAMETERS)
            .map(|start| n.spawn(run_sync(collatz_steps, start)))
            .collect();
        let mut results = Vec::new();
        for call in calls {
            results.push(call.await);
        }
        results
    })
    .await;

    let mut longest = (0, 0);
    for (start, result) in (1..).zip(&results) {
        match result {
            Ok(steps) => longest = longest.max((*steps, start)),
            Err(error) => println!("The simulation of {start} failed: {error}"),
        }
    }
    let (steps, start) = longest;
    println!("The longest of {PARAMETERS} sequences begins at {start} and has {steps} steps.");

    assert_eq!((start, steps), (6171, 261));
    assert_eq!(results.iter().filter(|result| result.is_err()).count(), 1);
}
