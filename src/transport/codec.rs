//! Encodes values as bytes and decodes them, with bincode.
//!
//! The format is private to a parent and its workers, which execute the same image. So it needs no
//! names, and may change in any release, with its [number](FORMAT_NUMBER). Integers have a fixed
//! width, which is faster than a variable one. Only bytes of a process of the same program are
//! decoded; even so, no announced length is trusted.

use std::mem;
use std::os::fd::{BorrowedFd, OwnedFd};

use bincode::config::{Configuration, Fixint, LittleEndian};
use bincode::enc::write::Writer;
use bincode::error::EncodeError;
use bincode::serde::OwnedSerdeDecoder;
use serde::Serialize;
use serde::de::{DeserializeOwned, DeserializeSeed};

use super::codec_error::CodecError;
use super::payload::arena_pool::ArenaPool;
use super::payload::attachments;
use super::payload::encoding::Encoding;
use super::payload::incoming;
use super::payload::incoming::{EncodedBytes, Incoming, LargeReader};
use super::payload::incoming_memory::Origin;
use super::payload::inline::InlineRegion;
use super::payload::outgoing_memory::Attachments;
use super::payload::payload_ref::Tag;
use super::payload::store::Written;
use super::strict::{Decoded, Expected, Outgoing, Watch, Witness};
use super::tuning::{LARGE_DECODE_LIMIT, MAP_RECORD_BYTES, SMALL_DECODE_LIMIT};
use crate::sys::mapping_cache::MappingCache;
use crate::sys::stack;

const FORMAT: Configuration<LittleEndian, Fixint> = bincode::config::standard()
    .with_little_endian()
    .with_fixed_int_encoding();

/// The number of the encoding. Results of jobs are kept in files in this encoding, so each change
/// of it is a new number; a test compares the encoding of a value with the one of this number.
pub(crate) const FORMAT_NUMBER: u32 = 1;

/// Drops a value after an attempt to encode it. If it was nested too deeply for that, it may be
/// nested too deeply for a drop on this stack, too.
#[inline]
pub(crate) fn drop_encoded<T: Send + 'static, R>(value: T, encoded: &Result<R, CodecError>) {
    if matches!(encoded, Err(error) if error.is_too_deep()) {
        stack::drop_deep(Box::new(value));
    }
}

/// Appends the encoding of `value` to `out`. After an error, `out` is unchanged.
pub(crate) fn encode_onto<T: Serialize + ?Sized>(
    value: &T,
    out: &mut Vec<u8>,
) -> Result<(), CodecError> {
    let before = out.len();
    let watch = Watch::new(None);
    match bincode::serde::encode_into_std_write(Outgoing(value, &watch), out, FORMAT) {
        Ok(_length) => Ok(()),
        Err(error) => {
            out.truncate(before);
            Err(CodecError::of_encoding(error))
        }
    }
}

/// Returns the encoding of `value`.
pub(crate) fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CodecError> {
    let mut out = Vec::new();
    encode_onto(value, &mut out)?;
    Ok(out)
}

/// Returns the encoding of a value, and drops it. A value that is nested too deeply to be encoded
/// is leaked, because dropping it could overflow the stack, too.
pub(crate) fn encode_owned<T: Serialize>(value: T) -> Result<Vec<u8>, CodecError> {
    let encoded = encode(&value);
    if matches!(&encoded, Err(error) if error.is_too_deep()) {
        mem::forget(value);
    }
    encoded
}

/// Decodes a value that takes up all of `bytes`.
///
/// bincode allocates memory for a text before it has seen the text. If a type's `Serialize` and
/// `Deserialize` disagree, the length may be any number, and allocating more than all memory aborts
/// the process. So the format has a limit, which bounds that allocation. Each limit is one more
/// copy of the code that decodes a type, which a program with many jobs compiles for a noticeable
/// time; so there are few.
pub(crate) fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    if bytes.len() > SMALL_DECODE_LIMIT {
        return decode_large(bytes);
    }
    let format = FORMAT.with_limit::<SMALL_DECODE_LIMIT>();
    decode_checked(|witness| {
        let decoded = bincode::serde::seed_decode_from_slice(Expected::new(witness), bytes, format);
        let (decoded, read) = decoded.map_err(CodecError::of_decoding)?;
        check_left_over(bytes.len() - read)?;
        Ok(decoded)
    })
}

/// Decodes like [`decode`], but faster for large values and slower for small ones.
fn decode_large<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    decode_checked(|witness| {
        let mut rest = bytes;
        let reader = LargeReader(&mut rest);
        let seed = Expected::new(witness);
        let decoded = if bytes.len() <= LARGE_DECODE_LIMIT {
            let format = FORMAT.with_limit::<LARGE_DECODE_LIMIT>();
            seed.deserialize(OwnedSerdeDecoder::from_reader(reader, format).as_deserializer())
        } else {
            seed.deserialize(OwnedSerdeDecoder::from_reader(reader, FORMAT).as_deserializer())
        };
        let decoded = decoded.map_err(CodecError::of_decoding)?;
        check_left_over(rest.len())?;
        Ok(decoded)
    })
}

