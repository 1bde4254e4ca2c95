//! The encoding direction: forwards to the serializer of the format, and refuses what the decoder
//! would mistake.
//!
//! Fields that are skipped now and then are refused at once. Each nested value is wrapped again, so
//! that it meets this serializer; the types do not grow with the depth.

use std::fmt;

use serde::ser::{
    Error, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
    SerializeTuple, SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

use super::rules::{Rules, Watch};
use super::shape::{Kind, Names, Shape};

/// A value together with its shape, as they are sent.
pub(in crate::transport) struct Outgoing<'a, T: ?Sized>(
    pub(in crate::transport) &'a T,
    pub(in crate::transport) &'a Watch<'a>,
);

impl<T: Serialize + ?Sized> Serialize for Outgoing<'_, T> {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut parts = serializer.serialize_tuple(2)?;
        parts.serialize_element(&Strict(self.0, self.1))?;
        if let Some(digest) = self.1.shape.get().digest() {
            parts.serialize_element(&digest)?;
        }
        parts.end()
    }
}

/// A value that is serialized with a [`StrictSerializer`].
pub(in crate::transport) struct Strict<'a, T: ?Sized, R>(
    pub(in crate::transport) &'a T,
    pub(in crate::transport) &'a R,
);

impl<T: Serialize + ?Sized, R: Rules> Serialize for Strict<'_, T, R> {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.1.enter();
        let serialized = self.0.serialize(StrictSerializer {
            inner: serializer,
            rules: self.1,
        });
        self.1.leave();
        serialized
    }
}

/// Wraps a serializer.
struct StrictSerializer<'w, S, R> {
    inner: S,
    rules: &'w R,
}

/// Wraps the serializer of parts without names.
struct StrictParts<'w, S, R> {
    inner: S,
    rules: &'w R,
    /// How many of the announced parts are left.
    left: Option<usize>,
}

impl<'w, S, R> StrictParts<'w, S, R> {
    #[inline]
    fn new<E>(rules: &'w R, length: Option<usize>, inner: Result<S, E>) -> Result<Self, E> {
        inner.map(|inner| Self {
            inner,
            rules,
            left: length,
        })
    }

    #[inline]
    fn part<'a, T: ?Sized>(&mut self, value: &'a T) -> Strict<'a, T, R>
    where
        'w: 'a,
    {
        self.left = self.left.map(|left| left.wrapping_sub(1));
        Strict(value, self.rules)
    }

    #[inline]
    fn check_length<E: Error>(&self) -> Result<(), E> {
        if self.left.is_none_or(|left| left == 0) {
            Ok(())
        } else {
            Err(E::custom(
                "its `Serialize` announces another number of items than it writes",
            ))
        }
    }
}

/// Wraps the serializer of the fields of a structure.
struct StrictFields<'w, S, R> {
    inner: S,
    rules: &'w R,
    name: &'static str,
    names: Names,
}

impl<'w, S, R: Rules> StrictFields<'w, S, R> {
    #[inline]
    fn new(rules: &'w R, name: &'static str, inner: S) -> Self {
        rules.open_fields();
        Self {
            inner,
            rules,
            name,
            names: Names::NONE,
        }
    }
}

/// Forwards methods that take a plain value.
macro_rules! forward {
    ($($method:ident: $type:ty, $kind:ident;)*) => {
        $(
            #[inline]
            fn $method(self, value: $type) -> Result<S::Ok, S::Error> {
                self.rules.plain(Kind::$kind)?;
                self.inner.$method(value)
            }
        )*
    };
}

