//! The encoding of a shared slice: within a message to another process a reference to attached
//! memory, and anywhere else its bytes.
//!
//! Text never holds a reference, not even while a message is encoded, because it may be read later.
//! Another binary format within a message does hold the reference, which is resolved if that is
//! decoded together with the message. Decoded later, it is an error (see `MARK` in
//! [`attachments`]).

use std::fmt;
use std::marker::PhantomData;

use bytemuck::Pod;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::attachments;
use super::attachments::{MemoryRef, ResolvedMemory};
use super::inline::Memory;
use super::shared_bytes_writer::SharedBytesWriter;
use super::shared_slice::SharedSlice;

impl<T: Pod> Serialize for SharedSlice<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return serializer.serialize_bytes(self.bytes());
        }
        let range = self
            .memory()
            .map(|(memory, offset)| (memory, offset, self.bytes().len()));
        match attachments::attach(range, align_of::<T>()) {
            Some(Ok(reference)) => reference.serialize(serializer),
            Some(Err(error)) => Err(S::Error::custom(error)),
            None => serializer.serialize_bytes(self.bytes()),
        }
    }
}

impl<'de, T: Pod> Deserialize<'de> for SharedSlice<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() || !attachments::is_decoding() {
            // Borrowed bytes if the format has them, because they are copied anyway.
            return deserializer.deserialize_bytes(BytesVisitor(PhantomData));
        }
        let reference = MemoryRef::deserialize(deserializer)?;
        match attachments::resolve(reference).map_err(D::Error::custom)? {
            ResolvedMemory::Empty => Ok(Self::default()),
            ResolvedMemory::Kept(memory, range) => slice_of(memory, range.start, range.len()),
            ResolvedMemory::Copied(bytes, range) => {
                let bytes = &bytes[range];
                let (memory, offset) = Memory::copy_of(bytes, align_of::<T>());
                slice_of(memory, offset, bytes.len())
            }
        }
    }
}

fn slice_of<T: Pod, E: serde::de::Error>(
    memory: Memory,
    offset: usize,
    length: usize,
) -> Result<SharedSlice<T>, E> {
    SharedSlice::from_range(memory, offset, length).ok_or_else(|| wrong_length::<T, _>(length))
}

fn wrong_length<T, E: serde::de::Error>(length: usize) -> E {
    E::custom(format_args!(
        "{length} bytes are not a slice of `{}`, of which each has {}",
        std::any::type_name::<T>(),
        size_of::<T>()
    ))
}

/// Copies bytes into shared memory.
struct BytesVisitor<T>(PhantomData<T>);

impl<'de, T: Pod> Visitor<'de> for BytesVisitor<T> {
    type Value = SharedSlice<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        let shared = SharedSlice::copy_from(bytes).map_err(E::custom)?;
        shared
            .cast()
            .map_err(|bytes| wrong_length::<T, E>(bytes.len()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut bytes: A) -> Result<Self::Value, A::Error> {
        use std::io::Write;
        let mut writer = SharedBytesWriter::new().map_err(A::Error::custom)?;
        while let Some(byte) = bytes.next_element::<u8>()? {
            writer.write_all(&[byte]).map_err(A::Error::custom)?;
        }
        let shared = writer.finish().map_err(A::Error::custom)?;
        shared
            .cast()
            .map_err(|bytes| wrong_length::<T, _>(bytes.len()))
    }
}