/// Decodes a value. If only a witness can tell whether it is right, calls that, and decodes it
/// again.
fn decode_checked<T: Serialize>(
    decode: impl Fn(Option<&Witness>) -> Result<Decoded<T>, CodecError>,
) -> Result<T, CodecError> {
    let decoded = decode(None)?;
    if !decoded.needs_witness {
        return Ok(decoded.value);
    }
    let witness = Witness::default();
    let watch = Watch::new(Some(&witness));
    let value = Outgoing(&decoded.value, &watch);
    bincode::serde::encode_into_std_write(value, &mut std::io::sink(), FORMAT)
        .map_err(CodecError::of_encoding)?;
    drop(decoded);
    decode(Some(&witness)).map(|decoded| decoded.value)
}

/// Appends the encoding of `value` to `out`, or a reference to attached memory if it is large, and
/// returns the attachments. The memory is sealed. After an error, `out` is unchanged.
pub(crate) fn encode_with_attachments<T: Serialize + ?Sized>(
    value: &T,
    out: &mut Vec<u8>,
) -> Result<Attachments, CodecError> {
    encode_to(value, Encoding::begin(out, None))
}

/// Encodes `value` for a worker of this process: like [`encode_with_attachments`], but a large
/// encoding is in an arena of `arenas` if possible; or, if there is no pool of arenas, like
/// [`encode_in_frame`].
pub(crate) fn encode_for_worker<T: Serialize + ?Sized>(
    value: &T,
    out: &mut Vec<u8>,
    arenas: Option<&ArenaPool>,
) -> Result<Attachments, CodecError> {
    match arenas {
        Some(_) => encode_to(value, Encoding::begin(out, arenas)),
        None => encode_in_frame(value, out),
    }
}

/// Encodes `value` into `out`, whatever its length, for a receiver that may have no descriptor
/// left. (Shared memory within the value still needs one.)
pub(crate) fn encode_in_frame<T: Serialize + ?Sized>(
    value: &T,
    out: &mut Vec<u8>,
) -> Result<Attachments, CodecError> {
    encode_to(value, Encoding::begin_in_frame(out))
}

fn encode_to<T: Serialize + ?Sized>(
    value: &T,
    mut encoding: Encoding<'_>,
) -> Result<Attachments, CodecError> {
    let watch = Watch::new(None);
    let (encoded, outgoing) = attachments::collect_outgoing(|| {
        bincode::serde::encode_into_writer(Outgoing(value, &watch), &mut encoding, FORMAT)
    });
    if let Err(error) = encoded {
        encoding.undo();
        return Err(CodecError::of_encoding(error));
    }
    let mut attached = Attachments::from(outgoing.fds().collect::<Vec<_>>());
    attached.moves_sides = outgoing.moves_sides;
    attached.has_descriptors = outgoing.has_descriptors();
    match encoding.finish(attached.fds.len(), &outgoing.region) {
        None => {}
        Some(Written::Sealed(file)) => attached.fds.push(file.into()),
        Some(Written::Lent(lent)) => {
            attached.fds.push(lent.file().clone());
            attached.lent = Some(Box::new(lent));
        }
    }
    Ok(attached)
}

/// Appends the encoding of an item of a map, or of its result, to `out`. Returns `false` if it does
/// not fit into a record: it is longer than that, or holds shared memory, a descriptor or a side of
/// a channel. After that, and after an error, `out` is unchanged, and the value can be encoded
/// again.
pub(crate) fn encode_record<T: Serialize + ?Sized>(
    value: &T,
    out: &mut Vec<u8>,
) -> Result<bool, CodecError> {
    let start = out.len();
    let mut record = Record {
        end: start + MAP_RECORD_BYTES,
        out,
        is_too_long: false,
    };
    let watch = Watch::new(None);
    let (encoded, attaches) = attachments::would_attach(|| {
        bincode::serde::encode_into_writer(Outgoing(value, &watch), &mut record, FORMAT)
    });
    let fits = !record.is_too_long && !attaches;
    if encoded.is_err() || !fits {
        out.truncate(start);
    }
    match encoded {
        Err(error) if fits => Err(CodecError::of_encoding(error)),
        Ok(()) | Err(_) => Ok(fits),
    }
}

