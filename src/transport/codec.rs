//! Values to bytes and back: the only file that knows bincode.
//!
//! The format is private to a parent and its workers, which are one image, so it needs neither versions nor names, and
//! may change in any release. Integers have fixed width: it is faster to write numbers than to count their digits, and
//! what travels here does not leave the machine. It only ever decodes what a process of our own wrote; even so, a
//! length is never trusted further than bincode's own caution goes.

use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};

use bincode::config::{Config, Configuration, Fixint, LittleEndian};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::payload::attachments;
use super::payload::attachments::NotFound;
use super::payload::body;
use super::payload::body::{Arrived, Bytes, Enclosures, Encoding, Reading};
use super::payload::pool::Pool;
use super::payload::store::Written;
use super::strict::Whole;
use crate::sys::arena::Views;

const FORMAT: Configuration<LittleEndian, Fixint> = bincode::config::standard()
    .with_little_endian()
    .with_fixed_int_encoding();

/// Why a value could not be encoded or decoded, in words.
#[derive(Debug)]
pub(crate) struct CodecError(String);

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CodecError {}

/// Appends `value`'s encoding to `out`; after an error `out` is as before.
pub(crate) fn encode_onto<T: Serialize + ?Sized>(
    value: &T,
    out: &mut Vec<u8>,
) -> Result<(), CodecError> {
    let before = out.len();
    match bincode::serde::encode_into_std_write(Whole(value), out, FORMAT) {
        Ok(_length) => Ok(()),
        Err(error) => {
            out.truncate(before);
            Err(CodecError(encode_error(error)))
        }
    }
}

/// Encodes `value`.
pub(crate) fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CodecError> {
    let mut out = Vec::new();
    encode_onto(value, &mut out)?;
    Ok(out)
}

/// So little is a text given room for on its own word.
const LITTLE: usize = 1 << 20;
const MUCH: usize = 1 << 30;

/// Decodes a value that takes up all of `bytes`.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    if bytes.len() <= LITTLE {
        decode_within(bytes, FORMAT.with_limit::<LITTLE>())
    } else if bytes.len() <= MUCH {
        decode_within(bytes, FORMAT.with_limit::<MUCH>())
    } else {
        decode_within(bytes, FORMAT)
    }
}

/// Decodes in a format that has a limit: no value may take more bytes. bincode makes room for a text, or for bytes,
/// before it looks whether they are there, and a length that is none, as a type reads it whose `Serialize` and
/// `Deserialize` disagree, may be more than all memory: asking for that ends the process. It makes room within the
/// limit only.
fn decode_within<T: DeserializeOwned>(bytes: &[u8], format: impl Config) -> Result<T, CodecError> {
    match bincode::serde::decode_from_slice(bytes, format) {
        Ok((value, length)) => all_of_it(value, bytes.len() - length),
        Err(error) => Err(CodecError(decode_error(error))),
    }
}

/// Appends `value`'s encoding to `out`, or a word that it lies beside it, and gives what goes with it; after an error
/// `out` is as before. What is large lies in memory that is sealed.
pub(crate) fn encode_enclosing<T: Serialize + ?Sized>(
    value: &T,
    out: &mut Vec<u8>,
) -> Result<Enclosures, CodecError> {
    encode_to(value, Encoding::begin(out, None))
}

/// The same for a worker of ours: what is large lies in an arena, of `pool` or to be put there, if that is possible.
pub(crate) fn encode_for_worker<T: Serialize + ?Sized>(
    value: &T,
    out: &mut Vec<u8>,
    pool: &Pool,
) -> Result<Enclosures, CodecError> {
    encode_to(value, Encoding::begin(out, Some(pool)))
}

/// The same for a receiver that may have no descriptor to spare: the value lies in its frame, however large it is.
/// (What of it is shared memory needs one all the same.)
pub(crate) fn encode_in_frame<T: Serialize + ?Sized>(
    value: &T,
    out: &mut Vec<u8>,
) -> Result<Enclosures, CodecError> {
    encode_to(value, Encoding::begin_in_frame(out))
}

