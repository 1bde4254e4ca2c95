//! Ctrl-C: the first one cancels the runs, the second one kills the process.
//!
//! The state that the signal handler and the runs share, and the protocol, are in
//! [`sys::ctrl_c`](crate::sys::ctrl_c). Here a run begins and ends to watch for SIGINT, and the
//! last run that ends after SIGINT kills the process.
//!
//! A run that ends after SIGINT does not return. While other runs are still ending, its thread is
//! treated in one of two ways, because one of them may wait for that thread:
//!
//! * a thread of `thread::run_sync`, and any other thread while the main thread is in a run, is
//!   unwound with the payload [`InterruptedRun`], so a run that waits for the thread can end;
//! * the main thread, and other threads if the main thread is in no run, wait for the end of the
//!   process: a main function that joins its threads must not end the process too early.

use std::future::Future;
use std::io;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::task::Context;

use async_io::{Async, Readable};
use signal_hook::consts::SIGINT;

use super::tuning::{FLUSH_BEFORE_DEATH, NOTICE_AFTER_INTERRUPT};
use crate::sys::ctrl_c::{InterruptedRun, RUNS, RunEnd, wake_fd};
use crate::sys::disposition;
use crate::sys::fork_detector::is_forked_copy;
use crate::sys::primitives::lock;
use crate::sys::thread::is_main;
use crate::thread;

/// The main thread is in a run that watches for SIGINT, or was when SIGINT arrived.
static MAIN_IS_IN_RUN: AtomicBool = AtomicBool::new(false);

/// Receives SIGINT for one run, until it is dropped.
pub(super) struct Interrupt {
    /// Wakes the run's loop.
    wake: Pin<Box<Readable<'static, &'static OwnedFd>>>,
    polled: bool,
    watching: Watching,
}

impl Interrupt {
    /// Starts to receive SIGINT. Returns `None` if the program handles or ignores it, or if that
    /// fails.
    pub(super) fn watch() -> Option<Self> {
        // In a forked copy, whose reactor does not work, the signal has its default action.
        if is_forked_copy() {
            return None;
        }
        match wake_source() {
            Ok(source) => Some(Interrupt {
                wake: Box::pin(source?.readable()),
                polled: false,
                watching: Watching::begin(),
            }),
            Err(error) => {
                tracing::warn!(%error, "this run cannot listen for SIGINT, which will kill the process without unwinding");
                None
            }
        }
    }

    /// Returns whether SIGINT has arrived. Otherwise the loop is woken when it does: `cx` is that
    /// of the loop, which is the same at every call.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.polled {
            self.polled = true;
            // Registers the loop's waker. It is readable only if SIGINT has arrived.
            _ = self.wake.as_mut().poll(cx);
        }
        RUNS.is_interrupted()
    }

    /// Stops to receive SIGINT, when the run has ended. Does not return if SIGINT has arrived.
    pub(super) fn end(self) {
        match self.watching.end() {
            RunEnd::NotInterrupted => {}
            RunEnd::Last => die(),
            RunEnd::OthersLeft => leave_thread(),
        }
    }
}

/// Counts a run that unwinds at SIGINT, until it is dropped.
struct Watching;

impl Watching {
    fn begin() -> Self {
        if is_main() {
            MAIN_IS_IN_RUN.store(true, Ordering::SeqCst);
        }
        RUNS.begin();
        Watching
    }

    fn end(self) -> RunEnd {
        std::mem::forget(self);
        Watching::leave()
    }

    fn leave() -> RunEnd {
        if is_main() {
            // Before the end: a main thread that has left its run may end the process.
            MAIN_IS_IN_RUN.store(false, Ordering::SeqCst);
        }
        let end = RUNS.end();
        if is_main() && end != RunEnd::NotInterrupted {
            MAIN_IS_IN_RUN.store(true, Ordering::SeqCst);
        }
        end
    }
}

/// Dropped without [`end`](Watching::end) only by a panic while the run is set up or taken down.
impl Drop for Watching {
    fn drop(&mut self) {
        if Watching::leave() == RunEnd::Last {
            die();
        }
    }
}

/// Returns the source of wake-ups, which the first call installs. `None` if SIGINT does not have
/// its default action.
fn wake_source() -> io::Result<Option<&'static Async<&'static OwnedFd>>> {
    static SOURCE: Mutex<Option<&Async<&OwnedFd>>> = Mutex::new(None);
    if !disposition::take_over(SIGINT)?.has_default() {
        return Ok(None);
    }
    let mut source = lock(&SOURCE);
    if source.is_none() {
        // Kept until the process ends: a signal handler uses it.
        *source = Some(Box::leak(Box::new(Async::new(wake_fd()?)?)));
    }
    Ok(*source)
}

/// Flushes what the program has printed, and ends the process by SIGINT.
fn die() -> ! {
    // On a thread of its own, because a thread that was abandoned may hold the lock of the standard
    // output, or the pipe may be full. An error has no caller left to be reported to.
    let (done, flushed) = channel();
    let flush = move || {
        _ = io::stdout().flush();
        _ = done.send(());
    };
    if std::thread::Builder::new().spawn(flush).is_ok() {
        _ = flushed.recv_timeout(FLUSH_BEFORE_DEATH);
    }
    disposition::end_by(SIGINT)
}

/// Ends the use of this thread by a run that has ended after SIGINT, while other runs have not
/// ended. The last one of them ends the process.
fn leave_thread() -> ! {
    let mut notice = Some(NOTICE_AFTER_INTERRUPT);
    loop {
        if may_be_awaited() {
            if cfg!(panic = "abort") {
                // Nothing in such a program unwinds.
                die();
            }
            resume_unwind(Box::new(InterruptedRun));
        }
        std::thread::park_timeout(NOTICE_AFTER_INTERRUPT);
        if notice.take().is_some() {
            let thread = std::thread::current();
            // There is no other way to report it if that fails.
            _ = writeln!(
                io::stderr(),
                "seedbed: the run on thread `{}` has ended after Ctrl-C, and {} other(s) are still ending; press Ctrl-C \
                 again to end the process at once",
                thread.name().unwrap_or("without a name"),
                RUNS.runs(),
            );
        }
    }
}

/// Returns whether another run may wait for this thread, and unwinding the thread cannot end the
/// process too early.
fn may_be_awaited() -> bool {
    let is_safe = thread::is_in_job() || (!is_main() && MAIN_IS_IN_RUN.load(Ordering::SeqCst));
    // A second unwinding of the same thread would abort the process.
    is_safe && !std::thread::panicking()
}
