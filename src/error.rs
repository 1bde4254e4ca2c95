//! What can go wrong between a caller and a worker process, in one error type.
//!
//! A call into a worker has many causes of failure and most callers treat them alike, so the error is one opaque
//! struct with a [kind](WorkerError::kind) to match on and accessors for what only some kinds carry: how the process
//! [ended](WorkerError::exit), or what the job [panicked](WorkerError::panic) with. The alternative, an enum with
//! public fields, would freeze every detail that we may want to add.
//!
//! Every message is written here, beside its kind, by a constructor named after the cause. Each says what happened, to
//! what, and, where the caller can do something about it, what to do. The job's name is put in front by [`Display`].
//!
//! [`Display`]: fmt::Display

use std::error::Error;
use std::fmt;

use crate::sys::process::Ended;

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

/// The constructors: one for each cause, holding its words.
impl WorkerError {
    fn new(kind: WorkerErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            job: None,
            message: message.into(),
            exit: None,
            panic: None,
            source: None,
        }))
    }

    /// Names the job that the error concerns.
    pub(crate) fn of_job(mut self, name: &'static str) -> Self {
        self.0.job = Some(name);
        self
    }

    fn caused_by(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    fn ended(mut self, exit: WorkerExit) -> Self {
        self.0.exit = Some(exit);
        self
    }

    fn panicked_with(mut self, panic: WorkerPanic) -> Self {
        self.0.panic = Some(panic);
        self
    }

    pub(crate) fn not_initialized() -> Self {
        Self::new(
            WorkerErrorKind::NotInitialized,
            "no worker process can be started, because this program has not called seedbed's hook; enter with \
             `seedbed::run`, `seedbed::main!` or `seedbed::test!`, or call `seedbed::init()` at the start of `main` or \
             of the test",
        )
    }

    pub(crate) fn start(what: &str, source: std::io::Error) -> Self {
        Self::new(
            WorkerErrorKind::Start,
            format!("the worker process could not be started: {what}: {source}"),
        )
        .caused_by(source)
    }

    pub(crate) fn start_without_proc(source: std::io::Error) -> Self {
        Self::new(
            WorkerErrorKind::Start,
            format!(
                "the worker process could not be started: `/proc/self/exe` cannot be reached ({source}); workers are \
                 this program executed again through it, so mount `/proc`"
            ),
        )
        .caused_by(source)
    }

    pub(crate) fn start_lost(message: &str) -> Self {
        Self::new(
            WorkerErrorKind::Start,
            format!("the worker process could not be started: {message}"),
        )
    }

    pub(crate) fn start_ended(exit: WorkerExit) -> Self {
        Self::new(
            WorkerErrorKind::Start,
            format!(
                "the worker {exit} before it reached seedbed's hook; a worker executes `main` again with the same \
                 arguments and environment, and must get to `run`, `main!`, `test!` or `init()` as this process did"
            ),
        )
        .ended(exit)
    }

    pub(crate) fn start_too_slow(limit: std::time::Duration) -> Self {
        Self::new(
            WorkerErrorKind::Start,
            format!(
                "the worker process had not reached seedbed's hook after {limit:?} and was killed; call the hook \
                 before anything in `main` that waits"
            ),
        )
    }

    pub(crate) fn init(panic: WorkerPanic) -> Self {
        Self::new(
            WorkerErrorKind::Init,
            format!("an init closure of the worker {panic}"),
        )
        .panicked_with(panic)
    }

    pub(crate) fn init_undecodable(message: &str) -> Self {
        Self::new(
            WorkerErrorKind::Init,
            format!("the worker could not decode the data of an init or retire closure: {message}"),
        )
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

    pub(crate) fn encode_closure_data(closure: &str, message: &str) -> Self {
        Self::new(
            WorkerErrorKind::EncodeArgument,
            format!(
                "the data of the configuration's closure `{closure}` could not be encoded: {message}"
            ),
        )
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

    pub(crate) fn broken(exit: WorkerExit) -> Self {
        Self::new(
            WorkerErrorKind::Broken,
            format!("the worker {exit} before the job had finished"),
        )
        .ended(exit)
    }

    pub(crate) fn broken_and_deaf(exit: WorkerExit) -> Self {
        Self::new(
            WorkerErrorKind::Broken,
            format!(
                "the worker closed its connection while it had the job, lived on and was killed (process {}); a job \
                 must not close descriptors that it did not open",
                exit.pid
            ),
        )
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

    pub(crate) fn shutdown(non_zero: usize, killed: usize) -> Self {
        Self::new(
            WorkerErrorKind::Shutdown,
            format!(
                "shutting the worker context down was not graceful: {non_zero} non-zero exits and {killed} killed \
                 when the grace period was over"
            ),
        )
    }
}

impl fmt::Display for WorkerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(job) = self.0.job {
            write!(f, "job `{job}`: ")?;
        }
        f.write_str(&self.0.message)
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

/// How a worker process ended.
///
/// # Examples
///
/// ```
/// use seedbed::run_sync;
///
/// fn abort(_: ()) {
///     std::process::abort()
/// }
///
/// fn main() {
///     seedbed::init();
///     let error = smol::block_on(async { run_sync(abort, ()).await }).unwrap_err();
///     let exit = error.exit().unwrap();
///     assert_eq!(exit.signal_name(), Some("SIGABRT"));
///     assert_eq!(exit.code(), None);
/// }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct WorkerExit {
    pid: u32,
    ended: Ended,
    stderr: Option<String>,
}

impl WorkerExit {
    pub(crate) fn new(pid: u32, ended: Ended, stderr: Option<String>) -> Self {
        Self { pid, ended, stderr }
    }

    /// Returns the exit code, if the process exited by itself.
    ///
    /// See the example of [`WorkerError`].
    pub fn code(&self) -> Option<i32> {
        match self.ended {
            Ended::Exited(code) => Some(code),
            Ended::Signalled { .. } | Ended::Unknown => None,
        }
    }

    /// Returns the number of the signal that ended the process, if one did.
    ///
    /// See the example of [`WorkerExit`], which asks for the name.
    pub fn signal(&self) -> Option<i32> {
        match self.ended {
            Ended::Exited(_) | Ended::Unknown => None,
            Ended::Signalled { signal, .. } => Some(signal),
        }
    }

    /// Returns the name of that signal, such as `"SIGSEGV"`; `None` also for real-time signals, which have only numbers.
    ///
    /// See the example of [`WorkerExit`].
    pub fn signal_name(&self) -> Option<&'static str> {
        self.signal().and_then(signal_name)
    }

    /// Tells whether the kernel wrote a core dump.
    pub fn core_dumped(&self) -> bool {
        matches!(self.ended, Ended::Signalled { core: true, .. })
    }

    /// Returns the id that the process had. It has been reaped, so the number may belong to another process by now.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns the last four kilobytes that the worker wrote to its standard error, if its context captures that
    /// (see `WorkerConfig::capture_stderr`). Bytes that are not UTF-8 are replaced.
    pub fn stderr_tail(&self) -> Option<&str> {
        self.stderr.as_deref()
    }
}

impl fmt::Debug for WorkerExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerExit")
            .field("pid", &self.pid)
            .field("ended", &self.ended)
            .field("stderr_tail", &self.stderr)
            .finish()
    }
}

