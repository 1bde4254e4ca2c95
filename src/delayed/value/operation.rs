//! A node that is computed from other nodes.
//!
//! It is one allocation: the operands and the function until it is computed, the watchers while it
//! is computed, and the result.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, OnceLock};

use super::discard::{discard, empty_bin};
use super::node::{Graph, Node, Progress};
use super::sources::{self, Sources};
use super::watcher::{Watcher, Watchers};
use crate::delayed::error::JobError;
use crate::sys::primitives::lock;

/// Operands, and what is computed from them.
pub(super) trait Work: Send + 'static {
    type Output: Send + Sync + 'static;

    /// Adds the operands without a result.
    ///
    /// # Errors
    ///
    /// The error of an operand that has failed.
    fn missing(&self, missing: &mut Vec<Arc<dyn Graph>>) -> Result<(), JobError>;

    /// Adds all operands.
    fn add_operands(&self, operands: &mut Vec<Arc<dyn Graph>>);

    /// Adds the operands that the result is computed from. All that are needed have results.
    fn add_used(&self, operands: &mut Vec<Arc<dyn Graph>>) {
        self.add_operands(operands);
    }

    /// Returns the name of the operation.
    fn label() -> &'static str;

    /// Computes the result. All operands have values.
    fn compute(self) -> Result<Self::Output, JobError>;

    /// Hands over the operands, to be dropped.
    fn release(self, drop_later: &mut dyn FnMut(Arc<dyn Graph>));
}

pub(super) struct Operation<W: Work> {
    state: Mutex<State<W>>,
    result: OnceLock<Result<W::Output, JobError>>,
}

/// Two variants, of which one is small, so that rustc stores which one it is in a pointer of the
/// operands. This keeps a node with a number at 72 bytes, and nodes are bound by memory.
enum State<W> {
    Waiting(W),
    /// A thread computes the node, or the node has its result.
    Taken(Option<Box<Rest>>),
}

/// Data that few nodes have.
#[derive(Default)]
struct Rest {
    watchers: Watchers,
    /// The jobs that the result comes from. Known only while a trace is written.
    sources: Option<Sources>,
}

impl<W: Work> Operation<W> {
    pub(super) fn new(work: W) -> Self {
        Self {
            state: Mutex::new(State::Waiting(work)),
            result: OnceLock::new(),
        }
    }

    /// Stores the result and its sources, and tells the watchers.
    fn settle(&self, result: Result<W::Output, JobError>, sources: Option<Sources>) {
        let mut state = lock(&self.state);
        let rest = match &mut *state {
            State::Taken(rest) => {
                let kept = sources.map(|sources| {
                    Box::new(Rest {
                        sources: Some(sources),
                        ..Rest::default()
                    })
                });
                mem::replace(rest, kept)
            }
            State::Waiting(_) => unreachable!("the operands were taken"),
        };
        // After the sources, and with the lock: a thread that sees the result finds the sources,
        // and no watcher is added in between. Only the thread that has changed the state from
        // `Waiting` calls this, so the cell is empty.
        let result = self.result.get_or_init(|| result);
        drop(state);
        if let Some(rest) = rest {
            rest.watchers.settle(result.as_ref().err());
        }
    }

    /// Returns the jobs that the result of `work` comes from, if nodes keep them.
    fn sources_of(work: &W) -> Option<Sources> {
        if !sources::are_kept() {
            return None;
        }
        let mut used = Vec::new();
        work.add_used(&mut used);
        Sources::join(used.iter().filter_map(|operand| operand.sources()))
    }

    /// Takes the operands, if no thread has.
    fn take_work(state: &mut State<W>) -> Option<W> {
        match mem::replace(state, State::Taken(None)) {
            State::Waiting(work) => Some(work),
            other => {
                *state = other;
                None
            }
        }
    }

    fn done(&self) -> Progress {
        match self.outcome() {
            Some(Err(error)) => Progress::Failed(error.clone()),
            _ => Progress::Done,
        }
    }
}

