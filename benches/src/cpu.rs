//! CPU time of a warm call, of both processes together. It shows the cost of spinning, which
//! latency does not show.
//!
//! One sample is many calls: the CPU time of caller and worker, divided by the number of calls. The
//! calls follow each other directly; or there is one call per millisecond, where spinning between
//! calls is wasted; or the jobs take a millisecond, where spinning for the answer is wasted.

use std::{cell::LazyCell, time::Duration};

use seedbed::worker::WorkerType::ForkServer;

use crate::{
    child,
    jobs::{self, nap, successor},
    mailbox::{Job, Mailbox, Wait},
    measure::{Comparison, Samples, process_time},
    options::Options,
    sockets::{SocketPair, socket_call},
};

const ROUNDS: (usize, usize) = (10, 1);

/// The pattern of calls.
#[derive(Clone, Copy)]
struct Calls {
    many: u64,
    pause: Option<Duration>,
    /// Whether the jobs take a millisecond.
    long: bool,
}

/// Prints the sections, for a worker on `core`.
pub fn compare(options: &Options, core: usize) {
    let core = Some(core);
    let sockets = LazyCell::new(|| SocketPair::start(core));
    let pool = LazyCell::new(|| jobs::pool_of_one(core));
    let back_to_back = Calls {
        many: 1_000,
        pause: None,
        long: false,
    };
    let now_and_then = Calls {
        many: 100,
        pause: Some(Duration::from_millis(1)),
        long: false,
    };
    let millisecond = Calls {
        many: 50,
        pause: None,
        long: true,
    };
    for (section, calls) in [
        ("cpu/back-to-back", back_to_back),
        ("cpu/one-per-ms", now_and_then),
    ] {
        Comparison::new(section, ROUNDS, "seedbed run_sync", |s| {
            our_round(s, calls, core)
        })
        .beside("the limit: the hybrid in smol::block_on", |s| {
            mailbox_round(s, calls, core)
        })
        .beside("socket pair, Async in smol::block_on", |s| {
            socket_round(s, calls, &sockets)
        })
        .beside("procspawn Pool(1) spawn + join", |s| {
            procspawn_round(s, calls, &pool)
        })
        .run(options);
    }
    Comparison::new("cpu/job-of-1-ms", ROUNDS, "seedbed run_sync", |s| {
        our_round(s, millisecond, core)
    })
    .beside("procspawn Pool(1) spawn + join", |s| {
        procspawn_round(s, millisecond, &pool)
    })
    .run(options);
}

fn our_round(samples: &mut Samples, calls: Calls, core: Option<usize>) {
    let call = async |number| {
        let answer = if calls.long {
            seedbed::run_sync(nap, number).await
        } else {
            seedbed::run_sync(successor, number).await
        };
        answer.expect("the worker answers")
    };
    let worker = async || {
        let used = seedbed::run_sync(jobs::cpu_time, ()).await;
        Duration::from_nanos(used.expect("the worker answers"))
    };
    seedbed::run(seedbed::cache_scope(
        jobs::config(ForkServer, core),
        take(samples, calls, call, worker),
    ));
}

fn mailbox_round(samples: &mut Samples, calls: Calls, core: Option<usize>) {
    let mailbox = Mailbox::start(Wait::Hybrid, Job::Successor, 0, core);
    let call = async |number| mailbox.call_async(number).await;
    let worker = async || mailbox.cpu_time();
    smol::block_on(take(samples, calls, call, worker));
}

fn socket_round(samples: &mut Samples, calls: Calls, sockets: &SocketPair) {
    let stream = sockets.to_async();
    let call = async |number| socket_call(&stream, number).await;
    let worker = async || Duration::from_nanos(socket_call(&stream, child::CPU_TIME).await);
    smol::block_on(take(samples, calls, call, worker));
}

fn procspawn_round(samples: &mut Samples, calls: Calls, pool: &procspawn::Pool) {
    let call = async |number| {
        let job = if calls.long { nap } else { successor };
        let answer = pool.spawn(number, job).join();
        answer.expect("the pool answers")
    };
    let worker = async || {
        let used = pool.spawn((), jobs::cpu_time).join();
        Duration::from_nanos(used.expect("the pool answers"))
    };
    smol::block_on(take(samples, calls, call, worker));
}

/// Takes samples of the CPU time of this process and the worker.
async fn take(
    samples: &mut Samples,
    calls: Calls,
    call: impl AsyncFn(u64) -> u64,
    worker: impl AsyncFn() -> Duration,
) {
    for number in 0..10 {
        call(number).await;
    }
    for _ in 0..samples.wanted() {
        let before = process_time() + worker().await;
        for number in 0..calls.many {
            if let Some(pause) = calls.pause {
                smol::Timer::after(pause).await;
            }
            assert_eq!(call(number).await, number + 1);
        }
        let after = process_time() + worker().await;
        samples.record(after - before, calls.many);
    }
}
