//! Types whose directions disagree, and types that only look as if they did.

#![allow(dead_code)] // fields that only serde reads

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Debug;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::transport::codec::{decode, encode};

/// Returns what arrives, or the error.
fn arrives<T: Serialize + DeserializeOwned>(value: &T) -> Result<T, String> {
    let bytes = encode(value).map_err(|error| error.to_string())?;
    decode(&bytes).map_err(|error| error.to_string())
}

#[track_caller]
fn assert_arrives<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T) {
    assert_eq!(arrives(&value), Ok(value));
}

#[track_caller]
fn assert_refused<T: Serialize + DeserializeOwned + Debug>(value: T) -> String {
    arrives(&value).expect_err("another value could come out")
}

/// `Accept` once arrived as `Reject`.
#[test]
fn variants_after_a_skipped_one_arrive_as_they_were_sent() {
    #[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
    enum Verdict {
        Unknown,
        #[serde(skip)]
        Cached,
        Accept,
        Reject,
        #[serde(skip)]
        Never(u8),
        Because(String),
        Both(u8, u8),
        Named {
            score: u8,
            reason: Option<Box<Verdict>>,
        },
    }
    use Verdict::*;
    let all = [
        Unknown,
        Accept,
        Reject,
        Because("so".into()),
        Both(1, 2),
        Named {
            score: 3,
            reason: Some(Box::new(Reject)),
        },
    ];
    for value in all.clone() {
        assert_arrives(value.clone());
        assert_arrives(vec![Some((1, value))]);
    }
    assert_arrives(all.to_vec());
    assert_arrives(all.iter().cloned().collect::<HashSet<_>>());
    assert_arrives(all.iter().cloned().enumerate().collect::<HashMap<_, _>>());
    assert!(assert_refused(Cached).contains("cannot be serialized"));
    assert!(assert_refused(Never(1)).contains("cannot be serialized"));
}

#[test]
fn a_variant_that_is_only_sent_is_an_error_also_if_another_one_takes_all_others() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Level {
        #[serde(skip_deserializing)]
        Low,
        High,
        #[serde(other)]
        Other,
    }
    assert!(assert_refused(Level::Low).contains("`Level`"));
    assert_arrives(Level::High);
    assert_arrives(Level::Other);
    assert_arrives(vec![Level::Other, Level::High]);
}

#[test]
fn aliases_of_variants_and_fields_change_nothing() {
    #[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
    enum Shape {
        #[serde(alias = "Ball", alias = "Aaa")]
        Circle {
            #[serde(alias = "r", alias = "zzz")]
            radius: u8,
            #[serde(alias = "c")]
            colour: String,
        },
        #[serde(alias = "Box")]
        Square(u8),
        Point,
    }
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Drawing {
        #[serde(alias = "label")]
        name: String,
        shapes: HashMap<u8, Shape>,
        #[serde(skip, default)]
        cache: u8,
        #[serde(rename = "z-order", alias = "z")]
        order: i8,
    }
    let circle = Shape::Circle {
        radius: 1,
        colour: "red".into(),
    };
    let shapes = [circle, Shape::Square(2), Shape::Point, Shape::Square(9)];
    for shape in shapes.clone() {
        assert_arrives(shape);
    }
    assert_arrives(Drawing {
        name: "one".into(),
        shapes: (0..).zip(shapes).collect(),
        cache: 0,
        order: -1,
    });
}

#[test]
fn names_that_two_variants_have_in_opposite_directions_are_errors() {
    #[derive(Clone, Debug, Serialize, Deserialize)]
    enum Swapped {
        #[serde(rename(serialize = "b", deserialize = "a"))]
        A,
        #[serde(rename(serialize = "a", deserialize = "b"))]
        B,
        C,
    }
    assert!(assert_refused(Swapped::A).contains("another variant"));
    assert!(assert_refused(vec![Swapped::C, Swapped::B]).contains("another variant"));
    assert!(assert_refused(vec![Swapped::A, Swapped::B]).contains("another variant"));
    assert!(arrives(&Swapped::C).is_ok());

    #[derive(Debug, Serialize, Deserialize)]
    enum Renamed {
        #[serde(rename(serialize = "old", deserialize = "new"))]
        A,
        B,
    }
    assert!(assert_refused(Renamed::A).contains("`Renamed`"));
    assert!(arrives(&Renamed::B).is_ok());
}

