//! Values in a format that describes itself. The only file that uses rmp-serde.
//!
//! The format is MessagePack with the names of fields, and with the representations that types have
//! in texts: types for such a format are usually written for JSON, and are tested with it.
//! rmp-serde bounds the depth of lists and maps only, and buffered values (serde's, for untagged
//! and flattened types) are decoded by recursion that passes by its deserializer. So the encoder
//! counts how deeply values are nested, and the decoder begins only if the stack is large enough
//! for that depth.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, Error as _, Visitor};
use serde::ser::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::strict::{Kind, Names, Rules, Shape, StackCheck, Strict, TOO_DEEP};
use super::tuning::STACK_PER_LEVEL_BYTES;
use crate::sys::stack::StackLimit;

/// Sends a value in a format that describes itself, for types that need one.
///
/// Arguments and results of jobs travel in a compact format without names, which some types cannot
/// be decoded from: those with `#[serde(untagged)]`, `#[serde(tag = ..)]`, `#[serde(flatten)]` or
/// `#[serde(skip_serializing_if = ..)]`, and types such as `serde_json::Value`. A call with such a
/// value fails with an error that names this wrapper. The wrapper may stand around the whole
/// argument or result, or around the part that needs it. It costs about as much as JSON.
///
/// The value arrives as from a JSON text: a field that `#[serde(skip_serializing)]` leaves out has
/// its default, and of an untagged enum the first variant that fits is taken. Unlike in JSON, keys
/// of maps need not be strings, and numbers may be infinite or NaN. An option within an option
/// (`Some(None)`, `Some(())`) cannot be told from `None`, and is an error.
///
/// In a text format, such as JSON, the wrapper has the representation of the value itself.
///
/// # Examples
///
/// ```
/// use seedbed::worker::Described;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, PartialEq, Serialize, Deserialize)]
/// #[serde(untagged)]
/// enum Id {
///     Number(u64),
///     Name(String),
/// }
///
/// fn next(Described(id): Described<Id>) -> Described<Id> {
///     Described(match id {
///         Id::Number(number) => Id::Number(number + 1),
///         Id::Name(name) => Id::Name(name + "'"),
///     })
/// }
///
/// fn main() {
///     seedbed::init();
///     let id = Described(Id::Number(7));
///     let next = smol::block_on(async { seedbed::run_sync(next, id).await });
///     assert_eq!(next.unwrap().0, Id::Number(8));
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Described<T>(pub T);

impl<T> From<T> for Described<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

impl<T: Serialize> Serialize for Described<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return self.0.serialize(serializer);
        }
        serializer.serialize_bytes(&encode(&self.0).map_err(S::Error::custom)?)
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Described<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            return T::deserialize(deserializer).map(Self);
        }
        deserializer.deserialize_bytes(BytesVisitor(PhantomData))
    }
}

/// Decodes a value from bytes.
struct BytesVisitor<T>(PhantomData<T>);

impl<T: DeserializeOwned> Visitor<'_> for BytesVisitor<T> {
    type Value = Described<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value in a format that describes itself")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Described<T>, E> {
        decode(bytes).map(Described).map_err(E::custom)
    }
}

