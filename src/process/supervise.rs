//! Starts a process, feeds and reads it until it has ended, and ends it if the call is cancelled.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::Mutex;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_io::Async;

use super::background;
use super::error::ProcessError;
use super::handle::{Process, Supervised};
use super::pipes::{Capture, ChildStderr, ChildStdin, ChildStdout, Feed, Pipes};
use super::plan::{DeliverCancel, Plan, Sink, Source};
use crate::cancel::{checkpoint_if_cancelled, on_cancel, shield};
use crate::sys::primitives::lock;
use crate::sys::process::Pidfd;
use crate::sys::role::refuse_unless_hooked;
use crate::task::Started;
use crate::time::sleep;

/// Runs one process to its end. There is no await between the cancel point at the entry and
/// `on_cancel`, so a cancelled call has either started no process or ends it.
pub(super) async fn supervise(
    plan: Plan,
    started: Option<Started<Process>>,
) -> Result<Output, ProcessError> {
    refuse_unless_hooked("run_process");
    checkpoint_if_cancelled().await;
    let (program, check) = (plan.program.clone(), plan.check);
    let supervision =
        Supervision::begin(plan, started).map_err(|error| ProcessError::start(&program, error))?;
    let outcome = match on_cancel(supervision.talk(), supervision.end()).await {
        Ok(status) => Ok(status),
        Err(error) => {
            shield(supervision.end()).await;
            Err(error)
        }
    };
    let output = supervision.output(outcome?);
    if check && !output.status.success() {
        Err(ProcessError::failed(&program, output))
    } else {
        Ok(output)
    }
}

/// A started process, with our ends of its pipes.
struct Supervision {
    program: String,
    child: Supervised,
    /// Used by `talk` and then by `end`, never by both at once.
    pipes: Mutex<Pipes>,
    deliver_cancel: Mutex<Option<DeliverCancel>>,
    kill_after: Duration,
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
                command.stdin(Stdio::null());
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
        let mut child = command.spawn()?;
        // The command may hold the writing end of a pipe whose end of file is awaited.
        drop(command);

        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let child = Supervised::new(&plan.program, Pidfd::adopt(child)?);
        let stdin = stdin.map(ChildStdin::new).transpose()?;
        let stdout = stdout.map(ChildStdout::new).transpose()?;
        let stderr = stderr.map(ChildStderr::new).transpose()?;
        let mut process = child.process();
        let feed = match bytes {
            Some(bytes) => stdin.map(|stdin| Feed::new(stdin, bytes)),
            None => {
                process.stdin = stdin;
                None
            }
        };
        let stdout = match (merged, captured.0) {
            (Some(merged), _) => merged,
            (None, true) => stdout.map(Capture::of).unwrap_or_default(),
            (None, false) => {
                process.stdout = stdout;
                Capture::default()
            }
        };
        let stderr = if captured.1 {
            stderr.map(Capture::of).unwrap_or_default()
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
            program: plan.program,
            child,
            pipes: Mutex::new(Pipes {
                feed,
                stdout,
                stderr,
            }),
            deliver_cancel: Mutex::new(plan.deliver_cancel),
            kill_after: plan.kill_after,
        })
    }

    /// Feeds and reads the process until it has ended and all output has been read.
    async fn talk(&self) -> Result<ExitStatus, ProcessError> {
        let talked = poll_fn(|cx| lock(&self.pipes).poll(cx));
        talked
            .await
            .map_err(|error| ProcessError::io(&self.program, error))?;
        self.child.0.wait().await
    }

    /// Asks the process to end, and waits until it has ended.
    async fn end(&self) {
        let process = self.child.process();
        let deliver = lock(&self.deliver_cancel).take();
        let mut delivery = match deliver {
            Some(deliver) => deliver(process),
            None => Box::pin(terminate_then_kill(process, self.kill_after)),
        };
        let mut delivered = false;
        let mut ended = pin!(self.child.0.wait());
        let both = |cx: &mut Context<'_>| {
            delivered = delivered || delivery.as_mut().poll(cx).is_ready();
            lock(&self.pipes).discard(cx);
            Poll::Ready(ready!(ended.as_mut().poll(cx)))
        };
        if let Err(error) = poll_fn(both).await {
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

/// Ends a cancelled process, unless `deliver_cancel` was set.
async fn terminate_then_kill(process: Process, grace: Duration) {
    process.terminate();
    sleep(grace).await;
    tracing::warn!(
        ?process,
        ?grace,
        "a cancelled process runs on after SIGTERM, and is sent SIGKILL"
    );
    process.kill();
}

/// Sets the destinations of the outputs. If both are captured together, this makes their common
/// pipe and returns its reading end.
fn redirect(command: &mut Command, stdout: Sink, stderr: Sink) -> io::Result<Option<Capture>> {
    match (stdout, stderr) {
        (Sink::Captured, Sink::ToStdout) => {
            let (reader, writer) = io::pipe()?;
            command.stdout(writer.try_clone()?).stderr(writer);
            return Ok(Some(Capture::of(Async::new(reader)?)));
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
