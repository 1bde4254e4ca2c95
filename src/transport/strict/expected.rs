//! A value and its shape, as they are decoded: the counterpart of [`Outgoing`](super::Outgoing).

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};

use super::deserializer::StrictSeed;
use super::guard::{DISAGREE, Guard};
use super::messages::USE_DESCRIBED;
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
    value: std::marker::PhantomData<fn() -> T>,
}

impl<'w, T> Expected<'w, T> {
    #[inline]
    pub(in crate::transport) fn new(witness: Option<&'w Witness>) -> Self {
        Self {
            witness,
            value: std::marker::PhantomData,
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
            seed: std::marker::PhantomData::<T>,
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
