//! The end of a worker: a wait with a deadline, and a kill.

use std::task::{Context, Poll};

use async_io::Timer;
use futures_lite::FutureExt;

use super::worker::Worker;
use crate::transport::out_message::OutMessage;
use crate::worker::end::KillReason;
use crate::worker::error::WorkerExit;
use crate::worker::tuning::EXIT_GRACE;

/// A worker that is exiting or was killed, until it is reaped.
#[derive(Debug)]
pub(in crate::worker) struct EndingWorker {
    worker: Box<Worker>,
    /// The time until which the process must have exited. `None` once it has been killed.
    deadline: Option<Timer>,
    exceeded_grace: bool,
}

impl EndingWorker {
    /// A worker that is about to exit by itself. It is killed if that takes longer than the grace
    /// period.
    pub(in crate::worker) fn exiting(worker: Box<Worker>) -> Self {
        Self {
            worker,
            deadline: Some(Timer::after(EXIT_GRACE)),
            exceeded_grace: false,
        }
    }

    /// Kills the worker.
    pub(in crate::worker) fn killed(mut worker: Box<Worker>, why: KillReason) -> Self {
        worker.kill(why);
        Self {
            worker,
            deadline: None,
            exceeded_grace: false,
        }
    }

    /// Kills the worker, once.
    pub(in crate::worker) fn kill(&mut self, why: KillReason) {
        if self.deadline.take().is_some() {
            self.worker.kill(why);
        }
    }

    /// Waits until the worker is reaped.
    pub(in crate::worker) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<EndedWorker> {
        if let Poll::Ready(ended) = self.worker.poll_end(cx) {
            let exit = self.worker.exit(ended);
            return Poll::Ready(EndedWorker {
                exit,
                exceeded_grace: self.exceeded_grace,
            });
        }
        let is_over = |deadline: &mut Timer| deadline.poll(cx).is_ready();
        if self.deadline.as_mut().is_some_and(is_over) {
            self.exceeded_grace = true;
            self.kill(KillReason::NoExit);
        }
        Poll::Pending
    }

    /// Whether a worker that has ended had received the whole of the last message.
    pub(in crate::worker) fn has_received_all(&self) -> bool {
        self.worker.has_received_all()
    }

    /// Returns the last message to the worker.
    pub(in crate::worker) fn take_back(&mut self) -> OutMessage {
        self.worker.take_back()
    }
}

/// The report of a worker that has been reaped.
#[derive(Debug)]
pub(in crate::worker) struct EndedWorker {
    pub(in crate::worker) exit: WorkerExit,
    /// The worker was about to exit, took too long, and was killed.
    pub(in crate::worker) exceeded_grace: bool,
}