fn encode_to<T: Serialize + ?Sized>(
    value: &T,
    mut encoding: Encoding<'_>,
) -> Result<Enclosures, CodecError> {
    let (encoded, leaving) = attachments::collect(|| {
        bincode::serde::encode_into_writer(Whole(value), &mut encoding, FORMAT)
    });
    if let Err(error) = encoded {
        encoding.take_back();
        return Err(CodecError(encode_error(error)));
    }
    let enclosed = leaving.memories.iter().map(|memory| memory.file().clone());
    let (body, lent) = match encoding.end(enclosed.len(), &leaving.stretches) {
        None => (None, None),
        Some(Written::Sealed(file)) => (Some(file.into()), None),
        Some(Written::Lent(lent)) => (Some(lent.file().clone()), Some(lent)),
    };
    let fds = enclosed.chain(body).collect();
    Ok(Enclosures { fds, lent })
}

/// Finds a job's argument that has arrived in a worker.
pub(crate) fn arrived<'a>(
    payload: &'a [u8],
    fds: Vec<OwnedFd>,
    views: &mut Views,
) -> Result<Arrived<'a>, CodecError> {
    Arrived::from_parent(payload, fds, views).map_err(not_found)
}

/// Decodes a value that has come from a worker and takes up all of `bytes`, or lies beside them, with the descriptors
/// that came along.
pub(crate) fn decode_enclosed<T: DeserializeOwned>(
    bytes: &[u8],
    fds: Vec<OwnedFd>,
) -> Result<T, CodecError> {
    decode_arrived(Arrived::from_worker(bytes, fds).map_err(not_found)?)
}

/// Decodes a value that takes up all that has arrived.
pub(crate) fn decode_arrived<T: DeserializeOwned>(arrived: Arrived<'_>) -> Result<T, CodecError> {
    let Arrived {
        encoding,
        within,
        fds,
    } = arrived;
    attachments::hand_out(fds, within, || match &encoding {
        Bytes::InFrame(bytes) => decode(bytes),
        Bytes::InMemory(memory, length) => decode_large(&memory[..*length]),
    })
}

/// Tells how many bytes there are of a value that was encoded to go to another process.
pub(crate) fn encoded_len(payload: &[u8], last_fd: Option<BorrowedFd<'_>>) -> usize {
    body::length(payload, last_fd)
}

fn not_found(error: NotFound) -> CodecError {
    CodecError(error.to_string())
}

/// The same as [`decode`], which is quicker with small values.
fn decode_large<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let mut rest = bytes;
    let decoded = match bytes.len() <= MUCH {
        true => bincode::serde::decode_from_reader(Reading(&mut rest), FORMAT.with_limit::<MUCH>()),
        false => bincode::serde::decode_from_reader(Reading(&mut rest), FORMAT),
    };
    match decoded {
        Ok(value) => all_of_it(value, rest.len()),
        Err(error) => Err(CodecError(decode_error(error))),
    }
}

fn all_of_it<T>(value: T, left_over: usize) -> Result<T, CodecError> {
    match left_over {
        0 => Ok(value),
        _ => Err(CodecError(format!(
            "{left_over} bytes are left over; do `Serialize` and `Deserialize` agree?"
        ))),
    }
}

/// bincode wraps the words of a `Serialize` implementation; they alone concern the user. Its own are made useful: they
/// say what is wrong, and not with which types that happens.
fn encode_error(error: bincode::error::EncodeError) -> String {
    use bincode::error::EncodeError;
    match error {
        EncodeError::OtherString(message) => message,
        EncodeError::Serde(_) => format!(
            "it has a list or a map that does not say beforehand how long it is ({error}), as with `#[serde(flatten)]`; send \
             a plain type, or a text"
        ),
        other => other.to_string(),
    }
}

