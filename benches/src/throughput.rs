//! Calls per second with many callers and two workers.
//!
//! One sample is a batch of calls under one limiter of two. As many calls are in progress as there
//! are callers.

use std::cell::LazyCell;

use seedbed::CapacityLimiter;
use seedbed::worker::WorkerType::ForkServer;

use crate::{
    child::BusyProcess,
    jobs::{self, successor},
    mailbox::{Job, Mailbox, Wait},
    measure::{Comparison, Samples},
    options::Options,
    sockets::SocketPair,
};

const ROUNDS: (usize, usize) = (10, 1);
const WORKERS: usize = 2;
/// Calls in a batch.
const CALLS: u64 = 4_000;
/// 600,000 calls per second.
const GOAL: std::time::Duration = std::time::Duration::from_nanos(1_667);

/// How many times slower calls may be while another process keeps a processor busy.
const BUSY_SLOWDOWN: f64 = 2.0;

/// Prints the sections.
pub fn compare(options: &Options) {
    let sockets = LazyCell::new(|| [(); WORKERS].map(|()| SocketPair::start(None)));
    let pool = LazyCell::new(|| procspawn::Pool::new(WORKERS).expect("procspawn starts a pool"));
    for (section, callers) in [
        ("throughput/8-callers", 8),
        ("throughput/1000-callers", 1_000),
    ] {
        Comparison::new(section, ROUNDS, "seedbed run_sync, 2 workers", |s| {
            seedbed::run(our_round(s, callers))
        })
        .per_second()
        .ours_within(GOAL)
        .beside("the limit: 2 blocking threads, socket pairs", |s| {
            socket_round(s, &sockets)
        })
        .beside("one thread in turn, 2 hybrid mailboxes", mailbox_round)
        // A thousand threads, and three descriptors for each queued call, would measure threads
        // instead.
        .beside("procspawn Pool(2), 8 threads", |s| {
            procspawn_round(s, &pool)
        })
        .run(options);
    }
    compare_busy(options);
}

/// Prints how much throughput is left next to another process that uses a processor all the time.
fn compare_busy(options: &Options) {
    for (section, callers) in [
        ("throughput/busy-8-callers", 8),
        ("throughput/busy-1000-callers", 1_000),
    ] {
        Comparison::new(
            section,
            ROUNDS,
            "seedbed run_sync, with one busy process",
            |s| {
                let _busy = BusyProcess::start();
                seedbed::run(our_round(s, callers));
            },
        )
        .per_second()
        .beside_within(BUSY_SLOWDOWN, "the same without that process", |s| {
            seedbed::run(our_round(s, callers))
        })
        .run(options);
    }
}

async fn our_round(samples: &mut Samples, callers: u64) {
    let limiter = &CapacityLimiter::new(WORKERS);
    let batch = async || {
        seedbed::open_nursery(async |n| {
            for _ in 0..callers {
                drop(n.spawn(async move {
                    for number in 0..CALLS / callers {
                        let call = seedbed::run_sync(successor, number).limiter(limiter);
                        assert_eq!(call.await.expect("a worker answers"), number + 1);
                    }
                }));
            }
        })
        .await;
    };
    let batches = async {
        batch().await; // both workers exist now
        for _ in 0..samples.wanted() {
            samples.time(CALLS, batch()).await;
        }
    };
    seedbed::cache_scope(jobs::config(ForkServer, None), batches).await;
}

/// Runs a batch in `threads` threads.
fn in_threads(samples: &mut Samples, threads: usize, call: impl Fn(usize, u64) -> u64 + Sync) {
    let batch = || {
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let call = &call;
                scope.spawn(move || {
                    for number in 0..CALLS / threads as u64 {
                        assert_eq!(call(thread, number), number + 1);
                    }
                });
            }
        });
    };
    batch();
    for _ in 0..samples.wanted() {
        samples.time_blocking(CALLS, batch);
    }
}

fn socket_round(samples: &mut Samples, sockets: &[SocketPair; WORKERS]) {
    in_threads(samples, WORKERS, |thread, number| {
        sockets[thread].call(number)
    });
}

fn procspawn_round(samples: &mut Samples, pool: &procspawn::Pool) {
    in_threads(samples, 8, |_, number| {
        let answer = pool.spawn(number, successor).join();
        answer.expect("the pool answers")
    });
}

/// This is not the limit of shared memory. It shows what one thread can do that posts both requests
/// before it waits.
fn mailbox_round(samples: &mut Samples) {
    let mailboxes = [(); WORKERS].map(|()| Mailbox::start(Wait::Hybrid, Job::Successor, 0, None));
    let batch = || {
        for number in 0..CALLS / WORKERS as u64 {
            let calls = mailboxes.each_ref().map(|mailbox| mailbox.post(number));
            for (mailbox, call) in mailboxes.iter().zip(calls) {
                assert_eq!(mailbox.answer(call), number + 1);
            }
        }
    };
    batch();
    for _ in 0..samples.wanted() {
        samples.time_blocking(CALLS, batch);
    }
}
