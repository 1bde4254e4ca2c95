//! Writes the encoding of a value: into its frame or, if it is large, into memory attached to the
//! frame.
//!
//! A frame is copied into the socket and out of it again, and its receiver does not trust the
//! announced length, so it reserves memory bit by bit. A value in attached memory is written once
//! and decoded in place. That is sound if no process changes the memory while it is read:
//!
//! * A worker sends values in *sealed* memory (see [`crate::sys::memory`]), which no process can
//!   change. A parent must not decode memory that its worker could still write.
//! * A parent sends values in an *arena* (see [`crate::sys::arena`]), which the parent alone can
//!   write, and does not write until it has the answer. Then the arena is used again. Where there
//!   can be no arena, the parent sends sealed memory.
//!
//! An argument of 64 MiB took 139 ms of processor time through the socket, 63 ms in sealed memory,
//! and about half of that in an arena that had been used before: fresh pages are what costs.
//!
//! If the sender cannot have the memory, because descriptors, memory or the size of files are
//! limited, it reads back what it has written, and the frame holds the whole value. (If the
//! receiver has no descriptor left, this one call fails. Workers whose open files are limited get
//! all values in frames.)

use std::io;

use bincode::enc::write::Writer;
use bincode::error::EncodeError;

use super::arena_pool::{ArenaPool, Need};
use super::inline::{PAGE, RegionBuilder};
use super::payload_ref::{PayloadRef, Tag};
use super::store::{Store, Written};
use crate::sys::socket::MAX_FDS;
use crate::transport::tuning::{MAX_PAYLOAD_IN_FRAME, WRITE_CHUNK};

/// Collects the encoding of one value.
#[derive(Debug)]
pub(in crate::transport) struct Encoding<'a> {
    frame: &'a mut Vec<u8>,
    /// Index of the tag in the frame. The bytes behind it have not been written to the memory.
    start: usize,
    /// The length that the frame may have before the bytes are written to the memory.
    limit: usize,
    memory: Memory<'a>,
    pool: Option<&'a ArenaPool>,
}

#[derive(Debug)]
enum Memory<'a> {
    /// The value is small so far.
    None,
    Some(Store<'a>),
    Unavailable,
}

impl<'a> Encoding<'a> {
    /// Starts to append to `frame`. Memory comes from `pool`, if there is one, and is sealed
    /// otherwise.
    pub(in crate::transport) fn begin(frame: &'a mut Vec<u8>, pool: Option<&'a ArenaPool>) -> Self {
        let start = frame.len();
        frame.push(Tag::InFrame as u8);
        Self {
            frame,
            start,
            limit: start + 1 + MAX_PAYLOAD_IN_FRAME,
            memory: Memory::None,
            pool,
        }
    }

    /// Starts to append to `frame`, whatever the length of the value.
    pub(in crate::transport) fn begin_in_frame(frame: &'a mut Vec<u8>) -> Self {
        Self {
            limit: usize::MAX,
            memory: Memory::Unavailable,
            ..Self::begin(frame, None)
        }
    }

    /// Returns the bytes that have not been written to the memory.
    fn pending(&self) -> &[u8] {
        &self.frame[self.start + 1..]
    }

    /// Appends bytes to the encoding. Called for each number of which a value consists.
    #[inline]
    fn push(&mut self, bytes: &[u8]) {
        if bytes.len() <= self.limit - self.frame.len() {
            self.frame.extend_from_slice(bytes);
        } else {
            self.push_beyond_limit(bytes);
        }
    }

    #[cold]
    fn push_beyond_limit(&mut self, bytes: &[u8]) {
        let known = self.pending().len() + bytes.len();
        let is_chunk = bytes.len() <= WRITE_CHUNK;
        let need = if is_chunk {
            // A value that has reached this length in small steps probably goes on.
            Need::AtLeast(known)
        } else {
            Need::Exactly(known)
        };
        let is_written = self.write_out(need) && !is_chunk && self.append(bytes);
        if !is_written {
            self.frame.extend_from_slice(bytes);
        }
    }

    /// Writes the pending bytes to the memory, which is obtained first if `self` has none, for as
    /// many bytes as `need` says. Returns `false` if that is not possible; then the frame has the
    /// whole encoding again.
    fn write_out(&mut self, need: Need) -> bool {
        if let Memory::None = self.memory {
            self.limit = self.start + 1 + WRITE_CHUNK;
            self.memory = Store::new(need, self.pool).map_or(Memory::Unavailable, Memory::Some);
        }
        let Memory::Some(store) = &mut self.memory else {
            return self.give_up();
        };
        match store.append(&self.frame[self.start + 1..]) {
            Ok(()) => {
                self.frame.truncate(self.start + 1);
                true
            }
            Err(_) => self.give_up(),
        }
    }

