//! A digest of the types and names that one direction of a value's encoding has seen.
//!
//! Numbers are the most frequent parts, so that theirs must cost next to nothing: an addition of a
//! constant. All other parts are mixed in order.

/// Part of the digest for a plain value.
#[derive(Clone, Copy)]
#[repr(u64)]
pub(in crate::transport) enum Kind {
    Bool = 1,
    I8,
    I16,
    I32,
    I64,
    I128,
    U8,
    U16,
    U32,
    U64,
    U128,
    F32,
    F64,
    Char,
    Str,
    Bytes,
    Option,
    Unit,
}

const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
const SEQ: u64 = 0x5e90_0000_0000_0001;
const MAP: u64 = 0x3a90_0000_0000_0002;
const TUPLE: u64 = 0x7091_0000_0000_0003;

/// The digest. Both directions must call the same methods in the same order.
#[derive(Clone, Copy, Default)]
pub(in crate::transport) struct Shape {
    /// Zero until there is a part that is not plain.
    ordered: u64,
    plain: u64,
}

impl Shape {
    #[inline]
    pub(super) fn plain(&mut self, kind: Kind) {
        self.plain = self.plain.wrapping_add((kind as u64).wrapping_mul(FACTOR));
    }

    #[inline]
    pub(super) fn seq(&mut self) {
        self.mix(SEQ);
    }

    #[inline]
    pub(super) fn map(&mut self) {
        self.mix(MAP);
    }

    #[inline]
    pub(super) fn tuple(&mut self, length: usize) {
        self.mix(TUPLE.wrapping_add((length as u64) << 8));
    }

    #[inline]
    pub(super) fn fields(&mut self, names: Names) {
        self.mix(names.0);
    }

    #[inline]
    pub(super) fn variant(&mut self, tag: Tag) {
        self.mix(tag.name ^ u64::from(tag.index));
    }

    #[inline]
    fn mix(&mut self, part: u64) {
        self.ordered = mix(self.ordered, part);
    }

    /// Returns the digest as it follows the value; `None` for a single number or text, which it
    /// does not follow.
    #[inline]
    pub(super) fn digest(self) -> Option<u64> {
        (self.ordered != 0).then(|| mix(self.ordered, self.plain))
    }
}

#[inline]
fn mix(digest: u64, part: u64) -> u64 {
    (digest.rotate_left(5) ^ part).wrapping_mul(FACTOR)
}

/// A digest of the names of fields, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transport) struct Names(u64);

impl Names {
    pub(super) const NONE: Self = Self(1);

    #[inline]
    pub(super) fn add(&mut self, name: &str) {
        self.0 = mix(self.0, hash(name));
    }

    #[inline]
    pub(super) fn of(names: &[&str]) -> Self {
        let mut all = Self::NONE;
        for name in names {
            all.add(name);
        }
        all
    }
}

/// The bits of a written tag that hold the index of the variant.
const INDEX_BITS: u32 = 10;

/// A variant as its encoder names and numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Tag {
    /// A hash of the name.
    name: u64,
    /// The low bits of the index.
    index: u32,
}

impl Tag {
    #[inline]
    pub(super) fn new(name: &str, index: u32) -> Self {
        Self {
            name: hash(name),
            index: index & ((1 << INDEX_BITS) - 1),
        }
    }

    /// Returns what is written: part of the hash, and part of the index.
    #[inline]
    pub(super) fn to_number(self) -> u32 {
        ((self.name >> 32) as u32) << INDEX_BITS | self.index
    }

    /// Finds the variant whose tag was written as `number` among `variants`. Returns its tag and
    /// its position, or `None` if there is none, or more than one.
    #[inline]
    pub(super) fn find(number: u32, variants: &[&'static str]) -> Option<(Self, usize)> {
        let index = number & ((1 << INDEX_BITS) - 1);
        let tag_at = |position: usize| {
            let tag = Self::new(variants.get(position)?, index);
            (tag.to_number() == number).then_some((tag, position))
        };
        // Where neither variants are skipped nor names are aliases, the index is the position.
        tag_at(index as usize).or_else(|| {
            let mut found = (0..variants.len()).filter_map(tag_at);
            found.next().filter(|_| found.next().is_none())
        })
    }

    /// Returns the low bits of the index.
    #[inline]
    pub(super) fn index(self) -> u32 {
        self.index
    }
}

/// Returns a hash of a name. Compilers evaluate it for the names in derived code.
#[inline]
fn hash(name: &str) -> u64 {
    let bytes = name.as_bytes();
    let start = mix(0, bytes.len() as u64);
    let Some(last) = bytes.last_chunk() else {
        return mix(start, short_word(bytes));
    };
    let mut hash = start;
    let mut rest = bytes;
    while let Some((word, after)) = rest.split_first_chunk() {
        hash = mix(hash, u64::from_le_bytes(*word));
        rest = after;
    }
    mix(hash, u64::from_le_bytes(*last))
}

/// Returns all of fewer than eight bytes.
#[inline]
fn short_word(bytes: &[u8]) -> u64 {
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        return u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last));
    }
    match *bytes {
        [] => 0,
        [only] => u64::from(only),
        [first, last] => u64::from(first) << 8 | u64::from(last),
        [first, second, last, ..] => {
            u64::from(first) << 16 | u64::from(second) << 8 | u64::from(last)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_tells_order_names_lengths_and_kinds_apart() {
        let calls: [fn(&mut Shape); 14] = [
            |shape| shape.tuple(2),
            |shape| shape.tuple(3),
            Shape::seq,
            Shape::map,
            |shape| shape.fields(Names::of(&["a", "b"])),
            |shape| shape.fields(Names::of(&["b", "a"])),
            |shape| shape.fields(Names::of(&["ab"])),
            |shape| shape.variant(Tag::new("a", 0)),
            |shape| shape.variant(Tag::new("a", 1)),
            |shape| shape.variant(Tag::new("b", 0)),
            |shape| {
                shape.tuple(2);
                shape.plain(Kind::F64);
            },
            |shape| {
                shape.tuple(2);
                shape.plain(Kind::U64);
            },
            |shape| {
                shape.seq();
                shape.tuple(2);
            },
            |shape| {
                shape.tuple(2);
                shape.seq();
            },
        ];
        let digests = calls.map(|call| {
            let mut shape = Shape::default();
            call(&mut shape);
            shape.digest().unwrap()
        });
        for (index, digest) in digests.iter().enumerate() {
            assert!(!digests[..index].contains(digest), "{index}");
        }
    }

    #[test]
    fn a_variant_is_found_at_its_index_or_wherever_its_name_is() {
        let variants = ["one", "two", "three"];
        let find = |name, index| Tag::find(Tag::new(name, index).to_number(), &variants);
        assert_eq!(find("two", 1).unwrap().1, 1);
        assert_eq!(find("two", 700).unwrap().1, 1);
        assert_eq!(find("two", 700).unwrap().0.index(), 700);
        assert_eq!(find("four", 1), None);
        assert_eq!(
            Tag::find(Tag::new("a", 9).to_number(), &["a", "b", "a"]),
            None
        );
    }

    #[test]
    fn names_that_differ_in_one_place_have_different_hashes() {
        let names = [
            "",
            "a",
            "aa",
            "a\0",
            "eight_ch",
            "eight_chr",
            "eight_cha_and_more",
            "eight_cha_and_mord",
        ];
        for (index, name) in names.iter().enumerate() {
            assert!(
                names[..index].iter().all(|other| hash(other) != hash(name)),
                "{name}"
            );
        }
    }
}
