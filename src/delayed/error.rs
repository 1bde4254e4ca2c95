//! The error of a delayed value.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::process::{ProcessError, ProcessErrorKind};
use crate::worker::{WorkerError, WorkerErrorKind};

/// The error of a [`Delayed`](crate::delayed::Delayed) value: of the job that was to compute it, or
/// of a value that it is computed from.
///
/// A value may be needed in several places, so its error is cheap to clone. Dropping the last clone
/// of an error that no await has returned reports it as a `tracing` event at WARN, unless the job
/// was [cancelled](JobErrorKind::Cancelled).
///
/// # Examples
///
/// ```
/// use seedbed::delayed::{JobErrorKind, delayed_val};
///
/// let numbers = delayed_val(vec![1u32, 2, 3]);
/// let fourth = numbers.index(3) * 2;
/// let error = smol::block_on(async { fourth.await }).unwrap_err();
/// assert_eq!(error.kind(), JobErrorKind::Panicked);
/// assert!(error.to_string().contains("index out of bounds"));
/// ```
#[derive(Clone)]
pub struct JobError(Arc<Inner>);

struct Inner {
    job: Option<&'static str>,
    attempts: u32,
    cause: Cause,
    /// Whether an await has returned the error.
    is_delivered: AtomicBool,
}

enum Cause {
    Worker(WorkerError),
    Process(ProcessError),
    Panicked(String),
    Failed(Box<dyn Error + Send + Sync>),
    Impossible(String),
    TimedOut(Duration),
    Deadlock(String),
    Cancelled,
}

/// The causes of a [`JobError`].
///
/// # Examples
///
/// ```
/// use seedbed::delayed::{JobErrorKind, delayed_val};
///
/// let parsed = delayed_val("seven").map(|text| text.parse::<u8>()).flatten();
/// let error = smol::block_on(async { parsed.await }).unwrap_err();
/// assert_eq!(error.kind(), JobErrorKind::Failed);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JobErrorKind {
    /// The call into the worker process failed.
    Worker(WorkerErrorKind),
    /// The job, or a function that computes the value in this process, panicked.
    Panicked,
    /// The value was an `Err`, which [`flatten`](crate::delayed::Delayed::flatten) made an error of
    /// the job, or the [program](crate::delayed::Jobs::run_process) that was the job failed.
    Failed,
    /// The job had not ended at its time limit. Its worker was killed, its process ended, or its
    /// future dropped.
    TimedOut,
    /// The job asks for more than there is. It did not run, unless it ran out of its
    /// [learned](crate::delayed::Learned) memory and cannot have what a second run needs.
    Impossible,
    /// A job in the queue and a future that holds what it needs would wait for each other forever.
    ///
    /// If the future awaits a value, the error is that of this await. The job itself has not
    /// failed: it runs when the future has given its resources back. If the future waits for the
    /// end of a [block](crate::delayed::Jobs::open) or for a
    /// [place](crate::delayed::Limited::ready), which have no error to return, the error is that of
    /// the job, which does not run. [`Jobs::on`](crate::delayed::Jobs::on) says which waits are
    /// found.
    Deadlock,
    /// The job was cancelled with its block.
    Cancelled,
}

impl JobError {
    fn new(job: Option<&'static str>, attempts: u32, cause: Cause) -> Self {
        Self(Arc::new(Inner {
            job,
            attempts,
            cause,
            is_delivered: AtomicBool::new(false),
        }))
    }