    /// Writes bytes to the memory when none are pending. Returns `false` like
    /// [`write_out`](Self::write_out).
    fn append(&mut self, bytes: &[u8]) -> bool {
        let Memory::Some(store) = &mut self.memory else {
            return false;
        };
        store.append(bytes).is_ok() || self.give_up()
    }

    /// Moves the written bytes back into the frame. Returns `false`.
    fn give_up(&mut self) -> bool {
        self.limit = usize::MAX;
        if let Memory::Some(store) = std::mem::replace(&mut self.memory, Memory::Unavailable) {
            let pending = self.frame.split_off(self.start + 1);
            store
                .read_onto(self.frame)
                .expect("bytes that were written to memory can be read");
            self.frame.extend_from_slice(&pending);
        }
        false
    }

    /// Restores the frame as it was at the beginning.
    pub(in crate::transport) fn undo(self) {
        self.frame.truncate(self.start);
    }

    /// Ends the encoding. The message has `others` descriptors already, and `regions` are written
    /// behind the encoding. Returns the memory of the encoding, if it has some.
    pub(in crate::transport) fn finish(
        mut self,
        others: usize,
        regions: &RegionBuilder,
    ) -> Option<Written> {
        let is_small = match self.memory {
            Memory::None => self.pending().len() + regions.len() <= MAX_PAYLOAD_IN_FRAME,
            Memory::Some(_) => false,
            Memory::Unavailable => true,
        };
        if is_small || others == MAX_FDS {
            self.give_up();
            self.append_in_frame(regions);
            return None;
        }
        let need = self.pending().len().next_multiple_of(PAGE) + regions.len();
        if !self.write_out(Need::Exactly(need)) {
            self.append_in_frame(regions);
            return None;
        }
        let Memory::Some(mut store) = std::mem::replace(&mut self.memory, Memory::Unavailable)
        else {
            unreachable!("`write_out` has just written to it")
        };
        // The bytes came from slices, so their number is a `usize`.
        let encoding = store.len() as usize;
        let appended = append_in_memory(&mut store, regions);
        let length = store.len() as usize;
        let finished = match appended {
            Ok(()) => store.finish(),
            Err(_) => Err(store),
        };
        match finished {
            Ok(written) => {
                self.write_ref(&written, encoding, length);
                return Some(written);
            }
            Err(store) => self.memory = Memory::Some(store),
        }
        self.give_up();
        self.frame.truncate(self.start + 1 + encoding);
        self.append_in_frame(regions);
        None
    }

    /// Writes the tag and the [`PayloadRef`] into the frame.
    fn write_ref(&mut self, written: &Written, encoding: usize, length: usize) {
        let (tag, arena) = match written {
            Written::Sealed(_) => (Tag::Sealed, 0),
            Written::Lent(lent) => (Tag::Lent, lent.id()),
        };
        self.frame[self.start] = tag as u8;
        let payload_ref = PayloadRef {
            encoding,
            length,
            arena,
        };
        self.frame.extend_from_slice(&payload_ref.to_bytes());
    }

    fn append_in_frame(&mut self, regions: &RegionBuilder) {
        if regions.is_empty() {
            return;
        }
        self.frame[self.start] = Tag::InFrameWithRegion as u8;
        let encoding = self.pending().len() as u64;
        let base = self.frame.len();
        for (offset, bytes) in regions.iter() {
            self.frame.resize(base + offset, 0);
            self.frame.extend_from_slice(bytes);
        }
        self.frame.extend_from_slice(&encoding.to_le_bytes());
    }
}

fn append_in_memory(store: &mut Store<'_>, regions: &RegionBuilder) -> io::Result<()> {
    if regions.is_empty() {
        return Ok(());
    }
    let base = store.len().next_multiple_of(PAGE as u64);
    for (offset, bytes) in regions.iter() {
        // The gap is written too, so that each page of the memory exists. It is less than a page.
        let gap = base + offset as u64 - store.len();
        store.append(&[0; PAGE][..gap as usize])?;
        store.append(bytes)?;
    }
    Ok(())
}

