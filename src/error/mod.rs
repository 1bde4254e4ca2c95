//! What can go wrong between a caller and a worker process, in one error type.
//!
//! A call into a worker has many causes of failure and most callers treat them alike, so the error is one opaque
//! struct with a [kind](WorkerError::kind) to match on and accessors for what only some kinds carry: how the process
//! [ended](WorkerError::exit), or what the job [panicked](WorkerError::panic) with. The alternative, an enum with
//! public fields, would freeze every detail that we may want to add.
//!
//! The messages are all in `causes`, each written by a constructor that is named after the cause. Each says what happened,
//! to what, and, where the caller can do something about it, what to do. The job's name is put in front when the error is
//! printed.

mod causes;
mod exit;
mod panic;

use std::error::Error;
use std::fmt;

pub use exit::WorkerExit;
pub use panic::WorkerPanic;

/// Why a call into a worker process gave no value.
///
/// Match on [`kind`](Self::kind); print the error for the whole story.
///
/// # Examples
///
/// ```
/// use seedbed::{WorkerErrorKind, run_sync};
///
/// fn crash(code: i32) {
///     std::process::exit(code)
/// }
///
/// fn main() {
///     seedbed::init(); // a worker process starts here, and goes no further
///     let error = smol::block_on(async { run_sync(crash, 3).await }).unwrap_err();
///     assert_eq!(error.kind(), WorkerErrorKind::Broken);
///     assert_eq!(error.exit().unwrap().code(), Some(3));
///     assert!(error.job().unwrap().ends_with("crash"));
///     assert!(error.to_string().contains("exited with code 3"));
/// }
/// ```
pub struct WorkerError(Box<Inner>);

struct Inner {
    kind: WorkerErrorKind,
    /// The job's name; empty in front of errors that concern no single job.
    job: Option<&'static str>,
    message: String,
    exit: Option<WorkerExit>,
    panic: Option<WorkerPanic>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// The causes of a [`WorkerError`], sorted by whose doing they are.
///
/// # Examples
///
/// ```
/// use seedbed::{WorkerErrorKind, run_sync};
///
/// // This program never calls the hook, so no worker can be started.
/// let error = smol::block_on(async { run_sync(i32::abs, -1).await }).unwrap_err();
/// assert_eq!(error.kind(), WorkerErrorKind::NotInitialized);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WorkerErrorKind {
    /// The program never called the hook (`run`, `main!`, `test!` or `init()`), so a worker could not find its way in.
    /// Nothing was started.
    NotInitialized,
    /// The process could not be started, or ended before it was ready for jobs. The job did not run.
    Start,
    /// An `init` closure panicked in the new worker. The job did not run.
    Init,
    /// The fork server is not alone in its process, so it must not be forked; see [`WorkerType`](crate::WorkerType). The job did
    /// not run.
    UnsafeFork,
    /// This process is a copy: the program has forked itself after it had used workers or a run. Both processes have the same
    /// connections, over which only the original may speak. Nothing was sent.
    ForkedProgram,
    /// The job's code lies outside the main executable, where a worker may not have it. Nothing was sent.
    ForeignFunction,
    /// The worker runs another executable image than this process, so no offset may be called in it. The job did not
    /// run.
    ImageMismatch,
    /// The argument could not be encoded. Nothing was sent.
    EncodeArgument,
    /// The worker could not decode the argument. The job did not run; the worker is healthy.
    DecodeArgument,
    /// The job ran, but its result could not be encoded. The worker is healthy.
    EncodeResult,
    /// The job ran, but its result could not be decoded here. The worker is healthy.
    DecodeResult,
    /// The job panicked. The worker is healthy.
    Panicked,
    /// The process ended while it had the job; how far the job came is not known. It is never run twice.
    Broken,
    /// A `retire` closure panicked in the worker that was to run this job. The job did not run.
    Retire,
    /// The worker sent something that is not the protocol, so it was killed. How far the job came is not known.
    Protocol,
    /// The worker context had been shut down before the call. The job did not run.
    Closed,
    /// While a context was shut down, workers had to be killed or ended with an exit code other than zero.
    Shutdown,
}

impl WorkerError {
    /// Returns the cause, to match on.
    ///
    /// # Examples
    ///
    /// ```
    /// # let error = smol::block_on(async { seedbed::run_sync(i32::abs, -1).await }).unwrap_err();
    /// match error.kind() {
    ///     seedbed::WorkerErrorKind::Panicked => unreachable!("`abs` does not panic"),
    ///     kind => assert_eq!(kind, seedbed::WorkerErrorKind::NotInitialized),
    /// }
    /// ```
    pub fn kind(&self) -> WorkerErrorKind {
        self.0.kind
    }

    /// Returns the name of the job, as [`type_name`](std::any::type_name) writes it, if the error concerns one job.
    ///
    /// # Examples
    ///
    /// ```
    /// # let error = smol::block_on(async { seedbed::run_sync(i32::abs, -1).await }).unwrap_err();
    /// assert!(error.job().unwrap().contains("abs"));
    /// ```
    pub fn job(&self) -> Option<&str> {
        self.0.job
    }

    /// Returns how the worker process ended, if it did and that is known.
    ///
    /// # Examples
    ///
    /// ```
    /// # let error = smol::block_on(async { seedbed::run_sync(i32::abs, -1).await }).unwrap_err();
    /// assert!(error.exit().is_none()); // no process was started
    /// ```
    pub fn exit(&self) -> Option<&WorkerExit> {
        self.0.exit.as_ref()
    }

    /// Returns what the job, or an `init` or `retire` closure, panicked with.
    ///
    /// # Examples
    ///
    /// ```
    /// # let error = smol::block_on(async { seedbed::run_sync(i32::abs, -1).await }).unwrap_err();
    /// assert!(error.panic().is_none());
    /// ```
    pub fn panic(&self) -> Option<&WorkerPanic> {
        self.0.panic.as_ref()
    }
}

impl fmt::Display for WorkerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(job) = self.0.job {
            write!(f, "job `{job}`: ")?;
        }
        f.write_str(&self.0.message)?;
        let tail = self.0.exit.as_ref().and_then(WorkerExit::stderr_tail);
        match tail.map(str::trim_end) {
            None | Some("") => Ok(()),
            Some(tail) => write!(f, "\nits standard error ended in:\n{tail}"),
        }
    }
}

impl fmt::Debug for WorkerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        let mut out = f.debug_struct("WorkerError");
        out.field("kind", &inner.kind);
        if let Some(job) = inner.job {
            out.field("job", &job);
        }
        out.field("message", &inner.message);
        if let Some(exit) = &inner.exit {
            out.field("exit", exit);
        }
        if let Some(panic) = &inner.panic {
            out.field("panic", panic);
        }
        out.finish()
    }
}

impl Error for WorkerError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|source| source as &(dyn Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::Ended;

    #[test]
    fn a_message_says_what_happened_to_which_job_and_how_the_process_ended() {
        let ended = Ended::Signalled {
            signal: libc::SIGSEGV,
            core: true,
        };
        let exit = WorkerExit::new(7, ended, Some("boom\n".into()));
        let text = WorkerError::broken(exit).of_job("app::parse").to_string();
        assert_eq!(
            text,
            "job `app::parse`: the worker was killed by SIGSEGV and dumped core (process 7) before the job had \
             finished\nits standard error ended in:\nboom"
        );
    }

    #[test]
    fn an_io_error_stays_reachable_as_the_source() {
        let error =
            WorkerError::start("no memory", std::io::Error::from_raw_os_error(libc::ENOMEM));
        assert!(error.source().is_some());
    }
}
