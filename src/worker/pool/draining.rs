//! Draining workers: they have announced their exit, and their processes have not been reaped.
//!
//! No call waits for them, because a fork server makes a new worker faster than a process exits.
//! The pool reaps draining workers whenever another one joins them, and a background task does so
//! where nothing else happens. The task also reads their captured standard error, because a full
//! pipe could keep a process from exiting.
//!
//! This file only holds and inspects the workers. The lock, the task and the clock belong to the
//! pool.

// A worker is large, so it stays in the box that it was created in.
#![allow(clippy::vec_box)]

use std::collections::VecDeque;
use std::mem;
use std::task::{Context, Waker};
use std::time::Instant;

use crate::worker::conn::worker::Worker;
use crate::worker::tuning::{DRAINING_WORKERS_LIMIT, EXIT_GRACE, REAP_BATCH};

/// Workers that have announced their exit, oldest first.
#[derive(Debug, Default)]
pub(in crate::worker) struct DrainingWorkers {
    workers: VecDeque<(Box<Worker>, Instant)>,
    /// A background task reaps these workers.
    pub(in crate::worker) has_reaper: bool,
    /// Wakes that task.
    reaper: Option<Waker>,
}

/// Workers that are no longer draining.
#[derive(Debug, Default)]
pub(in crate::worker) struct ReapedWorkers {
    pub(in crate::worker) ended: Vec<Box<Worker>>,
    /// Workers that did not exit within [`EXIT_GRACE`] and have to be killed.
    pub(in crate::worker) overdue: Vec<Box<Worker>>,
}

impl DrainingWorkers {
    /// Adds a worker that has just announced its exit. Returns the waker of the task that has to
    /// read the worker's standard error, to be woken without the pool's lock.
    #[must_use]
    pub(in crate::worker) fn put(&mut self, worker: Box<Worker>) -> Option<Waker> {
        let reaper = worker.is_captured().then(|| self.reaper.take()).flatten();
        self.workers.push_back((worker, Instant::now()));
        reaper
    }

    /// Reads the workers' captured standard error, and registers the reaper's waker for more of it.
    pub(in crate::worker) fn poll_stderr(&mut self, cx: &mut Context<'_>) {
        for (worker, _) in &mut self.workers {
            worker.read_stderr(cx);
        }
        self.reaper = Some(cx.waker().clone());
    }

    /// Takes out those of the oldest workers that have ended, at a bounded cost.
    pub(in crate::worker) fn reap_oldest(&mut self) -> Vec<Box<Worker>> {
        let oldest = self.workers.len().min(REAP_BATCH);
        let (ended, alive): (Vec<_>, Vec<_>) = self
            .workers
            .drain(..oldest)
            .map(|(mut worker, since)| (worker.try_reap().is_none(), worker, since))
            .partition(|(lives, ..)| !lives);
        for (_, worker, since) in alive.into_iter().rev() {
            self.workers.push_front((worker, since));
        }
        ended.into_iter().map(|(_, worker, _)| worker).collect()
    }

    /// Takes out the worker with this process, if it has ended.
    pub(in crate::worker) fn take_ended(&mut self, pid: u32) -> Option<Box<Worker>> {
        let is_it =
            |(worker, _): &mut (Box<Worker>, _)| worker.pid() == pid && worker.try_reap().is_some();
        let index = self.workers.iter_mut().position(is_it)?;
        self.workers.remove(index).map(|(worker, _)| worker)
    }

    /// Takes out all workers that have ended, and all that are overdue.
    pub(in crate::worker) fn reap(&mut self) -> ReapedWorkers {
        let now = Instant::now();
        let mut reaped = ReapedWorkers::default();
        for (mut worker, since) in mem::take(&mut self.workers) {
            match (worker.try_reap().is_none(), now - since < EXIT_GRACE) {
                (true, true) => self.workers.push_back((worker, since)),
                (true, false) => reaped.overdue.push(worker),
                (false, _) => reaped.ended.push(worker),
            }
        }
        reaped
    }

    /// Takes out the oldest worker if there are too many, so that a call can wait for its end
    /// before it starts another process. Otherwise workers that exit slowly could fill the process
    /// table.
    pub(in crate::worker) fn take_oldest_if_full(&mut self) -> Option<Box<Worker>> {
        if self.workers.len() < DRAINING_WORKERS_LIMIT {
            None
        } else {
            self.workers.pop_front().map(|(worker, _)| worker)
        }
    }

    /// Takes out all workers.
    pub(in crate::worker) fn drain(&mut self) -> Vec<Box<Worker>> {
        self.workers.drain(..).map(|(worker, _)| worker).collect()
    }

    pub(in crate::worker) fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }
}
