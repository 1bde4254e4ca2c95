//! The end of a worker: a wait with a deadline, a kill, and a wait with another deadline.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use super::worker::Worker;
use crate::process::notify::Listener;
use crate::process::tick::next_tick;
use crate::transport::out_message::OutMessage;
use crate::worker::end::KillReason;
use crate::worker::error::{Survivor, WorkerExit};
use crate::worker::trace;
use crate::worker::tuning::EXIT_GRACE;

/// A worker that is exiting or was killed, until it is reaped.
#[derive(Debug)]
pub(in crate::worker) struct EndingWorker {
    worker: Box<Worker>,
    /// The worker has been killed, and `deadline` is that of the kill.
    is_killed: bool,
    /// The time until which the process must have ended, if any. The next look at the clock is at a
    /// tick, as nearly all workers end long before, and a timer of their own would wake the
    /// reactor.
    deadline: Option<Instant>,
    tick: Option<Listener>,
    exceeded_grace: bool,
    /// The job that the worker has, for a warning.
    job_name: Option<&'static str>,
}

impl EndingWorker {
    /// A worker that is about to exit by itself. It is killed if that takes longer than the grace
    /// period.
    pub(in crate::worker) fn exiting(worker: Box<Worker>) -> Self {
        Self {
            worker,
            is_killed: false,
            deadline: Instant::now().checked_add(EXIT_GRACE),
            tick: None,
            exceeded_grace: false,
            job_name: None,
        }
    }

    /// Kills the worker.
    pub(in crate::worker) fn killed(worker: Box<Worker>, why: KillReason) -> Self {
        let mut this = Self::exiting(worker);
        this.kill(why);
        this
    }

    /// Sets the name of the worker's job.
    pub(in crate::worker) fn of_job(mut self, name: Option<&'static str>) -> Self {
        self.job_name = name;
        self
    }

    /// Kills the worker, once.
    pub(in crate::worker) fn kill(&mut self, why: KillReason) {
        if !std::mem::replace(&mut self.is_killed, true) {
            self.worker.kill(why);
            self.deadline = Instant::now().checked_add(self.worker.kill_timeout());
        }
    }

    /// Waits until the worker is reaped. If it has been killed and does not end, this gives up
    /// after the kill timeout with a warning. Dropping the worker leaves the rest to the
    /// background.
    pub(in crate::worker) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<EndedWorker> {
        loop {
            if let Poll::Ready(ended) = self.worker.poll_end(cx) {
                let exit = self.worker.exit(ended);
                return Poll::Ready(self.ended(Some(exit)));
            }
            if self
                .deadline
                .is_none_or(|deadline| Instant::now() < deadline)
            {
                ready!(Pin::new(self.tick.get_or_insert_with(next_tick)).poll(cx));
                self.tick = None;
                continue;
            }
            if self.is_killed {
                let (pid, timeout) = (self.worker.pid(), self.worker.kill_timeout());
                trace::outlives_its_kill(self.worker.context_name(), pid, self.job_name, timeout);
                return Poll::Ready(self.ended(None));
            }
            self.exceeded_grace = true;
            self.kill(KillReason::NoExit); // and polls the new deadline
        }
    }

    fn ended(&self, exit: Option<WorkerExit>) -> EndedWorker {
        EndedWorker {
            exit: exit.ok_or(Survivor {
                pid: self.worker.pid(),
                waited: self.worker.kill_timeout(),
            }),
            exceeded_grace: self.exceeded_grace,
            was_trapped: self.worker.was_trapped(),
        }
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

/// The report of a worker that has been reaped, or could not be.
#[derive(Debug)]
pub(in crate::worker) struct EndedWorker {
    pub(in crate::worker) exit: Result<WorkerExit, Survivor>,
    /// The worker was about to exit, took too long, and was killed.
    pub(in crate::worker) exceeded_grace: bool,
    /// The worker had asked to be traced, and was killed because a signal stopped it.
    pub(in crate::worker) was_trapped: bool,
}
