//! The graceful end of many workers at once, against one common deadline.

// A worker is large, and moves in the box that it came in.
#![allow(clippy::vec_box)]

use std::mem;
use std::task::{Context, Poll};
use std::time::Duration;

use async_io::Timer;
use futures_lite::{FutureExt, future};

use super::statistics::Why;
use crate::process::background;
use crate::sys::copy::is_copy;
use crate::sys::process::Ended;
use crate::worker::conn::worker::{LAST_RITES, Worker};
use crate::worker::error::WorkerError;

/// Workers that have been told to go, or go anyway. Dropping it kills those that have not gone yet.
#[derive(Debug)]
pub(in crate::worker) struct Farewell {
    leaving: Vec<Leaver>,
    /// When to lose patience; `None` when there is no limit, or it is past.
    deadline: Option<Timer>,
    /// The same, with those that have said good-bye: they have nothing left to do, and so no grace.
    rites: Option<Timer>,
    tally: Tally,
}

#[derive(Debug)]
struct Leaver {
    worker: Box<Worker>,
    /// It has said good-bye of itself, and why, to whom that concerned.
    unasked: bool,
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
    /// Tells idle workers to go; others are `leaving` already.
    pub(in crate::worker) fn to(
        mut idle: Vec<Box<Worker>>,
        mut leaving: Vec<Box<Worker>>,
        grace: Option<Duration>,
    ) -> Self {
        if is_copy() {
            // They are the original's, and so are their connections, which are not even to be closed.
            idle.drain(..)
                .chain(leaving.drain(..))
                .for_each(mem::forget);
        }
        idle.iter_mut().for_each(|worker| worker.dismiss());
        let with = |unasked| move |worker| Leaver { worker, unasked };
        let idle = idle.into_iter().map(with(false));
        let leaving: Vec<Leaver> = idle.chain(leaving.into_iter().map(with(true))).collect();
        let unasked = leaving.iter().filter(|leaver| leaver.unasked).count();
        let deadline = match leaving.len() > unasked {
            true => grace.map(Timer::after),
            false => None,
        };
        let rites = LAST_RITES.min(grace.unwrap_or(LAST_RITES));
        Self {
            leaving,
            deadline,
            rites: (unasked > 0).then(|| Timer::after(rites)),
            tally: Tally::default(),
        }
    }

    /// Waits until all have gone, killing those that are left when the grace is over.
    pub(in crate::worker) async fn wait(mut self) -> Result<(), WorkerError> {
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
    pub(in crate::worker) fn wait_in_background(self) {
        if !self.leaving.is_empty() {
            background::spawn(async { report(self.wait().await) }).detach();
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self {
            leaving,
            deadline,
            rites,
            tally,
        } = self;
        leaving.retain_mut(|Leaver { worker, unasked }| match worker.poll_end(cx) {
            Poll::Ready(ended) => {
                if !*unasked {
                    tally.count(ended);
                }
                false
            }
            Poll::Pending => true,
        });
        if leaving.is_empty() {
            return Poll::Ready(());
        }
        let mut kill = |unasked, why| {
            let those = leaving.iter_mut().filter(|who| who.unasked == unasked);
            those.for_each(|who| who.worker.kill(why));
        };
        if is_over(rites, cx) {
            kill(true, Why::LivedOn);
        }
        if is_over(deadline, cx) {
            tally.killing = true;
            kill(false, Why::GraceOver);
        }
        Poll::Pending
    }
}

/// Whether the time is up, which it is once.
fn is_over(limit: &mut Option<Timer>, cx: &mut Context<'_>) -> bool {
    let is_over = limit
        .as_mut()
        .is_some_and(|limit| limit.poll(cx).is_ready());
    if is_over {
        *limit = None;
    }
    is_over
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
pub(in crate::worker) fn report(outcome: Result<(), WorkerError>) {
    if let Err(error) = outcome {
        tracing::warn!(%error, "a worker context was shut down");
    }
}
