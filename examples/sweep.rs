//! How do I call a function with many parameters, on all processors?
//!
//! This program runs a small simulation with ten thousand parameters. `map_sync` keeps a worker
//! busy for each processor, and the results come in the order of the parameters. A parameter whose
//! simulation crashes costs its own result only.
//!
//! ```text
//! cargo run --example sweep
//! ```

use seedbed::{WorkerError, map_sync};

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
    let sweep = map_sync(collatz_steps, 1..=PARAMETERS);
    let results: Vec<Result<u32, WorkerError>> = sweep.collect().await;

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
