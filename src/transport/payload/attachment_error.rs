//! The reasons why memory cannot be attached to a message, or why attached memory cannot be used.

use std::fmt;

use crate::sys::memory::Refused;
use crate::sys::socket::MAX_FDS;

/// A message has more memory than descriptors can be attached to it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooManyDescriptorsError;

impl fmt::Display for TooManyDescriptorsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "it holds more than {MAX_FDS} pieces of shared memory, and files, sockets or sides of channels count too: the \
             kernel takes no more descriptors at once; use slices of one larger piece, which count as one"
        )
    }
}

/// The reason why attached memory cannot be used.
#[derive(Debug)]
pub(crate) enum AttachmentError {
    /// The payload does not have the expected form.
    Malformed,
    /// The descriptor did not arrive.
    Lost,
    /// The memory is not of the agreed kind.
    Refused(Refused),
    /// The memory is shorter than the payload says, in bytes.
    Short { wanted: u64, actual: usize },
}

impl fmt::Display for AttachmentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str(
                "what should be shared memory is something else; was it encoded in another way, or by something else?",
            ),
            Self::Lost => f.write_str(
                "the descriptor of shared memory, or of something else, was lost on its way, because this process has too many files open; raise \
                 its limit (RLIMIT_NOFILE), or drop shared memory that it still holds",
            ),
            Self::Refused(why) => why.fmt(f),
            Self::Short { wanted, actual } => write!(
                f,
                "shared memory that came along has {actual} bytes, and should have {wanted}"
            ),
        }
    }
}
