//! The time limit of a job.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_io::Timer;
use futures_lite::FutureExt;

/// The time that a job may take. It is real time, also in a run with a virtual clock, because
/// workers live in real time.
#[derive(Debug)]
pub(super) struct TimeLimit {
    limit: Duration,
    /// `None` until the job has begun.
    timer: Option<Timer>,
}

impl TimeLimit {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, timer: None }
    }

    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// Makes the next wait end after this time.
    pub(super) fn restart(&mut self, left: Duration) {
        self.timer = Some(Timer::after(left));
    }

    /// Waits for the end of the time, which begins with the first poll.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Timer::after(self.limit));
        ready!(timer.poll(cx));
        Poll::Ready(())
    }
}
