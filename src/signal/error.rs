//! Why signals cannot be received.

use std::error::Error;
use std::fmt;
use std::io;

/// Why [`open_signal_receiver`](super::open_signal_receiver) has failed. Nothing is left of the
/// attempt.
///
/// ```
/// use seedbed::signal::{SignalErrorKind, open_signal_receiver};
///
/// let error = open_signal_receiver(&[9]).unwrap_err(); // SIGKILL
/// assert_eq!(error.kind(), SignalErrorKind::Forbidden);
/// assert_eq!(error.signal(), Some(9));
/// ```
#[derive(Debug)]
pub struct SignalError {
    kind: SignalErrorKind,
    signal: Option<i32>,
    source: Option<io::Error>,
}

/// The causes of a [`SignalError`].
///
/// ```
/// use seedbed::signal::{SignalErrorKind, open_signal_receiver};
///
/// assert_eq!(open_signal_receiver(&[]).unwrap_err().kind(), SignalErrorKind::Empty);
/// assert_eq!(open_signal_receiver(&[9999]).unwrap_err().kind(), SignalErrorKind::Refused);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SignalErrorKind {
    /// No signal was named.
    Empty,
    /// The signal cannot be received (SIGKILL, SIGSTOP), or is the sign of a fault that no task can
    /// deal with (SIGILL, SIGFPE, SIGSEGV).
    Forbidden,
    /// The system refuses: mostly because there is no signal of that number.
    Refused,
    /// There is no descriptor left for it.
    Descriptors,
}

impl SignalError {
    pub(super) fn empty() -> Self {
        SignalError {
            kind: SignalErrorKind::Empty,
            signal: None,
            source: None,
        }
    }

    pub(super) fn forbidden(signal: i32) -> Self {
        SignalError {
            kind: SignalErrorKind::Forbidden,
            signal: Some(signal),
            source: None,
        }
    }

    pub(super) fn refused(signal: i32, source: io::Error) -> Self {
        SignalError {
            kind: SignalErrorKind::Refused,
            signal: Some(signal),
            source: Some(source),
        }
    }

    pub(super) fn descriptors(source: io::Error) -> Self {
        SignalError {
            kind: SignalErrorKind::Descriptors,
            signal: None,
            source: Some(source),
        }
    }

    /// Returns the cause, to match on.
    ///
    /// ```
    /// use seedbed::signal::{SignalErrorKind, open_signal_receiver};
    ///
    /// let error = open_signal_receiver(&[]).unwrap_err();
    /// assert_eq!(error.kind(), SignalErrorKind::Empty);
    /// ```
    pub fn kind(&self) -> SignalErrorKind {
        self.kind
    }

    /// Returns the number of the signal that the error is about, if it is about one.
    ///
    /// ```
    /// let sigkill = 9; // nobody receives it
    /// let error = seedbed::signal::open_signal_receiver(&[sigkill]).unwrap_err();
    /// assert_eq!(error.signal(), Some(sigkill));
    /// ```
    pub fn signal(&self) -> Option<i32> {
        self.signal
    }
}

impl fmt::Display for SignalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.signal.unwrap_or_default();
        match self.kind {
            SignalErrorKind::Empty => {
                f.write_str("a signal receiver was opened for no signal; name at least one")
            }
            SignalErrorKind::Forbidden => write!(
                f,
                "signal {number} cannot be received by a task; leave it out of the list"
            ),
            SignalErrorKind::Refused => write!(
                f,
                "the system does not let signal {number} be received; is there one of that number?"
            ),
            SignalErrorKind::Descriptors => {
                f.write_str("a signal receiver could not be opened for want of descriptors")
            }
        }
    }
}

impl Error for SignalError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}
