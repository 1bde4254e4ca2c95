//! The future of a `run_process` call.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::process::Output;
use std::task::{Context, Poll};

use super::error::ProcessError;
use super::handle::Process;
use super::plan::Plan;
use super::supervise::supervise;
use crate::task::Started;
use crate::wait::{Wait, noted};

/// The future that runs a process, made by awaiting [`RunProcess`](super::RunProcess) or by
/// [`supervise`](super::RunProcess::supervise).
///
/// # Dropping
///
/// Kills the process if it runs, and reaps it in the background.
#[must_use = "futures do nothing unless awaited"]
pub struct RunProcessFuture {
    program: String,
    future: Pin<Box<dyn Future<Output = Result<Output, ProcessError>> + Send>>,
}

impl RunProcessFuture {
    pub(super) fn new(plan: Plan, started: Option<Started<Process>>) -> Self {
        RunProcessFuture {
            program: plan.program.clone(),
            future: Box::pin(supervise(plan, started)),
        }
    }
}

impl Future for RunProcessFuture {
    type Output = Result<Output, ProcessError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        noted(self.future.as_mut().poll(cx), &Wait::For("a process"))
    }
}

impl fmt::Debug for RunProcessFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunProcessFuture")
            .field("program", &self.program)
            .finish_non_exhaustive()
    }
}
