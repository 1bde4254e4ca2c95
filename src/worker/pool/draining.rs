//! Workers on their way out: they have said good-bye, and their processes have not been reaped.
//!
//! Nobody waits for them. A call that finds its worker gone goes to the next one at once, as a process takes longer to
//! end than a fork server takes to make another. Who has ended is reaped in passing, whenever another one comes or
//! somebody looks; one that stays for longer than [`LAST_RITES`] is killed. For both there is a task besides, for a
//! context in which nothing happens any more. It also reads what they have to say on standard error, if that is
//! captured: a full pipe could keep them from ending.
//!
//! Only where there are very many does a call wait for the first of them, before it has another worker made: what takes its time
//! when it exits must not fill the process table.
//!
//! What is here owns the workers and looks at them; the lock, the task and the clock are the context's.

// A worker is large, and moves in the box that it came in.
#![allow(clippy::vec_box)]

use std::collections::VecDeque;
use std::mem;
use std::task::{Context, Waker};
use std::time::Instant;

use crate::worker::conn::worker::{LAST_RITES, Worker};

/// At how many one looks in passing: one that takes its time must not keep those behind it.
const LOOKS: usize = 16;

/// How many there may be before whoever wants another worker waits.
const MOST: usize = 256;

/// Workers that have said good-bye, the first on top.
#[derive(Debug, Default)]
pub(in crate::worker) struct Leaving {
    workers: VecDeque<(Box<Worker>, Instant)>,
    /// There is a task that looks after them.
    pub(in crate::worker) watched: bool,
    /// Has it look at once.
    watchman: Option<Waker>,
}

/// Who is not leaving any more.
#[derive(Debug, Default)]
pub(in crate::worker) struct ClearedOut {
    pub(in crate::worker) ended: Vec<Box<Worker>>,
    pub(in crate::worker) overdue: Vec<Box<Worker>>,
}

impl Leaving {
    /// Takes in a worker that has just said good-bye.
    pub(in crate::worker) fn put(&mut self, worker: Box<Worker>) {
        if worker.is_captured()
            && let Some(watchman) = self.watchman.take()
        {
            watchman.wake();
        }
        self.workers.push_back((worker, Instant::now()));
    }

    /// Reads what the workers print, and has the task woken for more.
    pub(in crate::worker) fn attend(&mut self, cx: &mut Context<'_>) {
        for (worker, _) in &mut self.workers {
            worker.drain(cx);
        }
        self.watchman = Some(cx.waker().clone());
    }

    /// Takes out those that have ended among the oldest, which are usually all.
    pub(in crate::worker) fn prune(&mut self) -> Vec<Box<Worker>> {
        let oldest = self.workers.len().min(LOOKS);
        let (ended, stay): (Vec<_>, Vec<_>) = self
            .workers
            .drain(..oldest)
            .map(|(mut worker, since)| (worker.is_fit(), worker, since))
            .partition(|(lives, ..)| !lives);
        for (_, worker, since) in stay.into_iter().rev() {
            self.workers.push_front((worker, since));
        }
        ended.into_iter().map(|(_, worker, _)| worker).collect()
    }

    /// Takes out all that have ended, and all that are here for too long, which are to be killed.
    pub(in crate::worker) fn clear_out(&mut self) -> ClearedOut {
        let now = Instant::now();
        let mut out = ClearedOut::default();
        for (mut worker, since) in mem::take(&mut self.workers) {
            match (worker.is_fit(), now - since < LAST_RITES) {
                (true, true) => self.workers.push_back((worker, since)),
                (true, false) => out.overdue.push(worker),
                (false, _) => out.ended.push(worker),
            }
        }
        out
    }

    /// Takes out the one that is here for longest, if there are too many.
    pub(in crate::worker) fn oldest_of_too_many(&mut self) -> Option<Box<Worker>> {
        match self.workers.len() < MOST {
            true => None,
            false => self.workers.pop_front().map(|(worker, _)| worker),
        }
    }

    /// Takes all out.
    pub(in crate::worker) fn empty(&mut self) -> Vec<Box<Worker>> {
        self.workers.drain(..).map(|(worker, _)| worker).collect()
    }

    pub(in crate::worker) fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }
}
