//! A warm call: a `u64` there and its successor back, with one worker that exists already.
//!
//! The limit is a socket pair between `smol::block_on` and a child that blocks in `read`, with no library in between.
//! How long a call takes is mostly how long the other core takes to wake, so the same is measured once more with
//! everything on one core, where nobody has to wake.

use std::cell::LazyCell;

use smol::{Async, io::AsyncReadExt, io::AsyncWriteExt};

use crate::{
    child,
    measure::{Comparison, Samples},
    options::Options,
};

const ROUNDS: (usize, usize) = (10, 1_000);
/// Calls before the samples of each round, so that the turn of another contender has cooled nothing.
const WARM_UP: u64 = 100;

/// Prints the section.
pub fn compare(options: &Options) {
    let section = match options.on_core {
        Some(_) => "warm/one-core",
        None => "warm/free",
    };
    let limit = LazyCell::new(SocketPair::start);
    let pool = LazyCell::new(|| procspawn::Pool::new(1).expect("procspawn starts a pool"));
    Comparison::new(section, ROUNDS, "seedbed run_sync", our_round)
        .beside_at_most(1.3, "the limit: Async<UnixStream>", |s| limit.round(s))
        .beside("procspawn Pool(1) spawn + join", |s| {
            procspawn_round(&pool, s)
        })
        .beside("smol::unblock (a thread)", unblock_round)
        .beside("seedbed itself in smol::block_on", our_round_under_smol)
        .beside("seedbed itself with kill_on_cancel", our_killable_round)
        .run(options);
}

/// Prints the section once more, with this process and its children on one core.
pub fn compare_on_one_core(options: &Options) {
    let quick = options.quick.then(|| "--quick".to_owned());
    child::run_on_one_core(quick.into_iter().chain(options.filters.iter().cloned()));
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
    fn start() -> SocketPair {
        let (child, stream) = child::start_echo();
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

fn unblock_round(samples: &mut Samples) {
    smol::block_on(async {
        let call = |number| smol::unblock(move || successor(number));
        for number in 0..WARM_UP {
            call(number).await;
        }
        for number in 0..samples.wanted() as u64 {
            assert_eq!(samples.time(1, call(number)).await, number + 1);
        }
    });
}
