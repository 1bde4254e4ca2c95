//! How shared memory stands among serialised values: in a message of ours as a place in memory that goes along,
//! anywhere else as its bytes.
//!
//! Text never holds a place, not even while one of our messages is encoded, because somebody may read it later. In
//! another binary format within our message a place does stand, and is found there when that is decoded in its turn;
//! decoded later than the message, it is an error (see `MARK` in [`enclosure`]).

use std::fmt;
use std::marker::PhantomData;

use bytemuck::Pod;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::slice::SharedSlice;
use super::writer::SharedBytesWriter;
use crate::transport::payload::attachments;
use crate::transport::payload::attachments::{Found, Place};
use crate::transport::payload::inline::Memory;

impl<T: Pod> Serialize for SharedSlice<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return serializer.serialize_bytes(self.bytes());
        }
        let stretch = self
            .memory()
            .map(|(memory, offset)| (memory, offset, self.bytes().len()));
        match attachments::enclose(stretch, align_of::<T>()) {
            Some(Ok(place)) => place.serialize(serializer),
            Some(Err(too_many)) => Err(S::Error::custom(too_many)),
            None => serializer.serialize_bytes(self.bytes()),
        }
    }
}

impl<'de, T: Pod> Deserialize<'de> for SharedSlice<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() || !attachments::is_decoding() {
            // Borrowed if the format can, as they are copied anyway.
            return deserializer.deserialize_bytes(OfBytes(PhantomData));
        }
        let place = Place::deserialize(deserializer)?;
        match attachments::find(place).map_err(D::Error::custom)? {
            Found::Nothing => Ok(Self::default()),
            Found::At(memory, range) => of_whole_values(memory, range.start, range.len()),
            Found::Here(bytes, range) => {
                let bytes = &bytes[range];
                let (memory, offset) = Memory::copy_of(bytes, align_of::<T>());
                of_whole_values(memory, offset, bytes.len())
            }
        }
    }
}

fn of_whole_values<T: Pod, E: serde::de::Error>(
    memory: Memory,
    offset: usize,
    length: usize,
) -> Result<SharedSlice<T>, E> {
    SharedSlice::of_part(memory, offset, length).ok_or_else(|| not_of_whole_values::<T, _>(length))
}

fn not_of_whole_values<T, E: serde::de::Error>(length: usize) -> E {
    E::custom(format_args!(
        "{length} bytes are not a slice of `{}`, of which each has {}",
        std::any::type_name::<T>(),
        size_of::<T>()
    ))
}

/// Copies bytes into shared memory.
struct OfBytes<T>(PhantomData<T>);

impl<'de, T: Pod> Visitor<'de> for OfBytes<T> {
    type Value = SharedSlice<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        let shared = SharedSlice::copy_from(bytes).map_err(E::custom)?;
        shared
            .cast()
            .map_err(|bytes| not_of_whole_values::<T, E>(bytes.len()))
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
            .map_err(|bytes| not_of_whole_values::<T, _>(bytes.len()))
    }
}
