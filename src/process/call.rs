//! `run_process`: what is to be run, and how.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::process::{Command, Output, Stdio};
use std::task::{Context, Poll};
use std::time::Duration;

use super::error::ProcessError;
use super::handle::Process;
use super::plan::{Plan, Sink, Source};
use super::supervise::supervise;
use super::tuning::KILL_AFTER;
use crate::task::Started;

/// Runs a program to its end.
///
/// Returned is a builder, to be awaited. Unless told otherwise, the process has an empty standard input, writes where
/// this process writes, and has to exit with code 0. What `command` says about standard input, output and error does
/// not count; the builder's methods do.
///
/// The value says how it ended, and has what was captured of its outputs. It is there when the process has ended *and*
/// every captured output has, which others that inherited the pipe may keep open.
///
/// # Cancellation
///
/// If cancelled before the first poll, nothing has happened: entry is a cancel point. From then on cancelling sends
/// SIGTERM, and, if the process still runs after [`kill_after`](RunProcess::kill_after), SIGKILL; the caller is let go
/// when the process is gone and has been waited for. (Processes that it started itself are its own affair.) Meanwhile
/// its input is at an end, and what it writes to captured outputs is read and dropped. How far it came is not known.
///
/// Dropped from outside (by a foreign `select!`, for example), the process is killed, and reaped in the background.
///
/// # Errors
///
/// See [`ProcessErrorKind`](super::ProcessErrorKind). Whatever the error, the process has ended. (One exception is
/// inherited from async-process: if this program runs out of descriptors just between the start of the process and
/// taking hold of it, it runs on alone.)
///
/// # Panics
///
/// When it begins, if an input or output is `Stdio::piped()`, of which nobody would have the other end (the process is
/// killed): that is for [`supervise`](RunProcess::supervise). And see [`stderr_to_stdout`](RunProcess::stderr_to_stdout).
///
/// ```
/// use seedbed::process::{Command, run_process};
///
/// seedbed::run(async {
///     let output = run_process(Command::new("sort")).input("b\na\n").capture_stdout(true).await.unwrap();
///     assert_eq!(output.stdout, b"a\nb\n");
/// });
/// ```
pub fn run_process(command: Command) -> RunProcess {
    RunProcess(Plan {
        program: command.get_program().to_string_lossy().into_owned(),
        command,
        stdin: Source::Bytes(Vec::new()),
        stdout: Sink::Inherited,
        stderr: Sink::Inherited,
        check: true,
        kill_after: KILL_AFTER,
        deliver_cancel: None,
    })
}

/// A program to be run; made by [`run_process`].
#[must_use = "nothing is started unless it is awaited"]
pub struct RunProcess(Plan);

