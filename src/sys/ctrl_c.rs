//! The runs that unwind at SIGINT, as a state that a signal handler may change.
//!
//! One word holds the number of these runs and whether SIGINT has arrived. Each transition is one
//! atomic exchange, so a signal comes either before the end of the last run, which then ends the
//! process, or after it, when the signal has its default action again. No signal falls in between:
//!
//! | transition | by | effect |
//! |---|---|---|
//! | [`begin`](RunWatch::begin) | a run, when everything that reports signals is installed | SIGINT is the runs' from now on; a run that begins after SIGINT has arrived is cancelled at once |
//! | [`arrive`](RunWatch::arrive) | the signal handler | without a run: not the runs' signal. The first one interrupts all runs; the second one kills |
//! | [`end`](RunWatch::end) | a run, as its last action | returns whether SIGINT has arrived, and how many runs are left |
//!
//! The word is never reset after SIGINT has arrived: the last run ends the process.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::write;

use super::socket::above_standard;

/// The bit that is set when SIGINT has arrived.
const INTERRUPTED: usize = 1;
/// Added to the word for each run.
const ONE_RUN: usize = 2;

/// The runs of this process.
pub(crate) static RUNS: RunWatch = RunWatch::new();

/// The number of runs that unwind at SIGINT, and whether it has arrived.
#[derive(Debug, Default)]
pub(crate) struct RunWatch(AtomicUsize);

/// The effect of a SIGINT on the runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// No run unwinds at SIGINT.
    Unwatched,
    /// All runs are interrupted.
    First,
    /// The runs are unwinding already.
    Again,
}

/// The state at the end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunEnd {
    /// SIGINT has not arrived.
    NotInterrupted,
    /// SIGINT has arrived, and this was the last run.
    Last,
    /// SIGINT has arrived, and other runs have not ended.
    OthersLeft,
}

impl RunWatch {
    const fn new() -> Self {
        RunWatch(AtomicUsize::new(0))
    }

    /// Counts a run, to which SIGINT belongs from now on.
    pub(crate) fn begin(&self) {
        self.0.fetch_add(ONE_RUN, Ordering::SeqCst);
    }

    /// Ends a run.
    pub(crate) fn end(&self) -> RunEnd {
        let before = self.0.fetch_sub(ONE_RUN, Ordering::SeqCst);
        match (before & INTERRUPTED != 0, before - ONE_RUN < ONE_RUN) {
            (false, _) => RunEnd::NotInterrupted,
            (true, true) => RunEnd::Last,
            (true, false) => RunEnd::OthersLeft,
        }
    }

    /// Interrupts the runs, if there are any. Async-signal-safe.
    pub(crate) fn arrive(&self) -> Arrival {
        let interrupt = |word| (word >= ONE_RUN).then_some(word | INTERRUPTED);
        let before = self
            .0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, interrupt)
            .unwrap_or_else(|word| word);
        match before {
            0 => Arrival::Unwatched,
            // Without a run, the process is about to end.
            word if word & INTERRUPTED != 0 => Arrival::Again,
            _ => Arrival::First,
        }
    }

    /// Returns whether SIGINT has arrived. Costs a load.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.0.load(Ordering::SeqCst) & INTERRUPTED != 0
    }

    /// Returns the number of runs that have not ended.
    pub(crate) fn runs(&self) -> usize {
        self.0.load(Ordering::SeqCst) / ONE_RUN
    }
}

/// The payload with which a run that was interrupted unwinds its thread, if another run waits for
/// that thread. It is no panic of the program: it has no message.
#[derive(Debug)]
pub(crate) struct InterruptedRun;

/// The eventfd that becomes readable when SIGINT arrives; set before the first run begins.
static WAKE: OnceLock<OwnedFd> = OnceLock::new();

/// Returns an eventfd that is readable when SIGINT has arrived. It is never read, so it wakes every
/// run that waits for it, however late.
pub(crate) fn wake_fd() -> io::Result<&'static OwnedFd> {
    if let Some(known) = WAKE.get() {
        return Ok(known);
    }
    let fd = above_standard(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)?;
    // If another thread was first, this one is dropped.
    Ok(WAKE.get_or_init(|| fd))
}

/// Wakes all runs. Async-signal-safe.
pub(crate) fn wake_runs() {
    if let Some(wake) = WAKE.get() {
        // An error would mean that the count is at its maximum, which is readable too.
        _ = write(wake, &1_u64.to_ne_bytes());
    }
}
