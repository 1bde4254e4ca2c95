//! A panic that happened in another process.

use std::fmt;

/// What a job panicked with, carried over from the worker.
///
/// # Examples
///
/// ```
/// use seedbed::{WorkerErrorKind, run_sync};
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

    /// Returns the panic's message; for a payload that is no string, words that say so.
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

    /// Returns where it panicked, as `file:line:column`; `None` if the job replaced the panic hook.
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

    /// Returns the backtrace in the worker, if the environment asked for one (`RUST_BACKTRACE=1`).
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
            .finish_non_exhaustive()
    }
}

/// Reads on from "the job": "panicked at src/main.rs:3:5: out of paint".
impl fmt::Display for WorkerPanic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("panicked")?;
        if let Some(location) = &self.location {
            write!(f, " at {location}")?;
        }
        write!(f, ": {}", self.message)?;
        match &self.backtrace {
            Some(backtrace) => write!(f, "\nbacktrace in the worker:\n{backtrace}"),
            None => Ok(()),
        }
    }
}
