//! Ctrl-C: the first one is for the runs, the second one kills.
//!
//! One flag, `DEADLY`, says what the next SIGINT does. While it is false, a signal sets it and is reported to every run
//! through a pipe of that run's own; while it is true, which it also is when there is no run, a signal does what it does
//! by default: it kills. Both actions are installed once and stay, because the C library has only one place for a
//! handler and others may have come on top of ours since.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, OnceLock, PoisonError};
use std::task::Context;

use signal_hook::SigId;
use signal_hook::consts::SIGINT;
use signal_hook::low_level;
use smol::Async;

use crate::cancel::lock;
use crate::sys::signal::is_default;

/// Whether the next SIGINT kills.
static DEADLY: LazyLock<Arc<AtomicBool>> = LazyLock::new(|| Arc::new(AtomicBool::new(true)));

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
    registration: SigId,
}

impl Interrupt {
    /// Begins to listen. `None` if SIGINT is not ours to handle, or cannot be.
    pub(super) fn watch() -> Option<Self> {
        if !install() {
            return None;
        }
        let listen = || {
            let (reader, writer) = UnixStream::pair()?;
            let reader = Async::new(reader)?;
            let registration = low_level::pipe::register(SIGINT, writer)?;
            Ok::<_, std::io::Error>(Interrupt {
                reader,
                registration,
            })
        };
        let interrupt = match listen() {
            Ok(interrupt) => interrupt,
            Err(error) => {
                tracing::warn!(%error, "this run cannot listen for SIGINT, which will kill the process without unwinding");
                return None;
            }
        };
        let mut runs = lock(&RUNS);
        runs.active += 1;
        if !runs.interrupted {
            DEADLY.store(false, Ordering::SeqCst);
        }
        Some(interrupt)
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

impl Drop for Interrupt {
    fn drop(&mut self) {
        low_level::unregister(self.registration);
        let mut runs = lock(&RUNS);
        runs.active -= 1;
        if runs.active == 0 {
            DEADLY.store(true, Ordering::SeqCst);
        }
        drop(runs);
        RUN_ENDED.notify_all();
    }
}

/// Installs both actions, once per process, if SIGINT has its default disposition. Their order matters: the one that
/// kills is asked before the one that makes the next signal deadly.
fn install() -> bool {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    *INSTALLED.get_or_init(|| {
        is_default(SIGINT)
            && signal_hook::flag::register_conditional_default(SIGINT, DEADLY.clone()).is_ok()
            && signal_hook::flag::register(SIGINT, DEADLY.clone()).is_ok()
    })
}
