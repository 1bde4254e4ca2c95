//! The guardian: what this program becomes, at the hook, where a launcher has started it. It starts
//! the worker as its child, and kills it when its lease is over or its connection is lost.
//!
//! If the guardian is stopped, it cannot do that. So the kernel kills it by a timer soon after the
//! end of the lease, and then kills the worker, which is tied to its parent.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_io::{Timer, block_on};
use futures_lite::{FutureExt, Stream as _};

use super::pump::{Pump, StreamClosed, stream};
use crate::process::background;
use crate::signal::{SignalReceiver, open_signal_receiver};
use crate::sys::kill_timer::{KillTimer, boot_time};
use crate::sys::process::Ended;
use crate::sys::{role, standard_fds};
use crate::transport::job::image::fingerprint;
use crate::transport::relay::greeting::GREETING;
use crate::transport::relay::lease::LeaseHolder;
use crate::transport::relay::packet::{Control, Hello, Start, WorkerEnd};
use crate::worker::config::Environment;
use crate::worker::conn::worker_process::WorkerProcess;
use crate::worker::spawn::exec_spec::ExecSpec;
use crate::worker::spawn::launcher::Spawning;
use crate::worker::tuning::{KILL_TIMER_MARGIN, REPORT_GRACE, START_WAIT_LIMIT};

/// The signals by which an engine tells that the worker is to stop.
const STOP_SIGNALS: [i32; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT];

/// Guards a worker until it has ended, and exits.
pub(in crate::worker) fn serve(spec: Arc<ExecSpec>) -> ! {
    role::forget_guardian();
    let guarded = Guardian::new().map(|mut guardian| block_on(guardian.run(spec)));
    if let Err(error) = guarded {
        role::exit_cannot_serve(&format!(
            "its standard input and output cannot be used: {error}; the launcher must pass a pipe or a socket for each"
        ))
    }
    std::process::exit(0)
}

struct Guardian {
    pump: Pump,
    signals: Option<SignalReceiver>,
    /// The time at which the lease was asked for.
    asked: Duration,
}

/// An event for which a guardian waits.
enum Event {
    Control(Control),
    StreamClosed,
    Stopped(i32),
    /// A renewal of the lease is due, or its end.
    Due,
    Ended(Ended),
}

impl Guardian {
    fn new() -> std::io::Result<Self> {
        let (input, output) = standard_fds::take_input_and_output()?;
        let mut pump = Pump::of_guardian(stream(input, output)?);
        let image = fingerprint()?;
        let contents = image.contents()?; // may take a second, which must not count for the lease
        let asked = boot_time();
        pump.outbox.put_raw(GREETING);
        pump.outbox.put_control(&Control::Hello(Hello {
            image: image.clone(),
            contents,
            path: std::fs::read_link("/proc/self/exe")?.display().to_string(),
            host: rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned(),
            step: slurm_step(),
        }));
        Ok(Self {
            pump,
            // Without it, a signal ends this process, and the kernel the worker.
            signals: open_signal_receiver(&STOP_SIGNALS).ok(),
            asked,
        })
    }

    async fn run(&mut self, spec: Arc<ExecSpec>) {
        let start = match self.next(Some(self.asked + START_WAIT_LIMIT), None).await {
            Event::Control(Control::Start(start)) => start,
            _ => return, // the program has given up, or is no program of this protocol
        };
        let mut lease = LeaseHolder::new(self.asked, start.term);
        let timer = KillTimer::new();
        let set = |lease: &LeaseHolder| match &timer {
            Ok(timer) => timer.set(lease.over() + KILL_TIMER_MARGIN),
            Err(error) => Err(std::io::Error::from(error.kind())),
        };
        let process = match set(&lease) {
            _ if std::process::id() == 1 => Err(
                "it would be process 1 of its container, which the kernel does not kill when its lease is over: use an \
                 init (`docker run --init`)"
                    .to_owned(),
            ),
            Err(error) => Err(format!("the kernel gives no timer for its lease: {error}")),
            Ok(()) if boot_time() >= lease.over() => {
                Err("its first lease was over before it was told to start: the connection is slow; \
                     `Launcher::lease` sets a longer one"
                    .to_owned())
            }
            Ok(()) => self.start_worker(start, spec).await,
        };
        let mut process = match process {
            Ok(process) => process,
            Err(why) => {
                self.pump.outbox.put_control(&Control::NotStarted(why));
                return self.close().await;
            }
        };
        let mut stopped_by = None;
        let mut is_connected = true;
        let ended = loop {
            match self.next(Some(lease.next_due()), Some(&mut process)).await {
                Event::Ended(ended) => break ended,
                Event::Control(Control::Renewed(number)) => {
                    lease.renew(number);
                    let _ = set(&lease); // it has worked before
                }
                Event::Control(Control::Kill) => process.kill(),
                Event::Due if boot_time() >= lease.over() => {
                    process.kill();
                    break poll_fn(|cx| process.poll_end(cx)).await;
                }
                Event::Due => self.ask_for_renewal(&mut lease),
                Event::Stopped(signal) => {
                    stopped_by.get_or_insert(signal);
                    process.kill();
                }
                Event::StreamClosed | Event::Control(_) => {
                    is_connected = false;
                    process.kill();
                    break poll_fn(|cx| process.poll_end(cx)).await;
                }
            }
        };
        if !is_connected {
            return;
        }
        drop(timer); // the worker has ended, so there is nothing left to be killed
        self.send_rest(&mut lease).await;
        let end = match stopped_by {
            Some(signal) => WorkerEnd::Stopped { signal },
            None => ended.into(),
        };
        self.pump.outbox.put_control(&Control::Ended(end));
        self.close().await;
    }

