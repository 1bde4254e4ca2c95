//! The constructors of [`WorkerError`] for calls and contexts: one for each cause, with its
//! message. A message names the cause, the affected object and, if the caller can act, the remedy.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use super::exit::{Survivor, WorkerExit};
use super::worker_error::{Inner, WorkerError, WorkerErrorKind};
use crate::transport::job::panic_report::WorkerPanic;

impl WorkerError {
    pub(super) fn new(kind: WorkerErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            job: None,
            item: None,
            context: None,
            message: message.into(),
            ran_for: None,
            exit: None,
            panic: None,
            source: None,
        }))
    }

    /// Sets the name of the job.
    pub(crate) fn of_job(mut self, name: &'static str) -> Self {
        self.0.job = Some(name);
        self
    }

    /// Sets the index of the item of a map.
    pub(crate) fn of_item(mut self, index: usize) -> Self {
        self.0.item = Some(index);
        self
    }

    /// Sets the name of the context.
    pub(crate) fn of_context(mut self, name: Option<&Arc<str>>) -> Self {
        self.0.context = name.cloned();
        self
    }

    pub(super) fn caused_by(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Sets how the process ended.
    pub(crate) fn ended(mut self, exit: WorkerExit) -> Self {
        self.0.exit = Some(exit);
        self
    }

    /// Sets how long the job had run.
    pub(crate) fn having_run(mut self, ran_for: Duration) -> Self {
        self.0.ran_for = Some(ran_for);
        self
    }

    pub(super) fn panicked_with(mut self, panic: WorkerPanic) -> Self {
        self.0.panic = Some(panic);
        self
    }

    pub(crate) fn foreign_function(name: &'static str) -> Self {
        Self::new(
            WorkerErrorKind::ForeignFunction,
            "its code lies in a shared object and not in the main executable, so a worker process may not have it; \
             link the crate that defines it statically",
        )
        .of_job(name)
    }

    pub(crate) fn image_mismatch() -> Self {
        Self::new(
            WorkerErrorKind::ImageMismatch,
            "the worker runs another executable image than this process, so nothing was called in it; \
             `/proc/self/exe` must lead both to the same file",
        )
    }

    pub(crate) fn encode_argument(source: impl Error + Send + Sync + 'static) -> Self {
        Self::new(
            WorkerErrorKind::EncodeArgument,
            format!("the argument could not be encoded: {source}"),
        )
        .caused_by(source)
    }

    pub(crate) fn decode_argument(message: &str) -> Self {
        Self::new(
            WorkerErrorKind::DecodeArgument,
            format!("the worker could not decode the argument: {message}"),
        )
    }

    pub(crate) fn encode_result(message: &str) -> Self {
        Self::new(
            WorkerErrorKind::EncodeResult,
            format!("the job ran, but its result could not be encoded: {message}"),
        )
    }

    pub(crate) fn decode_result(source: impl Error + Send + Sync + 'static) -> Self {
        Self::new(
            WorkerErrorKind::DecodeResult,
            format!("the job ran, but its result could not be decoded: {source}"),
        )
        .caused_by(source)
    }

    pub(crate) fn panicked(panic: WorkerPanic) -> Self {
        Self::new(WorkerErrorKind::Panicked, format!("the job {panic}")).panicked_with(panic)
    }

    /// The worker ended after the job had run for `ran_for`.
    pub(crate) fn broken(exit: WorkerExit, ran_for: Duration) -> Self {
        Self::new(
            WorkerErrorKind::Broken,
            format!(
                "the worker {exit} {ran_for:.1?} into the job; {}",
                exit.advice()
            ),
        )
        .having_run(ran_for)
        .ended(exit)
    }

    /// The worker was killed because the job had not ended within `limit`.
    pub(in crate::worker) fn timed_out(
        exit: Result<WorkerExit, Survivor>,
        limit: Duration,
        ran_for: Duration,
    ) -> Self {
        let worker = match &exit {
            Ok(exit) => format!("was killed (process {})", exit.pid()),
            Err(survivor) => survivor.to_string(),
        };
        let error = Self::new(
            WorkerErrorKind::TimedOut,
            format!(
                "the job had not ended after its time limit of {limit:?}, and its worker {worker}; raise the limit or do \
                 less in one job"
            ),
        )
        .having_run(ran_for);
        match exit {
            Ok(exit) => error.ended(exit),
            Err(_) => error,
        }
    }

    /// The worker was killed by `kill_all` while it had the job.
    pub(crate) fn killed_with_all() -> Self {
        Self::new(
            WorkerErrorKind::Broken,
            "the worker was killed by `WorkerContext::kill_all` while it had the job",
        )
    }

    /// `shutdown_within` has cancelled an async job.
    pub(crate) fn cancelled_in_shutdown() -> Self {
        Self::new(
            WorkerErrorKind::Closed,
            "the async job was cancelled, because its worker context was shut down while it ran",
        )
    }

    /// The job did not end within the limit of `shutdown_within`.
    pub(crate) fn killed_in_shutdown() -> Self {
        Self::new(
            WorkerErrorKind::Broken,
            "the worker was killed because its context was shut down and the job did not end when it was asked; let the \
             job call `worker::check_cancelled` regularly, or allow `WorkerContext::shutdown_within` more time",
        )
    }

    /// The call was cancelled, and its job did not end when it was asked.
    pub(crate) fn cancelled(exit: WorkerExit, ran_for: Duration) -> Self {
        Self::new(
            WorkerErrorKind::Broken,
            format!(
                "the worker was killed {ran_for:.1?} into the job, because the call was cancelled and the job did not end \
                 when it was asked (process {})",
                exit.pid()
            ),
        )
        .having_run(ran_for)
        .ended(exit)
    }

    /// The job asked to be traced, and a signal stopped it.
    pub(crate) fn traced(exit: WorkerExit, ran_for: Duration) -> Self {
        Self::new(
            WorkerErrorKind::Broken,
            format!(
                "the worker was stopped by a signal {ran_for:.1?} into the job and was killed (process {}), because this \
                 job or an earlier one had asked to be traced (`PTRACE_TRACEME`), and this program is no debugger; let no \
                 job do that",
                exit.pid()
            ),
        )
        .having_run(ran_for)
        .ended(exit)
    }

    /// The worker was killed, and lives.
    pub(in crate::worker) fn not_ended(survivor: Survivor, ran_for: Duration) -> Self {
        Self::new(WorkerErrorKind::Broken, format!("the worker {survivor}")).having_run(ran_for)
    }

    pub(crate) fn broken_and_deaf(exit: WorkerExit, ran_for: Duration) -> Self {
        Self::new(
            WorkerErrorKind::Broken,
            format!(
                "the worker closed its connection while it had the job, lived on and was killed (process {}); a job \
                 must not close descriptors that it did not open",
                exit.pid()
            ),
        )
        .having_run(ran_for)
        .ended(exit)
    }

    pub(crate) fn lost_sight(source: std::io::Error) -> Self {
        Self::new(
            WorkerErrorKind::Broken,
            format!("the connection to the worker failed while it had the job, and the worker was killed: {source}"),
        )
        .caused_by(source)
    }

    pub(crate) fn retire(panic: WorkerPanic) -> Self {
        Self::new(
            WorkerErrorKind::Retire,
            format!(
                "a retire closure of the worker {panic}, after an earlier job; this job did not run"
            ),
        )
        .panicked_with(panic)
    }

    pub(crate) fn protocol(what: &str) -> Self {
        Self::new(
            WorkerErrorKind::Protocol,
            format!(
                "the worker sent something that seedbed does not understand ({what}) and was killed; a job must not \
                 write to descriptors that it did not open"
            ),
        )
    }

    pub(crate) fn closed() -> Self {
        Self::new(
            WorkerErrorKind::Closed,
            "the worker context has been shut down; call it inside its block and before `shutdown`",
        )
    }

    /// `jobs` is the number of jobs that were killed because they did not end in time.
    pub(crate) fn shutdown(non_zero: usize, killed: usize, jobs: usize) -> Self {
        let jobs = match jobs {
            0 => String::new(),
            1 => "; 1 job did not end within the limit and was killed".to_owned(),
            _ => format!("; {jobs} jobs did not end within the limit and were killed"),
        };
        Self::new(
            WorkerErrorKind::Shutdown,
            format!(
                "shutting the worker context down was not graceful: {non_zero} non-zero exits and {killed} killed \
                 when the grace period was over{jobs}"
            ),
        )
    }
}
