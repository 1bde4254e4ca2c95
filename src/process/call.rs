//! `run_process`: the builder of a call.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use super::error::ProcessError;
use super::future::RunProcessFuture;
use super::handle::Process;
use super::plan::{Plan, Sink, Source};
use super::tuning::{CAPTURE_LIMIT_BYTES, DRAIN_FOR, KILL_AFTER};
use crate::task::Started;

/// Runs a program to its end.
///
/// Returns a builder, which runs the program when it is awaited. By default the process has an
/// empty standard input, inherits standard output and standard error, and must exit with code 0.
/// The builder's methods change that; settings of standard input, output and error in `command` are
/// ignored.
///
/// The value is the exit status and the captured output. It is returned when the process has ended
/// *and* every captured output is at its end. Another process that has inherited the pipe may keep
/// it open: [`drain_for`](RunProcess::drain_for) bounds the wait for it.
///
/// Of each captured output, at most [`capture_limit`](RunProcess::capture_limit) bytes are kept: 64
/// MiB, unless that is changed. The process has no blocked signals, whatever the calling thread
/// blocks. All times are real, also in a run with a virtual clock.
///
/// # Cancellation
///
/// Entry is a cancel point: if cancelled before it, no process is started. Later, cancelling sends
/// SIGTERM, and SIGKILL if the process still runs after [`kill_after`](RunProcess::kill_after). The
/// call ends when the process has ended and has been reaped. Until then the process's input is at
/// its end, and its captured output is read and discarded. Processes that it has started are not
/// signalled, unless [`kill_tree`](RunProcess::kill_tree) is set. It is not known how far the
/// program came.
///
/// A process that is frozen, or in an uninterruptible system call, does not end by SIGKILL. The
/// call ends 5 seconds later with a `tracing` warning, and the process is reaped in the background.
///
/// If the future is dropped (by a foreign `select!`, for example), the process is killed, and
/// reaped in the background. If the whole program is killed, the process runs on, unless
/// [`die_with_parent`](RunProcess::die_with_parent) is set.
///
/// # Errors
///
/// [`ProcessErrorKind`](super::ProcessErrorKind) lists the causes. When an error is returned, the
/// process has ended, or has been sent SIGKILL.
///
/// # Panics
///
/// On the first poll, if an input or output is `Stdio::piped()`, because there is no handle to hold
/// the other end. The process is killed. Use [`supervise`](RunProcess::supervise) for that.
/// [`stderr_to_stdout`](RunProcess::stderr_to_stdout) may panic too. So does a call in a process
/// that was forked from a program which had used seedbed: nothing would see the end of the process
/// there.
///
/// ```
/// use seedbed::process::{Command, run_process};
///
/// seedbed::run(async {
///     let output = run_process(Command::new("sort")).input("b\na\n").capture_stdout(true).await.unwrap();
///     assert_eq!(output.stdout, b"a\nb\n");
/// });
/// ```
#[doc(alias = "subprocess")]
#[doc(alias = "open_process")]
pub fn run_process(command: Command) -> RunProcess {
    RunProcess(Plan {
        program: command.get_program().to_string_lossy().into_owned(),
        command,
        stdin: Source::Bytes(Vec::new()),
        stdout: Sink::Inherited,
        stderr: Sink::Inherited,
        check: true,
        kill_after: KILL_AFTER,
        time_limit: None,
        drain_for: DRAIN_FOR,
        capture_limit: CAPTURE_LIMIT_BYTES,
        kill_tree: false,
        die_with_parent: false,
        cpus: None,
        memory_limit: None,
        cpu_times: None,
        deliver_cancel: None,
    })
}

/// The builder of a call that runs a program, made by [`run_process`].
#[must_use = "the program is run when this is awaited"]
pub struct RunProcess(pub(super) Plan);

impl RunProcess {
    /// Writes `bytes` to the standard input and then closes it. A process that does not read all of
    /// them is no error.
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

    /// Sets the standard input, to a file or `Stdio::inherit()` for example.
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

    /// Sets the standard output, to a file or `Stdio::null()` for example.
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