    /// Starts the worker, or returns why it cannot be started.
    async fn start_worker(
        &mut self,
        start: Start,
        spec: Arc<ExecSpec>,
    ) -> Result<WorkerProcess, String> {
        let environment = Environment::from_message(start.environment)
            .ok_or("a name or value of its environment has a zero byte")?;
        background::prepare().map_err(|error| error.to_string())?;
        let spawning = Spawning::new(spec, environment, false);
        let mut spawning = spawning.map_err(|error| error.to_string())?;
        let spawned = poll_fn(|cx| spawning.poll_spawned(cx)).await;
        let mut spawned = spawned.map_err(|error| error.to_string())?;
        if start.kills_tree {
            spawned.process.set_kills_tree();
        }
        self.pump.set_socket(spawned.socket);
        self.pump
            .outbox
            .put_control(&Control::Started(spawned.process.pid()));
        Ok(spawned.process)
    }

    async fn next(&mut self, due: Option<Duration>, process: Option<&mut WorkerProcess>) -> Event {
        let mut timer = due.map(|due| Timer::after(due.saturating_sub(boot_time())));
        let mut process = process;
        poll_fn(|cx| {
            match self.pump.poll(cx) {
                Poll::Ready(Ok(control)) => return Poll::Ready(Event::Control(control)),
                Poll::Ready(Err(StreamClosed)) => return Poll::Ready(Event::StreamClosed),
                Poll::Pending => {}
            }
            if let Some(signals) = &mut self.signals
                && let Poll::Ready(Some(signal)) = Pin::new(signals).poll_next(cx)
            {
                return Poll::Ready(Event::Stopped(signal));
            }
            if let Some(process) = &mut process
                && let Poll::Ready(ended) = process.poll_end(cx)
            {
                return Poll::Ready(Event::Ended(ended));
            }
            match &mut timer {
                Some(timer) => timer.poll(cx).map(|_| Event::Due),
                None => Poll::Pending,
            }
        })
        .await
    }

    fn ask_for_renewal(&mut self, lease: &mut LeaseHolder) {
        if let Some(number) = lease.take_request(boot_time()) {
            self.pump.outbox.put_control(&Control::Renew(number));
        }
    }

    /// Sends what the worker had sent before its end. The lease is renewed, or the program would
    /// take the worker for lost before all has arrived.
    async fn send_rest(&mut self, lease: &mut LeaseHolder) {
        loop {
            let mut timer = Timer::after(lease.next_due().saturating_sub(boot_time()));
            let event = poll_fn(|cx| {
                match self.pump.poll(cx) {
                    Poll::Ready(Ok(control)) => return Poll::Ready(Some(Event::Control(control))),
                    Poll::Ready(Err(StreamClosed)) => return Poll::Ready(None),
                    Poll::Pending => {}
                }
                if self.pump.collect_rest(cx) {
                    return Poll::Ready(None);
                }
                timer.poll(cx).map(|_| Some(Event::Due))
            });
            match event.await {
                Some(Event::Control(Control::Renewed(number))) => lease.renew(number),
                Some(Event::Due) if boot_time() < lease.over() => self.ask_for_renewal(lease),
                // All has been put, or can never be sent.
                Some(Event::Due) | None => return,
                Some(_) => {}
            }
        }
    }

    /// Sends what has been put, and waits until the program has closed the connection.
    async fn close(&mut self) {
        let closed = poll_fn(|cx: &mut Context<'_>| {
            while let Poll::Ready(polled) = self.pump.poll(cx) {
                if polled.is_err() {
                    return Poll::Ready(());
                }
            }
            Poll::Pending
        });
        closed
            .or(async {
                Timer::after(REPORT_GRACE).await;
            })
            .await;
    }
}

/// Returns the job and step of Slurm in which this process runs.
fn slurm_step() -> Option<String> {
    let job = std::env::var("SLURM_JOB_ID").ok()?;
    let step = std::env::var("SLURM_STEP_ID").ok()?;
    Some(format!("{job}.{step}"))
}