fn decode_error(error: bincode::error::DecodeError) -> String {
    use bincode::error::DecodeError;
    match error {
        DecodeError::OtherString(message) => message,
        DecodeError::Serde(_) => format!(
            "its type asks what has been written, and jobs' values do not carry that ({error}): so it is with \
             `#[serde(untagged)]`, with `#[serde(tag = ..)]`, and with types such as `serde_json::Value`; send a plain type, or \
             a text"
        ),
        DecodeError::Io { .. } => error.to_string(),
        other => format!("{other}; do `Serialize` and `Deserialize` agree?"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Sulky;

    impl Serialize for Sulky {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("not today"))
        }
    }

    #[test]
    fn an_error_leaves_the_buffer_as_it_was_and_keeps_the_users_words() {
        let mut out = vec![1, 2, 3];
        let error = encode_onto(&("a prefix that gets written", Sulky), &mut out).unwrap_err();
        assert_eq!(out, [1, 2, 3]);
        assert_eq!(error.to_string(), "not today");
    }

    /// What works in JSON and not here.
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

    /// It once came out as `None, 1, None`.
    #[test]
    fn a_field_that_is_left_out_is_an_error_wherever_it_lies_and_one_that_never_travels_is_none() {
        use serde::{Deserialize, Serialize};

        #[derive(Default, Serialize, Deserialize)]
        struct Gappy {
            #[serde(skip_serializing_if = "Option::is_none")]
            first: Option<u8>,
            second: u8,
            #[serde(skip_serializing_if = "Option::is_none")]
            third: Option<u8>,
            #[serde(skip)]
            fourth: u8,
        }
        let gappy = |first| Gappy {
            first,
            third: Some(0),
            ..Gappy::default()
        };
        let error = encode(&gappy(None)).unwrap_err().to_string();
        assert!(
            error.contains("`first`") && error.contains("skip_serializing_if"),
            "{error}"
        );
        let bytes = encode(&gappy(Some(7))).unwrap();
        let decoded = decode::<Gappy>(&bytes).unwrap();
        assert_eq!((decoded.first, decoded.fourth), (Some(7), 0));
        let mut out = Vec::new();
        for deep in [Some(Ok::<_, ()>(vec![gappy(None)])), None] {
            let deep = (1, std::collections::BTreeMap::from([('a', deep)]));
            let is_whole = deep.1[&'a'].is_none();
            assert_eq!(encode_enclosing(&deep, &mut out).is_ok(), is_whole);
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

    /// The length stands in front, in eight bytes. To make room for it once ended the process.
    #[test]
    fn a_length_that_is_more_than_there_is_is_an_error_however_much_that_is() {
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

    /// Something of each sort.
    type Value = (u8, char, bool, i128, Option<String>, Vec<u16>);

    proptest! {
        #[cfg_attr(miri, ignore = "too many cases")]
        #[test]
        fn a_value_that_is_as_long_as_the_limit_is_within_it(value: Value) {
            const ENOUGH: usize = 1 << 10;
            // Padded to the limit, to the byte.
            let pad = |length| (value.clone(), "x".repeat(length));
            let bytes = encode(&pad(ENOUGH.saturating_sub(encode(&pad(0)).unwrap().len()))).unwrap();
            let decoded = decode_within::<(Value, String)>(&bytes, FORMAT.with_limit::<ENOUGH>());
            match bytes.len() <= ENOUGH {
                true => prop_assert_eq!(decoded.unwrap(), pad(bytes.len() - encode(&pad(0)).unwrap().len())),
                false => prop_assert!(decoded.is_err()),
            }
        }

        #[cfg_attr(miri, ignore = "too many cases")]
        #[test]
        fn what_is_encoded_decodes_to_the_same(value: (u64, String, Vec<(i8, Option<f32>)>)) {
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
