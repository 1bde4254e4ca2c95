//! A panic that happened in another process.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A panic of a job, as the worker described it.
///
/// # Examples
///
/// ```
/// use seedbed::run_sync;
/// use seedbed::worker::WorkerErrorKind;
///
/// fn divide((a, b): (u32, u32)) -> u32 {
///     a / b
/// }
///
/// fn main() {
///     seedbed::init();
///     let error = smol::block_on(async { run_sync(divide, (1, 0)).await }).unwrap_err();
///     assert_eq!(error.kind(), WorkerErrorKind::Panicked);
///     assert_eq!(error.panic().unwrap().message(), "attempt to divide by zero");
/// }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct WorkerPanic {
    message: String,
    location: Option<String>,
    backtrace: Option<String>,
}

impl WorkerPanic {
    pub(crate) fn new(
        message: String,
        location: Option<String>,
        backtrace: Option<String>,
    ) -> Self {
        Self {
            message,
            location,
            backtrace,
        }
    }

    /// Returns the panic's message, or a text that says that the payload is not a string.
    ///
    /// ```
    /// use seedbed::run_sync;
    ///
    /// fn paint(_: ()) {
    ///     panic!("out of paint")
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let error = smol::block_on(async { run_sync(paint, ()).await }).unwrap_err();
    ///     assert_eq!(error.panic().unwrap().message(), "out of paint");
    /// }
    /// ```
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns the location of the panic as `file:line:column`, or `None` if the job replaced the
    /// panic hook.
    ///
    /// ```
    /// use seedbed::run_sync;
    ///
    /// fn paint(_: ()) {
    ///     panic!("out of paint")
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let error = smol::block_on(async { run_sync(paint, ()).await }).unwrap_err();
    ///     assert!(error.panic().unwrap().location().unwrap().contains(".rs:"));
    /// }
    /// ```
    pub fn location(&self) -> Option<&str> {
        self.location.as_deref()
    }

    /// Returns the backtrace in the worker, if the environment asks for one (`RUST_BACKTRACE=1`).
    /// The error's `Debug` shows it; its `Display` does not, so that it stays one sentence.
    ///
    /// ```
    /// use seedbed::run_sync;
    ///
    /// fn paint(_: ()) {
    ///     panic!("out of paint")
    /// }
    ///
    /// fn main() {
    ///     seedbed::init();
    ///     let error = smol::block_on(async { run_sync(paint, ()).await }).unwrap_err();
    ///     let asked_for = std::env::var("RUST_BACKTRACE").is_ok_and(|value| value != "0");
    ///     let asked_for = std::env::var("RUST_LIB_BACKTRACE").map_or(asked_for, |value| value != "0");
    ///     assert_eq!(error.panic().unwrap().backtrace().is_some(), asked_for);
    /// }
    /// ```
    pub fn backtrace(&self) -> Option<&str> {
        self.backtrace.as_deref()
    }
}

impl fmt::Debug for WorkerPanic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerPanic")
            .field("message", &self.message)
            .field("location", &self.location)
            .field("backtrace", &self.backtrace.as_deref().map(Lines))
            .finish()
    }
}

/// Shows text with its line breaks.
struct Lines<'a>(&'a str);

impl fmt::Debug for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n{}", self.0)
    }
}

/// Continues the words "the job": "panicked at src/main.rs:3:5: out of paint".
impl fmt::Display for WorkerPanic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("panicked")?;
        if let Some(location) = &self.location {
            write!(f, " at {location}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// A panic as it is sent to the parent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PanicReport {
    pub(crate) message: String,
    pub(crate) location: Option<String>,
    pub(crate) backtrace: Option<String>,
}

impl PanicReport {
    /// Cuts message, location and backtrace off, so that all three together have at most this many
    /// bytes.
    pub(crate) fn cut_to(mut self, bytes: usize) -> Self {
        let texts = [
            Some(&mut self.message),
            self.location.as_mut(),
            self.backtrace.as_mut(),
        ];
        let mut left = bytes;
        for text in texts.into_iter().flatten() {
            let end = (0..=left.min(text.len())).rfind(|end| text.is_char_boundary(*end));
            text.truncate(end.unwrap_or(0));
            left -= text.len();
        }
        self
    }
}

impl From<PanicReport> for WorkerPanic {
    fn from(report: PanicReport) -> Self {
        WorkerPanic::new(report.message, report.location, report.backtrace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_that_is_cut_loses_its_end_and_stays_text() {
        let report = || PanicReport {
            message: "aäb".into(),
            location: Some("at:1".into()),
            backtrace: Some("0: main".into()),
        };
        let cut = |bytes| {
            let cut = report().cut_to(bytes);
            (cut.message, cut.location.unwrap(), cut.backtrace.unwrap())
        };
        let texts = |message: &str, location: &str, backtrace: &str| {
            (
                message.to_owned(),
                location.to_owned(),
                backtrace.to_owned(),
            )
        };
        assert_eq!(cut(100), texts("aäb", "at:1", "0: main"));
        assert_eq!(cut(10), texts("aäb", "at:1", "0:"));
        assert_eq!(cut(2), texts("a", "a", ""));
        assert_eq!(cut(0), texts("", "", ""));
    }

    #[test]
    fn a_backtrace_is_for_debug_and_not_for_display() {
        let backtrace = "   0: paint\n   1: main\n";
        let place = Some("src/main.rs:3:5".into());
        let panic = WorkerPanic::new("out of paint".into(), place, Some(backtrace.into()));
        assert_eq!(
            panic.to_string(),
            "panicked at src/main.rs:3:5: out of paint"
        );
        assert!(format!("{panic:?}").contains(backtrace), "{panic:?}");
        assert_eq!(panic.backtrace(), Some(backtrace));
    }
}
