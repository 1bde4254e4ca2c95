//! The decoding direction: the counterpart of [`serializer`](super::serializer).
//!
//! Each nested value is decoded through this deserializer again. Positions count: a visitor that
//! takes another number of parts than were written is an error, because what it leaves would be
//! taken for the next value.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

use super::guard::{DISAGREE, Guard};
use super::messages::USE_DESCRIBED;
use super::shape::Kind;
use super::witness::Witness;

/// A value that was decoded together with its shape.
pub(in crate::transport) struct Decoded<T> {
    pub(in crate::transport) value: T,
    /// Whether the value is only right if it is decoded again with a [`Witness`].
    pub(in crate::transport) needs_witness: bool,
}

/// Decodes what [`Outgoing`](super::Outgoing) encodes.
pub(in crate::transport) struct Expected<'w, T> {
    witness: Option<&'w Witness>,
    value: PhantomData<fn() -> T>,
}

impl<'w, T> Expected<'w, T> {
    #[inline]
    pub(in crate::transport) fn new(witness: Option<&'w Witness>) -> Self {
        Self {
            witness,
            value: PhantomData,
        }
    }
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for Expected<'_, T> {
    type Value = Decoded<T>;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Decoded<T>, D::Error> {
        deserializer.deserialize_tuple(2, self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Expected<'_, T> {
    type Value = Decoded<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value and its shape")
    }

    #[inline]
    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Decoded<T>, A::Error> {
        let mut guard = Guard::new(self.witness);
        let seed = StrictSeed {
            seed: PhantomData::<T>,
            guard: &mut guard,
        };
        let incomplete = || A::Error::custom(DISAGREE);
        let value = parts.next_element_seed(seed)?.ok_or_else(incomplete)?;
        if let Some(digest) = guard.shape.digest() {
            let sent: u64 = parts.next_element()?.ok_or_else(incomplete)?;
            if sent != digest && !guard.needs_witness {
                return Err(other_shape());
            }
        }
        Ok(Decoded {
            value,
            needs_witness: guard.needs_witness,
        })
    }
}

#[cold]
fn other_shape<E: Error>() -> E {
    E::custom(format_args!(
        "{DISAGREE}: in the names, number or order of fields, or in the kinds of values, as with \
         `#[serde(skip_serializing)]`, `#[serde(serialize_with = ..)]` and `#[serde(into = ..)]` without their counterparts; \
         {USE_DESCRIBED}, or correct the type"
    ))
}

fn not_self_describing<E: Error>() -> E {
    E::custom(format_args!(
        "its type asks what has been written, and jobs' values do not carry that: so it is with `#[serde(untagged)]`, with \
         `#[serde(tag = ..)]`, with `#[serde(flatten)]`, and with types such as `serde_json::Value`; {USE_DESCRIBED}"
    ))
}

/// A seed whose value is decoded with a [`StrictDeserializer`].
pub(super) struct StrictSeed<'g, 'w, T> {
    pub(super) seed: T,
    pub(super) guard: &'g mut Guard<'w>,
}

impl<'de, T: DeserializeSeed<'de>> DeserializeSeed<'de> for StrictSeed<'_, '_, T> {
    type Value = T::Value;

    #[inline(always)]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T::Value, D::Error> {
        self.seed.deserialize(StrictDeserializer {
            inner: deserializer,
            guard: self.guard,
        })
    }
}

/// Wraps a deserializer.
struct StrictDeserializer<'g, 'w, D> {
    inner: D,
    guard: &'g mut Guard<'w>,
}