impl RunProcess {
    /// Feeds `bytes` to its standard input, which then ends. A process that does not read all of them is no error.
    ///
    /// ```
    /// use seedbed::process::{Command, run_process};
    ///
    /// seedbed::run(async {
    ///     let output = run_process(Command::new("cat")).input("meow").capture_stdout(true).await.unwrap();
    ///     assert_eq!(output.stdout, b"meow");
    /// });
    /// ```
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.0.stdin = Source::Bytes(bytes.into());
        self
    }

    /// Sets its standard input: a file, `Stdio::inherit()`, ..
    ///
    /// ```
    /// use seedbed::process::{Command, Stdio, run_process};
    ///
    /// seedbed::run(async {
    ///     let manifest = std::fs::File::open("Cargo.toml").unwrap();
    ///     let output = run_process(Command::new("cat")).stdin(manifest).stdout(Stdio::null()).await.unwrap();
    ///     assert!(output.status.success());
    /// });
    /// ```
    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.0.stdin = Source::Given(stdin.into());
        self
    }

    /// Sets its standard output: a file, `Stdio::null()`, ..
    ///
    /// ```
    /// use seedbed::process::{Command, Stdio, run_process};
    ///
    /// seedbed::run(async {
    ///     let output = run_process(Command::new("ls")).stdout(Stdio::null()).await.unwrap();
    ///     assert!(output.stdout.is_empty());
    /// });
    /// ```
    pub fn stdout(mut self, stdout: impl Into<Stdio>) -> Self {
        self.0.stdout = Sink::Given(stdout.into());
        self
    }

    /// Sets its standard error: a file, `Stdio::null()`, ..
    ///
    /// ```
    /// use seedbed::process::{Command, Stdio, run_process};
    ///
    /// seedbed::run(async {
    ///     let mut command = Command::new("ls");
    ///     command.arg("/no/such/file");
    ///     let error = run_process(command).stderr(Stdio::null()).await.unwrap_err();
    ///     assert!(error.output().unwrap().stderr.is_empty());
    /// });
    /// ```
    pub fn stderr(mut self, stderr: impl Into<Stdio>) -> Self {
        self.0.stderr = Sink::Given(stderr.into());
        self
    }

    /// Sets whether its standard output is collected in [`Output::stdout`], instead of being inherited.
    ///
    /// ```
    /// use seedbed::process::{Command, run_process};
    ///
    /// seedbed::run(async {
    ///     let mut command = Command::new("echo");
    ///     command.arg("hello");
    ///     assert_eq!(run_process(command).capture_stdout(true).await.unwrap().stdout, b"hello\n");
    /// });
    /// ```
    pub fn capture_stdout(mut self, capture: bool) -> Self {
        self.0.stdout = Sink::captured_if(capture);
        self
    }

    /// Sets whether its standard error is collected in [`Output::stderr`], instead of being inherited.
    ///
    /// ```
    /// use seedbed::process::{Command, run_process};
    ///
    /// seedbed::run(async {
    ///     let mut command = Command::new("sh");
    ///     command.args(["-c", "echo careful >&2"]);
    ///     assert_eq!(run_process(command).capture_stderr(true).await.unwrap().stderr, b"careful\n");
    /// });
    /// ```
    pub fn capture_stderr(mut self, capture: bool) -> Self {
        self.0.stderr = Sink::captured_if(capture);
        self
    }

    /// Sends its standard error where its standard output goes: both in the order of writing.
    ///
    /// # Panics
    ///
    /// When it begins, if standard output was set by [`stdout`](Self::stdout): give both the same file instead.
    ///
    /// ```
    /// use seedbed::process::{Command, run_process};
    ///
    /// seedbed::run(async {
    ///     let mut command = Command::new("sh");
    ///     command.args(["-c", "echo one; echo two >&2; echo three"]);
    ///     let output = run_process(command).capture_stdout(true).stderr_to_stdout().await.unwrap();
    ///     assert_eq!(output.stdout, b"one\ntwo\nthree\n");
    /// });
    /// ```
    pub fn stderr_to_stdout(mut self) -> Self {
        self.0.stderr = Sink::ToStdout;
        self
    }

    /// Sets whether ending otherwise than with exit code 0 is an error. It is, unless this is set to false.
    ///
    /// ```
    /// use seedbed::process::{Command, run_process};
    ///
    /// seedbed::run(async {
    ///     let output = run_process(Command::new("false")).check(false).await.unwrap();
    ///     assert_eq!(output.status.code(), Some(1));
    /// });
    /// ```
    pub fn check(mut self, check: bool) -> Self {
        self.0.check = check;
        self
    }

    /// Sets how long a cancelled process may take to end after SIGTERM, before SIGKILL: 5 seconds, unless this is set.
    /// The time is the run's.
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::process::{Command, run_process};
    /// use seedbed::move_on_after;
    ///
    /// seedbed::run(async {
    ///     let mut stubborn = Command::new("sh");
    ///     stubborn.args(["-c", "trap '' TERM; while :; do sleep 0.01; done"]);
    ///     let call = run_process(stubborn).kill_after(Duration::ZERO);
    ///     assert!(move_on_after(Duration::from_millis(1), call).await.is_none());
    ///     // Here it is gone.
    /// });
    /// ```
    pub fn kill_after(mut self, patience: Duration) -> Self {
        self.0.kill_after = patience;
        self
    }

    /// Sets how a cancelled process is told to end, in place of SIGTERM and SIGKILL.
    ///
    /// The future that `deliver` returns is polled, shielded, until the process is gone, and then dropped. If it ends
    /// before the process does, the process is still waited for, however long that takes.
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::process::{Command, run_process};
    /// use seedbed::move_on_after;
    ///
    /// seedbed::run(async {
    ///     let mut sleep = Command::new("sleep");
    ///     sleep.arg("1000");
    ///     let call = run_process(sleep).deliver_cancel(async |process| process.signal(2).unwrap());
    ///     assert!(move_on_after(Duration::from_millis(1), call).await.is_none());
    /// });
    /// ```
    pub fn deliver_cancel<F, Fut>(mut self, deliver: F) -> Self
    where
        F: FnOnce(Process) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.0.deliver_cancel = Some(Box::new(|process| Box::pin(deliver(process))));
        self
    }

    /// Runs the process, and tells when it has been started: made for [`Nursery::start`](crate::Nursery::start), which
    /// returns the handle, while the nursery's child looks after the process.
    ///
    /// What was set to `Stdio::piped()` is in the handle; inputs that are fed and outputs that are captured are the
    /// supervisor's. Cancelling the nursery ends the process as described in [`run_process`]; its value or error is the
    /// child's, and nobody's if `start` was used: use the handle's [`wait`](Process::wait), or end the nursery.
    ///
    /// # Cancellation
    ///
    /// As [`run_process`].
    ///
    /// # Errors
    ///
    /// As [`run_process`]. If it cannot be started, `start` returns
    /// [`StartError::Exited`](crate::nursery::StartError::Exited) with the error.
    ///
    /// ```
    /// use seedbed::process::{Command, run_process};
    /// use seedbed::{open_nursery, run};
    ///
    /// run(open_nursery(|n| async move {
    ///     let mut sleep = Command::new("sleep");
    ///     sleep.arg("1000");
    ///     let process = n.start(|started| run_process(sleep).supervise(started)).await.unwrap();
    ///     assert!(process.try_status().is_none());
    ///     n.cancel(); // the block ends when the process is gone
    /// }));
    /// ```
    pub fn supervise(self, started: Started<Process>) -> RunProcessFuture {
        RunProcessFuture::new(self.0, Some(started))
    }
}