/// Decodes a value that [`encode_record`] has encoded.
pub(crate) fn decode_record<T: Serialize + DeserializeOwned>(
    bytes: &[u8],
) -> Result<T, CodecError> {
    attachments::with_incoming(Vec::new(), InlineRegion::None, Origin::Untrusted, || {
        decode(bytes)
    })
}

/// Appends a record that [`encode_record`] has encoded to `out`, as [`encode_in_frame`] would have
/// encoded its value.
pub(crate) fn copy_record(record: &[u8], out: &mut Vec<u8>) {
    out.push(Tag::InFrame as u8);
    out.extend_from_slice(record);
}

/// Collects the encoding of a record, and refuses one that is too long.
struct Record<'a> {
    out: &'a mut Vec<u8>,
    /// The length that `out` may have.
    end: usize,
    is_too_long: bool,
}

impl Writer for Record<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        if bytes.len() > self.end - self.out.len() {
            self.is_too_long = true;
            return Err(EncodeError::Other("the record is full"));
        }
        self.out.extend_from_slice(bytes);
        Ok(())
    }
}

/// Locates the encoding of a job's argument, in a worker.
pub(crate) fn locate_argument<'a>(
    payload: &'a [u8],
    fds: Vec<OwnedFd>,
    mappings: &mut MappingCache,
) -> Result<Incoming<'a>, CodecError> {
    Incoming::from_parent(payload, fds, mappings).map_err(CodecError::of_attachment)
}

/// Decodes a value that a worker has sent, from the payload of its frame and the attached
/// descriptors.
pub(crate) fn decode_received<T: Serialize + DeserializeOwned>(
    bytes: &[u8],
    fds: Vec<OwnedFd>,
) -> Result<T, CodecError> {
    decode_payload(Incoming::from_worker(bytes, fds).map_err(CodecError::of_attachment)?)
}

/// Decodes a value whose encoding has been located.
pub(crate) fn decode_payload<T: Serialize + DeserializeOwned>(
    incoming: Incoming<'_>,
) -> Result<T, CodecError> {
    let Incoming {
        encoding,
        region,
        fds,
        origin,
    } = incoming;
    attachments::with_incoming(fds, region, origin, || match &encoding {
        EncodedBytes::InFrame(bytes) => decode(bytes),
        EncodedBytes::InMemory(memory, length) => decode_large(&memory[..*length]),
    })
}

/// Returns how many bytes the encoding of a value has, from its frame's payload and the last of its
/// descriptors.
pub(crate) fn encoded_len(payload: &[u8], last_fd: Option<BorrowedFd<'_>>) -> usize {
    incoming::encoded_len(payload, last_fd)
}

