//! Cancelling many sleeping children, until all have ended: the total time, not the time per child.
//!
//! Every child sleeps for an hour on a timer of its own runtime. All children have been polled and
//! wait when the clock starts; spawning them is not counted. The clock is the thread's CPU clock,
//! because nothing here waits or runs elsewhere.

use std::{pin::Pin, time::Duration};

use futures_util::StreamExt;

use crate::{
    measure::{Comparison, Samples, thread_time},
    options::Options,
};

const ROUNDS: (usize, usize) = (20, 1);
const CHILDREN: usize = 100_000;
const HOUR: Duration = Duration::from_secs(3600);

/// Prints the section.
pub fn compare(options: &Options) {
    let tokio = std::cell::LazyCell::new(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("tokio starts")
    });
    Comparison::new(
        "cancel/100000-sleeping",
        ROUNDS,
        "seedbed Nursery::terminate",
        |s| seedbed::run(our_children(s)),
    )
    .ours_within(Duration::from_millis(5))
    .beside_within(1.0, "dropping a futures-util FuturesUnordered", |s| {
        smol::block_on(unordered(s, || smol::Timer::after(HOUR)))
    })
    .beside("dropping one of futures without timers", |s| {
        smol::block_on(unordered(s, std::future::pending::<()>))
    })
    .beside_within(1.0, "tokio JoinSet::abort_all + join", |s| {
        tokio.block_on(join_set(s))
    })
    .run(options);
}

/// Measures from `cancel` until the block has ended.
async fn our_children(samples: &mut Samples) {
    for _ in 0..samples.wanted() {
        let cancelled = seedbed::open_nursery(async |n| {
            for _ in 0..CHILDREN {
                drop(n.spawn(seedbed::sleep(HOUR)));
            }
            // The children get their first turn here: each is asleep when the body continues.
            seedbed::checkpoint().await;
            seedbed::checkpoint().await;
            // Cancels like `cancel`, and passes the time out as the block's value.
            n.terminate(thread_time());
            std::future::pending().await
        })
        .await;
        samples.record(thread_time() - cancelled, 1);
    }
}

async fn unordered<F: Future + Send>(samples: &mut Samples, child: impl Fn() -> F) {
    type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
    for _ in 0..samples.wanted() {
        let mut children = futures_util::stream::FuturesUnordered::<Boxed<'_, F::Output>>::new();
        for _ in 0..CHILDREN {
            children.push(Box::pin(child()));
        }
        // `FuturesUnordered` yields after a number of children, so that one poll reaches only a
        // part of them.
        for _ in 0..CHILDREN {
            assert!(smol::future::poll_once(children.next()).await.is_none());
        }
        samples.thread_time(1, async { drop(children) }).await;
    }
}

async fn join_set(samples: &mut Samples) {
    for _ in 0..samples.wanted() {
        let mut children = sleeping_in_tokio().await;
        let start = thread_time();
        children.abort_all();
        while let Some(ended) = children.join_next().await {
            assert!(ended.is_err_and(|error| error.is_cancelled()));
        }
        samples.record(thread_time() - start, 1);
    }
}

/// Returns a set of children that have all been polled.
async fn sleeping_in_tokio() -> tokio::task::JoinSet<()> {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    };
    let begun = Arc::new(AtomicUsize::new(0));
    let mut children = tokio::task::JoinSet::new();
    for _ in 0..CHILDREN {
        let begun = begun.clone();
        children.spawn(async move {
            begun.fetch_add(1, Relaxed);
            tokio::time::sleep(HOUR).await;
        });
    }
    while begun.load(Relaxed) < CHILDREN {
        tokio::task::yield_now().await;
    }
    children
}
