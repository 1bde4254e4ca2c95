//! Signals as values that a task waits for: `open_signal_receiver`.

// The signal handler sets a flag and sends a byte, both by signal-hook's ready-made actions;
// everything else happens in the task.

mod error;
mod numbers;
mod receiver;
mod round_robin;

pub use error::{SignalError, SignalErrorKind};
pub use numbers::{
    SIGALRM, SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGUSR1, SIGUSR2,
    SIGWINCH,
};
pub use receiver::{Next, SignalReceiver, SignalReceiverStatistics, open_signal_receiver};
