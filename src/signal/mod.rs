//! Signals, as values that a task waits for: `open_signal_receiver`.
//!
//! In the signal handler a flag is set and a byte is sent, both by signal-hook's ready-made
//! actions; everything else happens in the task. [`receiver`] is the tool, [`order`] decides who is
//! next, and is pure.

mod error;
mod order;
mod receiver;

#[doc(no_inline)]
pub use signal_hook::consts::signal::{
    SIGALRM, SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGUSR1, SIGUSR2,
    SIGWINCH,
};

pub use error::{SignalError, SignalErrorKind};
pub use receiver::{Next, SignalReceiver, SignalReceiverStatistics, open_signal_receiver};