fn check_left_over(bytes: usize) -> Result<(), CodecError> {
    if bytes == 0 {
        return Ok(());
    }
    Err(CodecError::new(format!(
        "{bytes} bytes are left over; do `Serialize` and `Deserialize` agree?"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Failing;

    impl Serialize for Failing {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("not today"))
        }
    }

    /// Kept results of earlier versions are decoded, so a change here needs another
    /// [`FORMAT_NUMBER`].
    #[test]
    fn the_encoding_is_that_of_its_number() {
        use serde::Serialize;

        #[derive(Serialize)]
        enum Choice {
            Named { low: u16, high: f64 },
        }
        let choice = Choice::Named {
            low: 258,
            high: 0.5,
        };
        let bytes = encode(&(choice, "text", Some(vec![-1_i8]), ())).unwrap();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            (FORMAT_NUMBER, hex.as_str()),
            (
                1,
                "0038fcab0201000000000000e03f040000000000000074657874010100000000000000ffdda7d2cf61f845c8"
            )
        );
    }

    #[test]
    fn an_error_leaves_the_buffer_as_it_was_and_keeps_the_text_of_the_user() {
        let mut out = vec![1, 2, 3];
        let error = encode_onto(&("a prefix that gets written", Failing), &mut out).unwrap_err();
        assert_eq!(out, [1, 2, 3]);
        assert_eq!(error.to_string(), "not today");
    }

    /// These types work in JSON.
    #[test]
    fn a_type_that_needs_a_format_which_describes_itself_is_an_error_that_says_so() {
        use serde::{Deserialize, Serialize};

        #[derive(Serialize, Deserialize)]
        #[serde(untagged)]
        enum Untagged {
            Number(u8),
        }
        #[derive(Serialize, Deserialize)]
        #[serde(tag = "kind")]
        enum Tagged {
            Number { number: u8 },
        }
        #[derive(Serialize, Deserialize)]
        struct Flat {
            #[serde(flatten)]
            inner: std::collections::BTreeMap<String, u8>,
        }
        fn trial<T: Serialize + DeserializeOwned>(value: &T) -> String {
            let decoded = encode(value).and_then(|bytes| decode::<T>(&bytes).map(|_| ()));
            decoded.unwrap_err().to_string()
        }
        assert!(trial(&Untagged::Number(3)).contains("serde(untagged)"));
        assert!(trial(&Tagged::Number { number: 3 }).contains("serde(tag"));
        let inner = std::collections::BTreeMap::new();
        assert!(trial(&Flat { inner }).contains("serde(flatten)"));
    }

    /// The value was once decoded as `None, 1, None`.
    #[test]
    fn a_skipped_field_is_an_error_at_any_depth_unless_it_is_skipped_on_both_sides() {
        use serde::{Deserialize, Serialize};

        #[derive(Default, Serialize, Deserialize)]
        struct WithSkips {
            #[serde(skip_serializing_if = "Option::is_none")]
            first: Option<u8>,
            second: u8,
            #[serde(skip_serializing_if = "Option::is_none")]
            third: Option<u8>,
            #[serde(skip)]
            fourth: u8,
        }
        let with_skips = |first| WithSkips {
            first,
            third: Some(0),
            ..WithSkips::default()
        };
        let error = encode(&with_skips(None)).unwrap_err().to_string();
        assert!(
            error.contains("`first`") && error.contains("skip_serializing_if"),
            "{error}"
        );
        let bytes = encode(&with_skips(Some(7))).unwrap();
        let decoded = decode::<WithSkips>(&bytes).unwrap();
        assert_eq!((decoded.first, decoded.fourth), (Some(7), 0));
        let mut out = Vec::new();
        for deep in [Some(Ok::<_, ()>(vec![with_skips(None)])), None] {
            let deep = (1, std::collections::BTreeMap::from([('a', deep)]));
            let is_whole = deep.1[&'a'].is_none();
            assert_eq!(encode_with_attachments(&deep, &mut out).is_ok(), is_whole);
        }
    }

    #[test]
    fn bytes_left_over_are_an_error() {
        let mut bytes = encode(&7u32).unwrap();
        bytes.push(0);
        assert!(
            decode::<u32>(&bytes)
                .unwrap_err()
                .to_string()
                .contains("1 bytes are left over")
        );
    }

    /// The length is in the first eight bytes. Allocating memory for it once aborted the process.
    #[test]
    fn a_length_beyond_the_end_is_an_error_however_large_it_is() {
        for length in [1 << 10, 3 << 20] {
            let mut bytes = encode(&"x".repeat(length)).unwrap();
            for wrong in [1, 20, 31, 40, 47, 62, 63].map(|shift| length as u64 + (1 << shift)) {
                bytes[..8].copy_from_slice(&wrong.to_le_bytes());
                assert!(decode::<String>(&bytes).is_err(), "{wrong}");
                assert!(decode::<Vec<u8>>(&bytes).is_err(), "{wrong}");
                assert!(decode::<Vec<String>>(&bytes).is_err(), "{wrong}");
            }
        }
    }

    /// A value with fields of many types.
    type Value = (u8, char, bool, i128, Option<String>, Vec<u16>);

    proptest! {
        #[cfg_attr(miri, ignore = "too many cases")]
        #[test]
        fn a_value_exactly_as_long_as_the_limit_is_accepted(value: Value) {
            const ENOUGH: usize = 1 << 10;
            // Padded to the limit, to the byte.
            let pad = |length| (value.clone(), "x".repeat(length));
            let bytes = encode(&pad(ENOUGH.saturating_sub(encode(&pad(0)).unwrap().len()))).unwrap();
            let format = FORMAT.with_limit::<ENOUGH>();
            let seed = Expected::<(Value, String)>::new(None);
            let decoded = bincode::serde::seed_decode_from_slice(seed, &bytes, format);
            if bytes.len() <= ENOUGH {
                prop_assert_eq!(decoded.unwrap().0.value, pad(bytes.len() - encode(&pad(0)).unwrap().len()));
            } else {
                prop_assert!(decoded.is_err());
            }
        }

        #[cfg_attr(miri, ignore = "too many cases")]
        #[test]
        fn an_encoded_value_decodes_to_itself(value: (u64, String, Vec<(i8, Option<f32>)>)) {
            prop_assume!(value.2.iter().all(|(_, number)| number.is_none_or(|number| !number.is_nan())));
            let bytes = encode(&value).unwrap();
            prop_assert_eq!(decode::<(u64, String, Vec<(i8, Option<f32>)>)>(&bytes).unwrap(), value);
        }

        #[cfg_attr(miri, ignore = "too many cases")]
        #[test]
        fn a_truncated_value_is_an_error(value: (u64, Vec<u32>), cut: prop::sample::Index) {
            let bytes = encode(&value).unwrap();
            let cut = cut.index(bytes.len());
            prop_assert!(decode::<(u64, Vec<u32>)>(&bytes[..cut]).is_err());
        }
    }
}
