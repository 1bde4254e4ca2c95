//! The instrument that makes a `tracing` span of each task.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tracing::Span;

use super::hooks::Instrument;
use crate::sys::primitives::lock;
use crate::task::observe::TaskExit;
use crate::task::{TaskId, TaskInfo};

/// Makes a `tracing` span of each task.
///
/// | event | trace |
/// |---|---|
/// | a task is spawned | a span `task` at DEBUG with `task.id` and `task.name`, below the span of the task's parent |
/// | a step begins, ends | the span is entered, left, so that everything traced during the step is in the span |
/// | a task is scheduled | an event at TRACE in the span |
/// | a task exits | an event at DEBUG in the span, with `how`; then the span is closed |
/// | the run waits, has waited | an event at TRACE, with `timeout` |
/// | the run begins, ends | an event at DEBUG |
///
/// The target is `seedbed::task`. If the instrument is added to a run that has begun, each task
/// gets its span at the next event of that task. Remove the instrument only in the run's root task,
/// or not at all: elsewhere, spans that were entered are not left.
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
    /// The spans of all tasks that have not exited. Not locked during calls of the subscriber,
    /// which may spawn. In an `Arc`, because cloning a span calls the subscriber.
    spans: Mutex<HashMap<TaskId, Arc<Span>>>,
}

const TARGET: &str = "seedbed::task";

impl TracingInstrument {
    /// Makes an instrument without spans.
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

    fn find(&self, id: TaskId) -> Option<Arc<Span>> {
        lock(&self.spans).get(&id).cloned()
    }

    /// Returns the task's span, and makes it if it does not exist.
    fn span(&self, task: &TaskInfo) -> Arc<Span> {
        self.find(task.id()).unwrap_or_else(|| {
            let parent = task.parent().and_then(|parent| self.find(parent.id()));
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
        if let Some(span) = self.find(task.id()) {
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
