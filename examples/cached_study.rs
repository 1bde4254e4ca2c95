//! A study whose expensive parts are kept in files: a later run computes only what is new.
//!
//! Run it with `cargo run --example cached_study`, and give it a folder to keep the results in:
//! `cargo run --example cached_study -- results 12`. Run it again with `.. 20`.

use std::error::Error;
use std::path::Path;

use seedbed::delayed::{Cores, Delayed, JobError, Setup, each, try_open};

/// An expensive computation: the longest Collatz sequence below a power of two.
fn longest_sequence(exponent: u32) -> (u64, u32) {
    let steps = |start: u64| {
        let (mut n, mut count) = (start, 0);
        while n != 1 {
            n = if n % 2 == 0 { n / 2 } else { 3 * n + 1 };
            count += 1;
        }
        count
    };
    let longest = (1..1 << exponent).map(|start| (start, steps(start)));
    longest
        .max_by_key(|&(start, count)| (count, std::cmp::Reverse(start)))
        .expect("the range is not empty")
}

/// Returns the sum of all steps, and how many results an earlier run has kept.
async fn study(folder: &Path, exponents: u32) -> Result<(u32, usize), JobError> {
    let setup = Setup::from_env().cache_folder(folder);
    try_open(setup, async |jobs| {
        // The key names the version of the function. Another one leaves these results alone.
        let kept = jobs.on(Cores(1)).cached("longest-sequence-1");
        let longest: Vec<Delayed<(u64, u32)>> = (1..=exponents)
            .map(|exponent| kept.call(longest_sequence, exponent))
            .collect();
        let total: u32 = each(longest).await?.iter().map(|(_, steps)| steps).sum();
        Ok((total, jobs.statistics().cached))
    })
    .await
}

/// Makes the study three times in a folder that is removed: also if the study fails, or is
/// interrupted.
async fn show() -> Result<(), Box<dyn Error + Send + Sync>> {
    let folder = tempfile::tempdir()?;
    let mut totals = Vec::new();
    for exponents in [8, 8, 10] {
        let (total, found) = study(folder.path(), exponents).await?;
        println!("{exponents} exponents: {total} steps; {found} results were there.");
        totals.push((total, found));
    }
    let found: Vec<usize> = totals.iter().map(|(_, found)| *found).collect();
    assert_eq!(found, [0, 8, 8]);
    assert_eq!(totals[0].0, totals[1].0);
    folder.close()?;
    Ok(())
}

fn number_of_exponents(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| (1..=40).contains(number));
    number.ok_or_else(|| format!("the exponents are to be a number from 1 to 40, not {text:?}"))
}

#[seedbed::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut arguments = std::env::args().skip(1);
    let Some(folder) = arguments.next() else {
        return show().await;
    };
    let exponents = number_of_exponents(&arguments.next().unwrap_or("12".to_owned()))?;
    let (total, found) = study(folder.as_ref(), exponents).await?;
    println!("{total} steps; {found} results were there.");
    Ok(())
}