/// Returns the depth of a value and its encoding.
fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, rmp_serde::encode::Error> {
    let rules = NamedRules {
        stack: StackCheck::new(),
        is_option: Cell::new(false),
        depth: Cell::new(0),
        max_depth: Cell::new(0),
    };
    let mut bytes = vec![0; size_of::<u64>()];
    let mut serializer = rmp_serde::Serializer::new(&mut bytes)
        .with_struct_map()
        .with_human_readable();
    Strict(value, &rules).serialize(&mut serializer)?;
    bytes[..size_of::<u64>()].copy_from_slice(&rules.max_depth.get().to_le_bytes());
    Ok(bytes)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, rmp_serde::decode::Error> {
    use rmp_serde::decode::Error;
    let (depth, mut bytes) = bytes
        .split_first_chunk()
        .ok_or_else(|| Error::custom("it has no length"))?;
    let depth = usize::try_from(u64::from_le_bytes(*depth)).unwrap_or(usize::MAX);
    let needed = depth.saturating_mul(STACK_PER_LEVEL_BYTES);
    let mut stack = StackLimit::UNKNOWN;
    if !stack.has_bytes(needed) {
        return Err(Error::custom(TOO_DEEP));
    }
    let mut deserializer = rmp_serde::Deserializer::new(&mut bytes).with_human_readable();
    deserializer.set_max_depth(usize::MAX);
    let value = T::deserialize(&mut deserializer)?;
    if bytes.is_empty() {
        Ok(value)
    } else {
        Err(Error::custom(format_args!(
            "{} bytes are left over; do `Serialize` and `Deserialize` agree?",
            bytes.len()
        )))
    }
}

/// The state of one encoding with names.
struct NamedRules {
    stack: StackCheck,
    /// Whether the next value is that of an option.
    is_option: Cell<bool>,
    depth: Cell<u64>,
    max_depth: Cell<u64>,
}

impl Rules for NamedRules {
    fn plain<E: Error>(&self, kind: Kind) -> Result<(), E> {
        let is_empty = matches!(kind, Kind::Option | Kind::Unit);
        if self.is_option.replace(false) && is_empty {
            return Err(E::custom(
                "a `Some` that holds `None` or `()` cannot be told from `None` in a format that describes itself; use \
                 an enum instead of one of the options",
            ));
        }
        Ok(())
    }

    fn descend<E: Error>(&self) -> Result<(), E> {
        self.stack.descend()
    }

    fn some<E: Error>(&self) -> Result<(), E> {
        self.is_option.set(true);
        self.stack.descend()
    }

    fn parts(&self, _: impl FnOnce(&mut Shape)) {
        self.is_option.set(false);
    }

    fn variant(&self, _: &'static str, index: u32, _: &'static str) -> u32 {
        self.is_option.set(false);
        index
    }

    fn open_fields(&self) {
        self.is_option.set(false);
    }

    fn field(&self, _: &'static str) {}

    fn close_fields(&self, _: &'static str, _: Names) {}

    fn skip_field<E: Error>(&self, _: &'static str) -> Result<(), E> {
        Ok(())
    }

    fn length<E: Error>(&self, _: Option<usize>) -> Result<(), E> {
        Ok(())
    }

    fn enter(&self) {
        let depth = self.depth.get() + 1;
        self.depth.set(depth);
        self.max_depth.set(self.max_depth.get().max(depth));
    }

    fn leave(&self) {
        self.depth.set(self.depth.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::codec;
    use crate::transport::codec_error::CodecError;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use std::collections::{BTreeMap, HashMap};
    use std::fmt::Debug;

    #[track_caller]
    fn assert_arrives<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T) {
        let sent = Described(value);
        let bytes = codec::encode(&sent).unwrap();
        assert_eq!(codec::decode::<Described<T>>(&bytes).unwrap(), sent);
        let part = (1_u8, vec![Some(sent)], 2_u8);
        let bytes = codec::encode(&part).unwrap();
        assert_eq!(
            codec::decode::<(u8, Vec<Option<Described<T>>>, u8)>(&bytes).unwrap(),
            part
        );
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Untagged {
        Number(i64),
        Float(f64),
        Text(String),
        Pair(u8, bool),
        Named { id: u8, next: Option<Box<Untagged>> },
        List(Vec<Untagged>),
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "kind")]
    enum Internal {
        Unit,
        Named { id: u8, next: Option<Box<Internal>> },
        Newtype(BTreeMap<String, Untagged>),
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "t", content = "c")]
    enum Adjacent {
        Unit,
        Newtype(Box<Internal>),
        Pair(i8, String),
        Named { bytes: Vec<u8> },
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Flat {
        #[serde(skip_serializing_if = "Option::is_none", default)]
        note: Option<String>,
        #[serde(flatten)]
        inner: Option<Adjacent>,
        #[serde(flatten)]
        rest: BTreeMap<String, Untagged>,
    }

    fn untagged() -> impl Strategy<Value = Untagged> {
        let leaf = prop_oneof![
            any::<i64>().prop_map(Untagged::Number),
            (-1e9..1e9).prop_map(Untagged::Float),
            ".{0,5}".prop_map(Untagged::Text),
            any::<(u8, bool)>().prop_map(|(number, flag)| Untagged::Pair(number, flag)),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                (any::<u8>(), prop::option::of(inner.clone())).prop_map(|(id, next)| {
                    Untagged::Named {
                        id,
                        next: next.map(Box::new),
                    }
                }),
                prop::collection::vec(inner, 3..5).prop_map(Untagged::List),
            ]
        })
    }

    fn internal() -> impl Strategy<Value = Internal> {
        let map = prop::collection::btree_map("[a-j]{2}", untagged(), 0..3);
        let leaf = prop_oneof![Just(Internal::Unit), map.prop_map(Internal::Newtype)];
        leaf.prop_recursive(3, 6, 1, |inner| {
            (any::<u8>(), prop::option::of(inner)).prop_map(|(id, next)| Internal::Named {
                id,
                next: next.map(Box::new),
            })
        })
    }

    fn adjacent() -> impl Strategy<Value = Adjacent> {
        prop_oneof![
            Just(Adjacent::Unit),
            internal().prop_map(|inner| Adjacent::Newtype(Box::new(inner))),
            any::<(i8, String)>().prop_map(|(number, text)| Adjacent::Pair(number, text)),
            any::<Vec<u8>>().prop_map(|bytes| Adjacent::Named { bytes }),
        ]
    }

    fn flat() -> impl Strategy<Value = Flat> {
        let rest = prop::collection::btree_map("[x-z]{2}", untagged(), 0..3);
        (any::<Option<String>>(), prop::option::of(adjacent()), rest)
            .prop_map(|(note, inner, rest)| Flat { note, inner, rest })
    }

    proptest! {
        #[cfg_attr(miri, ignore = "too many cases")]
        #[test]
        fn values_of_types_that_need_a_format_which_describes_itself_arrive(value in (untagged(), internal(), adjacent(), flat())) {
            assert_arrives(value);
        }

        #[cfg_attr(miri, ignore = "too many cases")]
        #[test]
        fn plain_values_arrive(value: (u64, i128, char, Option<f32>, HashMap<u32, Vec<bool>>, Result<(), String>, std::net::IpAddr)) {
            prop_assume!(value.3.is_none_or(|number| !number.is_nan()));
            assert_arrives(value);
        }
    }

    #[test]
    fn json_values_arrive() {
        assert_arrives(
            json!({"a": [1, -2, 3.5, null, true, "text"], "b": {"c": {}}, "": u64::MAX}),
        );
        assert_arrives(Value::Null);
        let text = serde_json::to_string(&Described(json!([1]))).unwrap();
        assert_eq!(text, "[1]", "the wrapper does not show in a text");
        assert_eq!(
            serde_json::from_str::<Described<Value>>(&text).unwrap().0,
            json!([1])
        );
    }

    /// JSON and MessagePack have one `null` for all of these.
    #[test]
    fn an_empty_option_within_an_option_is_an_error() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Nest(Option<Box<Nest>>);
        let refuse = |error: CodecError| assert!(error.to_string().contains("`Some`"), "{error}");
        refuse(codec::encode(&Described(Some(None::<u8>))).unwrap_err());
        refuse(codec::encode(&Described(vec![Some(())])).unwrap_err());
        refuse(codec::encode(&Described(Nest(Some(Box::new(Nest(None)))))).unwrap_err());
        refuse(codec::encode(&Described(Some(Value::Null))).unwrap_err());
        assert_arrives((
            Some(Some(1)),
            None::<Option<u8>>,
            Some(vec![()]),
            Some((None::<u8>,)),
        ));
    }

    fn on_stack<R: Send + 'static>(bytes: usize, f: impl FnOnce() -> R + Send + 'static) -> R {
        let thread = std::thread::Builder::new().stack_size(bytes);
        thread.spawn(f).unwrap().join().unwrap()
    }

    fn named(depth: usize) -> Untagged {
        (0..depth).fold(Untagged::Number(1), |inner, _| Untagged::Named {
            id: 1,
            next: Some(Box::new(inner)),
        })
    }

    fn list(depth: usize) -> Untagged {
        (0..depth).fold(Untagged::Number(1), |inner, _| Untagged::List(vec![inner]))
    }

    fn internally_tagged(depth: usize) -> Internal {
        (0..depth).fold(Internal::Unit, |inner, _| Internal::Named {
            id: 1,
            next: Some(Box::new(inner)),
        })
    }

    fn flattened(depth: usize) -> Flattened {
        (0..depth).fold(Flattened::default(), |inner, _| Flattened {
            id: 1,
            rest: BTreeMap::from([("next".to_owned(), inner)]),
        })
    }

    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    struct Flattened {
        id: u8,
        #[serde(flatten)]
        rest: BTreeMap<String, Flattened>,
    }

    #[test]
    fn a_value_that_is_nested_too_deeply_is_an_error_in_both_directions() {
        const STACK: usize = 2 << 20;
        fn check<T>(make: fn(usize) -> T)
        where
            T: Serialize + DeserializeOwned + PartialEq + Debug + Send + Sync + 'static,
        {
            on_stack(512 << 20, move || {
                let value = std::sync::Arc::new(Described(make(20_000)));
                let bytes = codec::encode(&*value).unwrap();
                on_stack(STACK, move || {
                    let error = codec::decode::<Described<T>>(&bytes).unwrap_err();
                    assert!(error.to_string().contains("too deeply"), "{error}");
                    assert_arrives(make(20));
                });
                let sent = value.clone();
                on_stack(STACK, move || {
                    let error = codec::encode(&*sent).unwrap_err();
                    assert!(error.to_string().contains("too deeply"), "{error}");
                });
                drop(value);
            });
        }
        check(named);
        check(list);
        check(internally_tagged);
    }

    /// Returns how many bytes of stack `f` takes: those that are no longer zero.
    #[cfg(not(miri))]
    fn stack_of(f: impl FnOnce() + Send + 'static) -> usize {
        on_stack(8 << 20, || crate::sys::stack::bytes_touched_by(f))
    }

    #[cfg(not(miri))]
    #[test]
    fn a_level_takes_less_stack_than_is_set_aside_for_it() {
        fn check<T: Serialize + DeserializeOwned>(make: fn(usize) -> T) {
            let depth = 100;
            let bytes = encode(&make(depth)).unwrap();
            let levels = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
            let taken = stack_of(move || drop(decode::<T>(&bytes).unwrap()));
            println!(
                "{}: {} bytes at each of {levels} levels",
                std::any::type_name::<T>(),
                taken / levels
            );
            assert!(
                taken / levels < STACK_PER_LEVEL_BYTES,
                "{}",
                std::any::type_name::<T>()
            );
        }
        check(named);
        check(list);
        check(internally_tagged);
        check(flattened);
        check(|depth| (0..depth).fold(Value::Null, |inner, _| json!([inner])));
    }
}