impl Writer for Encoding<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.push(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::memory::Refused;
    use crate::transport::codec::{decode_received, encode_with_attachments};
    use crate::transport::codec_error::CodecError;
    use crate::transport::payload::attachment_error::AttachmentError;
    use crate::transport::payload::incoming::{EncodedBytes, Incoming, encoded_len};
    use crate::transport::tuning::HUGE_PAGE_MIN;
    use proptest::prelude::*;
    use std::os::fd::{AsFd, OwnedFd};
    use std::sync::Arc;

    /// Encodes `pieces` behind other bytes. Returns the frame and the memory, if there is any.
    fn encoding_of(pieces: &[Vec<u8>], others: usize) -> (Vec<u8>, Option<Arc<OwnedFd>>) {
        let mut frame = b"before".to_vec();
        let mut encoding = Encoding::begin(&mut frame, None);
        for piece in pieces {
            encoding.push(piece);
        }
        let memory =
            encoding
                .finish(others, &RegionBuilder::default())
                .map(|written| match written {
                    Written::Sealed(file) => Arc::new(file),
                    Written::Lent(_) => unreachable!("there is no pool"),
                });
        (frame, memory)
    }

    /// Returns the encoding as its receiver sees it.
    fn received((frame, memory): &(Vec<u8>, Option<Arc<OwnedFd>>)) -> Vec<u8> {
        assert_eq!(&frame[..6], b"before");
        let fds: Vec<OwnedFd> = memory.iter().map(|fd| fd.try_clone().unwrap()).collect();
        let incoming = Incoming::from_worker(&frame[6..], fds).unwrap();
        match &incoming.encoding {
            EncodedBytes::InFrame(bytes) => bytes.to_vec(),
            EncodedBytes::InMemory(memory, length) => memory[..*length].to_vec(),
        }
    }

    fn piece(length: usize, byte: u8) -> Vec<u8> {
        vec![byte; length]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[cfg_attr(miri, ignore = "too many cases")]
        #[test]
        fn an_encoding_arrives_whole_and_in_attached_memory_if_it_is_large(
            pieces in prop::collection::vec(
                (prop_oneof![0..40usize, 0..WRITE_CHUNK + 2, 0..MAX_PAYLOAD_IN_FRAME + 2], any::<u8>()),
                0..12,
            ),
        ) {
            let pieces: Vec<_> = pieces.into_iter().map(|(length, byte)| piece(length, byte)).collect();
            let whole = pieces.concat();
            let encoded = encoding_of(&pieces, 0);
            prop_assert_eq!(encoded.1.is_some(), whole.len() > MAX_PAYLOAD_IN_FRAME);
            let last = encoded.1.as_ref().map(|memory| memory.as_fd());
            prop_assert_eq!(encoded_len(&encoded.0[6..], last), whole.len());
            prop_assert!(received(&encoded) == whole);
            // Without a descriptor left.
            let encoded = encoding_of(&pieces, MAX_FDS);
            prop_assert!(encoded.1.is_none());
            prop_assert!(received(&encoded) == whole);
        }

        #[cfg_attr(miri, ignore = "too many cases")]
        #[test]
        fn bytes_written_to_memory_return_to_the_frame_if_the_memory_fails(before in 0..3 * MAX_PAYLOAD_IN_FRAME, after in 0..MAX_PAYLOAD_IN_FRAME) {
            let mut frame = Vec::new();
            let mut encoding = Encoding::begin(&mut frame, None);
            for (count, chunk) in piece(before, 1).chunks(WRITE_CHUNK / 3).enumerate() {
                encoding.push(&piece(chunk.len(), count as u8));
            }
            let whole: Vec<u8> = piece(before, 1)
                .chunks(WRITE_CHUNK / 3)
                .enumerate()
                .flat_map(|(count, chunk)| piece(chunk.len(), count as u8))
                .chain(piece(after, 99))
                .collect();
            encoding.give_up();
            encoding.push(&piece(after, 99));
            prop_assert!(encoding.finish(0, &RegionBuilder::default()).is_none());
            prop_assert_eq!(frame[0], Tag::InFrame as u8);
            prop_assert!(frame[1..] == whole);
        }
    }

    /// A payload that refers to attached memory.
    fn referring(tag: Tag, length: usize) -> Vec<u8> {
        let payload_ref = PayloadRef {
            encoding: length,
            length,
            arena: 7,
        };
        [&[tag as u8], &payload_ref.to_bytes()[..]].concat()
    }

    #[test]
    fn an_unknown_tag_and_missing_memory_are_errors() {
        let find =
            |bytes: &[u8]| Incoming::from_worker(bytes, Vec::new()).expect_err("there is no value");
        assert!(matches!(find(&[]), AttachmentError::Malformed));
        assert!(matches!(find(&[9, 0]), AttachmentError::Malformed));
        assert!(matches!(
            find(&referring(Tag::Sealed, 1)),
            AttachmentError::Lost
        ));
        let pipe = || -> OwnedFd { std::io::pipe().unwrap().0.into() };
        let with = |bytes: &[u8], fd| Incoming::from_worker(bytes, vec![fd]).unwrap_err();
        assert!(matches!(
            with(&referring(Tag::Sealed, 1), pipe()),
            AttachmentError::Refused(_)
        ));
        let sealed = || {
            let mut writer = crate::sys::memory::MemfdWriter::new().unwrap();
            writer.append(b"five!").unwrap();
            writer.seal_for_others().unwrap()
        };
        assert!(Incoming::from_worker(&referring(Tag::Sealed, 5), vec![sealed()]).is_ok());
        assert!(matches!(
            with(&[Tag::Sealed as u8, 5], sealed()),
            AttachmentError::Malformed
        ));
        for length in [6, usize::MAX] {
            let error = with(&referring(Tag::Sealed, length), sealed());
            assert!(matches!(error, AttachmentError::Short { .. }), "{error}");
        }
    }

    /// The worker could change what its parent reads.
    #[test]
    fn an_arena_that_comes_from_a_worker_is_refused() {
        let pool = ArenaPool::default();
        let mut frame = Vec::new();
        let mut encoding = Encoding::begin(&mut frame, Some(&pool));
        encoding.push(&[1; 2 * MAX_PAYLOAD_IN_FRAME]);
        let Some(Written::Lent(lent)) = encoding.finish(0, &RegionBuilder::default()) else {
            panic!("the value is in an arena");
        };
        assert_eq!(
            encoded_len(&frame, Some(lent.file().as_fd())),
            2 * MAX_PAYLOAD_IN_FRAME
        );
        let error = Incoming::from_worker(&frame, Vec::new()).unwrap_err();
        assert!(matches!(error, AttachmentError::Malformed));
        for tag in [Tag::Lent, Tag::Sealed] {
            frame[0] = tag as u8;
            let fds = vec![lent.file().try_clone().unwrap()];
            let error = Incoming::from_worker(&frame, fds).unwrap_err();
            assert!(matches!(
                error,
                AttachmentError::Refused(Refused::NotSealed)
            ));
        }
    }

    fn through<T: serde::Serialize, U: serde::Serialize + serde::de::DeserializeOwned>(
        value: &T,
    ) -> Result<U, CodecError> {
        let mut frame = Vec::new();
        let fds = encode_with_attachments(value, &mut frame)?.fds;
        assert_eq!(fds.len(), 1, "the value is in attached memory");
        let fds = fds.iter().map(|fd| fd.try_clone().unwrap()).collect();
        decode_received(&frame, fds)
    }

    #[test]
    fn large_values_of_all_kinds_come_through() {
        let text = "seedbed ".repeat(HUGE_PAGE_MIN / 8 + 1);
        assert!(through::<_, String>(&text).unwrap() == text);
        let numbers: Vec<(u32, Option<f64>)> = (0..100_000).map(|n| (n, Some(0.5))).collect();
        assert!(through::<_, Vec<(u32, Option<f64>)>>(&numbers).unwrap() == numbers);
    }

    #[test]
    fn large_values_with_missing_or_left_over_bytes_are_errors() {
        let numbers = vec![7u64; MAX_PAYLOAD_IN_FRAME];
        let text = "x".repeat(MAX_PAYLOAD_IN_FRAME + 1);
        let left_over = through::<_, u64>(&text).unwrap_err();
        assert!(
            left_over.to_string().contains("are left over"),
            "{left_over}"
        );
        let missing = through::<_, (Vec<u64>, u8)>(&numbers).unwrap_err();
        assert!(missing.to_string().contains("additional"), "{missing}");
    }

    #[test]
    fn an_error_in_the_middle_of_a_large_value_leaves_the_frame_as_it_was() {
        struct Failing;
        impl serde::Serialize for Failing {
            fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(serde::ser::Error::custom("not today"))
            }
        }
        let mut frame = b"before".to_vec();
        let error =
            encode_with_attachments(&(vec![1u64; MAX_PAYLOAD_IN_FRAME], Failing), &mut frame)
                .unwrap_err();
        assert_eq!(
            (error.to_string().as_str(), &frame[..]),
            ("not today", &b"before"[..])
        );
    }
}
