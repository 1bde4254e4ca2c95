//! Maps a function over many items, in one worker process for each processor: a few slow items, an
//! endless iterator, and an item that crashes its worker.
//!
//! `cargo run --example map`

use futures_lite::StreamExt;
use seedbed::{WorkerError, map_sync};

/// The number of steps from `n` to 1 in the Collatz sequence.
fn steps(n: u64) -> u32 {
    let (mut n, mut steps) = (n, 0);
    while n != 1 {
        n = if n % 2 == 0 { n / 2 } else { 3 * n + 1 };
        steps += 1;
    }
    steps
}

/// Stands for a parser in C that does not survive every input.
fn fragile_length(text: String) -> usize {
    if text.contains('%') {
        std::process::abort();
    }
    text.len()
}

#[seedbed::main]
async fn main() -> Result<(), WorkerError> {
    // All results, in the order of the items.
    let all = map_sync(steps, 1..=100_000).try_collect().await?;
    let longest = all.iter().max().expect("there are items");
    println!("up to 100,000, a sequence has at most {longest} steps");
    assert_eq!(*longest, 350);

    // An endless iterator. When the block is left, no item is in progress.
    let first = map_sync(steps, 1..).open(async |results| {
        let mut numbers = results.enumerate();
        numbers
            .find(|(_, steps)| steps.as_ref().is_ok_and(|steps| *steps > 300))
            .await
    });
    let (index, _) = first.await.expect("it is found");
    println!("{} is the first with more than 300 steps", index + 1);
    assert_eq!(index + 1, 26_623);

    // A crash costs the item that it struck, and no other.
    let texts = ["mandrake", "100 %", "nettle"].map(String::from);
    let lengths = map_sync(fragile_length, texts).open(async |mut results| {
        let mut lengths = Vec::new();
        while let Some(length) = results.next().await {
            match length {
                Ok(length) => lengths.push(length),
                Err(error) => println!("{error}"),
            }
        }
        lengths
    });
    assert_eq!(lengths.await, [8, 6]);
    Ok(())
}
