//! Tasks as `tracing` spans.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tracing::Span;

use super::{Instrument, TaskExit};
use crate::cancel::lock;
use crate::task::{TaskId, TaskInfo};

/// Makes a `tracing` span of each task.
///
/// | what | becomes |
/// |---|---|
/// | a task | a span `task` at DEBUG with `task.id` and `task.name`, below the span of the task's parent |
/// | a step | the span is entered and left; so all that is traced meanwhile is in it |
/// | it is spawned, exits | its span is made; an event at DEBUG in the span, with `how`, and the span is closed |
/// | it is scheduled | an event at TRACE in the span |
/// | the run waits, has waited | an event at TRACE, with `timeout` |
/// | the run begins, ends | an event at DEBUG |
///
/// The target of all is `seedbed::task`. A task of which this is first told in the middle, because it was added so late,
/// gets its span then. So that every span which is entered is left, remove it in no other place than in the run's root
/// task; or, better, not at all.
///
/// ```
/// use std::sync::Arc;
/// use seedbed::instrument::TracingInstrument;
/// use seedbed::{RunBuilder, open_nursery};
///
/// let spans = Arc::new(TracingInstrument::new());
/// let answer = RunBuilder::new().instrument(spans).run(open_nursery(|n| async move {
///     let task = n.named("connection 7").spawn(async {
///         tracing::info!("in the span of connection 7");
///         7
///     });
///     task.await
/// }));
/// assert_eq!(answer, 7);
/// ```
#[derive(Debug, Default)]
pub struct TracingInstrument {
    /// Of all tasks that have not exited. Never locked while the subscriber is called, which may spawn; and cloning a span,
    /// unlike counting it, would call the subscriber.
    spans: Mutex<HashMap<TaskId, Arc<Span>>>,
}

const TARGET: &str = "seedbed::task";

impl TracingInstrument {
    /// Makes one, which knows of no task.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use seedbed::RunBuilder;
    /// use seedbed::instrument::TracingInstrument;
    ///
    /// let spans = Arc::new(TracingInstrument::new());
    /// assert_eq!(RunBuilder::new().instrument(spans).run(async { 5 }), 5);
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    fn known(&self, id: TaskId) -> Option<Arc<Span>> {
        lock(&self.spans).get(&id).cloned()
    }

    /// The task's span, which is made if need be.
    fn span(&self, task: &TaskInfo) -> Arc<Span> {
        self.known(task.id()).unwrap_or_else(|| {
            let parent = task.parent().and_then(|parent| self.known(parent.id()));
            let span = Arc::new(tracing::debug_span!(
                target: TARGET,
                parent: parent.and_then(|parent| parent.id()),
                "task",
                task.id = task.id().get(),
                task.name = task.name(),
            ));
            let before = lock(&self.spans).insert(task.id(), span.clone());
            drop(before);
            span
        })
    }
}

impl Instrument for TracingInstrument {
    fn before_run(&self) {
        tracing::debug!(target: TARGET, "the run begins");
    }

    fn after_run(&self) {
        tracing::debug!(target: TARGET, "the run has ended");
    }

    fn task_spawned(&self, task: &TaskInfo) {
        self.span(task);
    }

    fn task_scheduled(&self, task: &TaskInfo) {
        tracing::trace!(target: TARGET, parent: &*self.span(task), "scheduled");
    }

    fn before_task_step(&self, task: &TaskInfo) {
        self.span(task)
            .with_subscriber(|(id, subscriber)| subscriber.enter(id));
    }

    fn after_task_step(&self, task: &TaskInfo) {
        if let Some(span) = self.known(task.id()) {
            span.with_subscriber(|(id, subscriber)| subscriber.exit(id));
        }
    }

    fn task_exited(&self, task: &TaskInfo, how: TaskExit) {
        let span = lock(&self.spans).remove(&task.id());
        if let Some(span) = span {
            tracing::debug!(target: TARGET, parent: &*span, ?how, "exited");
        }
    }

    fn before_io_wait(&self, timeout: Option<Duration>) {
        tracing::trace!(target: TARGET, ?timeout, "the run waits");
    }

    fn after_io_wait(&self, timeout: Option<Duration>) {
        tracing::trace!(target: TARGET, ?timeout, "the run has waited");
    }
}
