//! A program is run with many parameters, as many at once as the machine has room for, and its
//! outputs are combined.
//!
//! Run it with `cargo run --example parameter_sweep`. It needs `awk`, in Debian from the package
//! `mawk`.

use std::time::Duration;

use seedbed::delayed::{Cores, Delayed, JobError, Memory, Setup, try_open};
use seedbed::process::{Command, ProcessErrorKind, RunProcess, run_process};

/// Iterates the logistic map, and prints after how many steps it repeats itself; 0 if it does not.
const PERIOD: &str = "
    function next_of(x) { return r * x * (1 - x) }
    BEGIN {
        x = 0.5
        for (i = 0; i < 20000; i++) x = next_of(x)
        first = x
        for (period = 1; period <= 64; period++) {
            x = next_of(x)
            if ((x - first) ^ 2 < 1e-12) { print period; exit }
        }
        print 0
    }";

/// Keeps every value that it has seen, which never ends.
const HOARD: &str = "BEGIN { for (;;) seen[i++] = r * i }";

fn awk(script: &str, r: f64) -> RunProcess {
    let mut command = Command::new("awk");
    command.arg("-v").arg(format!("r={r}")).arg(script);
    run_process(command)
        .capture_stdout(true)
        .capture_stderr(true)
}

async fn sweep(setup: Setup, parameters: &[f64]) -> Result<Vec<u32>, JobError> {
    try_open(setup, async |jobs| {
        let narrow = jobs
            .on(Cores(1) & Memory::mib(64))
            .time_limit(Duration::from_secs(60));
        let period = |r: &f64| -> Delayed<u32> {
            let output = narrow.run_process(awk(PERIOD, *r));
            let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
            text.map(|text| text.trim().parse()).flatten()
        };
        let periods: Delayed<Vec<u32>> = parameters.iter().map(period).collect();
        // A program that takes too much memory fails, and the others do not notice.
        let hoards = narrow.run_process(awk(HOARD, 1.0));
        println!("{}", jobs.statistics());

        let periods = periods.await?;
        let error = hoards.await.expect_err("there is no end to its memory");
        println!("{error}");
        println!("{:#}", jobs.statistics());
        Ok(periods)
    })
    .await
}

#[seedbed::main]
async fn main() -> Result<(), JobError> {
    let parameters = [2.8, 3.2, 3.5, 3.55, 3.83, 3.9];
    let periods = sweep(Setup::from_env().name("periods"), &parameters).await;
    let periods = periods.inspect_err(|error| {
        if let Some(process) = error.process()
            && process.kind() == ProcessErrorKind::Start
        {
            eprintln!("This example needs `awk`: install the package `mawk`.");
        }
    })?;
    for (r, period) in parameters.iter().zip(&periods) {
        match period {
            0 => println!("r = {r}: no period"),
            period => println!("r = {r}: period {period}"),
        }
    }
    assert_eq!(periods, [1, 2, 4, 8, 3, 0]);
    Ok(())
}
