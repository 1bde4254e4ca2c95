//! `RunBuilder` and `run`: setting a run up, running it, and ending it.

use std::cell::Cell;
use std::future::IntoFuture;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::driver::{MainFuture, RunDriver};
use super::interrupt::Interrupt;
use super::workers;
use crate::instrument::{Instrument, Instruments, Observed, TaskExit};
use crate::sys::fork_detector;
use crate::task::shuffle::shuffle;
use crate::time::{Clock, Timers};

/// The policy of a run for Ctrl-C.
///
/// ```
/// use seedbed::run::CtrlC;
/// use seedbed::RunBuilder;
///
/// assert_eq!(CtrlC::default(), CtrlC::Unwind);
/// assert_eq!(RunBuilder::new().ctrl_c(CtrlC::Leave).run(async { 5 }), 5);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CtrlC {
    /// The first SIGINT cancels the run's root scope: tasks unwind in order, clean-up and shielded
    /// sections run, workers end. Then the process dies by SIGINT, as Unix expects (a shell sees
    /// exit status 130), so `run` does not return, not even with a panic. A second SIGINT ends the
    /// process at once. The process flushes its standard output for up to 100 ms before it dies. As
    /// process 1 of a container, which no signal can end, it exits with 130.
    ///
    /// If several runs are active, all are cancelled, also one that begins after the signal, and
    /// the last one to end ends the process. A run that ends earlier waits for that, with two
    /// exceptions, because another run may wait for its thread: a thread of
    /// [`thread::run_sync`](crate::thread::run_sync()), and any thread while the main thread is in
    /// a run, is unwound instead, without a message, as by a panic. (In a program that is built
    /// with `panic = "abort"`, the process dies at once then.)
    ///
    /// If the run still waits for a job, a thread or a shield after two seconds, a line on standard
    /// error names it.
    ///
    /// This works only if SIGINT has its default disposition when the first run begins or the first
    /// [signal receiver](crate::signal::open_signal_receiver) for it is opened. A program that
    /// ignores or handles SIGINT keeps its own behaviour; a program that was started by `nohup`, or
    /// by a script with `&`, ignores it. A signal receiver does not take SIGINT away from the run:
    /// both receive it.
    #[default]
    Unwind,
    /// The run does not handle SIGINT. The signal does to the process what it does without seedbed.
    Leave,
}

/// Sets up a run.
///
/// ```
/// use std::time::Duration;
/// use seedbed::run::CtrlC;
/// use seedbed::testing::MockClock;
/// use seedbed::{RunBuilder, sleep};
///
/// let value = RunBuilder::new()
///     .clock(MockClock::autojump())
///     .ctrl_c(CtrlC::Leave)
///     .run(async {
///         sleep(Duration::from_secs(3600)).await;
///         "an hour later"
///     });
/// assert_eq!(value, "an hour later");
/// ```
#[derive(Debug)]
#[must_use = "nothing happens before `run` is called"]
#[doc(alias = "Runtime")]
pub struct RunBuilder {
    /// `None` for the system's clock.
    clock: Option<Arc<dyn Clock>>,
    ctrl_c: CtrlC,
    instruments: Instruments,
    shuffle: Option<u64>,
    keep_workers: bool,
}

impl RunBuilder {
    /// Makes a builder for a run in real time that unwinds on Ctrl-C.
    ///
    /// ```
    /// assert_eq!(seedbed::RunBuilder::new().run(async { 5 }), 5);
    /// ```
    pub fn new() -> Self {
        RunBuilder {
            clock: None,
            ctrl_c: CtrlC::default(),
            instruments: Instruments::default(),
            shuffle: None,
            keep_workers: false,
        }
    }

