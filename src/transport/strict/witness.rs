//! Records the names with which a decoded value is encoded.
//!
//! A derived `Deserialize` lists all names that it accepts, aliases included, and leaves out what
//! it skips. So it does not tell which name and which number its `Serialize` uses for a variant or
//! a field. The decoded value does, when it is encoded again: a variant that was decoded as the
//! wrong one is encoded differently from what arrived.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};

use super::shape::{Names, Tag};

/// Records the variants and the fields of a value while it is encoded.
#[derive(Debug, Default)]
pub(in crate::transport) struct Witness(RefCell<Records>);

#[derive(Debug, Default)]
struct Records {
    /// How often each variant occurs, with the name of its enum.
    variants: HashMap<(&'static str, Tag), usize>,
    /// The lists of fields that occur, with the name of their structure.
    fields: HashMap<&'static str, Vec<Vec<&'static str>>>,
    /// The fields so far of the structures that are being encoded.
    open: Vec<Vec<&'static str>>,
    /// For each enum that is decoded, the positions of the variants by their indices.
    positions: HashMap<(&'static str, usize), BTreeMap<u32, usize>>,
}

impl Witness {
    pub(super) fn variant(&self, name: &'static str, tag: Tag) {
        let records = &mut *self.0.borrow_mut();
        *records.variants.entry((name, tag)).or_default() += 1;
    }

    pub(super) fn open_fields(&self) {
        self.0.borrow_mut().open.push(Vec::new());
    }

    pub(super) fn field(&self, field: &'static str) {
        if let Some(fields) = self.0.borrow_mut().open.last_mut() {
            fields.push(field);
        }
    }

    pub(super) fn close_fields(&self, name: &'static str) {
        let records = &mut *self.0.borrow_mut();
        let fields = records.open.pop().unwrap_or_default();
        let known = records.fields.entry(name).or_default();
        if !known.contains(&fields) {
            known.push(fields);
        }
    }

    /// Checks a decoded variant, at `position` in the list of `variants`: the value must have been
    /// encoded with it, as often as it is decoded.
    ///
    /// A type that exchanges names would pass if all of them occur. So the order of the positions
    /// must be that of the indices, too, as aliases and skipped variants leave it.
    pub(super) fn check_variant(
        &self,
        name: &'static str,
        variants: &'static [&'static str],
        tag: Tag,
        position: usize,
    ) -> bool {
        let records = &mut *self.0.borrow_mut();
        let Some(left @ 1..) = records.variants.get_mut(&(name, tag)) else {
            return false;
        };
        *left -= 1;
        let index = tag.index();
        let key = (name, variants.as_ptr().addr());
        let positions = records.positions.entry(key).or_default();
        positions.insert(index, position);
        let before = positions.range(..index).next_back();
        let after = positions.range(index + 1..).next();
        before.is_none_or(|(_, before)| *before < position)
            && after.is_none_or(|(_, after)| *after > position)
    }

    /// Returns the names by which a structure with `count` fields was encoded, out of the
    /// `accepted` ones, which are in the order of the fields.
    pub(super) fn fields(
        &self,
        name: &'static str,
        accepted: &[&'static str],
        count: usize,
    ) -> Option<Names> {
        let records = self.0.borrow();
        let fields = records.fields.get(name)?.iter().find(|fields| {
            let mut accepted = accepted.iter();
            fields.len() == count
                && fields
                    .iter()
                    .all(|field| accepted.any(|name| name == field))
        });
        fields.map(|fields| Names::of(fields))
    }
}
