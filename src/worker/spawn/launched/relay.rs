//! The relay of a launched worker: a background task that starts the launching program, speaks to
//! the guardian, and knows when the worker has ended.
//!
//! The worker's connection is one end of a socket pair, and the relay has the other. So a call that
//! is dropped, or a run that is busy, keeps neither renewals of the lease nor a kill from going
//! through.

use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::pin::pin;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_io::{Async, Timer};
use atomic_waker::AtomicWaker;
use futures_lite::FutureExt;
use rustix::process::Signal;

use super::pump::{Pump, Stream, StreamClosed};
use super::within;
use crate::process::background;
use crate::process::child::ChildProcess;
use crate::sys::answer;
use crate::sys::clock::boot_time;
use crate::sys::process::Ended;
use crate::sys::socket;
use crate::transport::job::image::{Fingerprint, fingerprint};
use crate::transport::relay::lease::LeaseGranter;
use crate::transport::relay::packet::{Control, Start, WorkerEnd};
use crate::worker::config::{Launcher, WorkerConfig};
use crate::worker::conn::connection::Connection;
use crate::worker::conn::remote_process::{RemoteEnd, RemoteProcess};
use crate::worker::conn::worker::Launched;
use crate::worker::conn::worker_process::WorkerProcess;
use crate::worker::error::{LaunchEnd, WorkerError};
use crate::worker::spawn::exec_spec::ExecSpec;
use crate::worker::spawn::launcher::Launch;
use crate::worker::tuning::{LAUNCHER_GRACE, LAUNCHER_USUAL_END, REPORT_GRACE};

/// A worker that a launcher is starting.
#[derive(Debug)]
pub(in crate::worker) struct Launching {
    shared: Arc<Shared>,
}

/// The state that a start and its relay share.
#[derive(Debug)]
struct Shared {
    answer: answer::Answer<Result<Launched, WorkerError>>,
    is_cancelled: AtomicBool,
    relay: AtomicWaker,
}

