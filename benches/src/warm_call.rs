//! A warm call: a `u64` there and its successor back, with one worker that exists already.
//!
//! The limit is a socket pair between `smol::block_on` and a child that blocks in `read`, with no library in between.
//! How long a call takes is mostly how long the other core takes to wake. Left free, the kernel puts caller and worker
//! on one core or on two by accident of their start, and leaves them there, so that the same thing takes 11 or 37 us. So
//! each placement is also measured by itself, in a process of its own whose threads and workers are pinned.

use std::cell::LazyCell;

use smol::{Async, io::AsyncReadExt, io::AsyncWriteExt};

use crate::{
    child,
    measure::{Comparison, Samples},
    options::{Options, Pins},
};

const ROUNDS: (usize, usize) = (10, 1_000);
/// Calls before the samples of each round, so that the turn of another contender has cooled nothing.
const WARM_UP: u64 = 100;

/// Prints the section for where this process is pinned, if it is.
pub fn compare(options: &Options) {
    let section = match options.pins {
        None => "warm/free",
        Some(pins) if pins.caller == pins.worker => "warm/one-core",
        Some(_) => "warm/two-cores",
    };
    let core = options.pins.map(|pins| pins.worker);
    if let Some(core) = core {
        pin_our_workers_to(core);
    }
    let limit = LazyCell::new(|| SocketPair::start(core));
    let pool = LazyCell::new(|| pool_on(core));
    // Left free, the ratio depends on luck, so the target is for the pinned sections.
    let target = options.pins.map(|_| 1.3);
    Comparison::new(section, ROUNDS, "seedbed run_sync", our_round)
        .beside_within(target, "the limit: Async<UnixStream>", |s| limit.round(s))
        .beside("procspawn Pool(1) spawn + join", |s| {
            procspawn_round(&pool, s)
        })
        .beside("smol::unblock (a thread)", |s| unblock_round(core, s))
        .beside("seedbed itself in smol::block_on", our_round_under_smol)
        .beside("seedbed itself with kill_on_cancel", our_killable_round)
        .run(options);
}

/// Prints the section once more with this process and its workers on one core, and once more on a core each.
pub fn compare_pinned(options: &Options) {
    let cores = child::allowed_cores();
    for &worker in cores.iter().take(2) {
        let caller = cores[0];
        let quick = options.quick.then(|| "--quick".to_owned());
        let arguments = quick.into_iter().chain(options.filters.iter().cloned());
        child::run_pinned(Pins { caller, worker }, arguments);
    }
}

fn pin_our_workers_to(core: usize) {
    let config = seedbed::WorkerConfig::new().init_with(core, |core| child::pin_to_core(*core));
    seedbed::configure_default_context(config).expect("the configuration is sound");
}

fn pool_on(core: Option<usize>) -> procspawn::Pool {
    let pool = procspawn::Pool::new(1).expect("procspawn starts a pool");
    if let Some(core) = core {
        let pinned = pool.spawn(core, child::pin_to_core).join();
        pinned.expect("the pool answers");
    }
    pool
}

/// The job, wherever it runs.
fn successor(number: u64) -> u64 {
    std::hint::black_box(number) + 1
}

fn our_round(samples: &mut Samples) {
    let call = |number| seedbed::run_sync(successor, number);
    seedbed::run(our_calls(samples, call));
}

fn our_round_under_smol(samples: &mut Samples) {
    let call = |number| seedbed::run_sync(successor, number);
    smol::block_on(our_calls(samples, call));
}

fn our_killable_round(samples: &mut Samples) {
    let call = |number| seedbed::run_sync(successor, number).kill_on_cancel(true);
    seedbed::run(our_calls(samples, call));
}

async fn our_calls<C>(samples: &mut Samples, call: impl Fn(u64) -> C)
where
    C: IntoFuture<Output = Result<u64, seedbed::WorkerError>>,
{
    for number in 0..WARM_UP {
        call(number).await.expect("the worker answers");
    }
    for number in 0..samples.wanted() as u64 {
        let answer = samples.time(1, call(number)).await;
        assert_eq!(answer.expect("the worker answers"), number + 1);
    }
}

/// The limit.
struct SocketPair {
    child: std::process::Child,
    /// Closed before the child is waited for: its end is the child's.
    stream: Option<Async<std::os::unix::net::UnixStream>>,
}

impl SocketPair {
    fn start(core: Option<usize>) -> SocketPair {
        let (child, stream) = child::start_echo(core);
        let stream = Some(Async::new(stream).expect("a socket has readiness"));
        SocketPair { child, stream }
    }

    fn round(&self, samples: &mut Samples) {
        let stream = self.stream.as_ref().expect("open until dropped");
        smol::block_on(async {
            for number in 0..WARM_UP {
                socket_call(stream, number).await;
            }
            for number in 0..samples.wanted() as u64 {
                let answer = samples.time(1, socket_call(stream, number)).await;
                assert_eq!(answer, number + 1);
            }
        });
    }
}

impl Drop for SocketPair {
    fn drop(&mut self) {
        self.stream = None;
        self.child.wait().expect("our own child");
    }
}

async fn socket_call(mut stream: &Async<std::os::unix::net::UnixStream>, number: u64) -> u64 {
    stream
        .write_all(&number.to_ne_bytes())
        .await
        .expect("the child reads");
    let mut answer = [0; 8];
    stream
        .read_exact(&mut answer)
        .await
        .expect("the child answers");
    u64::from_ne_bytes(answer)
}

fn procspawn_round(pool: &procspawn::Pool, samples: &mut Samples) {
    let call = |number| {
        pool.spawn(number, successor)
            .join()
            .expect("the pool answers")
    };
    for number in 0..WARM_UP {
        call(number);
    }
    for number in 0..samples.wanted() as u64 {
        assert_eq!(samples.time_blocking(1, || call(number)), number + 1);
    }
}

fn unblock_round(core: Option<usize>, samples: &mut Samples) {
    smol::block_on(async {
        if let Some(core) = core {
            // One call after the other keeps one thread busy, and the same one.
            smol::unblock(move || child::pin_to_core(core)).await;
        }
        let call = |number| smol::unblock(move || successor(number));
        for number in 0..WARM_UP {
            call(number).await;
        }
        for number in 0..samples.wanted() as u64 {
            assert_eq!(samples.time(1, call(number)).await, number + 1);
        }
    });
}
