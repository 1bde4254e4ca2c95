//! Workers that a launcher starts: what a call costs through a relay and a guardian, here on the
//! same machine, through `env`.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use seedbed::WorkerConfig;
use seedbed::worker::{Launcher, WorkerType};

use crate::jobs::{self, successor};
use crate::measure::{Comparison, Samples};
use crate::options::Options;

const CALLS: (usize, usize) = (10, 500);

/// Prints the section.
pub fn compare(options: &Options) {
    Comparison::new(
        "launched/warm",
        CALLS,
        "seedbed, a worker through `env`",
        |s| {
            let launcher = Launcher::command(["env"]);
            calls(s, WorkerConfig::new().launcher(launcher));
        },
    )
    .beside("16 bytes through a pipe to `cat`, and back", through_cat)
    .beside("seedbed, a worker of this program", |s| {
        calls(s, jobs::config(WorkerType::Spawn, None));
    })
    .run(options);
}

fn calls(samples: &mut Samples, config: WorkerConfig) {
    seedbed::run(seedbed::open_worker_context(config, |context| async move {
        for number in 0..100 {
            context.run_sync(successor, number).await.unwrap();
        }
        for number in 0..samples.wanted() as u64 {
            let answer = samples.time(1, context.run_sync(successor, number).into_future());
            assert_eq!(answer.await.unwrap(), number + 1);
        }
    }));
}

fn through_cat(samples: &mut Samples) {
    let mut cat = Command::new("cat");
    let cat = cat.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut cat = cat.spawn().expect("there is a `cat`");
    let mut input = cat.stdin.take().expect("it is piped");
    let output = cat.stdout.as_mut().expect("it is piped");
    for _ in 0..samples.wanted() {
        samples.time_blocking(1, || {
            input.write_all(&[7; 16]).unwrap();
            output.read_exact(&mut [0; 16]).unwrap();
        });
    }
    drop(input);
    cat.wait().unwrap();
}