/// Reads on from "the worker": "exited with code 3 (process 4711)".
impl fmt::Display for WorkerExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ended {
            Ended::Exited(code) => write!(f, "exited with code {code}")?,
            Ended::Unknown => {
                f.write_str("ended, how only what else in this program waits for children knows")?
            }
            Ended::Signalled { signal, core } => {
                match signal_name(signal) {
                    Some(name) => write!(f, "was killed by {name}")?,
                    None => write!(f, "was killed by signal {signal}")?,
                }
                if core {
                    f.write_str(" and dumped core")?;
                }
            }
        }
        write!(f, " (process {})", self.pid)?;
        match self.stderr.as_deref().map(str::trim_end) {
            None | Some("") => Ok(()),
            Some(tail) => write!(f, ", its standard error ending in:\n{tail}\n"),
        }
    }
}

/// What a job panicked with, carried over from the worker.
///
/// # Examples
///
/// ```
/// use seedbed::{WorkerErrorKind, run_sync};
///
/// fn divide((a, b): (u32, u32)) -> u32 {
///     a / b
/// }
///
/// fn main() {
///     seedbed::init();
///     let error = smol::block_on(async { run_sync(divide, (1, 0)).await }).unwrap_err();
///     assert_eq!(error.kind(), WorkerErrorKind::Panicked);
///     assert_eq!(error.panic().unwrap().message(), "attempt to divide by zero");
/// }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct WorkerPanic {
    message: String,
    location: Option<String>,
    backtrace: Option<String>,
}

