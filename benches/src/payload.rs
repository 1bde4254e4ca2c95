//! 64 MiB, sent and returned.
//!
//! The limit is an arena that both sides map: the caller copies its bytes into it, and the child
//! sums them in place. seedbed does the same with `SharedBytes` of a `Vec`, which the job reads in
//! place. A job that takes a `Vec` needs fresh memory for it. Its distance from the limit is the
//! price of ownership, mainly page faults.

use std::{cell::LazyCell, time::Duration};

use procspawn::serde::Shmem;
use seedbed::worker::SharedBytes;
use seedbed::worker::WorkerType::ForkServer;
use serde_bytes::ByteBuf;

use crate::{
    bytes::{make, sum},
    jobs,
    mailbox::{Job, Mailbox, Wait},
    measure::{Comparison, Samples},
    options::Options,
};

const ROUNDS: (usize, usize) = (5, 3);
const LARGE_ROUNDS: (usize, usize) = (5, 20);
const LENGTH: usize = 64 << 20;
const BYTE: u8 = 7;
const SUM: u64 = LENGTH as u64 * BYTE as u64;
/// The greatest accepted ratio to the limit.
const NEAR: f64 = 1.25;
/// The greatest accepted ratio to procspawn: five times as fast.
const FAR: f64 = 0.2;

/// Prints the sections.
pub fn compare(options: &Options) {
    let bytes = LazyCell::new(|| make((BYTE.into(), LENGTH)));
    let numbers = LazyCell::new(|| vec![1.0f64; LENGTH / size_of::<f64>()]);
    let pool = LazyCell::new(|| jobs::pool_of_one(None));
    let is_sum = |sum| assert_eq!(sum, SUM);
    let is_count = |sum| assert_eq!(sum, numbers.len() as f64);

    // The caller keeps its bytes, as it does at the limit.
    let section = "payload/send-64-MiB-to-be-read";
    Comparison::new(
        section,
        ROUNDS,
        "seedbed, SharedBytes of a Vec, summed",
        |s| {
            let shared = SharedBytes::from(bytes.clone());
            let call = |shared: SharedBytes| seedbed::run_sync(sum_shared, shared);
            our_round(s, call, || shared.clone(), is_sum);
        },
    )
    .beside_within(NEAR, "the limit: copied to an arena, summed there", |s| {
        arena_send_round(s, &bytes)
    })
    .beside("seedbed, given away and freed in the call", |s| {
        let call = |bytes: Vec<u8>| seedbed::run_sync(sum_shared, SharedBytes::from(bytes));
        our_round(s, call, || bytes.clone(), is_sum);
    })
    .beside_within(FAR, "procspawn Pool(1), serde_bytes", |s| {
        let call = |bytes| pool.spawn(bytes, sum_bytes).join();
        blocking_round(s, call, || ByteBuf::from(bytes.clone()), is_sum);
    })
    .run(options);

    let section = "payload/send-64-MiB";
    Comparison::new(section, ROUNDS, "seedbed, serde_bytes, summed", |s| {
        let call = |bytes: ByteBuf| seedbed::run_sync(sum_bytes, bytes);
        our_round(s, call, || ByteBuf::from(bytes.clone()), is_sum);
    })
    .beside_within(NEAR, "the limit: copied to an arena, summed there", |s| {
        arena_send_round(s, &bytes)
    })
    .beside_within(FAR, "procspawn Pool(1), serde_bytes", |s| {
        let call = |bytes| pool.spawn(bytes, sum_bytes).join();
        blocking_round(s, call, || ByteBuf::from(bytes.clone()), is_sum);
    })
    // Copying into shared memory is part of the call, as it is for the others. A pool of version
    // 1.0.2 cannot send `Shmem`: the sender and the receiver disagree on its encoding.
    .beside("procspawn spawn + join, Shmem", |s| {
        let call = |()| procspawn::spawn(Shmem::from_bytes(&bytes), sum_shmem).join();
        blocking_round(s, call, || (), is_sum);
    })
    // Bytes that were made in shared memory need no copy and no fresh memory.
    .beside("seedbed, SharedBytes that are there", |s| {
        let shared = SharedBytes::copy_from(&bytes).expect("there is memory");
        let call = |shared: SharedBytes| seedbed::run_sync(sum_shared, shared);
        our_round(s, call, || shared.clone(), is_sum);
    })
    .run(options);

    let section = "payload/1-GiB-SharedBytes";
    let large = LazyCell::new(|| SharedBytes::build(1 << 30, |_| Ok(())).expect("there is memory"));
    Comparison::new(section, LARGE_ROUNDS, "seedbed, one byte read", |s| {
        let call = |shared: SharedBytes| seedbed::run_sync(middle_byte, shared);
        our_round(s, call, || large.clone(), |byte| assert_eq!(byte, 0));
    })
    .ours_within(Duration::from_micros(200))
    .beside("seedbed, of one page", |s| {
        let page = SharedBytes::build(4096, |_| Ok(())).expect("there is memory");
        let call = |shared: SharedBytes| seedbed::run_sync(middle_byte, shared);
        our_round(s, call, || page.clone(), |byte| assert_eq!(byte, 0));
    })
    .run(options);
    drop(large);

    let section = "payload/send-f64";
    Comparison::new(section, ROUNDS, "seedbed, Vec<f64>, summed", |s| {
        let call = |numbers: Vec<f64>| seedbed::run_sync(sum_numbers, numbers);
        our_round(s, call, || numbers.clone(), is_count);
    })
    .beside("procspawn Pool(1), Vec<f64>", |s| {
        let call = |numbers| pool.spawn(numbers, sum_numbers).join();
        blocking_round(s, call, || numbers.clone(), is_count);
    })
    .run(options);

    let section = "payload/return-64-MiB";
    let asked = || (u64::from(BYTE), LENGTH);
    Comparison::new(section, ROUNDS, "seedbed, serde_bytes", |s| {
        let call = |asked| seedbed::run_sync(give_bytes, asked);
        our_round(s, call, asked, |bytes| check(&bytes));
    })
    .beside_within(
        NEAR,
        "the limit: made, copied to an arena, copied out",
        arena_return_round,
    )
    .beside_within(FAR, "procspawn Pool(1), serde_bytes", |s| {
        let call = |asked| pool.spawn(asked, give_bytes).join();
        blocking_round(s, call, asked, |bytes| check(&bytes));
    })
    .run(options);
}

