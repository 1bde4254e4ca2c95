//! The error type of calls into workers.
//!
//! Calls have many causes of failure, and most callers treat them alike. So the error is one opaque
//! struct with a [kind](WorkerError::kind) to match on, and with accessors for details that only
//! some kinds have: how the process [ended](WorkerError::exit), and the [panic](WorkerError::panic)
//! of the job. An enum with public fields would freeze every detail. `causes` has a constructor for
//! each cause, with its message.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::exit::WorkerExit;
use crate::transport::job::panic_report::WorkerPanic;

/// The error of a call into a worker process.
///
/// Match on [`kind`](Self::kind). `{}` prints a sentence that names the job and suggests a remedy,
/// followed by the last lines of the worker's standard error if that is captured. `{:?}` prints all
/// details.
///
/// # Examples
///
/// ```
/// use seedbed::worker::WorkerErrorKind;
/// use seedbed::run_sync;
///
/// fn crash(code: i32) {
///     std::process::exit(code)
/// }
///
/// fn main() {
///     seedbed::init(); // in a worker process, this does not return
///     let error = smol::block_on(async { run_sync(crash, 3).await }).unwrap_err();
///     assert_eq!(error.kind(), WorkerErrorKind::Broken);
///     assert_eq!(error.exit().unwrap().code(), Some(3));
///     assert!(error.job().unwrap().ends_with("crash"));
///     assert!(error.to_string().contains("exited with code 3"));
/// }
/// ```
pub struct WorkerError(pub(super) Box<Inner>);

pub(super) struct Inner {
    pub(super) kind: WorkerErrorKind,
    /// The name of the job; `None` if the error concerns no single job.
    pub(super) job: Option<&'static str>,
    /// The index of the item, if the job is that of a map.
    pub(super) item: Option<usize>,
    /// The name of the context of the call.
    pub(super) context: Option<Arc<str>>,
    pub(super) message: String,
    /// The time from handing over the job until the worker broke.
    pub(super) ran_for: Option<Duration>,
    pub(super) exit: Option<WorkerExit>,
    pub(super) panic: Option<WorkerPanic>,
    pub(super) source: Option<Box<dyn Error + Send + Sync>>,
}

/// The causes of a [`WorkerError`], in the order of the steps of a call.
///
/// # Examples
///
/// ```
/// use seedbed::worker::WorkerErrorKind;
/// use seedbed::run_sync;
///
/// // This program never calls the hook, so no worker can be started.
/// let error = smol::block_on(async { run_sync(i32::abs, -1).await }).unwrap_err();
/// assert_eq!(error.kind(), WorkerErrorKind::NotInitialized);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WorkerErrorKind {
    /// The program has not called the hook (`run`, `#[seedbed::main]`, `#[seedbed::test]` or
    /// `init()`), where a worker would start to serve. No process was started.
    NotInitialized,
    /// A setting of the context's configuration is invalid, such as an empty set of CPUs. No
    /// process was started.
    Config,
    /// The process could not be started, or ended before it was ready for jobs. The job did not
    /// run.
    Start,
    /// A `preload` or `init` closure panicked in the new process, or the data of a closure could
    /// not be decoded there. The job did not run.
    Init,
    /// The fork server has more than one thread, so it must not be forked; see
    /// [`WorkerType`](crate::worker::WorkerType). The job did not run.
    UnsafeFork,
    /// This process is a forked copy of one that had used workers or a run. Both processes have the
    /// same connections, which only the original may use. Nothing was sent.
    ForkedProgram,
    /// The job's code lies outside the main executable, where a worker may not have it. Nothing was
    /// sent.
    ForeignFunction,
    /// The worker runs another executable image than this process, so code offsets would be wrong.
    /// The job did not run.
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
    /// The process ended while it had the job. It is not known how far the job came. It is never
    /// run twice.
    Broken,
    /// The job had not ended at its [time limit](crate::worker::RunSync::time_limit), and its
    /// worker was killed. It is not known how far the job came.
    TimedOut,
    /// A `retire` closure panicked in the worker that was to run this job. The job did not run.
    Retire,
    /// The worker violated the protocol and was killed. It is not known how far the job came.
    Protocol,
    /// The worker context had been shut down before the call, and the job did not run; or
    /// [`shutdown_within`](crate::WorkerContext::shutdown_within) has cancelled an async job.
    Closed,
    /// While a context was shut down, workers had to be killed or ended with an exit code other
    /// than zero.
    Shutdown,
}

impl WorkerError {
    /// Returns the kind of cause.
    ///
    /// # Examples
    ///
    /// ```
    /// # let error = smol::block_on(async { seedbed::run_sync(i32::abs, -1).await }).unwrap_err();
    /// match error.kind() {
    ///     seedbed::worker::WorkerErrorKind::Panicked => unreachable!("`abs` does not panic"),
    ///     kind => assert_eq!(kind, seedbed::worker::WorkerErrorKind::NotInitialized),
    /// }
    /// ```
    pub fn kind(&self) -> WorkerErrorKind {
        self.0.kind
    }

    /// Returns the name of the job, as [`type_name`](std::any::type_name) writes it, if the error
    /// concerns one job.
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

    /// Returns the index of the item that the error concerns, if it is one of a
    /// [map](crate::map_sync()).
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::map_sync;
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let results = smol::block_on(map_sync(|n: u32| 1 / n, [1, 0]).collect());
    ///     let error = results[1].as_ref().unwrap_err();
    ///     assert_eq!(error.item(), Some(1));
    ///     assert!(error.to_string().starts_with("item 1 of job `"));
    /// }
    /// ```
    pub fn item(&self) -> Option<usize> {
        self.0.item
    }

