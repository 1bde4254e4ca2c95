//! The error of a supervisor that has given up.

use std::error::Error;
use std::fmt;

/// The error of a supervisor that has given up.
///
/// ```
/// use std::num::ParseIntError;
/// use std::time::Duration;
/// use seedbed::service::supervise;
///
/// seedbed::run(async {
///     let child = || async { "five".parse::<u32>() };
///     let error = supervise(child).backoff(Duration::ZERO, Duration::ZERO).limit(3).await.unwrap_err();
///     assert_eq!(error.failures(), 3);
///     let _: &ParseIntError = error.last();
///     assert_eq!(
///         error.to_string(),
///         "failed 3 times in a row and is not started again; the last error: invalid digit found in string"
///     );
/// });
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuperviseError<E> {
    failures: u32,
    last: E,
}

impl<E> SuperviseError<E> {
    pub(super) fn new(failures: u32, last: E) -> Self {
        SuperviseError { failures, last }
    }

    /// Returns the number of failures in a row, the last one included.
    ///
    /// ```
    /// use seedbed::service::supervise;
    ///
    /// seedbed::run(async {
    ///     let error = supervise(|| async { "five".parse::<u32>() }).limit(1).await.unwrap_err();
    ///     assert_eq!(error.failures(), 1);
    /// });
    /// ```
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Returns the error of the last child.
    ///
    /// ```
    /// use seedbed::service::supervise;
    ///
    /// seedbed::run(async {
    ///     let error = supervise(|| async { Err::<(), _>("lost") }).limit(1).await.unwrap_err();
    ///     assert_eq!(*error.last(), "lost");
    /// });
    /// ```
    pub fn last(&self) -> &E {
        &self.last
    }

    /// Turns this into the error of the last child.
    ///
    /// ```
    /// use seedbed::service::supervise;
    ///
    /// seedbed::run(async {
    ///     let error = supervise(|| async { Err::<(), _>("lost") }).limit(1).await.unwrap_err();
    ///     assert_eq!(error.into_last(), "lost");
    /// });
    /// ```
    pub fn into_last(self) -> E {
        self.last
    }
}

impl<E: fmt::Display> fmt::Display for SuperviseError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.failures {
            1 => f.write_str("failed")?,
            failures => write!(f, "failed {failures} times in a row")?,
        }
        write!(
            f,
            " and is not started again; the last error: {}",
            self.last
        )
    }
}

impl<E: Error + 'static> Error for SuperviseError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.last)
    }
}
