//! The checks that an encoding makes on its way, and the notes that it takes for the decoder.

use std::cell::Cell;

use serde::ser::Error;

use super::messages::{TOO_DEEP, USE_DESCRIBED};
use super::shape::{Kind, Names, Shape, Tag};
use super::witness::Witness;
use crate::sys::stack::StackLimit;

/// The checks and the notes of an encoding.
pub(in crate::transport) trait Rules {
    /// Called for a number, a text or another value without parts.
    fn plain<E: Error>(&self, kind: Kind) -> Result<(), E>;

    /// Called before a value that may nest others.
    fn descend<E: Error>(&self) -> Result<(), E>;

    /// Called before the value of an option.
    fn some<E: Error>(&self) -> Result<(), E>;

    /// Called for a value with parts, once it has passed [`descend`](Self::descend).
    fn parts(&self, note: impl FnOnce(&mut Shape));

    /// Returns the number by which a variant is written.
    fn variant(&self, name: &'static str, index: u32, variant: &'static str) -> u32;

    /// Called around the fields of a structure, and for each.
    fn open_fields(&self);
    fn field(&self, field: &'static str);
    fn close_fields(&self, name: &'static str, names: Names);

    /// Called for a field that is left out of this value.
    fn skip_field<E: Error>(&self, field: &'static str) -> Result<(), E>;

    /// Checks whether the length of a list or a map is known if it has to be.
    fn length<E: Error>(&self, length: Option<usize>) -> Result<(), E>;

    /// Called around each nested value.
    fn enter(&self) {}
    fn leave(&self) {}
}

/// The state of one encoding in the format of jobs, which does not describe itself.
pub(in crate::transport) struct Watch<'w> {
    pub(super) shape: Cell<Shape>,
    stack: StackCheck,
    witness: Option<&'w Witness>,
}

impl<'w> Watch<'w> {
    #[inline]
    pub(in crate::transport) fn new(witness: Option<&'w Witness>) -> Self {
        Self {
            shape: Cell::default(),
            stack: StackCheck::new(),
            witness,
        }
    }

    #[inline]
    fn note(&self, note: impl FnOnce(&mut Shape)) {
        let mut shape = self.shape.get();
        note(&mut shape);
        self.shape.set(shape);
    }
}

impl Rules for Watch<'_> {
    #[inline]
    fn plain<E: Error>(&self, kind: Kind) -> Result<(), E> {
        self.note(|shape| shape.plain(kind));
        Ok(())
    }

    #[inline]
    fn descend<E: Error>(&self) -> Result<(), E> {
        self.stack.descend()
    }

    #[inline]
    fn some<E: Error>(&self) -> Result<(), E> {
        self.stack.descend()?;
        self.plain(Kind::Option)
    }

    #[inline]
    fn parts(&self, note: impl FnOnce(&mut Shape)) {
        self.note(note);
    }

    #[inline]
    fn variant(&self, name: &'static str, index: u32, variant: &'static str) -> u32 {
        let tag = Tag::new(variant, index);
        self.note(|shape| shape.variant(tag));
        if let Some(witness) = self.witness {
            witness.variant(name, tag);
        }
        tag.to_number()
    }

    #[inline]
    fn open_fields(&self) {
        if let Some(witness) = self.witness {
            witness.open_fields();
        }
    }

    #[inline]
    fn field(&self, field: &'static str) {
        if let Some(witness) = self.witness {
            witness.field(field);
        }
    }

    #[inline]
    fn close_fields(&self, name: &'static str, names: Names) {
        self.note(|shape| shape.fields(names));
        if let Some(witness) = self.witness {
            witness.close_fields(name);
        }
    }

    fn skip_field<E: Error>(&self, field: &'static str) -> Result<(), E> {
        Err(E::custom(format_args!(
            "the field `{field}` is left out now and then, as by `#[serde(skip_serializing_if = ..)]`, and what follows \
             would be taken for it; {USE_DESCRIBED}"
        )))
    }

    #[inline]
    fn length<E: Error>(&self, length: Option<usize>) -> Result<(), E> {
        if length.is_some() {
            return Ok(());
        }
        Err(E::custom(format_args!(
            "it has a list or a map that does not say beforehand how long it is, as with `#[serde(flatten)]`; \
             {USE_DESCRIBED}"
        )))
    }
}

/// Compares the stack that is left with what nested values need.
pub(in crate::transport) struct StackCheck(Cell<StackLimit>);

impl StackCheck {
    #[inline]
    pub(in crate::transport) fn new() -> Self {
        Self(Cell::new(StackLimit::UNKNOWN))
    }

    #[inline]
    pub(in crate::transport) fn descend<E: Error>(&self) -> Result<(), E> {
        let mut limit = self.0.get();
        if limit.has_room() {
            return Ok(());
        }
        let has_room = limit.has_room_indeed();
        self.0.set(limit);
        if has_room {
            Ok(())
        } else {
            Err(E::custom(TOO_DEEP))
        }
    }
}