impl<W: Work> Graph for Operation<W> {
    fn outcome(&self) -> Option<Result<(), &JobError>> {
        self.result.get().map(|result| result.as_ref().map(|_| ()))
    }

    fn advance(&self, compute: bool, missing: &mut Vec<Arc<dyn Graph>>) -> Progress {
        if self.result.get().is_some() {
            return self.done();
        }
        let mut state = lock(&self.state);
        let before = missing.len();
        let failure = match &*state {
            State::Waiting(work) => work.missing(missing).err(),
            State::Taken(_) if self.result.get().is_some() => return self.done(),
            State::Taken(_) => return Progress::Blocked,
        };
        if let Some(error) = failure {
            missing.truncate(before);
            let work = Self::take_work(&mut state);
            drop(state);
            let sources = work.as_ref().and_then(Self::sources_of);
            self.settle(Err(error.clone()), sources);
            release(work);
            return Progress::Failed(error);
        }
        if missing.len() > before {
            return Progress::Operands;
        }
        if !compute {
            return Progress::Computable;
        }
        let work = Self::take_work(&mut state);
        drop(state);
        if let Some(work) = work {
            let sources = Self::sources_of(&work);
            let computed = catch_unwind(AssertUnwindSafe(|| work.compute()));
            let result = computed.unwrap_or_else(|panic| {
                let error = JobError::panicked(&*panic);
                crate::sys::unwind::discard(panic);
                Err(error)
            });
            self.settle(result, sources);
        }
        self.done()
    }

    fn fail(&self, error: &JobError) {
        let work = Self::take_work(&mut lock(&self.state));
        if let Some(work) = work {
            let sources = Self::sources_of(&work);
            self.settle(Err(error.clone()), sources);
            release(Some(work));
        }
    }

    fn label(&self) -> &str {
        W::label()
    }

    fn sources(&self) -> Option<Sources> {
        match &*lock(&self.state) {
            State::Taken(Some(rest)) => rest.sources.clone(),
            _ => None,
        }
    }

    fn add_operands(&self, operands: &mut Vec<Arc<dyn Graph>>) {
        if let State::Waiting(work) = &*lock(&self.state) {
            work.add_operands(operands);
        }
    }

    fn watch(&self, watcher: &Arc<Watcher>) {
        let mut state = lock(&self.state);
        match &mut *state {
            // The result is stored and the watchers are taken without unlocking in between.
            State::Taken(rest) if self.result.get().is_none() => {
                let removed = rest.get_or_insert_default().watchers.add(watcher);
                drop(state);
                drop(removed);
                return;
            }
            State::Taken(_) => drop(state),
            State::Waiting(_) => unreachable!("a node that waits for operands is not watched"),
        }
        watcher.settled(self.outcome().and_then(Result::err));
    }
}

impl<W: Work> Node<W::Output> for Operation<W> {
    fn result(&self) -> Option<&Result<W::Output, JobError>> {
        self.result.get()
    }

    fn take(&mut self) -> Option<Result<W::Output, JobError>> {
        self.result.take()
    }
}

/// Drops operands without recursion.
fn release<W: Work>(work: Option<W>) {
    if let Some(work) = work {
        work.release(&mut discard);
        empty_bin();
    }
}

impl<W: Work> Drop for Operation<W> {
    fn drop(&mut self) {
        let state = self
            .state
            .get_mut()
            .unwrap_or_else(|error| error.into_inner());
        release(Self::take_work(state));
    }
}

#[cfg(test)]
mod tests {
    use super::super::handle::Delayed;
    use super::super::work::Unary;
    use super::*;

    #[test]
    fn a_node_with_a_number_takes_72_bytes() {
        fn size<W: Work>(_: &W) -> usize {
            // Two counters of the `Arc` stand before the node.
            2 * size_of::<usize>() + size_of::<Operation<W>>()
        }
        let (operand, number) = (Delayed::from(1.0), 2.0);
        assert_eq!(
            size(&Unary(operand, move |value: f64| Ok(value + number))),
            72
        );
    }
}