impl Shared {
    fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::Release);
        self.relay.wake();
    }

    fn poll_cancelled(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.relay.register(cx.waker());
        if self.is_cancelled.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

impl Launching {
    /// Starts a worker of this configuration, which has a launcher.
    pub(in crate::worker) fn new(
        launcher: &Launcher,
        spec: &ExecSpec,
        config: &WorkerConfig,
    ) -> Result<Self, WorkerError> {
        let ours = fingerprint().map_err(WorkerError::start_without_proc)?;
        let path = path_of_program().map_err(WorkerError::start_without_proc)?;
        let present = std::env::current_dir().ok();
        let command = launcher.command_line(&path, &spec.arguments, present.as_deref());
        let shared = Arc::new(Shared {
            answer: answer::Answer::new(),
            is_cancelled: AtomicBool::new(false),
            relay: AtomicWaker::new(),
        });
        let plan = Plan {
            launcher: launcher.clone(),
            command,
            ours,
            path,
            config: config.clone(),
        };
        background::spawn(run(plan, shared.clone())).detach();
        Ok(Self { shared })
    }
}

impl Launch for Launching {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Launched, WorkerError>> {
        self.shared.answer.poll(cx)
    }

    fn is_unrequested(&self) -> bool {
        false
    }

    fn cancel(&mut self) {
        self.shared.cancel();
    }
}

/// A worker that was not taken is killed.
impl Drop for Launching {
    fn drop(&mut self) {
        self.shared.cancel();
    }
}

/// Returns the path from which this process was executed.
fn path_of_program() -> io::Result<PathBuf> {
    std::fs::read_link("/proc/self/exe")
}

struct Plan {
    launcher: Launcher,
    command: Vec<std::ffi::OsString>,
    ours: &'static Fingerprint,
    path: PathBuf,
    config: WorkerConfig,
}

/// Starts the worker and relays its frames until it has ended.
async fn run(plan: Plan, shared: Arc<Shared>) {
    let (mut relay, stderr) = match Relay::start(&plan) {
        Ok(started) => started,
        Err(error) => {
            let what = format!("executing `{}`", plan.launcher);
            return shared.answer.give(Err(WorkerError::start(&what, error)));
        }
    };
    match relay.start_worker(&plan, &shared).await {
        Err(error) => {
            relay.end_launcher().await;
            shared.answer.give(Err(error));
        }
        Ok((process, ours, image)) => {
            shared.answer.give(Ok(Launched {
                process: WorkerProcess::remote(process.clone()),
                connection: Connection::new(ours),
                stderr,
                forked: false,
                image: Some(Box::new(image)),
            }));
            // If the worker was not taken, the last handle drops it, and so kills it.
            drop(shared);
            let end = relay.serve(&process).await;
            relay.deliver_rest(&process).await;
            // The launching program mostly ends at once. Then it is no child of this process any
            // more when the end of the worker is known.
            let mut ending = pin!(relay.end_launcher());
            let ended = within(LAUNCHER_USUAL_END, ending.as_mut()).await;
            process.set_end(end);
            if ended.is_none() {
                ending.await;
            }
        }
    }
}

/// The launching program, and the connection through it.
struct Relay {
    program: ChildProcess,
    pump: Pump,
    /// Present once the guardian has been told to start the worker.
    lease: Option<LeaseGranter>,
    /// The guardian has been told to kill the worker.
    is_killed: bool,
}

/// An event for which a relay waits.
enum Event {
    Control(Control),
    StreamClosed,
    /// The worker is to be killed, or its start is cancelled.
    Cancelled,
    /// The time that was set is over.
    TimeOver,
}

impl Relay {
    /// Executes the launcher. Returns the reading end of its standard error, if that is captured.
    fn start(plan: &Plan) -> io::Result<(Self, Option<OwnedFd>)> {
        let (ours, theirs) = socket::pair()?;
        let ours = Arc::new(Async::new(ours)?);
        let mut command = Command::new(&plan.command[0]);
        command
            .args(&plan.command[1..])
            .stdin(theirs.try_clone()?)
            .stdout(theirs)
            // Signals of the terminal go to this program, which decides about its workers.
            .process_group(0);
        let mut stderr = None;
        if plan.config.captures_stderr() {
            let (reader, writer) = socket::pipe()?;
            command.stderr(Stdio::from(writer));
            stderr = Some(reader);
        }
        let program = ChildProcess::adopt(command.spawn()?)?;
        let stream = Stream {
            input: ours.clone(),
            output: ours,
        };
        let relay = Self {
            program,
            pump: Pump::of_relay(stream),
            lease: None,
            is_killed: false,
        };
        Ok((relay, stderr))
    }

    /// Waits for the guardian, lets it start the worker, and waits for that. Returns the process,
    /// its connection's end of a socket pair, and its image.
    async fn start_worker(
        &mut self,
        plan: &Plan,
        shared: &Shared,
    ) -> Result<(Arc<RemoteProcess>, Async<OwnedFd>, Fingerprint), WorkerError> {
        let cancelled = |cx: &mut Context<'_>| shared.poll_cancelled(cx);
        let time_limit = (!plan.launcher.has_a_queue()).then(|| plan.config.time_to_start());
        let limit = time_limit.map(|limit| boot_time().saturating_add(limit));
        let hello = match self.next(limit, cancelled).await {
            Event::Control(Control::Hello(hello)) => hello,
            Event::Cancelled => return Err(WorkerError::launch_cancelled()),
            Event::TimeOver => {
                let limit = time_limit.unwrap_or_default();
                return Err(WorkerError::launch_too_slow(
                    &plan.launcher,
                    limit,
                    &self.pump.noise(),
                ));
            }
            Event::Control(_) => return Err(WorkerError::launch_malformed(&plan.launcher)),
            Event::StreamClosed => return Err(self.launch_failed(plan).await),
        };
        let contents = || Some((plan.ours.contents().ok()??, hello.contents?));
        if !plan.ours.is_same_build_as(&hello.image, contents()) {
            return Err(WorkerError::image_mismatch_elsewhere(
                &plan.path, plan.ours, &hello,
            ));
        }
        let sockets = || {
            let (ours, theirs) = socket::pair()?;
            Ok((Async::new(ours)?, Async::new(theirs)?))
        };
        let (ours, theirs) = sockets().map_err(|error| WorkerError::start("its socket", error))?;
        self.pump.set_socket(theirs);
        // The guardian asked for its lease before its hello arrived.
        let lease = LeaseGranter::new(boot_time(), plan.launcher.term());
        let lease = self.lease.insert(lease);
        let limit = lease.over();
        self.pump.outbox.put_control(&Control::Start(Start {
            term: plan.launcher.term(),
            kills_tree: plan.config.kills_tree(),
            environment: plan.config.environment().to_message(),
        }));
        loop {
            match self.next(Some(limit), cancelled).await {
                Event::Control(Control::Started(pid)) => {
                    let process = RemoteProcess::new(pid, &hello);
                    return Ok((Arc::new(process), ours, hello.image));
                }
                Event::Control(Control::NotStarted(why)) => {
                    return Err(WorkerError::not_started_elsewhere(&hello, &why));
                }
                Event::Control(Control::Ended(_)) => return Err(WorkerError::launch_cancelled()),
                Event::Control(Control::Renew(number)) => self.renew(number),
                Event::Cancelled => self.kill(),
                Event::Control(_) | Event::StreamClosed | Event::TimeOver => {
                    self.await_end_of_lease().await;
                    return Err(WorkerError::launch_lost(&plan.launcher));
                }
            }
        }
    }

    /// Relays until the worker has ended, and returns how.
    async fn serve(&mut self, process: &RemoteProcess) -> RemoteEnd {
        let killed = |cx: &mut Context<'_>| process.poll_killed(cx);
        loop {
            let limit = self.lease.as_ref().map(LeaseGranter::over);
            match self.next(limit, killed).await {
                Event::Control(Control::Renew(number)) => self.renew(number),
                Event::Control(Control::Ended(end)) => {
                    return match end {
                        WorkerEnd::Exited(code) => RemoteEnd::Reported(Ended::Exited(code)),
                        WorkerEnd::Signalled { signal, core } => {
                            RemoteEnd::Reported(Ended::Signalled { signal, core })
                        }
                        WorkerEnd::Stopped { signal } => RemoteEnd::Stopped { signal },
                        WorkerEnd::Unknown => RemoteEnd::Reported(Ended::Unknown),
                    };
                }
                Event::Cancelled => self.kill(),
                // Nothing that comes later is relayed: the worker counts as lost.
                Event::Control(_) | Event::StreamClosed | Event::TimeOver => {
                    self.await_end_of_lease().await;
                    return RemoteEnd::Lost;
                }
            }
        }
    }

    /// Waits for the next control packet, or until a time is over, or until `cancelled` is ready
    /// and the worker is not killed yet.
    async fn next(
        &mut self,
        limit: Option<Duration>,
        cancelled: impl Fn(&mut Context<'_>) -> Poll<()>,
    ) -> Event {
        let mut timer = limit.map(|limit| Timer::after(limit.saturating_sub(boot_time())));
        poll_fn(|cx| {
            if !self.is_killed && cancelled(cx).is_ready() {
                return Poll::Ready(Event::Cancelled);
            }
            match self.pump.poll(cx) {
                Poll::Ready(Ok(control)) => return Poll::Ready(Event::Control(control)),
                Poll::Ready(Err(StreamClosed)) => return Poll::Ready(Event::StreamClosed),
                Poll::Pending => {}
            }
            match &mut timer {
                Some(timer) => timer.poll(cx).map(|_| Event::TimeOver),
                None => Poll::Pending,
            }
        })
        .await
    }

    fn renew(&mut self, number: u64) {
        let lease = self.lease.as_mut();
        if lease.is_some_and(|lease| lease.grant(boot_time())) {
            self.pump.outbox.put_control(&Control::Renewed(number));
        }
    }

    /// Lets the guardian kill the worker. If that does not reach it, the end of the lease does.
    fn kill(&mut self) {
        if let Some(lease) = &mut self.lease {
            lease.cancel();
        }
        self.is_killed = true;
        self.pump.outbox.put_control(&Control::Kill);
    }

    /// Waits until a worker whose guardian cannot be reached has ended.
    async fn await_end_of_lease(&mut self) {
        self.pump.close_stream();
        let Some(lease) = &mut self.lease else { return };
        lease.cancel();
        while let Some(left) = lease.over().checked_sub(boot_time()) {
            Timer::after(left.max(Duration::from_millis(1))).await;
        }
    }

    /// Delivers the rest of what the worker has sent, unless it is killed: then it has no reader.
    async fn deliver_rest(&mut self, process: &RemoteProcess) {
        poll_fn(|cx| {
            if self.pump.deliver_rest(cx) || process.poll_killed(cx).is_ready() {
                return Poll::Ready(());
            }
            Poll::Pending
        })
        .await;
    }

    /// Returns the error of a launcher that has ended without a worker.
    async fn launch_failed(&mut self, plan: &Plan) -> WorkerError {
        let noise = self.pump.noise();
        let program = &mut self.program;
        let ended = within(LAUNCHER_GRACE, poll_fn(|cx| program.poll_end(cx)));
        let end = match ended.await {
            Some(Ended::Exited(code)) => LaunchEnd::Exited(code),
            Some(Ended::Signalled { signal, .. }) => LaunchEnd::Signalled(signal),
            Some(Ended::Unknown) | None => LaunchEnd::Unknown,
        };
        WorkerError::launch_failed(&plan.launcher, end, &noise)
    }

    /// Ends the launching program, and reaps it: first by the end of its input, then by SIGTERM,
    /// then by SIGKILL.
    async fn end_launcher(&mut self) {
        self.pump.close_stream();
        for (signal, grace) in [
            (None, LAUNCHER_GRACE),
            (Some(Signal::TERM), LAUNCHER_GRACE),
            (Some(Signal::KILL), REPORT_GRACE),
        ] {
            if let (Some(signal), Some(program)) = (signal, self.program.descriptor()) {
                let _ = program.send(signal); // fails if the program has changed its user, as sudo does
            }
            let (program, pump) = (&mut self.program, &mut self.pump);
            // Its last output is read, so that a full pipe does not keep it from ending.
            let ended = poll_fn(|cx| {
                while let Poll::Ready(Ok(_)) = pump.poll(cx) {}
                program.poll_end(cx)
            });
            if within(grace, ended).await.is_some() {
                return;
            }
        }
        let pid = self.program.pid();
        tracing::warn!(pid, "a launching program does not end after its worker has");
    }
}