    /// Sets the standard error, to a file or `Stdio::null()` for example.
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

    /// Sets whether the standard output is collected in [`Output::stdout`] instead of being
    /// inherited.
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

    /// Sets whether the standard error is collected in [`Output::stderr`] instead of being
    /// inherited.
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

    /// Sends the standard error to the standard output's destination. Both appear there in the
    /// order of writing.
    ///
    /// # Panics
    ///
    /// The call panics on its first poll if standard output was set by [`stdout`](Self::stdout).
    /// Give both the same file instead.
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

    /// Sets whether an exit code other than 0, or the end by a signal, is an error. The default is
    /// true.
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

    /// Sets the time between SIGTERM and SIGKILL for a process that is cancelled, or that is ended
    /// because of a limit. The default is 5 seconds.
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
    pub fn kill_after(mut self, grace: Duration) -> Self {
        self.0.kill_after = grace;
        self
    }

    /// Sets the longest time that the process may run. After it, the process is ended as a
    /// cancelled one is, and the call returns an error of the kind
    /// [`TimedOut`](super::ProcessErrorKind::TimedOut). By default there is no limit.
    ///
    /// The error's [`output`](ProcessError::output) is what the process has written until its end.
    /// In contrast, a time limit around the call ([`fail_after`](crate::fail_after)) discards it.
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::process::{Command, ProcessErrorKind, run_process};
    ///
    /// seedbed::run(async {
    ///     let mut command = Command::new("sh");
    ///     command.args(["-c", "echo step 1; exec sleep 1000"]);
    ///     let call = run_process(command).capture_stdout(true).time_limit(Duration::from_secs(1));
    ///     let error = call.await.unwrap_err();
    ///     assert_eq!(error.kind(), ProcessErrorKind::TimedOut);
    ///     assert_eq!(error.into_output().unwrap().stdout, b"step 1\n");
    /// });
    /// ```
    #[doc(alias = "timeout")]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.0.time_limit = Some(limit);
        self
    }

    /// Sets the number of bytes that are kept of each captured output. A process that writes more
    /// is ended as a cancelled one is, and the call returns an error of the kind
    /// [`OutputTooLarge`](super::ProcessErrorKind::OutputTooLarge). The default is 64 MiB.
    ///
    /// The error's [`output`](ProcessError::output) has the first `bytes` bytes. Send a longer
    /// output to a file with [`stdout`](Self::stdout), or read it from a pipe with
    /// [`supervise`](Self::supervise).
    ///
    /// ```
    /// use seedbed::process::{Command, ProcessErrorKind, run_process};
    ///
    /// seedbed::run(async {
    ///     let yes = run_process(Command::new("yes")).capture_stdout(true).capture_limit(5);
    ///     let error = yes.await.unwrap_err();
    ///     assert_eq!(error.kind(), ProcessErrorKind::OutputTooLarge);
    ///     assert_eq!(error.output().unwrap().stdout, b"y\ny\ny");
    /// });
    /// ```
    pub fn capture_limit(mut self, bytes: usize) -> Self {
        self.0.capture_limit = bytes;
        self
    }

    /// Sets how long the call waits, after the process has ended, for its captured outputs and its
    /// fed input to be closed. A process that it has left behind may hold them open. After this
    /// time the call returns an error of the kind
    /// [`HeldOpen`](super::ProcessErrorKind::HeldOpen), whose [`output`](ProcessError::output) is
    /// what was read. The default is 5 seconds.
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::process::{Command, ProcessErrorKind, run_process};
    ///
    /// seedbed::run(async {
    ///     let mut command = Command::new("sh");
    ///     command.args(["-c", "sleep 2 & echo started"]);
    ///     let call = run_process(command).capture_stdout(true).drain_for(Duration::ZERO);
    ///     let error = call.await.unwrap_err();
    ///     assert_eq!(error.kind(), ProcessErrorKind::HeldOpen);
    ///     assert_eq!(error.output().unwrap().stdout, b"started\n");
    /// });
    /// ```
    pub fn drain_for(mut self, limit: Duration) -> Self {
        self.0.drain_for = limit;
        self
    }

    /// Sets whether the processes that the process has started end with it.
    ///
    /// The process leads a process group of its own and adopts descendants whose parents have
    /// ended, so none of them can leave its tree while it runs:
    ///
    /// * Cancelling, a limit and [`Process::terminate`] send SIGTERM to the process and to all of
    ///   its descendants. The descendants that still run when the process has ended are killed.
    /// * When the call's future is dropped, and by [`Process::kill`], the process is killed after
    ///   all of its descendants.
    /// * When the process ends by itself, the members of its group are killed. Descendants that
    ///   have left the group, with `setsid` for example, live on.
    ///
    /// The process is detached from the terminal: Ctrl-C and Ctrl-Z do not reach it, and reading
    /// the terminal fails. Adopted descendants that have exited stay zombies until the process ends
    /// or reaps them.
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::process::{Command, run_process};
    ///
    /// seedbed::run(async {
    ///     let mut command = Command::new("sh");
    ///     command.args(["-c", "sleep 1000 & echo started"]);
    ///     // The call would wait for `sleep`, which holds the pipe open.
    ///     let output = run_process(command).capture_stdout(true).kill_tree(true).await.unwrap();
    ///     assert_eq!(output.stdout, b"started\n");
    /// });
    /// ```
    #[doc(alias = "process_group")]
    #[doc(alias = "killpg")]
    pub fn kill_tree(mut self, kill: bool) -> Self {
        self.0.kill_tree = kill;
        self
    }

    /// Sets whether the kernel kills the process when this program ends, in whatever way: also when
    /// it is killed by SIGKILL.
    ///
    /// The process is started by a thread of this crate, because the kernel sends the signal when
    /// the *thread* that has started the process ends. (A `pre_exec` closure that calls
    /// `prctl(PR_SET_PDEATHSIG)` has that trap.) So the process has the processor affinity and the
    /// niceness of the thread that first used this setting. A program that changes its user, as
    /// `sudo` does, loses the signal, and the processes that it starts do not have it.
    ///
    /// ```
    /// use seedbed::process::{Command, run_process};
    ///
    /// seedbed::run(async {
    ///     let output = run_process(Command::new("true")).die_with_parent(true).await.unwrap();
    ///     assert!(output.status.success());
    /// });
    /// ```
    #[doc(alias = "PR_SET_PDEATHSIG")]
    pub fn die_with_parent(mut self, die: bool) -> Self {
        self.0.die_with_parent = die;
        self
    }

    /// Sets a function that asks a cancelled process to end, in place of SIGTERM and SIGKILL.
    ///
    /// The future that `deliver` returns is polled under a shield until the process has ended, and
    /// then dropped. If the future ends first, the call still waits for the process, without a time
    /// limit.
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::process::{Command, run_process};
    /// use seedbed::move_on_after;
    ///
    /// seedbed::run(async {
    ///     let mut sleep = Command::new("sleep");
    ///     sleep.arg("1000");
    ///     // 10 is SIGUSR1, which ends `sleep`. It could have inherited SIGINT as ignored.
    ///     let call = run_process(sleep).deliver_cancel(async |process| process.signal(10).unwrap());
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

    /// Runs the process, and sends a handle on it through `started` when it runs. Made for
    /// [`Nursery::start`](crate::Nursery::start), which returns the handle, while a child of the
    /// nursery supervises the process.
    ///
    /// The handle has the pipes of the inputs and outputs that were set to `Stdio::piped()`. The
    /// supervisor has the others. Cancelling the nursery ends the process as described in
    /// [`run_process`]. The output or error is the child's value; `Nursery::start` drops it, so use
    /// the handle's [`wait`](Process::wait) or `Nursery::try_start` to learn it.
    ///
    /// # Cancellation
    ///
    /// Cancelling behaves as described in [`run_process`].
    ///
    /// # Errors
    ///
    /// The errors are those of [`run_process`]. If the process cannot be started, `start` returns
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

impl From<Command> for RunProcess {
    fn from(command: Command) -> Self {
        run_process(command)
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
