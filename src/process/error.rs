//! What can go wrong with a process.

use std::error::Error;
use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Output};

use super::tuning::MESSAGE_LINE_CHARS;

/// Why a process gave no output, or none that may be trusted.
///
/// Match on [`kind`](Self::kind); print the error for the whole story.
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
    Io(io::Error),
    Lost,
}

/// The causes of a [`ProcessError`], sorted by whose doing they are.
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
    /// It could not be started.
    Start,
    /// It ended by a signal, or with an exit code other than 0, and nobody said that this is all right.
    Failed,
    /// Talking to it, or waiting for it, failed. It was ended.
    Io,
    /// It has ended, and nobody can tell how: some other code in this program waits for children that are not its own,
    /// or SIGCHLD is ignored, or its supervisor was dropped.
    Lost,
}

impl ProcessError {
    pub(super) fn start(program: &str, error: io::Error) -> Self {
        Self::new(program, Cause::Start(error))
    }

    pub(super) fn failed(program: &str, output: Output) -> Self {
        Self::new(program, Cause::Failed(output))
    }

    pub(super) fn io(program: &str, error: io::Error) -> Self {
        Self::new(program, Cause::Io(error))
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
            Cause::Io(_) => ProcessErrorKind::Io,
            Cause::Lost => ProcessErrorKind::Lost,
        }
    }

    /// Returns the program's name or path, as it was given.
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

    /// Returns how it ended, if it did and that is known.
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

    /// Returns how it ended and what it wrote to captured outputs, if it ended badly ([`ProcessErrorKind::Failed`]).
    ///
    /// ```
    /// use seedbed::process::{Command, run_process};
    ///
    /// seedbed::run(async {
    ///     let error = run_process(Command::new("false")).await.unwrap_err();
    ///     assert!(error.output().unwrap().stdout.is_empty());
    /// });
    /// ```
    pub fn output(&self) -> Option<&Output> {
        match &self.0.cause {
            Cause::Failed(output) => Some(output),
            Cause::Start(_) | Cause::Io(_) | Cause::Lost => None,
        }
    }

    /// As [`output`](Self::output), without a copy.
    ///
    /// # Errors
    ///
    /// The error itself, if it has none.
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
            Cause::Failed(output) => Ok(output),
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
                write!(f, "`{program}` {}", Ending(output.status))?;
                if let Some(line) = last_line(&output.stderr) {
                    write!(f, " and wrote `{line}`")?;
                }
                f.write_str("; call check(false) if that is no failure")
            }
            Cause::Io(error) => {
                write!(
                    f,
                    "talking to `{program}` failed, and it was ended: {error}"
                )
            }
            Cause::Lost => write!(
                f,
                "`{program}` has ended, and it cannot be told how: look for code that waits for any child, for SIGCHLD \
                 being ignored, or for a dropped supervisor"
            ),
        }
    }
}

/// Says in words how a process ended.
struct Ending(ExitStatus);

impl fmt::Display for Ending {
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

/// The last line that says something, cut to a length that fits into a message.
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
            Cause::Start(error) | Cause::Io(error) => Some(error),
            Cause::Failed(_) | Cause::Lost => None,
        }
    }
}
