//! The error of a value that cannot be encoded or decoded.

use std::fmt;

use bincode::error::{DecodeError, EncodeError};

use super::payload::attachment_error::AttachmentError;
use super::strict::TOO_DEEP;

/// The reason why a value could not be encoded or decoded, as a text for the user.
#[derive(Debug)]
pub(crate) struct CodecError {
    message: String,
    /// Whether the value was nested too deeply to be encoded.
    is_too_deep: bool,
}

impl CodecError {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            is_too_deep: false,
        }
    }

    /// The error of a map whose descriptors did not arrive in the worker.
    pub(crate) fn lost_descriptors() -> Self {
        Self::new(AttachmentError::Lost.to_string())
    }

    /// The error of a map whose memory the worker cannot map.
    pub(crate) fn of_shared_memory(error: &std::io::Error) -> Self {
        Self::new(format!(
            "the worker cannot map the memory of the items: {error}"
        ))
    }

    /// The error of a value that cannot leave this machine.
    pub(crate) fn descriptor_for_elsewhere() -> Self {
        Self::new(
            "it holds a file, a socket or a side of a channel (a `Descriptor`), which cannot leave this machine, and a \
             launcher has started the worker: pass what it contains, or its path",
        )
    }

    pub(super) fn of_attachment(error: AttachmentError) -> Self {
        Self::new(error.to_string())
    }

    /// Keeps the text of a user's `Serialize`, or of the strict serializer, without bincode's
    /// wrapping.
    pub(super) fn of_encoding(error: EncodeError) -> Self {
        let message = match error {
            EncodeError::OtherString(message) => message,
            other => other.to_string(),
        };
        Self {
            is_too_deep: message.contains(TOO_DEEP),
            message,
        }
    }

    pub(super) fn of_decoding(error: DecodeError) -> Self {
        Self::new(match error {
            DecodeError::OtherString(message) => message,
            DecodeError::Io { .. } => error.to_string(),
            other => format!("{other}; do `Serialize` and `Deserialize` agree?"),
        })
    }

    /// Returns whether the value was nested too deeply to be encoded.
    pub(crate) fn is_too_deep(&self) -> bool {
        self.is_too_deep
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CodecError {}
