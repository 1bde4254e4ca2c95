//! A family of types with every attribute and shape that serde has for them: random values arrive
//! as they were sent, or are errors.
//!
//! Each enum and each structure is tested with every type of parts, so that the types nest in all
//! ways.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;
use std::num::NonZeroU8;
use std::time::Duration;

use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::transport::codec;
use crate::transport::described::Described;

/// Whether values of a type must arrive, or may be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    Arrives,
    MayBeRefused,
}

/// Sends a value as it is, and behind a text that is large enough for attached bytes, which another
/// reader takes. Both have the same type, because the compiler writes much code for each.
fn check<T>(value: &T, rule: Rule) -> Result<(), TestCaseError>
where
    T: Debug + PartialEq + Serialize + DeserializeOwned,
{
    let arrived = codec::encode(&(String::new(), value))
        .and_then(|bytes| codec::decode::<(String, T)>(&bytes));
    match arrived {
        Ok((_, arrived)) => prop_assert_eq!(&arrived, value),
        Err(error) => prop_assert!(rule == Rule::MayBeRefused, "{}: {:?}", error, value),
    }
    let mut frame = Vec::new();
    let arrived = codec::encode_with_attachments(&(" ".repeat(150_000), value), &mut frame)
        .and_then(|attached| {
            let fds = attached
                .fds
                .iter()
                .map(|fd| fd.try_clone().unwrap())
                .collect();
            codec::decode_received::<(String, T)>(&frame, fds)
        });
    match arrived {
        Ok((_, arrived)) => prop_assert_eq!(&arrived, value),
        Err(error) => prop_assert!(rule == Rule::MayBeRefused, "{}: {:?}", error, value),
    }
    Ok(())
}

mod as_text {
    use super::*;
    pub(super) fn serialize<T: ToString, S: serde::Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&value.to_string())
    }
    pub(super) fn deserialize<'de, T: std::str::FromStr, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse()
            .map_err(|_| serde::de::Error::custom("no number"))
    }
}

/// Declares the types of parts, and for each a test of the family's types with such parts.
macro_rules! parts {
    ($($name:ident: $variant:ident($part:ty), $values:expr, $rule:ident;)*) => {
        /// A part of a generated value. It is encoded and decoded exactly as what it holds: the
        /// family's types are compiled once, and not for every type of parts.
        #[derive(Clone, Debug, PartialEq)]
        enum Part {
            $($variant($part),)*
        }

        /// The type of the parts that this thread decodes.
        #[derive(Clone, Copy)]
        enum PartType {
            $($variant,)*
        }

        impl Serialize for Part {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self {
                    $(Self::$variant(part) => part.serialize(serializer),)*
                }
            }
        }

        impl<'de> Deserialize<'de> for Part {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                match PART_TYPE.get().expect("a test sets it") {
                    $(PartType::$variant => {
                        <$part>::deserialize(deserializer).map(Self::$variant)
                    })*
                }
            }
        }

        $(mod $name {
            use super::*;

            #[cfg_attr(miri, ignore = "too many cases")]
            #[test]
            fn a_value_arrives_or_is_an_error() {
                PART_TYPE.set(Some(PartType::$variant));
                check_family(|| $values.prop_map(Part::$variant).boxed(), Rule::$rule);
            }
        })*
    };
}

thread_local! {
    static PART_TYPE: Cell<Option<PartType>> = const { Cell::new(None) };
}