#[test]
fn variants_numbered_by_hand_arrive_by_their_names() {
    #[derive(Debug, PartialEq, Deserialize)]
    enum Numbered {
        One,
        Two,
    }
    impl Serialize for Numbered {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            match self {
                Self::One => serializer.serialize_unit_variant("Numbered", 1, "One"),
                Self::Two => serializer.serialize_unit_variant("Numbered", 0, "Two"),
            }
        }
    }
    assert_arrives(Numbered::One);
    // In another order than the decoder's names, which may be an exchange of names.
    assert_refused(vec![Numbered::Two, Numbered::One]);
}

/// `sent` once arrived in `kept`.
#[test]
fn fields_that_one_direction_skips_are_errors() {
    #[derive(Debug, Default, Serialize, Deserialize)]
    struct OneEach {
        #[serde(skip_serializing)]
        kept: u8,
        #[serde(skip_deserializing)]
        sent: u8,
    }
    assert_refused(OneEach::default());
    #[derive(Debug, Default, Serialize, Deserialize)]
    struct WithAliases {
        #[serde(skip_serializing, default, alias = "other")]
        kept: u8,
        #[serde(skip_deserializing)]
        sent: u8,
    }
    assert_refused(WithAliases::default());
    #[derive(Debug, Default, Serialize, Deserialize)]
    struct OnlyRead {
        #[serde(skip_serializing, default)]
        kept: u8,
    }
    assert_refused(OnlyRead::default());
    #[derive(Debug, Default, Serialize, Deserialize)]
    struct OnlyWritten {
        #[serde(skip_deserializing)]
        sent: (),
    }
    assert_refused(OnlyWritten::default());
    #[derive(Debug, Serialize, Deserialize)]
    enum InVariants {
        Named {
            #[serde(skip_serializing, default)]
            kept: u8,
            #[serde(skip_deserializing)]
            sent: u8,
        },
    }
    assert_refused(InVariants::Named { kept: 1, sent: 2 });
    #[derive(Debug, Serialize, Deserialize)]
    struct Positional(
        #[serde(skip_serializing_if = "Option::is_none")] Option<u8>,
        Option<u8>,
        #[serde(default)] Option<u8>,
    );
    assert_refused(Positional(None, Some(1), Some(2)));
    assert!(arrives(&Positional(Some(0), None, None)).is_ok());
}

#[test]
fn conversions_that_one_direction_makes_are_errors() {
    fn redact<S: Serializer>(_: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("")
    }
    #[derive(Debug, Serialize, Deserialize)]
    struct Redacted {
        #[serde(serialize_with = "redact")]
        secret: u64,
    }
    assert_refused(Redacted { secret: 7 });

    #[derive(Clone, Debug, Serialize, Deserialize)]
    #[serde(into = "(i32, u32)")]
    struct Into {
        wide: u64,
    }
    impl From<Into> for (i32, u32) {
        fn from(value: Into) -> Self {
            (value.wide as i32, 0)
        }
    }
    assert_refused(Into { wide: 7 });

    #[derive(Debug)]
    struct Reordered {
        first: u8,
        second: u8,
    }
    impl Serialize for Reordered {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            use serde::ser::SerializeStruct;
            let mut fields = serializer.serialize_struct("Reordered", 2)?;
            fields.serialize_field("second", &self.second)?;
            fields.serialize_field("first", &self.first)?;
            fields.end()
        }
    }
    impl<'de> Deserialize<'de> for Reordered {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            #[derive(Deserialize)]
            struct Reordered {
                first: u8,
                second: u8,
            }
            let Reordered { first, second } = Deserialize::deserialize(deserializer)?;
            Ok(Self { first, second })
        }
    }
    assert_refused(Reordered {
        first: 1,
        second: 2,
    });

    /// Is written as three numbers, and read as two.
    #[derive(Debug)]
    struct Short;
    impl Serialize for Short {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            [1_u8, 2, 3].serialize(serializer)
        }
    }
    impl<'de> Deserialize<'de> for Short {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            <[u8; 2]>::deserialize(deserializer).map(|_| Short)
        }
    }
    assert_refused((Short, 1_u8));
}

