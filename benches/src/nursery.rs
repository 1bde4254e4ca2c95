//! Spawning many children and joining all: nanoseconds per child.
//!
//! Each function here opens a block of its library, spawns `count` children, and ends when all have
//! ended. `allocations` counts with the same functions. The clock is the thread's CPU clock, except
//! for the contender with two threads. Only moro's scope and tokio's `JoinSet` give the guarantees
//! of a nursery; the others are lower-level tools.

use std::{cell::LazyCell, pin::Pin};

use futures_util::StreamExt;

use crate::{
    measure::{Comparison, Samples},
    options::Options,
};

/// Makes the child of a number. Every contender spawns it.
pub trait Child: Copy + Send + Sync + 'static {
    fn child(self, number: u64) -> impl Future<Output = u64> + Send + 'static;
}

/// A child that is ready at its first poll.
#[derive(Clone, Copy)]
pub struct Ready;

impl Child for Ready {
    async fn child(self, number: u64) -> u64 {
        std::hint::black_box(number)
    }
}

/// A child that yields once: it wakes itself, returns pending, and is ready at its second poll.
#[derive(Clone, Copy)]
pub struct Yields;

impl Child for Yields {
    async fn child(self, number: u64) -> u64 {
        smol::future::yield_now().await;
        std::hint::black_box(number)
    }
}

const THIRD: f64 = 1.0 / 3.0;

/// Prints the sections.
pub fn compare(options: &Options) {
    for (count, rounds) in [(1_000, (20, 25)), (100_000, (20, 1))] {
        compare_children(
            options,
            &format!("nursery/{count}-ready"),
            rounds,
            count,
            Ready,
        );
        compare_children(
            options,
            &format!("nursery/{count}-yields"),
            rounds,
            count,
            Yields,
        );
    }
    compare_growth(options, "nursery/growth-ready", Ready);
    compare_growth(options, "nursery/growth-yields", Yields);
}

/// Compares the cost of a child among a million with the cost among a thousand.
fn compare_growth(options: &Options, section: &str, child: impl Child) {
    const FEW: u64 = 1_000;
    const MANY: u64 = 1_000_000;
    Comparison::new(section, (5, 1), "seedbed open_nursery with 1000000", |s| {
        our_round(s, MANY, || our_nursery(MANY, child))
    })
    .beside_within(1.5, "seedbed itself with 1000", |s| {
        // A thousand times as many blocks, so that both take equally long.
        our_round(s, MANY, async || {
            for _ in 0..MANY / FEW {
                our_nursery(FEW, child).await;
            }
        })
    })
    .beside_within(1.0, "futures-util FuturesUnordered with 1000000", |s| {
        smol_round(s, MANY, || futures_unordered(MANY, child))
    })
    .beside("futures-buffered with 1000000", |s| {
        smol_round(s, MANY, || futures_buffered(MANY, child))
    })
    .run(options);
}

fn compare_children(
    options: &Options,
    section: &str,
    rounds: (usize, usize),
    count: u64,
    child: impl Child,
) {
    let tokio = LazyCell::new(Tokio::start);
    Comparison::new(section, rounds, "seedbed open_nursery", |s| {
        our_round(s, count, || our_nursery(count, child))
    })
    .beside_within(1.0, "futures-util FuturesUnordered", |s| {
        smol_round(s, count, || futures_unordered(count, child))
    })
    .beside_within(1.0, "smol LocalExecutor", |s| {
        smol_round(s, count, || local_executor(count, child))
    })
    .beside_within(THIRD, "moro scope", |s| {
        smol_round(s, count, || moro_scope(count, child))
    })
    .beside("moro scope awaiting each", |s| {
        smol_round(s, count, || moro_awaiting(count, child))
    })
    .beside_within(0.2, "tokio JoinSet on its thread", |s| {
        tokio_round(&tokio.one_thread, s, count, || join_set(count, child))
    })
    .beside_within(0.2, "tokio JoinSet with 2 threads", |s| {
        tokio_wall_round(&tokio.two_threads, s, count, || join_set(count, child))
    })
    .beside_within(1.0, "futures-buffered", |s| {
        smol_round(s, count, || futures_buffered(count, child))
    })
    .beside("async-task with a bare queue", |s| {
        smol_round(s, count, || bare_queue(count, child))
    })
    .beside("seedbed itself awaiting each", |s| {
        our_round(s, count, || our_awaiting(count, child))
    })
    .beside("seedbed itself as open_local_nursery", |s| {
        our_round(s, count, || our_local(count, child))
    })
    .run(options);
}

/// Takes samples of `block`, which spawns and joins `count` children, under `seedbed::run`.
fn our_round<F: Future>(samples: &mut Samples, count: u64, block: impl Fn() -> F) {
    seedbed::run(blocks(samples, count, block));
}

/// Takes samples of `block` under smol's `block_on`.
fn smol_round<F: Future>(samples: &mut Samples, count: u64, block: impl Fn() -> F) {
    smol::block_on(blocks(samples, count, block));
}

