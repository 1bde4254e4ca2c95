//! The errors of `open_signal_receiver`.

use std::error::Error;
use std::fmt;
use std::io;

/// The error of [`open_signal_receiver`](crate::signal::open_signal_receiver). No signal is
/// received after it.
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
    /// The list was empty.
    Empty,
    /// The signal cannot be received (SIGKILL, SIGSTOP), or reports a fault that no task can handle
    /// (SIGILL, SIGFPE, SIGSEGV).
    Forbidden,
    /// The system refused the signal, in most cases because there is no signal of that number.
    Refused,
    /// No file descriptor was left.
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

    /// Returns the cause.
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

    /// Returns the number of the signal that caused the error, if one did.
    ///
    /// ```
    /// let sigkill = 9; // cannot be received
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
                "the system refuses to have signal {number} received; check that the number exists"
            ),
            SignalErrorKind::Descriptors => {
                f.write_str("a signal receiver could not be opened: no file descriptor is left")
            }
        }
    }
}

impl Error for SignalError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}
