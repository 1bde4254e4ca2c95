//! The graceful shutdown of many workers at once, with one common deadline.

// A worker is large, so it stays in the box that it was created in.
#![allow(clippy::vec_box)]

use std::mem;
use std::task::{Context, Poll};
use std::time::Duration;

use async_io::Timer;
use futures_lite::{FutureExt, future};

use crate::process::background;
use crate::sys::fork_detector::is_forked_copy;
use crate::sys::process::Ended;
use crate::worker::conn::worker::Worker;
use crate::worker::end::KillReason;
use crate::worker::error::WorkerError;
use crate::worker::trace;
use crate::worker::tuning::EXIT_GRACE;

/// A shutdown in progress. Dropping it kills the workers that have not ended yet.
#[derive(Debug)]
pub(in crate::worker) struct Shutdown {
    workers: Vec<ExitingWorker>,
    /// The end of the grace period. `None` if there is no limit or it is past.
    deadline: Option<Timer>,
    /// The deadline of draining workers: they have announced their exit, so the grace period is not
    /// for them.
    drain_deadline: Option<Timer>,
    /// The time until which killed workers must have ended.
    kill_deadline: Option<Timer>,
    tally: Tally,
}

#[derive(Debug)]
struct ExitingWorker {
    worker: Box<Worker>,
    /// The worker announced its exit before the shutdown. The call that it concerned knows the
    /// reason.
    was_draining: bool,
}

/// The number of workers that did not end gracefully.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    /// Workers that exited with a code other than zero, or that another process killed.
    non_zero: usize,
    /// Workers that had to be killed.
    killed: usize,
    /// Jobs that were killed before the shutdown of their context, because they did not end in
    /// time.
    jobs: usize,
    /// The grace period is over: a worker that ends from now on was killed.
    killing: bool,
}

impl Shutdown {
    /// Tells idle workers to exit, and waits for them and for draining workers when polled.
    pub(in crate::worker) fn new(
        mut idle: Vec<Box<Worker>>,
        mut draining: Vec<Box<Worker>>,
        grace: Option<Duration>,
    ) -> Self {
        if is_forked_copy() {
            // The workers and their connections belong to the original process, so they are not
            // even closed here.
            idle.drain(..)
                .chain(draining.drain(..))
                .for_each(mem::forget);
        }
        idle.iter_mut().for_each(|worker| worker.dismiss());
        let deadline = if idle.is_empty() {
            None
        } else {
            grace.map(Timer::after)
        };
        let drain_deadline = if draining.is_empty() {
            None
        } else {
            Some(Timer::after(EXIT_GRACE.min(grace.unwrap_or(EXIT_GRACE))))
        };
        let exiting = |was_draining| {
            move |worker| ExitingWorker {
                worker,
                was_draining,
            }
        };
        let idle = idle.into_iter().map(exiting(false));
        Self {
            workers: idle
                .chain(draining.into_iter().map(exiting(true)))
                .collect(),
            deadline,
            drain_deadline,
            kill_deadline: None,
            tally: Tally::default(),
        }
    }

    /// Counts workers that had failed before the shutdown, of which no call has been told.
    pub(in crate::worker) fn with_failed(mut self, workers: usize) -> Self {
        self.tally.non_zero += workers;
        self
    }

    /// Counts jobs that were killed because they did not end in time.
    pub(in crate::worker) fn with_killed_jobs(mut self, jobs: usize) -> Self {
        self.tally.jobs = jobs;
        self
    }

    /// Waits until all workers have ended, and kills those that are left after the grace period. A
    /// killed worker that does not end within the kill timeout is left to the background.
    pub(in crate::worker) async fn wait(mut self) -> Result<(), WorkerError> {
        future::poll_fn(|cx| self.poll(cx)).await;
        match self.tally {
            Tally {
                non_zero: 0,
                killed: 0,
                jobs: 0,
                ..
            } => Ok(()),
            Tally {
                non_zero,
                killed,
                jobs,
                ..
            } => Err(WorkerError::shutdown(non_zero, killed, jobs)),
        }
    }

    /// Waits in the background, and reports an error as an event.
    pub(in crate::worker) fn wait_in_background(self) {
        if !self.workers.is_empty() {
            background::spawn(async { report(self.wait().await) }).detach();
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self {
            workers,
            deadline,
            drain_deadline,
            kill_deadline,
            tally,
        } = self;
        workers.retain_mut(|exiting| match exiting.worker.poll_end(cx) {
            Poll::Ready(ended) => {
                if !exiting.was_draining {
                    tally.count(ended);
                }
                false
            }
            Poll::Pending => true,
        });
        if workers.is_empty() {
            return Poll::Ready(());
        }
        let mut kill = |draining, reason| {
            let chosen = workers
                .iter_mut()
                .filter(|exiting| exiting.was_draining == draining);
            for exiting in chosen {
                exiting.worker.kill(reason);
                *kill_deadline = Some(Timer::after(exiting.worker.kill_timeout()));
            }
        };
        if poll_deadline(drain_deadline, cx).is_ready() {
            kill(true, KillReason::NoExit);
        }
        if poll_deadline(deadline, cx).is_ready() {
            tally.killing = true;
            kill(false, KillReason::GraceOver);
        }
        if poll_deadline(kill_deadline, cx).is_ready() {
            workers.retain(
                |ExitingWorker {
                     worker,
                     was_draining,
                 }| {
                    if !worker.is_killed() {
                        return true;
                    }
                    let timeout = worker.kill_timeout();
                    trace::outlives_its_kill(worker.context_name(), worker.pid(), None, timeout);
                    tally.killed += usize::from(!was_draining);
                    false
                },
            );
            if workers.is_empty() {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }
}

/// Waits for a deadline, which is ready once and never again.
fn poll_deadline(deadline: &mut Option<Timer>, cx: &mut Context<'_>) -> Poll<()> {
    let is_over = |timer: &mut Timer| timer.poll(cx).is_ready();
    if deadline.as_mut().is_some_and(is_over) {
        *deadline = None;
        Poll::Ready(())
    } else {
        Poll::Pending
    }
}

impl Tally {
    fn count(&mut self, ended: Ended) {
        if self.killing {
            self.killed += usize::from(ended != Ended::Exited(0));
        } else {
            self.non_zero += usize::from(is_failure(ended));
        }
    }
}

/// Whether a shutdown reports this end of an idle worker.
pub(in crate::worker) fn is_failure(ended: Ended) -> bool {
    match ended {
        // A program that ignores SIGCHLD never learns how its workers ended.
        Ended::Exited(0) | Ended::Unknown => false,
        Ended::Exited(_) | Ended::Signalled { .. } => true,
    }
}

/// Reports a shutdown that was not graceful as an event, where no caller waits for the result.
pub(in crate::worker) fn report(outcome: Result<(), WorkerError>) {
    if let Err(error) = outcome {
        tracing::warn!(%error, "a worker context was shut down");
    }
}
