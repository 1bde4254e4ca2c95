//! An argument whose type only the maker of its call knows.

use crate::transport::codec_error::CodecError;
use crate::transport::payload::arena_pool::ArenaPool;
use crate::transport::payload::outgoing_memory::Attachments;

/// An argument that can be encoded.
pub(crate) trait EncodeArgument: Send {
    /// Appends the argument of the job to `out`. A large one is in an arena of `arenas`, if there
    /// is a pool of them.
    ///
    /// # Errors
    ///
    /// If the argument cannot be encoded. `out` is unchanged then.
    fn encode(
        &self,
        out: &mut Vec<u8>,
        arenas: Option<&ArenaPool>,
    ) -> Result<Attachments, CodecError>;
}
