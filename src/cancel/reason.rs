//! Who cancelled a scope, and why.
//!
//! A cancellation is silent where it takes effect: a future is dropped. So whoever asks afterwards (clean-up code, a log,
//! a person with a debugger) finds the cause with the scope. The first cause stays; a scope that is cancelled through
//! another one has that one's.

use std::borrow::Cow;
use std::fmt;
use std::panic::Location;

/// What kind of thing cancelled a scope.
///
/// ```
/// use std::time::Duration;
/// use seedbed::cancel::CancelSource;
/// use seedbed::time::sleep_forever;
/// use seedbed::{CancelScope, run};
///
/// let scope = CancelScope::new();
/// scope.set_timeout(Duration::from_millis(1));
/// run(scope.run(sleep_forever()));
/// assert_eq!(scope.cancel_reason().unwrap().source(), CancelSource::Deadline);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CancelSource {
    /// Somebody called `cancel`, `cancel_because` or `terminate`.
    Explicit,
    /// The scope's deadline passed.
    Deadline,
    /// A child of a nursery, or its body, failed with an error.
    Error,
    /// A child of a nursery, or its body, panicked.
    Panic,
    /// The one task was cancelled, by [`Task::cancel`](crate::Task::cancel).
    Task,
    /// Ctrl-C was pressed.
    CtrlC,
    /// The run has ended, and with it what belongs to it.
    Shutdown,
}

impl CancelSource {
    fn describe(self) -> &'static str {
        match self {
            CancelSource::Explicit => "cancelled",
            CancelSource::Deadline => "the deadline passed",
            CancelSource::Error => "a task in the nursery failed",
            CancelSource::Panic => "a task in the nursery panicked",
            CancelSource::Task => "the task was cancelled",
            CancelSource::CtrlC => "Ctrl-C was pressed",
            CancelSource::Shutdown => "the run has ended",
        }
    }
}

/// Why a scope was cancelled: by what, where in the code, and the words that were given.
///
/// ```
/// use seedbed::cancel::CancelSource;
/// use seedbed::CancelScope;
///
/// let scope = CancelScope::new();
/// scope.cancel_because("the user closed the window");
/// scope.cancel_because("too late: the first cause stays");
/// let reason = scope.cancel_reason().unwrap();
/// assert_eq!(reason.source(), CancelSource::Explicit);
/// assert_eq!(reason.message(), Some("the user closed the window"));
/// assert!(reason.to_string().starts_with("cancelled at "));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct CancelReason {
    source: CancelSource,
    message: Option<Cow<'static, str>>,
    location: Option<&'static Location<'static>>,
}

impl CancelReason {
    pub(crate) const fn new(source: CancelSource) -> Self {
        CancelReason {
            source,
            message: None,
            location: None,
        }
    }

    /// Somebody's call, there.
    pub(crate) fn explicit(
        message: Option<Cow<'static, str>>,
        location: &'static Location<'static>,
    ) -> Self {
        CancelReason {
            source: CancelSource::Explicit,
            message,
            location: Some(location),
        }
    }

    /// What kind of thing cancelled the scope.
    ///
    /// ```
    /// let scope = seedbed::CancelScope::new();
    /// scope.cancel();
    /// let reason = scope.cancel_reason().unwrap();
    /// assert_eq!(reason.source(), seedbed::cancel::CancelSource::Explicit);
    /// ```
    pub fn source(&self) -> CancelSource {
        self.source
    }

    /// The words that were given to [`cancel_because`](crate::CancelScope::cancel_because).
    ///
    /// ```
    /// let scope = seedbed::CancelScope::new();
    /// scope.cancel_because("the disk is full");
    /// assert_eq!(scope.cancel_reason().unwrap().message(), Some("the disk is full"));
    /// ```
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    /// Where in the code the call stands that cancelled the scope, if it was a call.
    ///
    /// ```
    /// let scope = seedbed::CancelScope::new();
    /// scope.cancel();
    /// let place = scope.cancel_reason().unwrap().location().unwrap();
    /// assert!(place.file().ends_with(".rs"));
    /// ```
    pub fn location(&self) -> Option<&'static Location<'static>> {
        self.location
    }
}

impl fmt::Display for CancelReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.source.describe())?;
        if let Some(location) = self.location {
            write!(f, " at {location}")?;
        }
        match &self.message {
            Some(message) => write!(f, ": {message}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for CancelReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CancelReason({self})")
    }
}
