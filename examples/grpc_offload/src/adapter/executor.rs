//! hyper's tasks as children of a nursery, and its timers on the clock of the run.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Executor, Sleep, Timer};
use seedbed::nursery::Spawner;
use seedbed::sleep;
use seedbed::time::{current_time, sleep_until};

/// Spawns hyper's tasks into a nursery.
#[derive(Clone)]
pub struct InNursery<'env>(pub Spawner<'env>);

impl<'env, F> Executor<F> for InNursery<'env>
where
    F: Future + Send + 'env,
    F::Output: Send + 'env,
{
    fn execute(&self, task: F) {
        // The block has ended if the connection has; then no stream of it needs a task.
        _ = self.0.spawn_if_open(task);
    }
}

/// Timers on the clock of the run, so that tests may use a virtual one.
pub struct RunTimer;

impl Timer for RunTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        Box::pin(Sleeping(sleep(duration)))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(Sleeping(sleep_until(deadline)))
    }

    fn now(&self) -> Instant {
        current_time()
    }
}

struct Sleeping(seedbed::time::Sleep);

impl Future for Sleeping {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl Sleep for Sleeping {}