impl WorkerPanic {
    pub(crate) fn new(
        message: String,
        location: Option<String>,
        backtrace: Option<String>,
    ) -> Self {
        Self {
            message,
            location,
            backtrace,
        }
    }

    /// Returns the panic's message; for a payload that is no string, words that say so.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns where it panicked, as `file:line:column`; `None` if the job replaced the panic hook.
    pub fn location(&self) -> Option<&str> {
        self.location.as_deref()
    }

    /// Returns the backtrace in the worker, if the environment asked for one (`RUST_BACKTRACE=1`).
    pub fn backtrace(&self) -> Option<&str> {
        self.backtrace.as_deref()
    }
}

impl fmt::Debug for WorkerPanic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerPanic")
            .field("message", &self.message)
            .field("location", &self.location)
            .finish_non_exhaustive()
    }
}

/// Reads on from "the job": "panicked at src/main.rs:3:5: out of paint".
impl fmt::Display for WorkerPanic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("panicked")?;
        if let Some(location) = &self.location {
            write!(f, " at {location}")?;
        }
        write!(f, ": {}", self.message)?;
        match &self.backtrace {
            Some(backtrace) => write!(f, "\nbacktrace in the worker:\n{backtrace}"),
            None => Ok(()),
        }
    }
}

/// The name of a standard signal of Linux on x86-64 and aarch64, which number them alike.
fn signal_name(signal: i32) -> Option<&'static str> {
    const NAMES: [&str; 31] = [
        "SIGHUP",
        "SIGINT",
        "SIGQUIT",
        "SIGILL",
        "SIGTRAP",
        "SIGABRT",
        "SIGBUS",
        "SIGFPE",
        "SIGKILL",
        "SIGUSR1",
        "SIGSEGV",
        "SIGUSR2",
        "SIGPIPE",
        "SIGALRM",
        "SIGTERM",
        "SIGSTKFLT",
        "SIGCHLD",
        "SIGCONT",
        "SIGSTOP",
        "SIGTSTP",
        "SIGTTIN",
        "SIGTTOU",
        "SIGURG",
        "SIGXCPU",
        "SIGXFSZ",
        "SIGVTALRM",
        "SIGPROF",
        "SIGWINCH",
        "SIGIO",
        "SIGPWR",
        "SIGSYS",
    ];
    let index = usize::try_from(signal).ok()?.checked_sub(1)?; // a negative number names nothing
    NAMES.get(index).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_named_by_their_numbers() {
        assert_eq!(signal_name(libc::SIGKILL), Some("SIGKILL"));
        assert_eq!(signal_name(libc::SIGSEGV), Some("SIGSEGV"));
        assert_eq!(signal_name(libc::SIGSYS), Some("SIGSYS"));
        assert_eq!(signal_name(0), None);
        assert_eq!(signal_name(-1), None);
        assert_eq!(signal_name(32), None);
    }

    #[test]
    fn a_message_says_what_happened_to_which_job_and_how_the_process_ended() {
        let ended = Ended::Signalled {
            signal: libc::SIGSEGV,
            core: true,
        };
        let exit = WorkerExit::new(7, ended, Some("boom\n".into()));
        let text = WorkerError::broken(exit).of_job("app::parse").to_string();
        assert!(text.starts_with(
            "job `app::parse`: the worker was killed by SIGSEGV and dumped core (process 7)"
        ));
        assert!(text.contains("\nboom\n"));
    }

    #[test]
    fn an_io_error_stays_reachable_as_the_source() {
        let error =
            WorkerError::start("no memory", std::io::Error::from_raw_os_error(libc::ENOMEM));
        assert!(error.source().is_some());
    }
}
