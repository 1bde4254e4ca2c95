//! Files and sockets as values of a message.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::attachments::{DescriptorRef, attach_descriptor, take_descriptor};

/// Sends a file, a socket, a listener or a pipe: anything that stands for a descriptor.
///
/// It may be the argument or the result of a job, a message of a
/// [channel](crate::worker::channel()), or a part of one. The receiver gets a descriptor of its own
/// for the same open file: both share the position in a file, the queue of a listener, and the flag
/// `O_NONBLOCK`. Any other encoding, also one within [`Described`](crate::worker::Described), is an
/// error.
///
/// The types of [`std::fs`], [`std::net`], [`std::os::unix::net`] and [`std::io`] can be sent, and
/// every other type that is made from an [`OwnedFd`]. For a socket that belongs to a reactor, send
/// the socket in it, and wrap it again where it arrives.
///
/// ```
/// use std::io::{Read, Seek, Write};
///
/// use seedbed::run_sync;
/// use seedbed::worker::Descriptor;
///
/// fn write(Descriptor(mut file): Descriptor<std::fs::File>) -> std::io::Result<()> {
///     file.write_all(b"from the worker")
/// }
///
/// #[seedbed::main]
/// async fn main() -> std::io::Result<()> {
///     let mut file = tempfile::tempfile()?;
///     let written = run_sync(|file| write(file).is_ok(), Descriptor(file.try_clone()?));
///     assert!(written.await.unwrap());
///     file.rewind()?;
///     let mut text = String::new();
///     file.read_to_string(&mut text)?;
///     assert_eq!(text, "from the worker");
///     Ok(())
/// }
/// ```
///
/// # What a receiver must check
///
/// The descriptor is one of the sender's choice. If a job may be faulty, its descriptor may stand
/// for something else than a `T`: operations on it then return errors, or block.
#[derive(Clone, Copy, Debug, Default)]
pub struct Descriptor<T>(pub T);

impl<T> From<T> for Descriptor<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

const OUTSIDE: &str = "a descriptor can only be sent to another process: within the argument or the result of a job, or a \
     message of a channel. No other encoding of it, nor one within `Described`, leads to its file";

impl<T: AsFd> Serialize for Descriptor<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return Err(S::Error::custom(OUTSIDE));
        }
        let fd = self.0.as_fd().try_clone_to_owned();
        let fd = Arc::new(fd.map_err(S::Error::custom)?);
        match attach_descriptor(&fd) {
            Some(reference) => reference.map_err(S::Error::custom)?.serialize(serializer),
            None => Err(S::Error::custom(OUTSIDE)),
        }
    }
}

impl<'de, T: From<OwnedFd>> Deserialize<'de> for Descriptor<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            return Err(D::Error::custom(OUTSIDE));
        }
        let reference = DescriptorRef::deserialize(deserializer)?;
        let fd = take_descriptor(reference).map_err(D::Error::custom)?;
        // The message keeps its own, in case it has to be decoded twice.
        let fd = fd.as_fd().try_clone_to_owned().map_err(D::Error::custom)?;
        Ok(Self(fd.into()))
    }
}
