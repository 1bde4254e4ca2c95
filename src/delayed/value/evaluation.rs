//! Evaluates a graph with an explicit stack, so that its depth costs no stack of the thread.
//!
//! An evaluation computes in depth-first order. At the first node that has to be waited for, it
//! visits the whole graph once and watches *all* such nodes, so that an error of any of them ends
//! the evaluation at once.

use std::any::Any;
use std::collections::HashSet;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::awaiter::{AWAITER, JobId};
use super::node::{Graph, Progress};
use super::watcher::Watcher;
use crate::delayed::error::{JobError, JobErrorKind};
use crate::delayed::tuning::STEPS_PER_POLL;
use crate::wait::{Wait, pending};

pub(super) enum Evaluation {
    New,
    /// The path from the root to the node that is computed next, with operands that come after it.
    Computing(Vec<Arc<dyn Graph>>),
    Watching(Watching),
    Waiting(Waiting),
}

/// A wait for all nodes that come from elsewhere.
pub(super) struct Waiting {
    watcher: Arc<Watcher>,
    /// The record of the wait, if a job of this process waits.
    _recorded: Option<Box<dyn Any + Send + Sync>>,
}

/// A visit of the whole graph.
pub(super) struct Watching {
    to_visit: Vec<Arc<dyn Graph>>,
    /// The addresses of nodes that were visited.
    visited: HashSet<usize>,
    /// The jobs among the watched nodes.
    jobs: Vec<JobId>,
    watcher: Arc<Watcher>,
}

impl Evaluation {
    /// Computes `root`. When this is ready without an error, the node has a value.
    pub(super) fn poll(
        &mut self,
        root: &Arc<dyn Graph>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), JobError>> {
        let mut steps = STEPS_PER_POLL;
        loop {
            let next = match self {
                Self::New => Some(Self::Computing(vec![root.clone()])),
                Self::Computing(path) => match compute(path, &mut steps) {
                    Computed::All => return Poll::Ready(Ok(())),
                    Computed::Blocked => Some(Self::Watching(Watching::new(root))),
                    Computed::OutOfSteps => None,
                },
                Self::Watching(watching) => match watching.visit(&mut steps) {
                    Ok(true) => match watching.finish() {
                        Ok(waiting) => Some(Self::Waiting(waiting)),
                        Err(error) => return Poll::Ready(Err(error)),
                    },
                    Ok(false) => None,
                    Err(error) => return Poll::Ready(Err(fail(root, error))),
                },
                Self::Waiting(waiting) => match waiting.watcher.poll(cx) {
                    Poll::Ready(Ok(())) => Some(Self::New),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(fail(root, error))),
                    Poll::Pending => return pending(&Wait::For("a delayed value")),
                },
            };
            match next {
                Some(next) => *self = next,
                None => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        }
    }
}

/// Gives the error to the awaited value, unless only this wait has failed.
fn fail(root: &Arc<dyn Graph>, error: JobError) -> JobError {
    if error.kind() != JobErrorKind::Deadlock {
        root.fail(&error);
    }
    error
}

enum Computed {
    All,
    Blocked,
    OutOfSteps,
}

/// Computes the last node of the path, until the path is empty.
fn compute(path: &mut Vec<Arc<dyn Graph>>, steps: &mut usize) -> Computed {
    while let Some(node) = path.pop() {
        let place = path.len();
        match node.advance(true, path) {
            // The handle is dropped before the dependant is computed, which can then move the
            // value out.
            Progress::Done | Progress::Failed(_) | Progress::Computable => {}
            Progress::Operands => path.insert(place, node),
            Progress::Blocked => return Computed::Blocked,
        }
        *steps -= 1;
        if *steps == 0 {
            return Computed::OutOfSteps;
        }
    }
    Computed::All
}

impl Watching {
    fn new(root: &Arc<dyn Graph>) -> Self {
        Self {
            to_visit: vec![root.clone()],
            visited: HashSet::new(),
            jobs: Vec::new(),
            watcher: Arc::new(Watcher::new()),
        }
    }

    /// Watches nodes. Returns whether all were visited.
    ///
    /// # Errors
    ///
    /// The error of a node that has failed.
    fn visit(&mut self, steps: &mut usize) -> Result<bool, JobError> {
        while let Some(node) = self.to_visit.pop() {
            if self.visited.insert(Arc::as_ptr(&node).cast::<()>().addr()) {
                match node.advance(false, &mut self.to_visit) {
                    Progress::Failed(error) => return Err(error),
                    Progress::Blocked => {
                        self.watcher.expect_one();
                        node.watch(&self.watcher);
                        self.jobs.extend(node.job());
                    }
                    Progress::Done | Progress::Operands | Progress::Computable => {}
                }
            }
            *steps -= 1;
            if *steps == 0 {
                return Ok(false);
            }
        }
        self.watcher.settled(None);
        Ok(true)
    }

    /// Begins to wait for the watched nodes.
    ///
    /// # Errors
    ///
    /// If the job that waits holds resources without which the nodes get no results.
    fn finish(&mut self) -> Result<Waiting, JobError> {
        let jobs = mem::take(&mut self.jobs);
        let recorded = AWAITER.get().map(|job| job.begin_wait(jobs, &self.watcher));
        Ok(Waiting {
            watcher: self.watcher.clone(),
            _recorded: recorded.transpose()?,
        })
    }
}
