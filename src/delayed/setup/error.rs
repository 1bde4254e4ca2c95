//! The error of a configuration file.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::Path;

/// The error of a configuration file; returned by [`Setup::load`](crate::delayed::Setup::load).
///
/// The message names the file, and for a wrong entry the line, the key and what would be right.
pub struct SetupError {
    message: String,
    source: Option<io::Error>,
}

impl SetupError {
    pub(super) fn unreadable(path: &Path, source: io::Error) -> Self {
        Self {
            message: format!(
                "the configuration file {path:?} cannot be read: {source}; name another one, or none"
            ),
            source: Some(source),
        }
    }

    pub(super) fn wrong(path: &Path, line: usize, message: impl fmt::Display) -> Self {
        Self {
            message: format!("{}, line {line}: {message}", path.display()),
            source: None,
        }
    }
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SetupError")
            .field("message", &self.message)
            .field("source", &self.source)
            .finish()
    }
}

impl Error for SetupError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}
