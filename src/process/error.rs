//! The errors of `run_process`.

use std::error::Error;
use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Output};
use std::time::Duration;

use super::tuning::MESSAGE_LINE_CHARS;

/// The error of a process that could not be run, or that failed.
///
/// [`kind`](Self::kind) tells the causes apart. The message names the program, the cause, and a way
/// out.
///
/// ```
/// use seedbed::process::{Command, ProcessErrorKind, run_process};
///
/// seedbed::run(async {
///     let mut command = Command::new("sh");
///     command.args(["-c", "echo oh no >&2; exit 3"]);
///     let error = run_process(command).capture_stderr(true).await.unwrap_err();
///     assert_eq!(error.kind(), ProcessErrorKind::Failed);
///     assert_eq!(error.status().unwrap().code(), Some(3));
///     assert_eq!(error.output().unwrap().stderr, b"oh no\n");
///     assert_eq!(
///         error.to_string(),
///         "`sh` exited with code 3 and wrote `oh no`; call check(false) if that is no failure"
///     );
/// });
/// ```
pub struct ProcessError(Box<Inner>);

struct Inner {
    program: String,
    cause: Cause,
}

enum Cause {
    Start(io::Error),
    Failed(Output),
    Io(io::Error, Option<Output>),
    Ended(Ending, Option<Output>),
    Lost,
}

/// Why a supervisor did not wait any longer.
pub(super) enum Ending {
    TimedOut(Duration),
    /// An output is longer than this number of bytes.
    TooMuchOutput(usize),
    /// The process had ended, and its pipes were still open after this time.
    HeldOpen(Duration),
}

/// The causes of a [`ProcessError`].
///
/// ```
/// use seedbed::process::{Command, ProcessErrorKind, run_process};
///
/// seedbed::run(async {
///     let error = run_process(Command::new("/no/such/program")).await.unwrap_err();
///     assert_eq!(error.kind(), ProcessErrorKind::Start);
/// });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProcessErrorKind {
    /// The process could not be started.
    Start,
    /// The process was ended by a signal or exited with a code other than 0, and
    /// [`check`](super::RunProcess::check) is on.
    Failed,
    /// Reading or writing one of its pipes failed, or there was no memory for what it wrote. The
    /// process was ended.
    Io,
    /// The process ran longer than [`time_limit`](super::RunProcess::time_limit), and was ended.
    TimedOut,
    /// The process wrote more to a captured output than
    /// [`capture_limit`](super::RunProcess::capture_limit), and was ended.
    OutputTooLarge,
    /// The process has ended, but another process, which inherited its pipes, still held one of
    /// them open after [`drain_for`](super::RunProcess::drain_for).
    HeldOpen,
    /// The process has ended in an unknown way: other code in this program waits for any child, or
    /// SIGCHLD is ignored, or the supervisor was dropped.
    Lost,
}

impl ProcessError {
    pub(super) fn start(program: &str, error: io::Error) -> Self {
        Self::new(program, Cause::Start(error))
    }

    pub(super) fn failed(program: &str, output: Output) -> Self {
        Self::new(program, Cause::Failed(output))
    }

    pub(super) fn io(program: &str, error: io::Error, output: Option<Output>) -> Self {
        Self::new(program, Cause::Io(error, output))
    }

    pub(super) fn ended(program: &str, ending: Ending, output: Option<Output>) -> Self {
        Self::new(program, Cause::Ended(ending, output))
    }

    pub(super) fn lost(program: &str) -> Self {
        Self::new(program, Cause::Lost)
    }

    fn new(program: &str, cause: Cause) -> Self {
        ProcessError(Box::new(Inner {
            program: program.to_string(),
            cause,
        }))
    }

    /// Returns the cause, to match on.
    ///
    /// ```
    /// use seedbed::process::{Command, ProcessErrorKind, run_process};
    ///
    /// seedbed::run(async {
    ///     let error = run_process(Command::new("false")).await.unwrap_err();
    ///     assert_eq!(error.kind(), ProcessErrorKind::Failed);
    /// });
    /// ```
    pub fn kind(&self) -> ProcessErrorKind {
        match self.0.cause {
            Cause::Start(_) => ProcessErrorKind::Start,
            Cause::Failed(_) => ProcessErrorKind::Failed,
            Cause::Io(..) => ProcessErrorKind::Io,
            Cause::Ended(Ending::TimedOut(_), _) => ProcessErrorKind::TimedOut,
            Cause::Ended(Ending::TooMuchOutput(_), _) => ProcessErrorKind::OutputTooLarge,
            Cause::Ended(Ending::HeldOpen(_), _) => ProcessErrorKind::HeldOpen,
            Cause::Lost => ProcessErrorKind::Lost,
        }
    }

    /// Returns the name or path of the program, as it was given.
    ///
    /// ```
    /// use seedbed::process::{Command, run_process};
    ///
    /// seedbed::run(async {
    ///     let error = run_process(Command::new("false")).await.unwrap_err();
    ///     assert_eq!(error.program(), "false");
    /// });
    /// ```
    pub fn program(&self) -> &str {
        &self.0.program
    }

