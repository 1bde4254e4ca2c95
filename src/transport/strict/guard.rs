//! The state of one decoding: what it has seen, and the errors of what it must not accept.

use serde::de::Error;

use super::messages::{TOO_DEEP, USE_DESCRIBED};
use super::shape::{Names, Shape, Tag};
use super::witness::Witness;
use crate::sys::stack::StackLimit;

pub(super) const DISAGREE: &str =
    "its `Serialize` and its `Deserialize` disagree, so that another value would come out";

/// The state of one decoding.
pub(super) struct Guard<'w> {
    pub(super) shape: Shape,
    stack: StackLimit,
    witness: Option<&'w Witness>,
    /// Whether only a [`Witness`] can tell if the value is right.
    pub(super) needs_witness: bool,
    known: [KnownFields; KNOWN_FIELDS],
}

/// The digest of a list of names, which is found by its address.
#[derive(Clone, Copy)]
struct KnownFields(&'static [&'static str], Names);

const KNOWN_FIELDS: usize = 4;

impl<'w> Guard<'w> {
    #[inline]
    pub(super) fn new(witness: Option<&'w Witness>) -> Self {
        Self {
            shape: Shape::default(),
            stack: StackLimit::UNKNOWN,
            witness,
            needs_witness: false,
            known: [KnownFields(&[], Names::NONE); KNOWN_FIELDS],
        }
    }

    /// Called for each value that has parts.
    #[inline]
    pub(super) fn descend<E: Error>(&mut self) -> Result<(), E> {
        if self.stack.has_room() || self.stack.has_room_indeed() {
            Ok(())
        } else {
            Err(E::custom(TOO_DEEP))
        }
    }

    /// Notes the fields of a structure, of which the visitor has taken `count`. `accepted` are
    /// their names and aliases.
    #[inline]
    pub(super) fn fields<E: Error>(
        &mut self,
        name: &'static str,
        accepted: &'static [&'static str],
        count: usize,
    ) -> Result<(), E> {
        let names = if count == accepted.len() {
            self.names(accepted)
        } else {
            self.aliased_fields(name, accepted, count)?
        };
        self.shape.fields(names);
        Ok(())
    }

    /// Returns the digest of a list of names. A list of structures needs that of the same names
    /// many times.
    #[inline]
    fn names(&mut self, names: &'static [&'static str]) -> Names {
        let known = &mut self.known[names.as_ptr().addr() / 16 % KNOWN_FIELDS];
        if !std::ptr::eq(known.0, names) {
            *known = KnownFields(names, Names::of(names));
        }
        known.1
    }

    #[cold]
    fn aliased_fields<E: Error>(
        &mut self,
        name: &'static str,
        accepted: &'static [&'static str],
        count: usize,
    ) -> Result<Names, E> {
        let Some(witness) = self.witness else {
            self.needs_witness = true;
            return Ok(Names::NONE);
        };
        witness.fields(name, accepted, count).ok_or_else(|| {
            E::custom(format_args!(
                "`{name}` is encoded with other fields than it is decoded with ({}): {DISAGREE}, as with \
                 `#[serde(skip_serializing)]`; {USE_DESCRIBED}",
                accepted.join(", ")
            ))
        })
    }

    /// Finds a variant, and notes it.
    #[inline]
    pub(super) fn variant<E: Error>(
        &mut self,
        name: &'static str,
        variants: &'static [&'static str],
        number: u32,
    ) -> Result<&'static str, E> {
        let Some((tag, position)) = Tag::find(number, variants) else {
            return Err(unknown_variant(name, variants));
        };
        if tag.index() as usize != position || self.witness.is_some() {
            self.check_variant(name, variants, tag, position)?;
        }
        self.shape.variant(tag);
        Ok(variants[position])
    }

    #[cold]
    fn check_variant<E: Error>(
        &mut self,
        name: &'static str,
        variants: &'static [&'static str],
        tag: Tag,
        position: usize,
    ) -> Result<(), E> {
        let Some(witness) = self.witness else {
            self.needs_witness = true;
            return Ok(());
        };
        if witness.check_variant(name, variants, tag, position) {
            return Ok(());
        }
        Err(E::custom(format_args!(
            "what is encoded as `{name}::{}` is decoded as another variant: {DISAGREE}, as with \
             `#[serde(rename(serialize = .., deserialize = ..))]`",
            variants[position]
        )))
    }
}

#[cold]
fn unknown_variant<E: Error>(name: &str, variants: &[&str]) -> E {
    E::custom(format_args!(
        "the variant of `{name}` that was sent is none of those that can be decoded ({}), as with \
         `#[serde(skip_deserializing)]` and `#[serde(rename(serialize = .., deserialize = ..))]`",
        variants.join(", ")
    ))
}
