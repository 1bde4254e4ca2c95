//! Workers on their way out: they have said good-bye, and their processes have not been reaped.
//!
//! Nobody waits for them. A call that finds its worker gone goes to the next one at once, as a process takes longer to end than a
//! fork server takes to make another. Who has ended is reaped in passing, whenever another one comes or somebody looks; one
//! that stays for longer than [`LAST_RITES`] is killed. For both there is a task besides, for a context in which nothing
//! happens any more.
//!
//! What is here owns the workers and looks at them; the lock, the task and the clock are the context's.

// A worker is large, and moves in the box that it came in.
#![allow(clippy::vec_box)]

use std::collections::VecDeque;
use std::time::Instant;

use super::life::{LAST_RITES, Worker};
use super::statistics::Why;

/// At how many one looks in passing: one that takes its time must not keep those behind it.
const LOOKS: usize = 16;

/// Workers that have said good-bye, the first on top.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    workers: VecDeque<(Box<Worker>, Instant)>,
    /// There is a task that looks after them.
    pub(super) watched: bool,
}

impl Leaving {
    /// Takes in a worker that has just said good-bye.
    pub(super) fn put(&mut self, worker: Box<Worker>) {
        self.workers.push_back((worker, Instant::now()));
    }

    /// Takes out those that have ended among the oldest, which are usually all.
    pub(super) fn prune(&mut self) -> Vec<Box<Worker>> {
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

    /// Takes out all that have ended, and all that are here for too long, to be dropped, which kills those.
    pub(super) fn clear_out(&mut self) -> Vec<Box<Worker>> {
        let now = Instant::now();
        let mut stay = VecDeque::new();
        let mut out = Vec::new();
        for (mut worker, since) in self.workers.drain(..) {
            match worker.is_fit() && now - since < LAST_RITES {
                true => stay.push_back((worker, since)),
                false => {
                    worker.kill(Why::LivedOn); // if it has not ended
                    out.push(worker);
                }
            }
        }
        self.workers = stay;
        out
    }

    /// Takes all out.
    pub(super) fn empty(&mut self) -> Vec<Box<Worker>> {
        self.workers.drain(..).map(|(worker, _)| worker).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }
}
