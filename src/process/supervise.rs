//! Starts a process, feeds and reads it until it has ended, and ends it if the call is cancelled.

use std::future::{Future, poll_fn};
use std::io;
use std::os::unix::process::CommandExt;
use std::pin::{Pin, pin};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::Mutex;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_io::{Async, Timer};

use super::background;
use super::child::ChildProcess;
use super::error::{Ending, ProcessError};
use super::handle::{Process, Supervised};
use super::pipes::{Capture, ChildStderr, ChildStdin, ChildStdout, Feed, PipeError, Pipes};
use super::plan::{DeliverCancel, Plan, Sink, Source, cpu_set};
use super::spawner;
use super::tuning::KILLED_WAIT_LIMIT;
use crate::cancel::{checkpoint_if_cancelled, on_cancel, shield};
use crate::sys::child_setup::{ChildSetup, blocks_any_signal};
use crate::sys::fork_detector::{refuse_in_forked_copy, watch_for_forks};
use crate::sys::primitives::lock;
use crate::sys::role::refuse_unless_hooked;
use crate::sys::socket;
use crate::task::Started;

/// Runs one process to its end. There is no await between the cancel point at the entry and
/// `on_cancel`, so a cancelled call has either started no process or ends it.
pub(super) async fn supervise(
    plan: Plan,
    started: Option<Started<Process>>,
) -> Result<Output, ProcessError> {
    refuse_unless_hooked("run_process");
    refuse_in_forked_copy("a wait for a process");
    watch_for_forks();
    checkpoint_if_cancelled().await;
    let (program, check) = (plan.program.clone(), plan.check);
    let supervision =
        Supervision::begin(plan, started).map_err(|error| ProcessError::start(&program, error))?;
    let cancelled = async {
        lock(&supervision.pipes).discard();
        supervision.end().await;
    };
    match on_cancel(supervision.talk(), cancelled).quiet().await {
        Ok(status) if check && !status.success() => {
            Err(ProcessError::failed(&program, supervision.output(status)))
        }
        Ok(status) => Ok(supervision.output(status)),
        Err(Stop::HeldOpen(status, _)) if check && !status.success() => {
            Err(ProcessError::failed(&program, supervision.output(status)))
        }
        Err(stop) => {
            if !matches!(stop, Stop::HeldOpen(..) | Stop::Lost(_)) {
                shield(supervision.end()).quiet().await; // the end has a time limit
            }
            let status = supervision.child.0.try_status().ok().flatten();
            let output = status.map(|status| supervision.output(status));
            Err(match stop {
                Stop::Lost(error) => error,
                Stop::Io(error) => ProcessError::io(&program, error, output),
                Stop::TimedOut(limit) => {
                    ProcessError::ended(&program, Ending::TimedOut(limit), output)
                }
                Stop::TooMuchOutput => {
                    let limit = supervision.capture_limit;
                    ProcessError::ended(&program, Ending::TooMuchOutput(limit), output)
                }
                Stop::HeldOpen(_, waited) => {
                    ProcessError::ended(&program, Ending::HeldOpen(waited), output)
                }
            })
        }
    }
}

/// Why the supervisor stops waiting for the process or for its pipes.
enum Stop {
    Io(io::Error),
    TooMuchOutput,
    TimedOut(Duration),
    /// The process has ended, and its pipes are still open after this time.
    HeldOpen(ExitStatus, Duration),
    Lost(ProcessError),
}

/// A started process, with our ends of its pipes.
struct Supervision {
    child: Supervised,
    /// Used by `talk` and then by `end`, never by both at once.
    pipes: Mutex<Pipes>,
    deliver_cancel: Mutex<Option<DeliverCancel>>,
    kill_after: Duration,
    time_limit: Option<Duration>,
    drain_for: Duration,
    capture_limit: usize,
}

