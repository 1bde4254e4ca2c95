//! How do I give workers a large table, without copying it into each of them?
//!
//! ```text
//! cargo run --example shared_bytes
//! ```

use seedbed::worker::SharedSlice;
use seedbed::{open_nursery, run_sync};

/// The length of the table: 32 MiB of numbers.
const LENGTH: usize = 4 << 20;

/// Returns the number of steps from `number` to one in the Collatz sequence.
fn steps_to_one(mut number: u64) -> u64 {
    let mut steps = 0;
    while number > 1 {
        number = if number.is_multiple_of(2) {
            number / 2
        } else {
            3 * number + 1
        };
        steps += 1;
    }
    steps
}

/// A job that reads a part of the table in place.
fn largest(part: SharedSlice<u64>) -> u64 {
    part.iter().copied().max().unwrap_or(0)
}

/// A job that makes a table of its own, and returns it.
fn first_steps(count: usize) -> std::io::Result<SharedSlice<u64>> {
    SharedSlice::build(count, |steps| {
        for (step, number) in steps.iter_mut().zip(1..) {
            *step = steps_to_one(number);
        }
        Ok(())
    })
}

#[seedbed::main]
async fn main() {
    // The table is filled once, in place. After that, no process can change it.
    let table = SharedSlice::build(LENGTH, |numbers: &mut [u64]| {
        for (place, number) in numbers.iter_mut().zip(0..) {
            *place = number;
        }
        Ok(())
    })
    .expect("there is memory for the table");
    println!("The table has {} MiB.", size_of_val(&*table) >> 20);

    // Each worker gets a part of it. Only a descriptor and two numbers are sent; the workers
    // read the same memory as this process.
    let largest = open_nursery(async |n| {
        let parts = [0..LENGTH / 2, LENGTH / 2..LENGTH];
        let calls = parts.map(|range| n.spawn(run_sync(largest, table.slice(range))));
        let [left, right] = calls.map(async |call| call.await.expect("reading cannot fail"));
        left.await.max(right.await)
    })
    .await;
    assert_eq!(largest, LENGTH as u64 - 1);
    println!("Its largest number is {largest}.");

    // The other direction works the same way: the worker fills the memory, and this process
    // reads it in place. The memory lives as long as any process has it, even longer than the
    // worker that made it.
    let steps = run_sync(
        |count| first_steps(count).map_err(|error| error.to_string()),
        30,
    );
    let steps = steps
        .await
        .expect("the job ends well")
        .expect("there is memory for the steps");
    assert_eq!(steps[27 - 1], 111);
    println!("From 27 it takes {} steps.", steps[27 - 1]);
}
