//! The graceful end of many workers at once, against one common deadline.

use std::task::{Context, Poll};
use std::time::Duration;

use async_io::Timer;
use futures_lite::{FutureExt, future};

use super::life::Worker;
use super::statistics::Why;
use crate::error::WorkerError;
use crate::sys::process::Ended;

/// Idle workers that have been told to go. Dropping it kills those that have not gone yet.
#[derive(Debug)]
pub(super) struct Farewell {
    leaving: Vec<Worker>,
    /// When to lose patience; `None` when there is no limit, or it is past.
    deadline: Option<Timer>,
    tally: Tally,
}

/// How the workers went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    /// Those that ended by themselves, but with an exit code other than zero or by a signal of somebody else's.
    non_zero: usize,
    /// Those that had to be killed.
    killed: usize,
    /// The grace is over: whoever ends from now on was killed.
    killing: bool,
}

impl Farewell {
    /// Tells idle workers to go.
    pub(super) fn to(
        workers: impl IntoIterator<Item = Box<Worker>>,
        grace: Option<Duration>,
    ) -> Self {
        let mut workers: Vec<Worker> = workers.into_iter().map(|worker| *worker).collect();
        workers.iter_mut().for_each(Worker::dismiss);
        let deadline = match workers.is_empty() {
            true => None,
            false => grace.map(Timer::after),
        };
        Self {
            leaving: workers,
            deadline,
            tally: Tally::default(),
        }
    }

    /// Waits until all have gone, killing those that are left when the grace is over.
    pub(super) async fn wait(mut self) -> Result<(), WorkerError> {
        future::poll_fn(|cx| self.poll(cx)).await;
        match self.tally {
            Tally {
                non_zero: 0,
                killed: 0,
                ..
            } => Ok(()),
            Tally {
                non_zero, killed, ..
            } => Err(WorkerError::shutdown(non_zero, killed)),
        }
    }

    /// Waits in the background; what goes wrong becomes an event.
    pub(super) fn wait_in_background(self) {
        if !self.leaving.is_empty() {
            smol::spawn(async { report(self.wait().await) }).detach();
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self {
            leaving,
            deadline,
            tally,
        } = self;
        leaving.retain_mut(|worker| match worker.poll_end(cx) {
            Poll::Ready(ended) => {
                tally.count(ended);
                false
            }
            Poll::Pending => true,
        });
        if leaving.is_empty() {
            return Poll::Ready(());
        }
        if deadline
            .as_mut()
            .is_some_and(|deadline| deadline.poll(cx).is_ready())
        {
            *deadline = None;
            tally.killing = true;
            leaving
                .iter_mut()
                .for_each(|worker| worker.kill(Why::GraceOver));
        }
        Poll::Pending
    }
}

impl Tally {
    fn count(&mut self, ended: Ended) {
        match (self.killing, ended) {
            (_, Ended::Exited(0)) => {}
            // A program that ignores SIGCHLD never learns how a worker ended, which is no reason to complain each time.
            (false, Ended::Unknown) => {}
            (true, _) => self.killed += 1,
            (false, _) => self.non_zero += 1,
        }
    }
}

/// Says that a farewell was not graceful, where nobody waits for the answer.
pub(super) fn report(outcome: Result<(), WorkerError>) {
    if let Err(error) = outcome {
        tracing::warn!(%error, "a worker context was shut down");
    }
}