#[test]
fn a_list_that_announces_another_length_or_is_not_read_to_its_end_is_an_error() {
    #[derive(Debug, Deserialize)]
    struct Liar(#[allow(dead_code)] Vec<u8>);
    impl Serialize for Liar {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            use serde::ser::SerializeSeq;
            let mut items = serializer.serialize_seq(Some(2))?;
            items.serialize_element(&1_u8)?;
            items.end()
        }
    }
    assert!(assert_refused((Liar(Vec::new()), 7_u8)).contains("number of items"));

    #[derive(Debug)]
    struct First;
    impl Serialize for First {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_seq([1_u8, 2])
        }
    }
    impl<'de> Deserialize<'de> for First {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Visitor;
            impl<'de> serde::de::Visitor<'de> for Visitor {
                type Value = First;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("bytes")
                }
                fn visit_seq<A: serde::de::SeqAccess<'de>>(
                    self,
                    mut items: A,
                ) -> Result<First, A::Error> {
                    items.next_element::<u8>()?;
                    Ok(First)
                }
            }
            deserializer.deserialize_seq(Visitor)
        }
    }
    assert!(assert_refused((First, 7_u8)).contains("1 of 2"));
}

/// A list of a million items once ended the process when it was decoded on a thread with a small
/// stack, whatever had encoded it.
#[test]
fn a_value_that_is_nested_too_deeply_is_an_error_in_both_directions() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Nest(Option<Box<Nest>>);
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Tree {
        Leaf,
        Node(Vec<Tree>),
        Named { map: BTreeMap<u8, (Tree,)> },
    }
    fn nest(depth: usize) -> Nest {
        (0..depth).fold(Nest(None), |inner, _| Nest(Some(Box::new(inner))))
    }
    fn tree(depth: usize) -> Tree {
        (0..depth).fold(Tree::Leaf, |inner, level| match level % 2 {
            0 => Tree::Node(vec![Tree::Leaf, inner]),
            _ => Tree::Named {
                map: BTreeMap::from([(7, (inner,))]),
            },
        })
    }
    fn on_stack<R: Send + 'static>(bytes: usize, f: impl FnOnce() -> R + Send + 'static) -> R {
        let thread = std::thread::Builder::new().stack_size(bytes);
        thread.spawn(f).unwrap().join().unwrap()
    }
    const LARGE: usize = 512 << 20;
    const DEPTH: usize = 20_000;
    let (nests, trees) = on_stack(LARGE, || {
        (encode(&nest(DEPTH)).unwrap(), encode(&tree(DEPTH)).unwrap())
    });
    for stack in [128 << 10, 512 << 10, 2 << 20] {
        let (nests, trees) = (nests.clone(), trees.clone());
        on_stack(stack, move || {
            let error = decode::<Nest>(&nests).unwrap_err().to_string();
            assert!(error.contains("too deeply"), "{error}");
            let error = decode::<Tree>(&trees).unwrap_err().to_string();
            assert!(error.contains("too deeply"), "{error}");
            assert_arrives(nest(10));
            assert_arrives(tree(6));
        });
        on_stack(LARGE, move || {
            let value = std::sync::Arc::new((nest(DEPTH), tree(DEPTH)));
            let sent = value.clone();
            on_stack(stack, move || {
                for error in [encode(&sent.0).unwrap_err(), encode(&sent.1).unwrap_err()] {
                    assert!(error.to_string().contains("too deeply"), "{error}");
                }
            });
            drop(value);
        });
    }
}
