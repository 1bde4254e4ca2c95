//! Ctrl-C: the first one is for the runs, the second one kills.
//!
//! While a run listens it has a [`Claim`] on SIGINT, so that a signal does not kill but is reported to every run through
//! a pipe of that run's own. An action of the run's puts the default in force again, so that the next signal kills.
//! (Signal receivers have claims of their own: what they want is no matter of the runs, nor the other way round.)

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

/// Told whenever a run ends.
static RUN_ENDED: Condvar = Condvar::new();

struct Runs {
    active: usize,
    /// SIGINT came. Never taken back: once the runs have ended, the process dies.
    interrupted: bool,
}

/// One run's ear for SIGINT.
pub(super) struct Interrupt {
    reader: Async<UnixStream>,
    _registered: [Registered; 2],
    _counted: Counted,
    _claim: Claim,
}

/// An action, until it is dropped.
struct Registered(SigId);

impl Drop for Registered {
    fn drop(&mut self) {
        low_level::unregister(self.0);
    }
}

/// One of the active runs, until it is dropped.
struct Counted;

impl Drop for Counted {
    fn drop(&mut self) {
        lock(&RUNS).active -= 1;
        RUN_ENDED.notify_all();
    }
}

impl Interrupt {
    /// Begins to listen. `None` if SIGINT is not ours to handle, or cannot be.
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
        // The action that kills was installed before these, so it is asked before the next signal is made deadly.
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

    /// Whether SIGINT has come. Else the task is woken when it does.
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
                // Nothing yet, or (which cannot be, as the registration holds it) the other end is gone.
                Ok(0) | Err(_) => {}
            }
            if self.reader.poll_readable(cx).is_pending() {
                return false;
            }
        }
    }

    /// The run has ended. If SIGINT came, waits for the other runs, which it cancels too, and dies by it.
    pub(super) fn die_if_interrupted(self) {
        // A signal that arrived after the loop last looked counts as well.
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
        // What the program printed belongs to its output; if it cannot be written, nobody is left to be told.
        _ = std::io::stdout().flush();
        let died = low_level::emulate_default_handler(SIGINT);
        unreachable!("SIGINT's default action ends the process: {died:?}");
    }
}
