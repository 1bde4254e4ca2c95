//! The `tracing` events of a job, as a worker sends them to its parent.

use std::fmt;

use serde::{Deserialize, Serialize};
use tracing_core::Level;

/// The least important `tracing` events of jobs that reach the parent process; see
/// [`WorkerConfig::forward_tracing`](crate::WorkerConfig::forward_tracing).
///
/// ```
/// use seedbed::worker::TracingLevel;
///
/// assert!(TracingLevel::Error < TracingLevel::Info);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TracingLevel {
    /// Errors only.
    Error,
    /// Errors and warnings.
    Warn,
    /// Also events of general interest.
    Info,
    /// Also events for debugging.
    Debug,
    /// All events.
    Trace,
}

impl TracingLevel {
    pub(crate) fn of(level: Level) -> Self {
        match level {
            Level::ERROR => Self::Error,
            Level::WARN => Self::Warn,
            Level::INFO => Self::Info,
            Level::DEBUG => Self::Debug,
            Level::TRACE => Self::Trace,
        }
    }

    pub(crate) fn level(self) -> Level {
        match self {
            Self::Error => Level::ERROR,
            Self::Warn => Level::WARN,
            Self::Info => Level::INFO,
            Self::Debug => Level::DEBUG,
            Self::Trace => Level::TRACE,
        }
    }
}

/// The payload of a `Traced` frame.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Traced {
    Event(TracedEvent),
    /// This many events, which were older than those that follow, were dropped.
    Dropped(u64),
}

/// An event of a job.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TracedEvent {
    pub(crate) callsite: TracedCallsite,
    /// The values of the callsite's fields, in their order.
    pub(crate) values: Vec<Option<TracedValue>>,
}

/// The metadata of an event, which are those of a place in the source.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct TracedCallsite {
    pub(crate) level: TracingLevel,
    pub(crate) name: String,
    pub(crate) target: String,
    pub(crate) module: Option<String>,
    pub(crate) file: Option<String>,
    pub(crate) line: Option<u32>,
    pub(crate) fields: Vec<String>,
}

/// The value of a field.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum TracedValue {
    Signed(i64),
    Unsigned(u64),
    LongSigned(i128),
    LongUnsigned(u128),
    Float(f64),
    Bool(bool),
    Str(String),
    /// A value that is formatted, such as the message.
    Text(String),
}

impl fmt::Display for TracedValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signed(value) => value.fmt(f),
            Self::Unsigned(value) => value.fmt(f),
            Self::LongSigned(value) => value.fmt(f),
            Self::LongUnsigned(value) => value.fmt(f),
            Self::Float(value) => value.fmt(f),
            Self::Bool(value) => value.fmt(f),
            Self::Str(value) | Self::Text(value) => value.fmt(f),
        }
    }
}
