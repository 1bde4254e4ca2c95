//! Channels between this process and a worker, with a thread of this process that may block.
//!
//! `ipc-channel` uses sockets, whose cost does not depend on whether the peer is a thread or a
//! process, so its peer is a thread.

use std::{cell::LazyCell, thread, time::Duration};

use ipc_channel::ipc::{self, IpcReceiver, IpcSender};
use seedbed::worker::WorkerType::ForkServer;
use seedbed::worker::{Receiver, Sender, channel};
use serde_bytes::ByteBuf;

use crate::{
    bytes::make,
    jobs,
    measure::{Comparison, Samples},
    options::Options,
};

const ROUNDS: (usize, usize) = (10, 5);
const LARGE_ROUNDS: (usize, usize) = (5, 3);
/// Messages in a sample of the one-way section.
const MESSAGES: u64 = 100_000;
/// Hops in a sample of the section of that name: half of them in each direction.
const HOPS: u64 = 20_000;
const CAPACITY: usize = 8192;
const LENGTH: usize = 64 << 20;
const BYTE: u8 = 7;
/// Five million messages per second.
const ONE_WAY_GOAL: Duration = Duration::from_nanos(200);
const HOP_GOAL: Duration = Duration::from_nanos(600);
/// The greatest accepted ratio to `memcpy`.
const NEAR: f64 = 1.25;

/// Prints the sections.
pub fn compare(options: &Options) {
    Comparison::new(
        "channel/u64-one-way",
        ROUNDS,
        "seedbed, from a worker",
        our_one_way,
    )
    .per_second()
    .ours_within(ONE_WAY_GOAL)
    .beside("ipc-channel, from a thread", ipc_one_way)
    .run(options);

    Comparison::new(
        "channel/u64-hop",
        ROUNDS,
        "seedbed, to a worker and back, halved",
        our_hops,
    )
    .ours_within(HOP_GOAL)
    .beside("ipc-channel, to a thread and back, halved", ipc_hops)
    .run(options);

    let bytes = LazyCell::new(|| make((BYTE.into(), LENGTH)));
    Comparison::new(
        "channel/64-MiB",
        LARGE_ROUNDS,
        "seedbed, from a worker, serde_bytes",
        our_large,
    )
    .beside_within(NEAR, "memcpy into fresh memory", |s| {
        for _ in 0..s.wanted() {
            let copy = s.time_blocking(1, || bytes.to_vec());
            assert_eq!(copy.len(), LENGTH);
        }
    })
    .beside("ipc-channel, from a thread, serde_bytes", ipc_large)
    .run(options);
}

/// A job that sends as many numbers as it is asked to.
fn send_numbers((asked, mut numbers): (Receiver<u64>, Sender<u64>)) {
    for count in asked {
        let count = count.expect("the parent sends numbers");
        (0..count).for_each(|n| numbers.send_blocking(n).expect("the parent receives"));
    }
}

/// A job that sends back each number.
fn return_numbers((numbers, mut back): (Receiver<u64>, Sender<u64>)) {
    for number in numbers {
        let number = number.expect("the parent sends numbers");
        back.send_blocking(number).expect("the parent receives");
    }
}

/// A job that makes its bytes, reports that with an empty message, and sends them when it is asked
/// to.
fn send_large((mut asked, mut copies): (Receiver<u64>, Sender<ByteBuf>)) {
    loop {
        let bytes = ByteBuf::from(make((BYTE.into(), LENGTH)));
        copies
            .send_blocking(ByteBuf::new())
            .expect("the parent receives");
        match asked.recv_blocking() {
            Ok(_) => copies.send_blocking(bytes).expect("the parent receives"),
            Err(_) => return,
        }
    }
}

/// Runs `body` in this thread, with the channels of a job that runs at the same time, and that has
/// answered once. `body` may block.
macro_rules! with_job {
    ($job:expr, |$sender:ident, $receiver:ident| $body:block) => {
        let block = seedbed::open_nursery(async |n| {
            let (mut $sender, job_receiver) = channel(CAPACITY).expect("there is memory");
            let (job_sender, mut $receiver) = channel(CAPACITY).expect("there is memory");
            drop(n.spawn(seedbed::run_sync($job, (job_receiver, job_sender))));
            $sender.send(1).await.expect("the job receives");
            $receiver.recv().await.expect("the job sends");
            $body;
            drop(($sender, $receiver));
        });
        seedbed::run(seedbed::cache_scope(jobs::config(ForkServer, None), block));
    };
}

