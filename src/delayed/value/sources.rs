//! The jobs that a value comes from, for traces.
//!
//! A node lets go of its operands when it is computed. While a trace is written in this process, it
//! keeps instead which jobs they came from. It keeps the links to those of its operands, rather
//! than a list, which would grow with each operation of a chain.

use std::collections::HashSet;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::awaiter::JobId;

/// The number of traces that are written.
static TRACES: AtomicUsize = AtomicUsize::new(0);

/// Returns whether nodes keep their sources.
pub(super) fn are_kept() -> bool {
    TRACES.load(Ordering::Relaxed) > 0
}

/// Lets the nodes that are computed from now on keep their sources, until this is dropped.
#[derive(Debug)]
pub(in crate::delayed) struct KeepSources(());

impl KeepSources {
    pub(in crate::delayed) fn begin() -> Self {
        TRACES.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for KeepSources {
    fn drop(&mut self) {
        TRACES.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The jobs that a value comes from.
#[derive(Clone)]
pub(in crate::delayed) enum Sources {
    Job(JobId),
    Several(Arc<Links>),
}

/// The sources of the operands of a node.
pub(in crate::delayed) struct Links(Vec<Sources>);

impl Sources {
    /// Joins the sources of operands. `None` if there are none.
    pub(super) fn join(sources: impl IntoIterator<Item = Self>) -> Option<Self> {
        let mut sources: Vec<Self> = sources.into_iter().collect();
        match sources.len() {
            0 | 1 => sources.pop(),
            _ => Some(Self::Several(Arc::new(Links(sources)))),
        }
    }

    /// Returns the jobs, each one once.
    pub(super) fn jobs(&self) -> Vec<JobId> {
        let (mut jobs, mut visited) = (HashSet::new(), HashSet::new());
        let mut to_visit = vec![self];
        while let Some(source) = to_visit.pop() {
            match source {
                Self::Job(job) => {
                    jobs.insert(*job);
                }
                Self::Several(links) if visited.insert(Arc::as_ptr(links)) => {
                    to_visit.extend(&links.0);
                }
                Self::Several(_) => {}
            }
        }
        let mut jobs: Vec<JobId> = jobs.into_iter().collect();
        jobs.sort_unstable();
        jobs
    }
}

/// Drops a chain of links without recursion.
impl Drop for Links {
    fn drop(&mut self) {
        let mut to_drop = mem::take(&mut self.0);
        while let Some(source) = to_drop.pop() {
            if let Sources::Several(links) = source
                && let Some(mut links) = Arc::into_inner(links)
            {
                to_drop.append(&mut links.0);
            }
        }
    }
}