fn sum_bytes(bytes: ByteBuf) -> u64 {
    sum(&bytes)
}

fn sum_shared(bytes: SharedBytes) -> u64 {
    sum(&bytes)
}

fn middle_byte(bytes: SharedBytes) -> u8 {
    bytes[bytes.len() / 2]
}

fn sum_shmem(bytes: Shmem) -> u64 {
    sum(&bytes)
}

fn sum_numbers(numbers: Vec<f64>) -> f64 {
    numbers.iter().sum()
}

fn give_bytes(asked: (u64, usize)) -> ByteBuf {
    ByteBuf::from(make(asked))
}

fn check(bytes: &[u8]) {
    assert_eq!((bytes.len(), bytes[LENGTH / 2]), (LENGTH, BYTE));
}

/// Measures seedbed. Making the argument, checking the result and freeing it are outside of the
/// sample. The first call of a round, which may find nothing mapped yet, is not counted.
fn our_round<A, R, C>(
    samples: &mut Samples,
    call: impl Fn(A) -> C,
    make: impl Fn() -> A,
    check: impl Fn(R),
) where
    C: IntoFuture<Output = Result<R, seedbed::WorkerError>>,
{
    let calls = async {
        let warm = call(make()).await;
        check(warm.expect("the worker answers"));
        for _ in 0..samples.wanted() {
            let argument = make();
            let result = samples.time(1, call(argument)).await;
            check(result.expect("the worker answers"));
        }
    };
    seedbed::run(seedbed::cache_scope(jobs::config(ForkServer, None), calls));
}

/// Measures procspawn, or another contender that blocks until there is a result.
fn blocking_round<A, R>(
    samples: &mut Samples,
    call: impl Fn(A) -> Result<R, procspawn::SpawnError>,
    make: impl Fn() -> A,
    check: impl Fn(R),
) {
    check(call(make()).expect("the pool answers"));
    for _ in 0..samples.wanted() {
        let argument = make();
        let result = samples.time_blocking(1, || call(argument));
        check(result.expect("the pool answers"));
    }
}

fn arena_send_round(samples: &mut Samples, bytes: &[u8]) {
    let mut arena = Mailbox::start(Wait::Hybrid, Job::Sum, LENGTH, None);
    let mut call = || {
        arena.fill(bytes);
        assert_eq!(arena.call(0), SUM);
    };
    call();
    for _ in 0..samples.wanted() {
        samples.time_blocking(1, &mut call);
    }
}

fn arena_return_round(samples: &mut Samples) {
    let arena = Mailbox::start(Wait::Hybrid, Job::Give, LENGTH, None);
    let call = || {
        arena.call(BYTE.into());
        arena.copy()
    };
    check(&call());
    for _ in 0..samples.wanted() {
        let bytes = samples.time_blocking(1, call);
        check(&bytes);
    }
}
