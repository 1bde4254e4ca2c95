//! Children that an executor polls. Most tests run the executor by hand on this thread, so that
//! they control each step. The tests at the end use several threads.

#[path = "../common/panics.rs"]
mod panics;
#[path = "../common/polling.rs"]
mod polling;

mod cancellation;
mod children;
mod endings;
mod failures;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use polling::{Hand, OnDrop};
use seedbed::sync::Event;

type Executor = Arc<smol::Executor<'static>>;

fn executor() -> Executor {
    Arc::default()
}

/// Runs the executor on this thread until it has nothing to do.
fn tick(executor: &Executor) {
    while executor.try_tick() {}
}

/// Polls `future` and runs the executor alternately, until both wait.
fn settle<T>(executor: &Executor, future: &mut Hand<'_, T>) -> Poll<T> {
    loop {
        if let Poll::Ready(value) = future.settle() {
            return Poll::Ready(value);
        }
        tick(executor);
        if !future.is_woken() {
            return Poll::Pending;
        }
    }
}

/// Runs the executor after each poll of `future`, so that no thread is needed for it.
async fn with_executor<F: Future>(executor: Executor, future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|cx| {
        let polled = future.as_mut().poll(cx);
        if polled.is_pending() && executor.try_tick() {
            cx.waker().wake_by_ref();
        }
        polled
    })
    .await
}

/// Runs an executor on threads while `act` runs.
fn on_threads<T>(threads: usize, act: impl FnOnce(Executor) -> T) -> T {
    let (executor, done) = (executor(), Event::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| smol::block_on(executor.run(done.wait())));
        }
        let _done = OnDrop(|| done.set());
        act(executor.clone())
    })
}