impl<'w, S: Serializer, R: Rules> Serializer for StrictSerializer<'w, S, R> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = StrictParts<'w, S::SerializeSeq, R>;
    type SerializeTuple = StrictParts<'w, S::SerializeTuple, R>;
    type SerializeTupleStruct = StrictParts<'w, S::SerializeTupleStruct, R>;
    type SerializeTupleVariant = StrictParts<'w, S::SerializeTupleVariant, R>;
    type SerializeMap = StrictParts<'w, S::SerializeMap, R>;
    type SerializeStruct = StrictFields<'w, S::SerializeStruct, R>;
    type SerializeStructVariant = StrictFields<'w, S::SerializeStructVariant, R>;

    forward! {
        serialize_bool: bool, Bool;
        serialize_i8: i8, I8;
        serialize_i16: i16, I16;
        serialize_i32: i32, I32;
        serialize_i64: i64, I64;
        serialize_i128: i128, I128;
        serialize_u8: u8, U8;
        serialize_u16: u16, U16;
        serialize_u32: u32, U32;
        serialize_u64: u64, U64;
        serialize_u128: u128, U128;
        serialize_f32: f32, F32;
        serialize_f64: f64, F64;
        serialize_char: char, Char;
        serialize_str: &str, Str;
        serialize_bytes: &[u8], Bytes;
        serialize_unit_struct: &'static str, Unit;
    }

    #[inline]
    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.rules.plain(Kind::Option)?;
        self.inner.serialize_none()
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.rules.some()?;
        self.inner.serialize_some(&Strict(value, self.rules))
    }

    #[inline]
    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        self.rules.plain(Kind::Unit)?;
        self.inner.serialize_unit()
    }

    #[inline]
    fn serialize_unit_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
    ) -> Result<S::Ok, S::Error> {
        let tag = self.rules.variant(name, index, variant);
        self.inner.serialize_unit_variant(name, tag, variant)
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.rules.descend()?;
        self.inner
            .serialize_newtype_struct(name, &Strict(value, self.rules))
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.rules.descend()?;
        let tag = self.rules.variant(name, index, variant);
        self.inner
            .serialize_newtype_variant(name, tag, variant, &Strict(value, self.rules))
    }

    #[inline]
    fn serialize_seq(self, length: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        self.rules.descend()?;
        self.rules.length(length)?;
        self.rules.parts(Shape::seq);
        StrictParts::new(self.rules, length, self.inner.serialize_seq(length))
    }

    #[inline]
    fn serialize_tuple(self, length: usize) -> Result<Self::SerializeTuple, S::Error> {
        self.rules.descend()?;
        self.rules.parts(|shape| shape.tuple(length));
        StrictParts::new(self.rules, Some(length), self.inner.serialize_tuple(length))
    }

    #[inline]
    fn serialize_tuple_struct(
        self,
        name: &'static str,
        length: usize,
    ) -> Result<Self::SerializeTupleStruct, S::Error> {
        self.rules.descend()?;
        self.rules.parts(|shape| shape.tuple(length));
        StrictParts::new(
            self.rules,
            Some(length),
            self.inner.serialize_tuple_struct(name, length),
        )
    }

    #[inline]
    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        self.rules.descend()?;
        let tag = self.rules.variant(name, index, variant);
        self.rules.parts(|shape| shape.tuple(length));
        let parts = self
            .inner
            .serialize_tuple_variant(name, tag, variant, length);
        StrictParts::new(self.rules, Some(length), parts)
    }

    #[inline]
    fn serialize_map(self, length: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        self.rules.descend()?;
        self.rules.length(length)?;
        self.rules.parts(Shape::map);
        StrictParts::new(self.rules, length, self.inner.serialize_map(length))
    }

    #[inline]
    fn serialize_struct(
        self,
        name: &'static str,
        length: usize,
    ) -> Result<Self::SerializeStruct, S::Error> {
        self.rules.descend()?;
        let inner = self.inner.serialize_struct(name, length)?;
        Ok(StrictFields::new(self.rules, name, inner))
    }

    #[inline]
    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        self.rules.descend()?;
        let tag = self.rules.variant(name, index, variant);
        let inner = self
            .inner
            .serialize_struct_variant(name, tag, variant, length)?;
        Ok(StrictFields::new(self.rules, variant, inner))
    }

    #[inline]
    fn collect_str<T: fmt::Display + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.rules.plain(Kind::Str)?;
        self.inner.collect_str(value)
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// Forwards the parts of a value that have no names.
macro_rules! parts {
    ($($of:ident: $method:ident,)*) => {
        $(
            impl<S: $of, R: Rules> $of for StrictParts<'_, S, R> {
                type Ok = S::Ok;
                type Error = S::Error;

                #[inline]
                fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
                    let part = self.part(value);
                    self.inner.$method(&part)
                }

                #[inline]
                fn end(self) -> Result<S::Ok, S::Error> {
                    self.check_length()?;
                    self.inner.end()
                }
            }
        )*
    };
}

parts! {
    SerializeSeq: serialize_element,
    SerializeTuple: serialize_element,
    SerializeTupleStruct: serialize_field,
    SerializeTupleVariant: serialize_field,
}

impl<S: SerializeMap, R: Rules> SerializeMap for StrictParts<'_, S, R> {
    type Ok = S::Ok;
    type Error = S::Error;

    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), S::Error> {
        let key = self.part(key);
        self.inner.serialize_key(&key)
    }

    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
        self.inner.serialize_value(&Strict(value, self.rules))
    }

    #[inline]
    fn end(self) -> Result<S::Ok, S::Error> {
        self.check_length()?;
        self.inner.end()
    }
}

/// Forwards fields with names, and refuses skipped ones.
macro_rules! fields {
    ($($of:ident,)*) => {
        $(
            impl<S: $of, R: Rules> $of for StrictFields<'_, S, R> {
                type Ok = S::Ok;
                type Error = S::Error;

                #[inline]
                fn serialize_field<T: Serialize + ?Sized>(
                    &mut self,
                    name: &'static str,
                    value: &T,
                ) -> Result<(), S::Error> {
                    self.names.add(name);
                    self.rules.field(name);
                    self.inner.serialize_field(name, &Strict(value, self.rules))
                }

                fn skip_field(&mut self, name: &'static str) -> Result<(), S::Error> {
                    self.rules.skip_field(name)?;
                    self.inner.skip_field(name)
                }

                #[inline]
                fn end(self) -> Result<S::Ok, S::Error> {
                    self.rules.close_fields(self.name, self.names);
                    self.inner.end()
                }
            }
        )*
    };
}

fields! {
    SerializeStruct,
    SerializeStructVariant,
}
