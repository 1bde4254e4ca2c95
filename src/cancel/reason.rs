//! The reason of a cancellation: its source, its place in the code, and a message.
//!
//! A cancellation drops a future and reports nothing there. So the scope keeps the reason, for
//! clean-up code, logs and debuggers. The first reason stays; a scope that is cancelled through
//! another one has that one's reason.

use std::borrow::Cow;
use std::fmt;
use std::panic::Location;

/// The kind of event that cancelled a scope.
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
    /// `cancel`, `cancel_because` or `terminate` was called.
    Explicit,
    /// The scope's deadline passed.
    Deadline,
    /// A child of a nursery, or its body, failed with an error.
    Error,
    /// A child of a nursery, or its body, panicked.
    Panic,
    /// A single task was cancelled, by [`Task::cancel`](crate::Task::cancel).
    Task,
    /// Ctrl-C was pressed.
    CtrlC,
    /// The run has ended, and with it its system tasks.
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

/// The reason why a scope was cancelled: the kind of event, its place in the code, and the message
/// that was given.
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

    /// Makes the reason of a call at `location`.
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

    /// Returns the kind of event that cancelled the scope.
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

    /// Returns the message that was given to
    /// [`cancel_because`](crate::CancelScope::cancel_because).
    ///
    /// ```
    /// let scope = seedbed::CancelScope::new();
    /// scope.cancel_because("the disk is full");
    /// assert_eq!(scope.cancel_reason().unwrap().message(), Some("the disk is full"));
    /// ```
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    /// Returns the place in the code of the call that cancelled the scope, if it was a call.
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
