//! The errors of calls into a run.

use std::error::Error;
use std::fmt;

/// The run has ended, or is about to, so it accepts no more calls and system tasks. Contains the
/// function or future that was refused.
///
/// ```
/// use seedbed::run::current_run;
/// use seedbed::run;
///
/// let handle = run(async { current_run() });
/// let refused = handle.call_soon(|| {}).unwrap_err();
/// assert_eq!(refused.to_string(), "the run has ended");
/// ```
pub struct RunFinishedError<F> {
    refused: F,
}

impl<F> RunFinishedError<F> {
    pub(super) fn new(refused: F) -> Self {
        RunFinishedError { refused }
    }

    /// Returns the function that was not called, or the future that was not spawned.
    ///
    /// ```
    /// use seedbed::run::current_run;
    /// use seedbed::run;
    ///
    /// let handle = run(async { current_run() });
    /// let refused = handle.call(|| 5).unwrap_err();
    /// assert_eq!(refused.into_inner()(), 5);
    /// ```
    pub fn into_inner(self) -> F {
        self.refused
    }
}

impl<F> fmt::Debug for RunFinishedError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunFinishedError").finish_non_exhaustive()
    }
}

impl<F> fmt::Display for RunFinishedError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the run has ended")
    }
}

impl<F> Error for RunFinishedError<F> {}

/// The error of [`RunHandle::call_async`](crate::run::RunHandle::call_async).
///
/// ```
/// use seedbed::run::{EnterError, current_run};
/// use seedbed::run;
///
/// let handle = run(async { current_run() });
/// assert_eq!(handle.call_async(|| async { 5 }), Err(EnterError::Finished));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EnterError {
    /// The run had ended before the call. Nothing has happened.
    Finished,
    /// The run ended during the call, or something in it panicked. The future was dropped at the
    /// await where it waited.
    Cancelled,
}

impl fmt::Display for EnterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EnterError::Finished => "the run has ended",
            EnterError::Cancelled => "the run ended before the future was done",
        })
    }
}

impl Error for EnterError {}
