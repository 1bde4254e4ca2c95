//! Ctrl-C: the first one cancels the runs, the second one kills the process.
//!
//! A run that unwinds on Ctrl-C holds a [`Claim`] on SIGINT, so a signal does not kill the process
//! but is reported to each run through a pipe. The run's signal action then makes the next signal
//! deadly again. (Signal receivers have claims of their own, and are independent of the runs.)

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::sync::{Condvar, Mutex, PoisonError};
use std::task::Context;

use signal_hook::SigId;
use signal_hook::consts::SIGINT;
use signal_hook::low_level;
use smol::Async;

use crate::sys::disposition::Claim;
use crate::sys::primitives::lock;

/// The runs that unwind on SIGINT.
static RUNS: Mutex<Runs> = Mutex::new(Runs {
    active: 0,
    interrupted: false,
});

/// Notified whenever a run ends.
static RUN_ENDED: Condvar = Condvar::new();

struct Runs {
    active: usize,
    /// SIGINT has arrived. Never reset: once the runs have ended, the process dies.
    interrupted: bool,
}

/// Receives SIGINT for one run.
pub(super) struct Interrupt {
    reader: Async<UnixStream>,
    _registered: [Registered; 2],
    _counted: Counted,
    _claim: Claim,
}

/// A registered signal action, until it is dropped.
struct Registered(SigId);

impl Drop for Registered {
    fn drop(&mut self) {
        low_level::unregister(self.0);
    }
}

/// Counts an active run until it is dropped.
struct Counted;

impl Drop for Counted {
    fn drop(&mut self) {
        lock(&RUNS).active -= 1;
        RUN_ENDED.notify_all();
    }
}

impl Interrupt {
    /// Starts to receive SIGINT. Returns `None` if the program handles or ignores it, or if that
    /// fails.
    pub(super) fn watch() -> Option<Self> {
        match Interrupt::listen() {
            Ok(interrupt) => interrupt,
            Err(error) => {
                tracing::warn!(%error, "this run cannot listen for SIGINT, which will kill the process without unwinding");
                None
            }
        }
    }

    fn listen() -> io::Result<Option<Self>> {
        let claim = Claim::new(SIGINT)?;
        let Some(deadly) = claim.in_force() else {
            return Ok(None);
        };
        let (reader, writer) = UnixStream::pair()?;
        let reader = Async::new(reader)?;
        // The action that kills was registered before these, so it runs before they make the next
        // signal deadly.
        let registered = [
            Registered(signal_hook::flag::register(SIGINT, deadly.clone())?),
            Registered(low_level::pipe::register(SIGINT, writer)?),
        ];
        let mut runs = lock(&RUNS);
        runs.active += 1;
        if runs.interrupted {
            deadly.store(true, Ordering::SeqCst);
        }
        Ok(Some(Interrupt {
            reader,
            _registered: registered,
            _counted: Counted,
            _claim: claim,
        }))
    }

    /// Returns whether SIGINT has arrived. Otherwise the task is woken when it does.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        if lock(&RUNS).interrupted {
            return true;
        }
        loop {
            match self.reader.get_ref().read(&mut [0; 16]) {
                Ok(1..) => {
                    lock(&RUNS).interrupted = true;
                    return true;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                // There is no signal yet. (The other end cannot be closed, because the registration
                // holds it.)
                Ok(0) | Err(_) => {}
            }
            if self.reader.poll_readable(cx).is_pending() {
                return false;
            }
        }
    }

    /// If SIGINT has arrived, waits for the end of all other runs, which it cancels too, and ends
    /// the process by SIGINT. Called when the run has ended.
    pub(super) fn die_if_interrupted(self) {
        // A signal that arrived after the last poll counts as well.
        let noop = std::task::Waker::noop();
        let mut this = self;
        let interrupted = this.poll(&mut Context::from_waker(noop));
        drop(this);
        if !interrupted {
            return;
        }
        let mut runs = lock(&RUNS);
        while runs.active > 0 {
            runs = RUN_ENDED.wait(runs).unwrap_or_else(PoisonError::into_inner);
        }
        // Flushes what the program has printed. If that fails, there is no caller left to report it
        // to.
        _ = std::io::stdout().flush();
        let died = low_level::emulate_default_handler(SIGINT);
        unreachable!("SIGINT's default action ends the process: {died:?}");
    }
}