async fn blocks<F: Future>(samples: &mut Samples, count: u64, block: impl Fn() -> F) {
    for _ in 0..samples.wanted() {
        samples.thread_time(count, block()).await;
    }
}

/// Takes samples of `block` under tokio, on one thread.
fn tokio_round<F: Future>(
    runtime: &tokio::runtime::Runtime,
    samples: &mut Samples,
    count: u64,
    block: impl Fn() -> F,
) {
    runtime.block_on(blocks(samples, count, block));
}

/// Takes samples of `block` under tokio, on several threads, by the wall clock.
fn tokio_wall_round<F: Future>(
    runtime: &tokio::runtime::Runtime,
    samples: &mut Samples,
    count: u64,
    block: impl Fn() -> F,
) {
    runtime.block_on(async {
        for _ in 0..samples.wanted() {
            samples.time(count, block()).await;
        }
    });
}

/// The two kinds of tokio runtimes, both started before the measurement.
pub struct Tokio {
    pub one_thread: tokio::runtime::Runtime,
    pub two_threads: tokio::runtime::Runtime,
}

impl Tokio {
    pub fn start() -> Tokio {
        let one_thread = tokio::runtime::Builder::new_current_thread().build();
        let two_threads = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .build();
        Tokio {
            one_thread: one_thread.expect("tokio starts"),
            two_threads: two_threads.expect("tokio starts"),
        }
    }
}

/// Drops the handles. The block ends when all children have ended.
pub async fn our_nursery(count: u64, child: impl Child) {
    seedbed::open_nursery(|n| async move {
        for number in 0..count {
            drop(n.spawn(child.child(number)));
        }
    })
    .await
}

/// Keeps the handles, and awaits each.
pub async fn our_awaiting(count: u64, child: impl Child) -> u64 {
    seedbed::open_nursery(|n| async move {
        let children: Vec<_> = (0..count)
            .map(|number| n.spawn(child.child(number)))
            .collect();
        let mut sum = 0;
        for child in children {
            sum += child.await;
        }
        sum
    })
    .await
}

/// Spawns children that need not be `Send`.
pub async fn our_local(count: u64, child: impl Child) {
    seedbed::nursery::open_local_nursery(|n| async move {
        for number in 0..count {
            drop(n.spawn(child.child(number)));
        }
    })
    .await
}

pub async fn futures_unordered(count: u64, child: impl Child) -> u64 {
    type Boxed = Pin<Box<dyn Future<Output = u64> + Send>>;
    let mut children = futures_util::stream::FuturesUnordered::<Boxed>::new();
    for number in 0..count {
        children.push(Box::pin(child.child(number)));
    }
    let mut sum = 0;
    while let Some(value) = children.next().await {
        sum += value;
    }
    sum
}

pub async fn futures_buffered(count: u64, child: impl Child) -> u64 {
    let mut children = futures_buffered::FuturesUnordered::new();
    for number in 0..count {
        children.push(child.child(number));
    }
    let mut sum = 0;
    while let Some(value) = children.next().await {
        sum += value;
    }
    sum
}

pub async fn local_executor(count: u64, child: impl Child) -> u64 {
    let executor = smol::LocalExecutor::new();
    let join = async {
        let children: Vec<_> = (0..count).map(|n| executor.spawn(child.child(n))).collect();
        let mut sum = 0;
        for child in children {
            sum += child.await;
        }
        sum
    };
    executor.run(join).await
}

/// smol's task type with only a queue around it: the base of a self-made executor.
pub async fn bare_queue(count: u64, child: impl Child) -> u64 {
    let (ready, runnables) = smol::channel::unbounded();
    let children: Vec<_> = (0..count)
        .map(|number| {
            let ready = ready.clone();
            let schedule = move |runnable| ready.try_send(runnable).expect("the queue is open");
            let (runnable, task) = async_task::spawn(child.child(number), schedule);
            runnable.schedule();
            task
        })
        .collect();
    let mut sum = 0;
    for child in children {
        while !child.is_finished() {
            let runnable: async_task::Runnable = runnables.try_recv().expect("somebody is ready");
            runnable.run();
        }
        sum += child.await;
    }
    sum
}

/// Drops the handles. The scope ends when all children have ended.
pub async fn moro_scope(count: u64, child: impl Child) {
    moro::async_scope!(|scope| {
        for number in 0..count {
            drop(scope.spawn(child.child(number)));
        }
    })
    .await;
}

/// Keeps the handles, and awaits each.
pub async fn moro_awaiting(count: u64, child: impl Child) -> u64 {
    moro::async_scope!(|scope| {
        let children: Vec<_> = (0..count).map(|n| scope.spawn(child.child(n))).collect();
        let mut sum = 0;
        for child in children {
            sum += child.await;
        }
        sum
    })
    .await
}

pub async fn join_set(count: u64, child: impl Child) -> u64 {
    let mut children = tokio::task::JoinSet::new();
    for number in 0..count {
        children.spawn(child.child(number));
    }
    let mut sum = 0;
    while let Some(value) = children.join_next().await {
        sum += value.expect("children do not panic");
    }
    sum
}