    /// Returns the [name](crate::WorkerConfig::name) of the context whose worker was to run the
    /// job, if it has one.
    ///
    /// # Examples
    ///
    /// ```
    /// use seedbed::{WorkerConfig, open_worker_context};
    ///
    /// fn crash(code: i32) {
    ///     std::process::exit(code)
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let config = WorkerConfig::new().name("parser");
    ///     let error = smol::block_on(open_worker_context(config, |workers| async move {
    ///         workers.run_sync(crash, 3).await.unwrap_err()
    ///     }));
    ///     assert_eq!(error.context(), Some("parser"));
    ///     assert!(error.to_string().contains("in `parser`"));
    /// }
    /// ```
    pub fn context(&self) -> Option<&str> {
        self.0.context.as_deref()
    }

    /// Returns how long the job had run when its worker [broke](WorkerErrorKind::Broken), was
    /// killed at the job's [time limit](WorkerErrorKind::TimedOut) or for a [protocol
    /// violation](WorkerErrorKind::Protocol). The time includes the microseconds of handing over
    /// the job and noticing the end. `None` for other errors.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::run_sync;
    ///
    /// fn crash(after: Duration) {
    ///     std::thread::sleep(after);
    ///     std::process::exit(3)
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let after = Duration::from_millis(50);
    ///     let error = smol::block_on(async { run_sync(crash, after).await }).unwrap_err();
    ///     assert!(error.ran_for().unwrap() > after / 2);
    /// }
    /// ```
    pub fn ran_for(&self) -> Option<Duration> {
        self.0.ran_for
    }

    /// Returns how the worker process ended, if it has. If it was killed because of this error,
    /// this is SIGKILL.
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

    /// Returns the panic of the job, or of a `preload`, `init` or `retire` closure.
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
        if let Some(index) = self.0.item {
            write!(f, "item {index} of ")?;
        }
        match (self.0.job, self.context()) {
            (Some(job), Some(context)) => write!(f, "job `{job}` in `{context}`: ")?,
            (Some(job), None) => write!(f, "job `{job}`: ")?,
            (None, Some(context)) => write!(f, "`{context}`: ")?,
            (None, None) => {}
        }
        f.write_str(&self.0.message)?;
        match &*self
            .0
            .exit
            .as_ref()
            .map_or_else(String::new, WorkerExit::last_lines)
        {
            "" => Ok(()),
            lines => write!(f, "\nits standard error ended in:\n{lines}"),
        }
    }
}

/// The sentence of the error, for jobs whose error is a text; see
/// [`RunSync::flatten`](crate::worker::RunSync::flatten).
impl From<WorkerError> for String {
    fn from(error: WorkerError) -> Self {
        error.to_string()
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
        if let Some(item) = &inner.item {
            out.field("item", item);
        }
        if let Some(context) = &inner.context {
            out.field("context", context);
        }
        out.field("message", &inner.message);
        if let Some(ran_for) = &inner.ran_for {
            out.field("ran_for", ran_for);
        }
        if let Some(exit) = &inner.exit {
            out.field("exit", exit);
        }
        if let Some(panic) = &inner.panic {
            out.field("panic", panic);
        }
        if let Some(source) = &inner.source {
            out.field("source", source);
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
        let error = WorkerError::broken(exit, Duration::from_micros(1234));
        assert_eq!(
            error.of_job("app::parse").to_string(),
            "job `app::parse`: the worker was killed by SIGSEGV and dumped core (process 7) 1.2ms into the job; open the \
             core dump in a debugger\nits standard error ended in:\nboom"
        );
    }

    #[test]
    fn debug_leaves_nothing_out() {
        let ended = Ended::Signalled {
            signal: libc::SIGSEGV,
            core: true,
        };
        let exit = WorkerExit::new(4711, ended, Some("last words".into()));
        let broken = WorkerError::broken(exit, Duration::from_secs(7))
            .of_job("app::parse")
            .of_context(Some(&"parser".into()));
        let text = format!("{broken:?}");
        let facts = "Broken/app::parse/parser/7s/4711/signal: 11/core: true/last words";
        for fact in facts.split('/') {
            assert!(text.contains(fact), "{fact} is not in {text}");
        }
        let trace = Some("0: paint".to_owned());
        let panicked = WorkerError::panicked(WorkerPanic::new("out".into(), None, trace));
        assert!(format!("{panicked:?}").contains("0: paint"));
        assert!(!panicked.to_string().contains("0: paint"));
        let source = std::io::Error::from_raw_os_error(libc::ENOMEM);
        assert!(format!("{:?}", WorkerError::start("it", source)).contains("code: 12"));
    }

    #[test]
    fn where_the_kernel_has_run_out_of_something_the_message_says_what_to_do() {
        let message = |code| {
            WorkerError::start("its socket", std::io::Error::from_raw_os_error(code)).to_string()
        };
        assert!(message(libc::EMFILE).ends_with("allow it more (`ulimit -n`)"));
        assert!(message(libc::EAGAIN).contains("`ulimit -u`"));
        assert!(message(libc::EPERM).ends_with("(os error 1)"));
        let refused = WorkerError::fork_refused(std::io::Error::from_raw_os_error(libc::EAGAIN));
        assert!(refused.to_string().contains("`ulimit -u`"));
        assert!(refused.source().is_some());
    }

    #[test]
    fn an_io_error_stays_reachable_as_the_source() {
        let error =
            WorkerError::start("no memory", std::io::Error::from_raw_os_error(libc::ENOMEM));
        assert!(error.source().is_some());
    }
}