parts! {
    of_numbers: Number(u16), any::<u16>(), Arrives;
    of_texts: Text(String), any::<String>(), Arrives;
    of_units: Unit(()), Just(()), Arrives;
    of_wide_numbers: WideNumber((i128, u128, char, bool)),
        any::<(i128, u128, char, bool)>(), Arrives;
    of_options: Options(Option<Option<i8>>), any::<Option<Option<i8>>>(), Arrives;
    of_collections: Collections((HashMap<u8, i16>, BTreeSet<String>, Vec<(u8,)>)),
        any::<(HashMap<u8, i16>, BTreeSet<String>, Vec<(u8,)>)>(), Arrives;
    of_types_of_std: TypesOfStd(TypesOfStd), types_of_std(), Arrives;
    of_borrowed_texts: BorrowedText(std::borrow::Cow<'static, str>),
        any::<String>().prop_map(Into::into), Arrives;
    of_swapped_names: SwappedName(Swapped), any::<bool>().prop_map(Swapped::from), MayBeRefused;
    of_untagged: Untagged(Untagged), untagged(), MayBeRefused;
    of_tagged: Tagged(Tagged), tagged(), MayBeRefused;
    of_flat: Flat(Flat), flat(), MayBeRefused;
    of_described_untagged: DescribedUntagged(Described<Untagged>),
        untagged().prop_map(Described), Arrives;
    of_described_tagged: DescribedTagged(Described<Tagged>), tagged().prop_map(Described), Arrives;
    of_described_flat: DescribedFlat(Described<Flat>), flat().prop_map(Described), Arrives;
    of_described_json: DescribedJson(Described<serde_json::Value>),
        json().prop_map(Described), Arrives;
}

type TypesOfStd = (
    Duration,
    NonZeroU8,
    std::net::IpAddr,
    std::ops::Range<u8>,
    Box<str>,
);

fn types_of_std() -> impl Strategy<Value = TypesOfStd> {
    let values = any::<(Duration, NonZeroU8, std::net::IpAddr)>();
    (values, any::<(u8, u8)>(), any::<String>()).prop_map(
        |((time, number, address), (start, end), text)| {
            (time, number, address, start..end, text.into_boxed_str())
        },
    )
}

/// Aliases, renames in both directions, skipped variants and fields: all arrive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Sound {
    #[serde(skip)]
    _Hidden,
    Unit,
    #[serde(alias = "A", alias = "Z")]
    Newtype(Part),
    #[serde(skip)]
    _HiddenToo(Part),
    #[serde(rename = "pair", alias = "Pair")]
    Pair(Part, #[serde(skip)] u8, Option<Part>),
    #[serde(rename_all = "UPPERCASE")]
    Named {
        #[serde(alias = "id", alias = "Id")]
        first: Part,
        #[serde(skip)]
        cache: u8,
        #[serde(rename = "type", with = "as_text")]
        second: i64,
        #[serde(default)]
        third: Vec<Part>,
    },
    #[serde(other)]
    Other,
}

/// One direction skips or renames: values arrive if they are not concerned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Unsound {
    #[serde(rename(serialize = "b", deserialize = "a"))]
    A,
    #[serde(skip_deserializing)]
    OnlySent(Part),
    #[serde(rename(serialize = "a", deserialize = "b"))]
    B,
    #[serde(skip_serializing)]
    _OnlyRead(Part),
    C(Part),
    #[serde(rename(serialize = "old", deserialize = "new"))]
    Renamed,
    Fields {
        #[serde(skip_serializing, default)]
        kept: Option<u8>,
        #[serde(skip_deserializing)]
        sent: Option<u8>,
        all: Part,
    },
    Optional {
        #[serde(skip_serializing_if = "Option::is_none")]
        first: Option<u8>,
        second: Option<Part>,
    },
    Positions(
        #[serde(skip_serializing_if = "Option::is_none", default)] Option<u8>,
        Option<Part>,
    ),
    #[serde(other)]
    Other,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Newtype(Part);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct Transparent {
    part: Part,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct All {
    sound: Sound,
    #[serde(alias = "newType", alias = "")]
    newtype: Newtype,
    transparent: Transparent,
    unit: (),
    map: BTreeMap<u8, Part>,
    nested: Option<Option<Box<Sound>>>,
    array: [Option<Part>; 2],
    result: Result<Part, String>,
}

fn sound(part: fn() -> BoxedStrategy<Part>) -> BoxedStrategy<Sound> {
    prop_oneof![
        Just(Sound::Unit),
        Just(Sound::Other),
        part().prop_map(Sound::Newtype),
        (part(), prop::option::of(part())).prop_map(|(a, b)| Sound::Pair(a, 0, b)),
        (part(), any::<i64>(), prop::collection::vec(part(), 0..3)).prop_map(
            |(first, second, third)| Sound::Named {
                first,
                cache: 0,
                second,
                third
            }
        ),
    ]
    .boxed()
}

fn unsound(part: fn() -> BoxedStrategy<Part>) -> BoxedStrategy<Unsound> {
    let small = || any::<Option<u8>>();
    prop_oneof![
        Just(Unsound::A),
        Just(Unsound::B),
        Just(Unsound::Renamed),
        Just(Unsound::Other),
        part().prop_map(Unsound::OnlySent),
        part().prop_map(Unsound::C),
        (small(), small(), part()).prop_map(|(kept, sent, all)| Unsound::Fields {
            kept,
            sent,
            all
        }),
        (small(), prop::option::of(part()))
            .prop_map(|(first, second)| Unsound::Optional { first, second }),
        (small(), prop::option::of(part())).prop_map(|(a, b)| Unsound::Positions(a, b)),
    ]
    .boxed()
}

fn all(part: fn() -> BoxedStrategy<Part>) -> BoxedStrategy<All> {
    let nested = prop::option::of(prop::option::of(sound(part).prop_map(Box::new)));
    let array = (prop::option::of(part()), prop::option::of(part()));
    let map = prop::collection::btree_map(any::<u8>(), part(), 0..3);
    let result = prop::result::maybe_ok(part(), any::<String>());
    (sound(part), part(), part(), map, nested, array, result)
        .prop_map(
            |(sound, newtype, transparent, map, nested, array, result)| All {
                sound,
                newtype: Newtype(newtype),
                transparent: Transparent { part: transparent },
                unit: (),
                map,
                nested,
                array: array.into(),
                result,
            },
        )
        .boxed()
}

/// Checks random values of the family's types with the given parts.
fn check_family(part: fn() -> BoxedStrategy<Part>, rule: Rule) {
    proptest!(ProptestConfig::with_cases(24), |(
        whole in all(part),
        sounds in prop::collection::vec(sound(part), 0..4),
        doubtful in unsound(part),
        mixed in prop::collection::vec(unsound(part), 0..3),
    )| {
        check(&(1_u8, sounds, whole), rule)?;
        // Without others that may be refused, in a third of the cases.
        check(&(mixed, doubtful, 7_u8), Rule::MayBeRefused)?;
    });
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Swapped {
    #[serde(rename(serialize = "No", deserialize = "Yes"))]
    Yes,
    #[serde(rename(serialize = "Yes", deserialize = "No"))]
    No,
}

impl From<bool> for Swapped {
    fn from(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Flag(bool),
    Number(i32),
    Text(String),
    Named { id: u8 },
}

fn untagged() -> BoxedStrategy<Untagged> {
    prop_oneof![
        any::<bool>().prop_map(Untagged::Flag),
        any::<i32>().prop_map(Untagged::Number),
        any::<String>().prop_map(Untagged::Text),
        any::<u8>().prop_map(|id| Untagged::Named { id }),
    ]
    .boxed()
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    Unit,
    #[serde(skip)]
    _Hidden,
    Named {
        id: u8,
        note: Option<String>,
    },
    Newtype(Flat),
}

fn tagged() -> BoxedStrategy<Tagged> {
    prop_oneof![
        Just(Tagged::Unit),
        any::<(u8, Option<String>)>().prop_map(|(id, note)| Tagged::Named { id, note }),
        flat().prop_map(Tagged::Newtype),
    ]
    .boxed()
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Flat {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    note: Option<u8>,
    #[serde(flatten)]
    inner: Adjacent,
    #[serde(flatten)]
    rest: BTreeMap<String, i64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "t", content = "c")]
enum Adjacent {
    Unit,
    Newtype(Vec<u8>),
    Pair(i8, char),
    Named { id: u8 },
}

fn flat() -> BoxedStrategy<Flat> {
    let adjacent = prop_oneof![
        Just(Adjacent::Unit),
        any::<Vec<u8>>().prop_map(Adjacent::Newtype),
        any::<(i8, char)>().prop_map(|(number, letter)| Adjacent::Pair(number, letter)),
        any::<u8>().prop_map(|id| Adjacent::Named { id }),
    ];
    let rest = prop::collection::btree_map("[x-z]{2}", any::<i64>(), 0..3);
    (any::<Option<u8>>(), adjacent, rest)
        .prop_map(|(note, inner, rest)| Flat { note, inner, rest })
        .boxed()
}

fn json() -> BoxedStrategy<serde_json::Value> {
    use serde_json::Value;
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e300..1e300).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(prop_oneof![Just(Value::Null), inner.clone()], 0..3)
                .prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
    .boxed()
}