    /// Sets the clock of the run's sleeps and deadlines.
    ///
    /// ```
    /// use std::time::Duration;
    /// use seedbed::testing::MockClock;
    /// use seedbed::{RunBuilder, sleep};
    ///
    /// let (clock, hour) = (MockClock::autojump(), Duration::from_secs(3600));
    /// RunBuilder::new().clock(clock.clone()).run(sleep(hour));
    /// assert_eq!(clock.elapsed(), hour);
    /// ```
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// Sets the policy for Ctrl-C.
    ///
    /// ```
    /// use seedbed::run::CtrlC;
    /// use seedbed::RunBuilder;
    ///
    /// // SIGINT ends this program without unwinding.
    /// assert_eq!(RunBuilder::new().ctrl_c(CtrlC::Leave).run(async { 5 }), 5);
    /// ```
    pub fn ctrl_c(mut self, ctrl_c: CtrlC) -> Self {
        self.ctrl_c = ctrl_c;
        self
    }

    /// Adds an instrument, which observes the run from its beginning. Adding the same instrument
    /// twice has no effect.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use seedbed::instrument::{Instrument, remove_instrument};
    /// use seedbed::RunBuilder;
    ///
    /// struct Prints;
    ///
    /// impl Instrument for Prints {
    ///     fn before_run(&self) {
    ///         println!("here we go");
    ///     }
    /// }
    ///
    /// let prints = Arc::new(Prints);
    /// RunBuilder::new().instrument(prints.clone()).run(async {
    ///     assert!(remove_instrument(&prints).is_ok());
    /// });
    /// ```
    pub fn instrument(mut self, instrument: Arc<dyn Instrument>) -> Self {
        self.instruments.add(instrument);
        self
    }

    /// Shuffles the order in which the children of every nursery are polled, by `seed`. See
    /// [`testing::shuffle`].
    ///
    /// [`testing::shuffle`]: crate::testing::shuffle
    ///
    /// ```
    /// use seedbed::{RunBuilder, open_nursery};
    ///
    /// let winner = |seed| {
    ///     RunBuilder::new().shuffle(seed).run(open_nursery(|n| async move {
    ///         let racers = ["a", "b", "c"].map(|name| {
    ///             let finish = n.clone();
    ///             n.spawn(async move { finish.terminate(name) })
    ///         });
    ///         for racer in racers {
    ///             racer.await;
    ///         }
    ///         unreachable!("the first racer ends the block")
    ///     }))
    /// };
    /// assert!((0..100).any(|seed| winner(seed) == "c"));
    /// ```
    pub fn shuffle(mut self, seed: u64) -> Self {
        self.shuffle = Some(seed);
        self
    }

    /// Keeps the idle workers of the default context when this run ends as the last one of the
    /// process, so that a later run uses them. By default, the last run ends them and waits for
    /// that.
    ///
    /// This is for a program or a test suite with many short runs, which then starts workers once.
    /// Kept workers end with their [`idle_timeout`](crate::WorkerConfig::idle_timeout), with the
    /// process, when [another configuration](crate::worker::configure_default_context) replaces
    /// theirs, or at the end of a last run that does not keep them; so `seedbed::run(async {})`
    /// ends them. If several runs are active, the one that ends last decides. A run that Ctrl-C
    /// cancels keeps none, and the workers of other contexts always end with their block.
    ///
    /// ```
    /// use seedbed::{RunBuilder, run_sync};
    ///
    /// fn pid(_: ()) -> u32 {
    ///     std::process::id()
    /// }
    ///
    /// fn main() {
    ///     let run = || RunBuilder::new().keep_workers(true).run(run_sync(pid, ()));
    ///     assert_eq!(run().unwrap(), run().unwrap());
    /// }
    /// ```
    #[cfg(all(feature = "workers", target_os = "linux"))]
    pub fn keep_workers(mut self, keep: bool) -> Self {
        self.keep_workers = keep;
        self
    }

    /// Runs `future` to its end, as [`run`](crate::run()) does.
    ///
    /// # Panics
    ///
    /// See [`run`](crate::run()).
    ///
    /// ```
    /// use seedbed::{RunBuilder, checkpoint};
    ///
    /// let five = RunBuilder::new().run(async {
    ///     checkpoint().await;
    ///     5
    /// });
    /// assert_eq!(five, 5);
    /// ```
    #[doc(alias = "block_on")]
    pub fn run<F: IntoFuture>(self, future: F) -> F::Output {
        let seed = self.shuffle;
        self.run_erased(Box::new(move || match seed {
            None => MainFuture::new(future.into_future()),
            Some(seed) => MainFuture::new(shuffle(seed, future)),
        }))
    }