impl IntoFuture for RunProcess {
    type Output = Result<Output, ProcessError>;
    type IntoFuture = RunProcessFuture;

    fn into_future(self) -> RunProcessFuture {
        RunProcessFuture::new(self.0, None)
    }
}

impl fmt::Debug for RunProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunProcess")
            .field("program", &self.0.program)
            .field("check", &self.0.check)
            .field("kill_after", &self.0.kill_after)
            .finish_non_exhaustive()
    }
}

/// Runs a process; made by awaiting [`RunProcess`], or by [`RunProcess::supervise`].
///
/// # Dropping
///
/// Kills the process if it runs, and has it reaped in the background.
#[must_use = "futures do nothing unless awaited"]
pub struct RunProcessFuture {
    program: String,
    future: Pin<Box<dyn Future<Output = Result<Output, ProcessError>> + Send>>,
}

impl RunProcessFuture {
    fn new(plan: Plan, started: Option<Started<Process>>) -> Self {
        RunProcessFuture {
            program: plan.program.clone(),
            future: Box::pin(supervise(plan, started)),
        }
    }
}

impl Future for RunProcessFuture {
    type Output = Result<Output, ProcessError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.future.as_mut().poll(cx)
    }
}

impl fmt::Debug for RunProcessFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunProcessFuture")
            .field("program", &self.program)
            .finish_non_exhaustive()
    }
}