/// Forwards methods for plain values.
macro_rules! forward {
    ($($method:ident: $kind:ident,)*) => {
        $(
            #[inline(always)]
            fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
                self.guard.shape.plain(Kind::$kind);
                self.inner.$method(visitor)
            }
        )*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for StrictDeserializer<'_, '_, D> {
    type Error = D::Error;

    forward! {
        deserialize_bool: Bool,
        deserialize_i8: I8,
        deserialize_i16: I16,
        deserialize_i32: I32,
        deserialize_i64: I64,
        deserialize_i128: I128,
        deserialize_u8: U8,
        deserialize_u16: U16,
        deserialize_u32: U32,
        deserialize_u64: U64,
        deserialize_u128: U128,
        deserialize_f32: F32,
        deserialize_f64: F64,
        deserialize_char: Char,
        deserialize_str: Str,
        deserialize_string: Str,
        deserialize_bytes: Bytes,
        deserialize_byte_buf: Bytes,
        deserialize_unit: Unit,
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, D::Error> {
        Err(not_self_describing())
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, D::Error> {
        Err(not_self_describing())
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, _: V) -> Result<V::Value, D::Error> {
        Err(not_self_describing())
    }

    #[inline]
    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.guard.shape.plain(Kind::Unit);
        self.inner.deserialize_unit_struct(name, visitor)
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.guard.descend()?;
        self.guard.shape.plain(Kind::Option);
        let visitor = WholeVisitor {
            visitor,
            guard: self.guard,
        };
        self.inner.deserialize_option(visitor)
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.guard.descend()?;
        let visitor = WholeVisitor {
            visitor,
            guard: self.guard,
        };
        self.inner.deserialize_newtype_struct(name, visitor)
    }

    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.guard.descend()?;
        self.guard.shape.seq();
        let visitor = PartsVisitor::all(visitor, self.guard);
        self.inner.deserialize_seq(visitor)
    }

    #[inline]
    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.guard.descend()?;
        self.guard.shape.tuple(length);
        let visitor = PartsVisitor::all(visitor, self.guard);
        self.inner.deserialize_tuple(length, visitor)
    }

    #[inline]
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.guard.descend()?;
        self.guard.shape.tuple(length);
        let visitor = PartsVisitor::all(visitor, self.guard);
        self.inner.deserialize_tuple_struct(name, length, visitor)
    }

    #[inline]
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.guard.descend()?;
        self.guard.shape.map();
        let visitor = PartsVisitor::all(visitor, self.guard);
        self.inner.deserialize_map(visitor)
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.guard.descend()?;
        let visitor = PartsVisitor::fields(visitor, self.guard, name, fields);
        self.inner.deserialize_struct(name, fields, visitor)
    }

    #[inline]
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.guard.descend()?;
        let visitor = EnumVisitor {
            visitor,
            guard: self.guard,
            name,
            variants,
        };
        self.inner.deserialize_enum(name, variants, visitor)
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// Wraps the visitor of an option or of a newtype.
struct WholeVisitor<'g, 'w, V> {
    visitor: V,
    guard: &'g mut Guard<'w>,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for WholeVisitor<'_, '_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }

    #[inline]
    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_none()
    }

    #[inline]
    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_unit()
    }

    #[inline]
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.visitor.visit_some(StrictDeserializer {
            inner: deserializer,
            guard: self.guard,
        })
    }

    #[inline]
    fn visit_newtype_struct<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<V::Value, D::Error> {
        self.visitor.visit_newtype_struct(StrictDeserializer {
            inner: deserializer,
            guard: self.guard,
        })
    }
}

/// Wraps the visitor of a value with parts.
struct PartsVisitor<'g, 'w, V> {
    visitor: V,
    guard: &'g mut Guard<'w>,
    /// The name of a structure, and the names of its fields.
    fields: Option<(&'static str, &'static [&'static str])>,
}

impl<'g, 'w, V> PartsVisitor<'g, 'w, V> {
    /// Wraps a visitor that has to take all parts.
    #[inline]
    fn all(visitor: V, guard: &'g mut Guard<'w>) -> Self {
        Self {
            visitor,
            guard,
            fields: None,
        }
    }

    /// Wraps a visitor that takes one part for each field. A field may have several names.
    #[inline]
    fn fields(
        visitor: V,
        guard: &'g mut Guard<'w>,
        name: &'static str,
        fields: &'static [&'static str],
    ) -> Self {
        Self {
            visitor,
            guard,
            fields: Some((name, fields)),
        }
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for PartsVisitor<'_, '_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }

    #[inline]
    fn visit_seq<A: SeqAccess<'de>>(self, parts: A) -> Result<V::Value, A::Error> {
        let length = parts.size_hint().unwrap_or_default();
        let mut taken = 0;
        let value = self.visitor.visit_seq(StrictParts {
            inner: parts,
            guard: &mut *self.guard,
            taken: &mut taken,
        })?;
        match self.fields {
            Some((name, fields)) => self.guard.fields(name, fields, taken)?,
            None => check_all_taken(taken, length)?,
        }
        Ok(value)
    }