impl Supervision {
    /// Starts the process. An error leaves no process behind.
    fn begin(plan: Plan, started: Option<Started<Process>>) -> io::Result<Self> {
        background::prepare()?;
        let mut command = plan.command;
        let bytes = match plan.stdin {
            Source::Given(stdin) => {
                command.stdin(stdin);
                None
            }
            Source::Bytes(bytes) if bytes.is_empty() => {
                command.stdin(socket::empty_input()?);
                None
            }
            Source::Bytes(bytes) => {
                command.stdin(Stdio::piped());
                Some(bytes)
            }
        };
        let captured = (
            matches!(plan.stdout, Sink::Captured),
            matches!(plan.stderr, Sink::Captured),
        );
        let merged = redirect(&mut command, plan.stdout, plan.stderr)?;
        let setup = ChildSetup {
            // A process that inherits blocked signals would not hear SIGTERM.
            empty_mask: plan.die_with_parent || blocks_any_signal(),
            leads_tree: plan.kill_tree,
            die_with_thread: plan.die_with_parent,
            cpus: plan.cpus.as_deref().map(cpu_set).transpose()?,
            data_limit: plan.memory_limit,
        };
        let mut child = spawn(command, setup)?;

        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let mut child = ChildProcess::adopt(child)?;
        if let Some(cpu_times) = plan.cpu_times {
            child.measure(cpu_times);
        }
        let child = Supervised::new(&plan.program, child, plan.kill_tree);
        let stdin = stdin.map(ChildStdin::new).transpose()?;
        let stdout = stdout.map(ChildStdout::new).transpose()?;
        let stderr = stderr.map(ChildStderr::new).transpose()?;
        let capture_limit = plan.capture_limit;
        let mut process = child.process();
        let feed = match bytes {
            Some(bytes) => stdin.map(|stdin| Feed::new(stdin, bytes)),
            None => {
                process.stdin = stdin;
                None
            }
        };
        let stdout = match (merged, captured.0) {
            (Some(merged), _) => Capture::of(Async::new(merged)?, capture_limit),
            (None, true) => stdout
                .map(|pipe| Capture::of(pipe, capture_limit))
                .unwrap_or_default(),
            (None, false) => {
                process.stdout = stdout;
                Capture::default()
            }
        };
        let stderr = if captured.1 {
            stderr
                .map(|pipe| Capture::of(pipe, capture_limit))
                .unwrap_or_default()
        } else {
            process.stderr = stderr;
            Capture::default()
        };
        match started {
            Some(started) => started.send(process),
            None => assert!(
                process.stdin.is_none() && process.stdout.is_none() && process.stderr.is_none(),
                "run_process was given Stdio::piped(), and no handle has the other end of the pipe; use input and capture_stdout, \
                 or hand the pipe out with supervise"
            ),
        }
        Ok(Supervision {
            child,
            pipes: Mutex::new(Pipes {
                feed,
                stdout,
                stderr,
            }),
            deliver_cancel: Mutex::new(plan.deliver_cancel),
            kill_after: plan.kill_after,
            time_limit: plan.time_limit,
            drain_for: plan.drain_for,
            capture_limit,
        })
    }

    /// Feeds and reads the process until it has ended and all output has been read.
    async fn talk(&self) -> Result<ExitStatus, Stop> {
        let mut end = pin!(self.child.0.wait());
        let mut time_limit = self.time_limit.map(Timer::after);
        let mut ended: Option<(ExitStatus, Instant, Timer)> = None;
        poll_fn(|cx| {
            // The process is polled first, so that the pipes are read once more after its end.
            if ended.is_none()
                && let Poll::Ready(status) = end.as_mut().poll(cx)
            {
                let status = status.map_err(Stop::Lost)?;
                ended = Some((status, Instant::now(), Timer::after(self.drain_for)));
            }
            let moved = lock(&self.pipes).poll(cx).map_err(|error| match error {
                PipeError::Io(error) => Stop::Io(error),
                PipeError::TooMuchOutput => Stop::TooMuchOutput,
            })?;
            let is_late = time_limit.as_mut().is_some_and(|limit| is_over(limit, cx));
            match &mut ended {
                Some((status, ..)) if moved.is_ready() => Poll::Ready(Ok(*status)),
                Some((status, since, limit)) => {
                    let held_open = Stop::HeldOpen(*status, since.elapsed());
                    ready_if(is_over(limit, cx) || is_late, held_open)
                }
                None => ready_if(is_late, Stop::TimedOut(self.time_limit.unwrap_or_default())),
            }
        })
        .await
    }