    /// Makes the error of a panic in this process.
    pub(super) fn panicked(payload: &(dyn Any + Send)) -> Self {
        let message = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "the panic's payload is not a text".to_owned());
        Self::new(None, 0, Cause::Panicked(message))
    }

    pub(super) fn failed(error: impl Error + Send + Sync + 'static) -> Self {
        Self::new(None, 0, Cause::Failed(Box::new(error)))
    }

    pub(super) fn of_worker(job: &'static str, attempts: u32, error: WorkerError) -> Self {
        Self::new(Some(job), attempts, Cause::Worker(error))
    }

    pub(super) fn of_process(job: &'static str, error: ProcessError) -> Self {
        Self::new(Some(job), 1, Cause::Process(error))
    }

    /// Makes the error of a job that cannot have what it asks for, after this many attempts.
    pub(super) fn impossible(job: &'static str, attempts: u32, reason: String) -> Self {
        Self::new(Some(job), attempts, Cause::Impossible(reason))
    }

    pub(super) fn deadlock(job: &'static str, attempts: u32, reason: String) -> Self {
        Self::new(Some(job), attempts, Cause::Deadlock(reason))
    }

    pub(super) fn timed_out(job: &'static str, limit: Duration) -> Self {
        Self::new(Some(job), 0, Cause::TimedOut(limit))
    }

    pub(super) fn cancelled(job: &'static str) -> Self {
        Self::new(Some(job), 0, Cause::Cancelled)
    }

    /// Records that an await returns this error.
    pub(super) fn delivered(self) -> Self {
        self.0.is_delivered.store(true, Ordering::Relaxed);
        self
    }

    /// Returns the kind of cause.
    ///
    /// ```
    /// # use seedbed::delayed::{JobErrorKind, delayed_val};
    /// let broken = delayed_val(1u32) / 0;
    /// let error = smol::block_on(async { broken.await }).unwrap_err();
    /// assert_eq!(error.kind(), JobErrorKind::Panicked);
    /// ```
    pub fn kind(&self) -> JobErrorKind {
        match &self.0.cause {
            Cause::Worker(error) => match error.kind() {
                WorkerErrorKind::Panicked => JobErrorKind::Panicked,
                WorkerErrorKind::TimedOut => JobErrorKind::TimedOut,
                kind => JobErrorKind::Worker(kind),
            },
            Cause::Process(error) if error.kind() == ProcessErrorKind::TimedOut => {
                JobErrorKind::TimedOut
            }
            Cause::Process(_) => JobErrorKind::Failed,
            Cause::Panicked(_) => JobErrorKind::Panicked,
            Cause::Failed(_) => JobErrorKind::Failed,
            Cause::Impossible(_) => JobErrorKind::Impossible,
            Cause::TimedOut(_) => JobErrorKind::TimedOut,
            Cause::Deadlock(_) => JobErrorKind::Deadlock,
            Cause::Cancelled => JobErrorKind::Cancelled,
        }
    }

    /// Returns the name of the job, as [`type_name`](std::any::type_name) writes it, or the name of
    /// the program that is the job. `None` if the error comes from a function that computes the
    /// value in this process.
    ///
    /// ```
    /// # use seedbed::delayed::delayed_val;
    /// let broken = delayed_val(1u32) / 0;
    /// let error = smol::block_on(async { broken.await }).unwrap_err();
    /// assert!(error.job().is_none());
    /// ```
    pub fn job(&self) -> Option<&str> {
        self.0.job
    }

    /// Returns how often the job was begun; 0 if it never was.
    ///
    /// ```
    /// # use seedbed::delayed::delayed_val;
    /// let broken = delayed_val(1u32) / 0;
    /// let error = smol::block_on(async { broken.await }).unwrap_err();
    /// assert_eq!(error.attempts(), 0);
    /// ```
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// Returns the error of the last call into a worker process, if such a call failed.
    ///
    /// ```
    /// # use seedbed::delayed::delayed_val;
    /// let broken = delayed_val(1u32) / 0;
    /// let error = smol::block_on(async { broken.await }).unwrap_err();
    /// assert!(error.worker().is_none());
    /// ```
    pub fn worker(&self) -> Option<&WorkerError> {
        match &self.0.cause {
            Cause::Worker(error) => Some(error),
            _ => None,
        }
    }

    /// Returns the error of the program that was the [job](crate::delayed::Jobs::run_process). It
    /// has the output until then.
    ///
    /// ```
    /// use seedbed::delayed::{Resources, open};
    /// use seedbed::process::Command;
    ///
    /// fn main() {
    ///     seedbed::run(open(Resources::local(), async |jobs| {
    ///         let error = jobs.run_process(Command::new("false")).await.unwrap_err();
    ///         assert_eq!(error.process().unwrap().status().unwrap().code(), Some(1));
    ///     }));
    /// }
    /// ```
    pub fn process(&self) -> Option<&ProcessError> {
        match &self.0.cause {
            Cause::Process(error) => Some(error),
            _ => None,
        }
    }
}

impl Inner {
    fn write(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        match (&self.cause, self.job) {
            (Cause::Worker(_) | Cause::Process(_), _) | (_, None) => {}
            (_, Some(job)) => write!(f, "job `{job}`: ")?,
        }
        match &self.cause {
            Cause::Worker(error) => write!(f, "{error}")?,
            Cause::Process(error) => write!(f, "{error}")?,
            Cause::Panicked(message) => write!(
                f,
                "a function that computes a delayed value panicked: {message}"
            )?,
            Cause::Failed(error) => write!(f, "{error}")?,
            Cause::Impossible(reason) | Cause::Deadlock(reason) => write!(f, "{reason}")?,
            Cause::TimedOut(limit) => write!(
                f,
                "it had not ended after its time limit of {limit:?}, and was cancelled"
            )?,
            Cause::Cancelled => f.write_str("it was cancelled before it had a value")?,
        }
        match self.attempts {
            0 | 1 => Ok(()),
            attempts => write!(f, " (the last of {attempts} attempts)"),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if *self.is_delivered.get_mut() || matches!(self.cause, Cause::Cancelled) {
            return;
        }
        let mut error = String::new();
        let _ = self.write(&mut error); // a string takes everything
        tracing::warn!(
            error,
            "a delayed value failed, and no await returned its error"
        );
    }
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write(f)
    }
}

impl fmt::Debug for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("JobError");
        out.field("kind", &self.kind())
            .field("job", &self.0.job)
            .field("attempts", &self.0.attempts);
        match &self.0.cause {
            Cause::Worker(error) => out.field("worker", error),
            Cause::Panicked(text) | Cause::Impossible(text) | Cause::Deadlock(text) => {
                out.field("message", text)
            }
            Cause::Process(error) => out.field("process", error),
            Cause::Failed(error) => out.field("error", error),
            Cause::TimedOut(limit) => out.field("time_limit", limit),
            Cause::Cancelled => &mut out,
        };
        out.finish()
    }
}

impl Error for JobError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.0.cause {
            Cause::Worker(error) => Some(error),
            Cause::Process(error) => Some(error),
            Cause::Failed(error) => Some(&**error),
            _ => None,
        }
    }
}