    #[inline]
    fn visit_map<A: MapAccess<'de>>(self, parts: A) -> Result<V::Value, A::Error> {
        let length = parts.size_hint().unwrap_or_default();
        let mut taken = 0;
        let value = self.visitor.visit_map(StrictParts {
            inner: parts,
            guard: self.guard,
            taken: &mut taken,
        })?;
        check_all_taken(taken, length)?;
        Ok(value)
    }
}

#[inline]
fn check_all_taken<E: Error>(taken: usize, length: usize) -> Result<(), E> {
    if taken == length {
        Ok(())
    } else {
        Err(E::custom(format_args!(
            "its `Deserialize` has taken {taken} of {length} items, and the rest would be taken for other values"
        )))
    }
}

/// Wraps the access to the parts of a value, and counts those that are taken.
struct StrictParts<'g, 'w, A> {
    inner: A,
    guard: &'g mut Guard<'w>,
    taken: &'g mut usize,
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for StrictParts<'_, '_, A> {
    type Error = A::Error;

    #[inline(always)]
    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, A::Error> {
        let seed = StrictSeed {
            seed,
            guard: self.guard,
        };
        let element = self.inner.next_element_seed(seed)?;
        *self.taken += usize::from(element.is_some());
        Ok(element)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for StrictParts<'_, '_, A> {
    type Error = A::Error;

    #[inline]
    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        self.inner.next_key_seed(StrictSeed {
            seed,
            guard: self.guard,
        })
    }

    #[inline]
    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        *self.taken += 1;
        self.inner.next_value_seed(StrictSeed {
            seed,
            guard: self.guard,
        })
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

/// Wraps the visitor of an enum.
struct EnumVisitor<'g, 'w, V> {
    visitor: V,
    guard: &'g mut Guard<'w>,
    name: &'static str,
    variants: &'static [&'static str],
}

impl<'de, V: Visitor<'de>> Visitor<'de> for EnumVisitor<'_, '_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }

    #[inline]
    fn visit_enum<A: EnumAccess<'de>>(self, parts: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_enum(StrictVariant {
            inner: parts,
            guard: self.guard,
            name: self.name,
            variants: self.variants,
        })
    }
}

/// Wraps the access to an enum, or to its variant, whose name is then `name`.
struct StrictVariant<'g, 'w, A> {
    inner: A,
    guard: &'g mut Guard<'w>,
    name: &'static str,
    variants: &'static [&'static str],
}

impl<'de, 'g, 'w, A: EnumAccess<'de>> EnumAccess<'de> for StrictVariant<'g, 'w, A> {
    type Error = A::Error;
    type Variant = StrictVariant<'g, 'w, A::Variant>;

    #[inline]
    fn variant_seed<T: DeserializeSeed<'de>>(
        self,
        seed: T,
    ) -> Result<(T::Value, Self::Variant), A::Error> {
        let mut variant = "";
        let (value, inner) = self.inner.variant_seed(VariantSeed {
            seed,
            guard: self.guard,
            name: self.name,
            variants: self.variants,
            variant: &mut variant,
        })?;
        let access = StrictVariant {
            inner,
            guard: self.guard,
            name: variant,
            variants: self.variants,
        };
        Ok((value, access))
    }
}

/// Reads the tag of a variant, and gives its name to the seed.
struct VariantSeed<'g, 'w, T> {
    seed: T,
    guard: &'g mut Guard<'w>,
    name: &'static str,
    variants: &'static [&'static str],
    variant: &'g mut &'static str,
}

impl<'de, T: DeserializeSeed<'de>> DeserializeSeed<'de> for VariantSeed<'_, '_, T> {
    type Value = T::Value;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T::Value, D::Error> {
        let number = u32::deserialize(deserializer)?;
        let variant = self.guard.variant(self.name, self.variants, number)?;
        *self.variant = variant;
        self.seed.deserialize(BorrowedStrDeserializer::new(variant))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for StrictVariant<'_, '_, A> {
    type Error = A::Error;

    #[inline]
    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    #[inline]
    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, A::Error> {
        self.inner.newtype_variant_seed(StrictSeed {
            seed,
            guard: self.guard,
        })
    }

    #[inline]
    fn tuple_variant<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.guard.shape.tuple(length);
        let visitor = PartsVisitor::all(visitor, self.guard);
        self.inner.tuple_variant(length, visitor)
    }

    #[inline]
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        let visitor = PartsVisitor::fields(visitor, self.guard, self.name, fields);
        self.inner.struct_variant(fields, visitor)
    }
}
