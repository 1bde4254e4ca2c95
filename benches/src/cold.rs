//! Cold starts: from a call that finds no worker until its answer.
//!
//! The workers are single-use. Between two samples of a cold start, the benchmark waits until the
//! last worker has ended. Where single use itself is measured, calls follow each other directly, so
//! the end of the previous worker competes with the next call.

use std::{
    cell::LazyCell,
    io::{Read, Write},
    time::Duration,
};

use seedbed::WorkerContext;
use seedbed::worker::WorkerType::{self, ForkServer, Spawn};

use crate::{
    child,
    fork_server::MinimalForkServer,
    jobs::{self, successor},
    measure::{Comparison, Samples},
    options::Options,
};

const FORKS: (usize, usize) = (10, 50);
const SPAWNS: (usize, usize) = (5, 20);
/// Memory that the large parent has written to, in bytes.
const BALLAST: usize = 2 << 30;

/// Prints the sections.
pub fn compare(options: &Options) {
    let fork_server = LazyCell::new(MinimalForkServer::start);
    Comparison::new("cold/fork-server", FORKS, "seedbed, forked worker", |s| {
        seedbed::run(cold_calls(s, ForkServer))
    })
    .beside_within(
        1.5,
        "the limit: the minimal fork server forks, its child says hello",
        |s| fork_server_round(s, &fork_server),
    )
    .beside("procspawn spawn + join", procspawn_round)
    .run(options);

    Comparison::new(
        "cold/single-use",
        FORKS,
        "seedbed, single-use forked worker",
        |s| seedbed::run(single_use_calls(s)),
    )
    .beside_within(
        2.5,
        "the limit: the minimal fork server forks, its child says hello",
        |s| fork_server_round(s, &fork_server),
    )
    .beside("procspawn spawn + join", procspawn_round)
    .run(options);

    compare_spawned("cold/spawn", options);
    if options.wants_any_of("cold/spawn-from-2-GB") {
        // Written to, because unwritten memory takes no pages. It is freed at the end of this
        // function.
        let ballast = std::hint::black_box(vec![1u8; BALLAST]);
        compare_spawned("cold/spawn-from-2-GB", options);
        drop(std::hint::black_box(ballast));
    }
}

fn compare_spawned(section: &str, options: &Options) {
    Comparison::new(section, SPAWNS, "seedbed, spawned worker", |s| {
        seedbed::run(cold_calls(s, Spawn))
    })
    .beside_within(
        1.1,
        "the limit: executed again until it answers",
        reexecuted_round,
    )
    .beside("procspawn spawn + join", procspawn_round)
    .run(options);
}

async fn cold_calls(samples: &mut Samples, worker_type: WorkerType) {
    let config = jobs::config(worker_type, None).single_use();
    seedbed::open_worker_context(config, |context| async move {
        call(&context, 0).await; // starts the fork server
        for number in 0..samples.wanted() as u64 {
            until_none_is_left(&context).await;
            samples.time(1, call(&context, number)).await;
        }
    })
    .await;
}

async fn single_use_calls(samples: &mut Samples) {
    let config = jobs::config(ForkServer, None).single_use();
    seedbed::open_worker_context(config, |context| async move {
        for number in 0..10 {
            call(&context, number).await;
        }
        for number in 0..samples.wanted() as u64 {
            samples.time(1, call(&context, number)).await;
        }
    })
    .await;
}

async fn call(context: &WorkerContext, number: u64) {
    let answer = context.run_sync(successor, number).await;
    assert_eq!(answer.expect("the worker answers"), number + 1);
}

async fn until_none_is_left(context: &WorkerContext) {
    while context.statistics().living > 0 {
        smol::Timer::after(Duration::from_micros(200)).await;
    }
}

fn fork_server_round(samples: &mut Samples, fork_server: &MinimalForkServer) {
    for _ in 0..samples.wanted() {
        samples.time_blocking(1, || fork_server.fork());
    }
}

/// The limit: no library and no set-up.
fn reexecuted_round(samples: &mut Samples) {
    for number in 0..samples.wanted() as u64 {
        let (mut child, stream) = samples.time_blocking(1, || {
            let (child, mut stream) = child::start_echo(None);
            stream
                .write_all(&number.to_ne_bytes())
                .expect("the child reads");
            let mut answer = [0; 8];
            stream.read_exact(&mut answer).expect("the child answers");
            assert_eq!(u64::from_ne_bytes(answer), number + 1);
            (child, stream)
        });
        drop(stream);
        child.wait().expect("our own child");
    }
}

fn procspawn_round(samples: &mut Samples) {
    for number in 0..samples.wanted() as u64 {
        let answer = samples.time_blocking(1, || procspawn::spawn(number, successor).join());
        assert_eq!(answer.expect("the process answers"), number + 1);
    }
}
