//! The guardian: what this program becomes, at the hook, where a launcher has started it. It starts
//! the worker as its child, and kills it when its lease is over or its connection is lost.
//!
//! If the guardian is stopped, it cannot do that. So the kernel kills it by a timer soon after the
//! end of the lease, and then kills the worker, which is tied to its parent.

use std::future::poll_fn;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_io::{Timer, block_on};
use futures_lite::{FutureExt, Stream as _};

use super::pump::{Pump, StreamClosed, stream};
use super::within;
use crate::process::background;
use crate::signal::{SignalReceiver, open_signal_receiver};
use crate::sys::clock::boot_time;
use crate::sys::kill_timer::KillTimer;
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
    // The program must not go on here, neither after a panic.
    let guarded = catch_unwind(AssertUnwindSafe(|| {
        Guardian::new().map(|mut guardian| block_on(guardian.run(spec)))
    }));
    match guarded {
        Ok(Ok(())) => std::process::exit(0),
        Ok(Err(error)) => role::exit_cannot_serve(&format!(
            "its standard input and output cannot be used: {error}; the launcher must pass a pipe or a socket for each"
        )),
        // The panic hook has printed the message.
        Err(_) => std::process::exit(role::EXIT_CANNOT_SERVE),
    }
}

struct Guardian {
    pump: Pump,
    signals: Option<SignalReceiver>,
    /// The time at which the lease was asked for.
    asked: Duration,
}

/// The lease of the worker, and the timer of the kernel that enforces it.
struct Lease {
    holder: LeaseHolder,
    timer: KillTimer,
}

impl Lease {
    /// Begins the lease, or returns why the worker would not end with it.
    fn begin(asked: Duration, term: Duration) -> Result<Self, String> {
        if std::process::id() == 1 {
            return Err("it would be process 1 of its container, which the kernel does not kill when its lease is \
                        over: use an init (`docker run --init`)"
                .into());
        }
        let holder = LeaseHolder::new(asked, term);
        if boot_time() >= holder.over() {
            return Err(
                "its first lease was over before it was told to start: the connection is slow; \
                        `Launcher::lease` sets a longer one"
                    .into(),
            );
        }
        let begun = KillTimer::new().and_then(|timer| {
            let lease = Self { holder, timer };
            lease.set_timer().map(|()| lease)
        });
        begun.map_err(|error| format!("the kernel gives no timer for its lease: {error}"))
    }

    fn renew(&mut self, number: u64) {
        self.holder.renew(number);
        let _ = self.set_timer(); // it has worked before
    }

    fn set_timer(&self) -> io::Result<()> {
        self.timer.set(self.holder.over() + KILL_TIMER_MARGIN)
    }
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
    fn new() -> io::Result<Self> {
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
        let limit = self.asked + START_WAIT_LIMIT;
        let Event::Control(Control::Start(start)) = self.next(Some(limit), None).await else {
            return; // the program has given up, or is no program of this protocol
        };
        let started = match Lease::begin(self.asked, start.term) {
            Ok(lease) => {
                let process = self.start_worker(start, spec).await;
                process.map(|process| (lease, process))
            }
            Err(why) => Err(why),
        };
        let (mut lease, mut process) = match started {
            Ok(started) => started,
            Err(why) => {
                self.pump.outbox.put_control(&Control::NotStarted(why));
                return self.close().await;
            }
        };
        let Some(end) = self.guard(&mut process, &mut lease).await else {
            return;
        };
        let Lease { holder, timer } = lease;
        drop(timer); // nothing is left to be killed
        self.send_rest(holder).await;
        self.pump.outbox.put_control(&Control::Ended(end));
        self.close().await;
    }

    /// Passes frames on until the worker has ended, or kills it if it must not live any longer.
    /// Returns how it ended. `None` if the connection is lost, so that it cannot be reported.
    async fn guard(&mut self, process: &mut WorkerProcess, lease: &mut Lease) -> Option<WorkerEnd> {
        let mut stopped_by = None;
        let ended = loop {
            match self
                .next(Some(lease.holder.next_due()), Some(process))
                .await
            {
                Event::Ended(ended) => break ended,
                Event::Control(Control::Renewed(number)) => lease.renew(number),
                Event::Control(Control::Kill) => process.kill(),
                Event::Stopped(signal) => {
                    stopped_by.get_or_insert(signal);
                    process.kill();
                }
                Event::Due if boot_time() < lease.holder.over() => {
                    self.ask_for_renewal(&mut lease.holder);
                }
                Event::Due => {
                    process.kill();
                    break poll_fn(|cx| process.poll_end(cx)).await;
                }
                Event::StreamClosed | Event::Control(_) => {
                    process.kill();
                    poll_fn(|cx| process.poll_end(cx)).await;
                    return None;
                }
            }
        };
        Some(match stopped_by {
            Some(signal) => WorkerEnd::Stopped { signal },
            None => ended.into(),
        })
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
    async fn send_rest(&mut self, mut lease: LeaseHolder) {
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
                Some(Event::Due) if boot_time() < lease.over() => self.ask_for_renewal(&mut lease),
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
        within(REPORT_GRACE, closed).await;
    }
}

/// Returns the job and step of Slurm in which this process runs.
fn slurm_step() -> Option<String> {
    let job = std::env::var("SLURM_JOB_ID").ok()?;
    let step = std::env::var("SLURM_STEP_ID").ok()?;
    Some(format!("{job}.{step}"))
}
