//! A warm call: sends a `u64` and receives its successor, with one worker that exists already.
//!
//! Most of its time is the time that the other core takes to wake. Without pinning, the kernel
//! places caller and worker on one core or on two by chance, and leaves them there, so that the
//! same call takes 11 or 37 us. So each placement is also measured by itself, in a process whose
//! threads and workers are pinned.
//!
//! The limits have no library in between: shared memory where each side has a core to spin on, and
//! a socket pair where both sides share a core.

use std::{cell::LazyCell, time::Duration};

use seedbed::worker::WorkerType::{self, ForkServer, Spawn};

use crate::{
    child, cpu, flat,
    jobs::{self, successor},
    mailbox::{Job, Mailbox, Wait},
    measure::{Comparison, Samples},
    options::{Options, Pins},
    sockets::{SocketPair, socket_call},
};

const ROUNDS: (usize, usize) = (10, 1_000);
/// Calls before the samples of each round, to warm up after the previous contender.
const WARM_UP: u64 = 100;

/// Prints the sections for the cores that this process is pinned to, if it is.
pub fn compare(options: &Options) {
    match options.pins {
        None => compare_on(options, "warm/free", None),
        Some(pins) if pins.caller == pins.worker => {
            compare_on(options, "warm/one-core", Some(pins));
        }
        Some(pins) => {
            compare_on(options, "warm/two-cores", Some(pins));
            cpu::compare(options, pins.worker);
            flat::compare(options, pins.worker);
        }
    }
}

/// Prints the sections with this process and its workers on one core, then on one core each.
pub fn compare_pinned(options: &Options) {
    let cores = child::allowed_cores();
    for &worker in cores.iter().take(2) {
        let caller = cores[0];
        let quick = options.quick.then(|| "--quick".to_owned());
        let arguments = quick.into_iter().chain(options.filters.iter().cloned());
        child::run_pinned(Pins { caller, worker }, arguments);
    }
}

fn compare_on(options: &Options, section: &str, pins: Option<Pins>) {
    let core = pins.map(|pins| pins.worker);
    let take_turns = pins.is_some_and(|pins| pins.caller == pins.worker);
    let sockets = LazyCell::new(|| SocketPair::start(core));
    let asynchronous = LazyCell::new(|| SocketPair::start(core));
    let pool = LazyCell::new(|| jobs::pool_of_one(core));
    let mut comparison = Comparison::new(section, ROUNDS, "seedbed run_sync, forked worker", |s| {
        seedbed::run(our_calls(s, ForkServer, core, false))
    })
    .beside_ours("seedbed itself in smol::block_on", |s| {
        smol::block_on(our_calls(s, ForkServer, core, false))
    })
    .beside_ours("seedbed itself with a spawned worker", |s| {
        seedbed::run(our_calls(s, Spawn, core, false))
    })
    .beside_ours("seedbed itself with kill_on_cancel", |s| {
        seedbed::run(our_calls(s, ForkServer, core, true))
    });
    // Without pinning, figures depend on chance, so the targets apply to the pinned sections.
    if pins.is_some() && !take_turns {
        comparison = comparison
            .ours_within(Duration::from_nanos(1_500))
            .ours_p99_within(Duration::from_micros(5));
    }
    if !take_turns {
        comparison = comparison
            .beside("the limit: shared memory, both spin", |s| {
                mailbox_round(s, Wait::Spin, core)
            })
            .beside("the limit: shared memory, hybrid", |s| {
                mailbox_round(s, Wait::Hybrid, core)
            })
            .beside("the limit: the hybrid in smol::block_on", |s| {
                async_mailbox_round(s, core)
            });
    }
    comparison
        .beside_within(
            take_turns.then_some(1.3),
            "the limit: blocking socket pair",
            |s| blocking_socket_round(&sockets, s),
        )
        .beside("socket pair, Async in smol::block_on", |s| {
            async_socket_round(&asynchronous, s)
        })
        .beside("procspawn Pool(1) spawn + join", |s| {
            procspawn_round(&pool, s)
        })
        .beside("smol::unblock (a thread)", |s| unblock_round(core, s))
        .run(options);
}

async fn our_calls(
    samples: &mut Samples,
    worker_type: WorkerType,
    core: Option<usize>,
    kill_on_cancel: bool,
) {
    let call = |number| seedbed::run_sync(successor, number).kill_on_cancel(kill_on_cancel);
    let calls = async {
        for number in 0..WARM_UP {
            call(number).await.expect("the worker answers");
        }
        for number in 0..samples.wanted() as u64 {
            let answer = samples.time(1, call(number)).await;
            assert_eq!(answer.expect("the worker answers"), number + 1);
        }
    };
    seedbed::cache_scope(jobs::config(worker_type, core), calls).await;
}

/// Started again for each round, because a child that spins would slow down the others.
fn mailbox_round(samples: &mut Samples, wait: Wait, core: Option<usize>) {
    let mailbox = Mailbox::start(wait, Job::Successor, 0, core);
    blocking_calls(samples, |number| mailbox.call(number));
}

fn async_mailbox_round(samples: &mut Samples, core: Option<usize>) {
    let mailbox = Mailbox::start(Wait::Hybrid, Job::Successor, 0, core);
    smol::block_on(async_calls(samples, async |number| {
        mailbox.call_async(number).await
    }));
}

fn procspawn_round(pool: &procspawn::Pool, samples: &mut Samples) {
    blocking_calls(samples, |number| {
        let answer = pool.spawn(number, successor).join();
        answer.expect("the pool answers")
    });
}

fn unblock_round(core: Option<usize>, samples: &mut Samples) {
    smol::block_on(async {
        if let Some(core) = core {
            // Consecutive calls use one thread, always the same.
            smol::unblock(move || child::pin_to_core(core)).await;
        }
        let call = async |number| smol::unblock(move || successor(number)).await;
        async_calls(samples, call).await;
    });
}

fn blocking_calls(samples: &mut Samples, mut call: impl FnMut(u64) -> u64) {
    for number in 0..WARM_UP {
        call(number);
    }
    for number in 0..samples.wanted() as u64 {
        assert_eq!(samples.time_blocking(1, || call(number)), number + 1);
    }
}

async fn async_calls(samples: &mut Samples, call: impl AsyncFn(u64) -> u64) {
    for number in 0..WARM_UP {
        call(number).await;
    }
    for number in 0..samples.wanted() as u64 {
        assert_eq!(samples.time(1, call(number)).await, number + 1);
    }
}

fn blocking_socket_round(sockets: &SocketPair, samples: &mut Samples) {
    blocking_calls(samples, |number| sockets.call(number));
}

fn async_socket_round(sockets: &SocketPair, samples: &mut Samples) {
    let stream = sockets.to_async();
    smol::block_on(async_calls(samples, async |number| {
        socket_call(&stream, number).await
    }));
}