fn our_one_way(samples: &mut Samples) {
    with_job!(send_numbers, |asked, numbers| {
        for _ in 0..samples.wanted() {
            samples.time_blocking(MESSAGES, || {
                asked.send_blocking(MESSAGES).expect("the job receives");
                for n in 0..MESSAGES {
                    assert_eq!(numbers.recv_blocking().expect("the job sends"), n);
                }
            });
        }
    });
}

fn our_hops(samples: &mut Samples) {
    with_job!(return_numbers, |numbers, back| {
        for _ in 0..samples.wanted() {
            samples.time_blocking(HOPS, || {
                for n in 0..HOPS / 2 {
                    numbers.send_blocking(n).expect("the job receives");
                    assert_eq!(back.recv_blocking().expect("the job sends"), n);
                }
            });
        }
    });
}

fn our_large(samples: &mut Samples) {
    with_job!(send_large, |asked, copies| {
        // The answers to the request at the beginning: the bytes, and that the next are made.
        for _ in 0..2 {
            copies.recv_blocking().expect("the job sends");
        }
        for _ in 0..samples.wanted() {
            let copy = samples.time_blocking(1, || {
                asked.send_blocking(1).expect("the job receives");
                copies.recv_blocking().expect("the job sends")
            });
            copies
                .recv_blocking()
                .expect("the job has made the next bytes");
            assert_eq!((copy.len(), copy[LENGTH / 2]), (LENGTH, BYTE));
        }
    });
}

/// Runs `job` in a thread, and `body` in this one, with channels of ipc-channel between them.
fn with_thread<A, B>(
    job: impl FnOnce(IpcReceiver<A>, IpcSender<B>) + Send,
    body: impl FnOnce(IpcSender<A>, IpcReceiver<B>),
) where
    A: serde::Serialize + serde::de::DeserializeOwned + Send,
    B: serde::Serialize + serde::de::DeserializeOwned + Send,
{
    let (sender, job_receiver) = ipc::channel().expect("ipc-channel opens a channel");
    let (job_sender, receiver) = ipc::channel().expect("ipc-channel opens a channel");
    thread::scope(|scope| {
        scope.spawn(|| job(job_receiver, job_sender));
        body(sender, receiver);
    });
}

fn ipc_one_way(samples: &mut Samples) {
    let job = |asked: IpcReceiver<u64>, numbers: IpcSender<u64>| {
        while let Ok(count) = asked.recv() {
            (0..count).for_each(|n| numbers.send(n).expect("the caller receives"));
        }
    };
    with_thread(job, |asked, numbers| {
        for _ in 0..samples.wanted() {
            samples.time_blocking(MESSAGES, || {
                asked.send(MESSAGES).expect("the thread receives");
                for n in 0..MESSAGES {
                    assert_eq!(numbers.recv().expect("the thread sends"), n);
                }
            });
        }
    });
}

fn ipc_hops(samples: &mut Samples) {
    let job = |numbers: IpcReceiver<u64>, back: IpcSender<u64>| {
        while let Ok(number) = numbers.recv() {
            back.send(number).expect("the caller receives");
        }
    };
    with_thread(job, |numbers, back| {
        for _ in 0..samples.wanted() {
            samples.time_blocking(HOPS, || {
                for n in 0..HOPS / 2 {
                    numbers.send(n).expect("the thread receives");
                    assert_eq!(back.recv().expect("the thread sends"), n);
                }
            });
        }
    });
}

fn ipc_large(samples: &mut Samples) {
    let job = |asked: IpcReceiver<u64>, copies: IpcSender<ByteBuf>| {
        loop {
            let bytes = ByteBuf::from(make((BYTE.into(), LENGTH)));
            // The caller may have left, with the samples that it wanted.
            if copies.send(ByteBuf::new()).is_err() || asked.recv().is_err() {
                return;
            }
            copies.send(bytes).expect("the caller receives");
        }
    };
    with_thread(job, |asked, copies: IpcReceiver<ByteBuf>| {
        copies.recv().expect("the thread has made the first bytes");
        for _ in 0..samples.wanted() {
            let copy = samples.time_blocking(1, || {
                asked.send(1).expect("the thread receives");
                copies.recv().expect("the thread sends")
            });
            copies.recv().expect("the thread has made the next bytes");
            assert_eq!((copy.len(), copy[LENGTH / 2]), (LENGTH, BYTE));
        }
    });
}