    /// Asks the process to end, and waits until it has ended.
    async fn end(&self) {
        self.child.0.note_descendants();
        let process = self.child.process();
        let deliver = lock(&self.deliver_cancel).take();
        let is_default = deliver.is_none();
        let mut delivery = match deliver {
            Some(deliver) => deliver(process),
            None => Box::pin(terminate_then_kill(process, self.kill_after)),
        };
        let mut delivered = false;
        let mut ended = pin!(self.child.0.wait());
        let both = |cx: &mut Context<'_>| {
            delivered = delivered || delivery.as_mut().poll(cx).is_ready();
            let ended = ended.as_mut().poll(cx);
            lock(&self.pipes).drain(cx); // after the end: nothing that it wrote is left in a pipe
            match ended {
                Poll::Ready(ended) => Poll::Ready(ended.map(drop)),
                // The process does not end by SIGKILL. It is reaped in the background.
                Poll::Pending if delivered && is_default => Poll::Ready(Ok(())),
                Poll::Pending => Poll::Pending,
            }
        };
        let ended = poll_fn(both).await;
        self.child.0.kill_noted_descendants();
        if let Err(error) = ended {
            // The caller is cancelled, or returns an error already. The drop that follows kills the
            // process.
            tracing::warn!(%error, "the end of a cancelled process could not be observed");
        }
    }

    fn output(&self, status: ExitStatus) -> Output {
        let mut pipes = lock(&self.pipes);
        Output {
            status,
            stdout: pipes.stdout.take(),
            stderr: pipes.stderr.take(),
        }
    }
}

fn ready_if(stops: bool, stop: Stop) -> Poll<Result<ExitStatus, Stop>> {
    if stops {
        Poll::Ready(Err(stop))
    } else {
        Poll::Pending
    }
}

fn is_over(timer: &mut Timer, cx: &mut Context<'_>) -> bool {
    Pin::new(timer).poll(cx).is_ready()
}

/// Starts the process. Drops the command, which may hold the writing end of a pipe whose end of
/// file is awaited.
fn spawn(mut command: Command, setup: ChildSetup) -> io::Result<std::process::Child> {
    if setup.leads_tree {
        command.process_group(0);
    }
    setup.apply_to(&mut command);
    if setup.die_with_thread {
        spawner::spawn(command)
    } else {
        command.spawn()
    }
}

/// Ends a cancelled process, unless `deliver_cancel` was set. Returns if SIGKILL does not end it.
async fn terminate_then_kill(process: Process, grace: Duration) {
    process.terminate();
    Timer::after(grace).await;
    tracing::warn!(
        ?process,
        ?grace,
        "a cancelled process runs on after SIGTERM, and is sent SIGKILL"
    );
    process.kill();
    Timer::after(KILLED_WAIT_LIMIT).await;
    tracing::warn!(
        ?process,
        "a process has not ended after SIGKILL (it may be frozen, or in a system call that cannot be \
         interrupted); it is reaped in the background, and its call ends"
    );
}

/// Sets the destinations of the outputs. If both are captured together, this makes their common
/// pipe and returns its reading end.
fn redirect(
    command: &mut Command,
    stdout: Sink,
    stderr: Sink,
) -> io::Result<Option<io::PipeReader>> {
    match (stdout, stderr) {
        (Sink::Captured, Sink::ToStdout) => {
            let (reader, writer) = io::pipe()?;
            command.stdout(writer.try_clone()?).stderr(writer);
            return Ok(Some(reader));
        }
        (Sink::Inherited, Sink::ToStdout) => {
            command.stdout(Stdio::inherit()).stderr(io::stdout());
        }
        (Sink::Given(_), Sink::ToStdout) => panic!(
            "stderr_to_stdout goes with a captured or inherited standard output; give both outputs the same file instead"
        ),
        (stdout, stderr) => {
            command
                .stdout(into_stdio(stdout))
                .stderr(into_stdio(stderr));
        }
    }
    Ok(None)
}

fn into_stdio(sink: Sink) -> Stdio {
    match sink {
        Sink::Inherited => Stdio::inherit(),
        Sink::Captured => Stdio::piped(),
        Sink::Given(stdio) => stdio,
        Sink::ToStdout => unreachable!("standard error only is sent to standard output"),
    }
}
