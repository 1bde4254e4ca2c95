//! The reason why a file could not be surveyed.
//!
//! The job finds some reasons, in the worker, when the text is wrong. The program derives the
//! others from the way in which the worker ended. [`Reason::of_death`] classifies deaths from plain
//! values, so that it can be tested without killing a process.

use std::fmt;
use std::io;
use std::time::Duration;

use seedbed::worker::ExitCause;
use serde::{Deserialize, Serialize};

/// A reason. It is sent between processes, so it implements the serde traits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// The byte at this offset, counted from 0, is not part of any UTF-8 character.
    NotUtf8 { offset: usize },
    /// The text is not Rust. Lines and columns are counted from 1, columns in characters, as rustc
    /// does.
    Syntax {
        line: usize,
        column: usize,
        message: String,
    },
    /// The time limit passed, and the worker was killed.
    TimedOut { after: Duration },
    /// The worker crashed.
    Crashed { how: String },
    /// The kernel refused memory to the worker.
    OverMemory,
    /// The parser panicked. The worker continues.
    Panicked { message: String },
    /// The entry could not be opened, or could not be read to its end.
    Unreadable { message: String },
    /// No worker could do the job, for a reason that is not the file's.
    NoWorker { message: String },
}

impl Reason {
    /// The names of all reasons, in the order of the report.
    pub const NAMES: [&str; 8] = [
        "not UTF-8",
        "syntax error",
        "timed out and killed",
        "crashed",
        "over the memory cap",
        "parser panicked",
        "unreadable",
        "no worker",
    ];

    /// Returns the name of this reason, without its details.
    pub fn name(&self) -> &'static str {
        Reason::NAMES[match self {
            Reason::NotUtf8 { .. } => 0,
            Reason::Syntax { .. } => 1,
            Reason::TimedOut { .. } => 2,
            Reason::Crashed { .. } => 3,
            Reason::OverMemory => 4,
            Reason::Panicked { .. } => 5,
            Reason::Unreadable { .. } => 6,
            Reason::NoWorker { .. } => 7,
        }]
    }

    /// Returns whether the file could not be read, so that the exit status must be a failure.
    pub fn is_failure_of_the_survey(&self) -> bool {
        matches!(self, Reason::Unreadable { .. } | Reason::NoWorker { .. })
    }

    /// Returns the reason behind a read error. A failed allocation means that the memory limit was
    /// reached.
    pub fn of_reading(error: &io::Error) -> Reason {
        match error.kind() {
            io::ErrorKind::OutOfMemory => Reason::OverMemory,
            _ => Reason::Unreadable {
                message: error.to_string(),
            },
        }
    }

    /// Returns the reason behind the death of a worker, from its exit.
    pub fn of_death(end: &str, cause: ExitCause) -> Reason {
        match cause {
            ExitCause::OutOfMemory => Reason::OverMemory,
            ExitCause::StackOverflow => Reason::Crashed {
                how: format!("stack overflow ({end})"),
            },
            _ => Reason::Crashed {
                how: end.to_owned(),
            },
        }
    }
}

/// Formats the name and the details, in one line.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Reason::NotUtf8 { offset } => write!(f, " (byte {offset})"),
            Reason::Syntax {
                line,
                column,
                message,
            } => write!(f, " at {line}:{column}: {}", one_line(message)),
            Reason::TimedOut { after } => write!(f, " after {after:?}"),
            Reason::Crashed { how } => write!(f, ": {how}"),
            Reason::OverMemory => Ok(()),
            Reason::Panicked { message }
            | Reason::Unreadable { message }
            | Reason::NoWorker { message } => write!(f, ": {}", one_line(message)),
        }
    }
}

/// Joins the lines of a message into one.
fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_tells_a_stack_overflow_from_refused_memory() {
        let reason = |cause| Reason::of_death("SIGABRT", cause).to_string();
        assert_eq!(
            reason(ExitCause::StackOverflow),
            "crashed: stack overflow (SIGABRT)"
        );
        assert_eq!(reason(ExitCause::OutOfMemory), "over the memory cap");
        assert_eq!(reason(ExitCause::Crashed), "crashed: SIGABRT");
    }

    #[test]
    fn refused_memory_is_the_cap_also_when_it_is_an_error_of_reading() {
        let refused = io::Error::from(io::ErrorKind::OutOfMemory);
        assert_eq!(Reason::of_reading(&refused), Reason::OverMemory);
        let missing = Reason::of_reading(&io::Error::from_raw_os_error(2));
        assert_eq!(
            missing.to_string(),
            "unreadable: No such file or directory (os error 2)"
        );
        assert!(missing.is_failure_of_the_survey());
    }

    #[test]
    fn a_reason_is_one_line() {
        let reason = Reason::Syntax {
            line: 3,
            column: 14,
            message: "expected `;`\n  or so".to_owned(),
        };
        assert_eq!(
            reason.to_string(),
            "syntax error at 3:14: expected `;` or so"
        );
        let reason = Reason::TimedOut {
            after: Duration::from_millis(1500),
        };
        assert_eq!(reason.to_string(), "timed out and killed after 1.5s");
    }
}