    /// Runs the future that `begin` makes inside of the run. One instance of this, and of the
    /// driver, serves all main futures with the same output.
    fn run_erased<'f, T>(self, begin: Box<dyn FnOnce() -> MainFuture<'f, T> + 'f>) -> T {
        workers::hook();
        fork_detector::watch_for_forks();
        let mut inside = Inside::enter();
        let interrupt = (self.ctrl_c == CtrlC::Unwind)
            .then(Interrupt::watch)
            .flatten();
        let observed = Observed::begin(self.instruments);
        let mut driver = RunDriver::new(Timers::new(self.clock), interrupt, begin());
        let block = || {
            if fork_detector::is_forked_copy() {
                // The reactor's events are for the original, and its thread may hold its lock.
                futures_lite::future::block_on(&mut driver)
            } else {
                smol::block_on(&mut driver)
            }
        };
        let outcome = catch_unwind(AssertUnwindSafe(block));
        let interrupt = driver.end(match &outcome {
            Ok(Some(_)) => TaskExit::Finished,
            Ok(None) => TaskExit::Cancelled,
            Err(_) => TaskExit::Panicked,
        });
        drop(observed);
        // After Ctrl-C the process ends, and its workers end in good order before.
        inside.keep_workers = self.keep_workers && !matches!(outcome, Ok(None));
        drop(inside);
        if let Some(interrupt) = interrupt {
            // Also after a panic, whose message has been printed.
            interrupt.end();
        }
        match outcome {
            Err(payload) => resume_unwind(payload),
            Ok(value) => value.expect("the root scope is cancelled by Ctrl-C only"),
        }
    }
}

impl Default for RunBuilder {
    fn default() -> Self {
        Self::new()
    }
}

/// Runs a future to its end on this thread, with everything that it opens, and drives smol's
/// reactor.
///
/// This is `RunBuilder::new().run(future)`: the run is in real time, and Ctrl-C cancels it (see
/// [`CtrlC`]). When `run` returns, every task, system task and shielded section has ended, every
/// [accepted call](super::RunHandle::call_soon) has been made, and, with the last run of the
/// process, every idle worker process has ended (unless
/// [`keep_workers`](RunBuilder::keep_workers) is set).
///
/// In a worker process, this is the hook: it serves jobs and never returns. So everything *before*
/// it in `main` runs again, with the same arguments and environment, in each worker, or once for
/// all workers that are [forked](crate::worker::WorkerType).
///
/// # Panics
///
/// In a process that was forked from one which had used seedbed, if the run has to wait for a
/// deadline: smol's reactor works in the original only. Tasks, threads and locks work there.
///
/// With the panic of `future`, of a [system task](super::spawn_system_task) or of a
/// [call](super::RunHandle::call_soon); a panic cancels everything else in the run. Also panics if
/// it is called inside another run on the same thread.
///
/// ```
/// let five = seedbed::run(async { 5 });
/// assert_eq!(five, 5);
/// ```
pub fn run<F: IntoFuture>(future: F) -> F::Output {
    RunBuilder::new().run(future)
}

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// The number of runs in the process.
static RUNS: AtomicUsize = AtomicUsize::new(0);

/// Marks this thread as inside a run. The last one to be dropped ends the idle workers of the
/// default context.
struct Inside {
    keep_workers: bool,
}

impl Inside {
    fn enter() -> Self {
        assert!(
            !INSIDE.replace(true),
            "seedbed::run was called inside of another run on the same thread; await the future there instead, or call \
             run on a thread of its own"
        );
        RUNS.fetch_add(1, Ordering::SeqCst);
        Inside {
            keep_workers: false,
        }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        if RUNS.fetch_sub(1, Ordering::SeqCst) == 1 && !self.keep_workers {
            smol::block_on(workers::shutdown_default());
        }
        INSIDE.set(false);
    }
}