    /// Returns the exit status, if the process has ended and its status is known.
    ///
    /// ```
    /// use seedbed::process::{Command, run_process};
    ///
    /// seedbed::run(async {
    ///     let error = run_process(Command::new("false")).await.unwrap_err();
    ///     assert_eq!(error.status().unwrap().code(), Some(1));
    /// });
    /// ```
    pub fn status(&self) -> Option<ExitStatus> {
        self.output().map(|output| output.status)
    }

    /// Returns the exit status and the captured output of a process that has ended: as much as was
    /// read when it failed, or until it was ended. `None` if it was not started, or if its status
    /// is not known.
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::process::{Command, ProcessErrorKind, run_process};
    ///
    /// seedbed::run(async {
    ///     let mut command = Command::new("sh");
    ///     command.args(["-c", "echo why; while :; do :; done"]);
    ///     let call = run_process(command).capture_stdout(true).time_limit(Duration::from_secs(1));
    ///     let error = call.await.unwrap_err();
    ///     assert_eq!(error.kind(), ProcessErrorKind::TimedOut);
    ///     assert_eq!(error.output().unwrap().stdout, b"why\n");
    /// });
    /// ```
    pub fn output(&self) -> Option<&Output> {
        match &self.0.cause {
            Cause::Failed(output) => Some(output),
            Cause::Io(_, output) | Cause::Ended(_, output) => output.as_ref(),
            Cause::Start(_) | Cause::Lost => None,
        }
    }

    /// Turns the error into the exit status and the captured output of a process that has ended, as
    /// [`output`](Self::output) returns them.
    ///
    /// # Errors
    ///
    /// Returns the error itself if it has no output.
    ///
    /// ```
    /// use seedbed::process::{Command, run_process};
    ///
    /// seedbed::run(async {
    ///     let error = run_process(Command::new("false")).await.unwrap_err();
    ///     assert!(!error.into_output().unwrap().status.success());
    /// });
    /// ```
    pub fn into_output(self) -> Result<Output, Self> {
        match self.0.cause {
            Cause::Failed(output) | Cause::Io(_, Some(output)) | Cause::Ended(_, Some(output)) => {
                Ok(output)
            }
            _ => Err(self),
        }
    }
}

impl fmt::Display for ProcessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = &self.0.program;
        match &self.0.cause {
            Cause::Start(error) => write!(
                f,
                "`{program}` could not be started: {error}; is it installed, on PATH and executable, and is its working \
                 directory there?"
            ),
            Cause::Failed(output) => {
                write!(f, "`{program}` {}", StatusText(output.status))?;
                write_last_line(f, Some(output))?;
                f.write_str("; call check(false) if that is no failure")
            }
            Cause::Io(error, _) => {
                write!(
                    f,
                    "talking to `{program}` failed, and it was ended: {error}"
                )
            }
            Cause::Ended(ending, output) => {
                let output = output.as_ref();
                match ending {
                    Ending::TimedOut(limit) => {
                        write!(f, "`{program}` ran longer than {limit:?}")?;
                        write_last_line(f, output)?;
                        f.write_str(", and was ended; raise time_limit if that is too short")
                    }
                    Ending::TooMuchOutput(limit) => write!(
                        f,
                        "`{program}` wrote more than {limit} bytes to a captured output, and was ended; raise \
                         capture_limit, or send the output to a file with stdout or stderr"
                    ),
                    Ending::HeldOpen(waited) => {
                        write!(f, "`{program}` ")?;
                        match output {
                            Some(output) => write!(f, "{}", StatusText(output.status))?,
                            None => f.write_str("has ended")?,
                        }
                        write!(
                            f,
                            ", but another process still held one of its pipes open {waited:.1?} later; raise drain_for, \
                             redirect the output of the processes that it leaves behind, or end them with kill_tree"
                        )
                    }
                }
            }
            Cause::Lost => write!(
                f,
                "`{program}` has ended, and it cannot be told how: look for code that waits for any child, for SIGCHLD \
                 being ignored, or for a dropped supervisor"
            ),
        }
    }
}

/// Describes how a process ended.
struct StatusText(ExitStatus);

impl fmt::Display for StatusText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.code(), self.0.signal()) {
            (Some(code), _) => write!(f, "exited with code {code}"),
            (None, Some(signal)) => {
                match signal_hook::low_level::signal_name(signal) {
                    Some(name) => write!(f, "was ended by {name}")?,
                    None => write!(f, "was ended by signal {signal}")?,
                }
                f.write_str(if self.0.core_dumped() {
                    " (core dumped)"
                } else {
                    ""
                })
            }
            (None, None) => write!(f, "ended: {}", self.0),
        }
    }
}

fn write_last_line(f: &mut fmt::Formatter<'_>, output: Option<&Output>) -> fmt::Result {
    match output.and_then(|output| last_line(&output.stderr)) {
        Some(line) => write!(f, " and wrote `{line}`"),
        None => Ok(()),
    }
}

/// Returns the last line that is not empty, cut to a length that fits into a message.
fn last_line(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().rev().map(str::trim).find(|l| !l.is_empty())?;
    Some(line.chars().take(MESSAGE_LINE_CHARS).collect())
}

impl fmt::Debug for ProcessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessError")
            .field("kind", &self.kind())
            .field("message", &self.to_string())
            .finish_non_exhaustive()
    }
}

impl Error for ProcessError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.0.cause {
            Cause::Start(error) | Cause::Io(error, _) => Some(error),
            Cause::Failed(_) | Cause::Ended(..) | Cause::Lost => None,
        }
    }
}
