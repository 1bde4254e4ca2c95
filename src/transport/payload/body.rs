//! Where the encoding of a value lies: in its frame, or, if it is large, in memory of its own that goes beside the
//! frame.
//!
//! A frame is copied into the socket and out of it again, and the receiver does not believe its length, so it makes
//! room bit by bit. What lies in memory is written once, and decoded where it lies. That is sound if nobody changes it
//! meanwhile:
//!
//! * what a worker sends lies in *sealed* memory (see [`crate::sys::memory`]), which nobody can change any more. A
//!   parent must not decode what its worker could still write, whatever the worker promises;
//! * what a parent sends lies in an *arena* (see [`crate::sys::arena`]), which the parent alone can write, and does not
//!   until it has the answer; then it is used again. Or in sealed memory, where there can be no arena.
//!
//! 64 MiB of bytes as an argument took 139 ms of processor time through the socket, 63 in sealed memory, and about half
//! of that in an arena that was used before: what is dear is fresh memory.
//!
//! It is a shortcut and no more: where the sender cannot have the memory, because descriptors or memory or the size of
//! files are limited, what has been written is read back, and the frame holds it all. (A receiver that has no
//! descriptor to spare does not get the value, which is an error of this one call; workers whose open files are limited
//! are sent all in frames.)
//!
//! The first byte of an encoded value says which of the four it is. If it is not in the frame, a [`Whereabouts`]
//! follows, and the memory is the last of the descriptors that came along. Behind the encoding lie the
//! [`stretches`](crate::transport::payload::inline) of shared memory that have to be copied, if there are any: in memory from the next
//! page on, in the frame at once, and then its last bytes tell how long the encoding is.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use bincode::de::read::Reader;
use bincode::enc::write::Writer;
use bincode::error::{DecodeError, EncodeError};

use super::attachments::NotFound;
use super::pool::{Need, Pool};
use super::store::{Store, Written};
use crate::sys::arena::{Lent, Views};
use crate::sys::memory::{Sealed, inspect, prefer_huge_pages, size_of_memory};
use crate::sys::socket::MOST_FDS;
use crate::transport::payload::inline;
use crate::transport::payload::inline::{PAGE, Stretches, Within};

/// What is longer goes beside its frame. Half as much is about as fast either way, and this fits the buffer of a
/// socket.
const LARGE: usize = 128 * 1024;

/// How much is collected before it is written.
const PIECE: usize = 64 * 1024;

/// What is at least as long is read into huge pages. The C library has each block of so many bytes from the kernel
/// anew, and gives it back when it is freed, so it is a fresh mapping that nothing is in yet, and its own.
const HUGE: usize = 32 << 20;

const IN_FRAME: u8 = 0;
const BESIDE: u8 = 1;
const LENT: u8 = 2;
/// As the first, with stretches behind it.
const IN_FRAME_AND_BEHIND: u8 = 3;

/// Stands in the frame of a value that does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Whereabouts {
    /// How much of the memory is the encoding.
    encoding: usize,
    /// The same with the stretches.
    length: usize,
    /// By which a worker knows an arena again.
    arena: u64,
}

impl Whereabouts {
    fn to_bytes(self) -> [u8; 24] {
        let numbers = [self.encoding as u64, self.length as u64, self.arena];
        let mut bytes = [0; 24];
        for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 24] = bytes.try_into().ok()?;
        let number = |at: usize| {
            let number = bytes[at..at + 8].try_into().expect("8 bytes");
            u64::from_le_bytes(number)
        };
        let found = Self {
            encoding: usize::try_from(number(0)).ok()?,
            length: usize::try_from(number(8)).ok()?,
            arena: number(16),
        };
        (found.encoding <= found.length).then_some(found)
    }

    /// Where in memory of this length the encoding ends, and where the stretches begin, if there are any.
    fn within(self, length: usize) -> Result<(usize, Option<usize>), NotFound> {
        if self.length > length {
            return Err(NotFound::Short {
                wanted: self.length as u64,
                there: length,
            });
        }
        let base = self.encoding.next_multiple_of(PAGE);
        Ok((self.encoding, (base < self.length).then_some(base)))
    }
}

/// What goes beside a frame.
#[derive(Debug, Default)]
pub(crate) struct Enclosures {
    pub(crate) fds: Vec<Arc<OwnedFd>>,
    /// Of which the last descriptor is.
    pub(crate) lent: Option<Lent>,
}

impl From<Vec<Arc<OwnedFd>>> for Enclosures {
    fn from(fds: Vec<Arc<OwnedFd>>) -> Self {
        Self { fds, lent: None }
    }
}

/// Takes in the encoding of one value.
#[derive(Debug)]
pub(in crate::transport) struct Encoding<'a> {
    frame: &'a mut Vec<u8>,
    /// Where the first byte stands in the frame. What follows it has not been written to the memory.
    start: usize,
    /// How long the frame may grow before something is done about it.
    most: usize,
    memory: Memory<'a>,
    pool: Option<&'a Pool>,
}

#[derive(Debug)]
enum Memory<'a> {
    NotNeeded,
    Needed(Store<'a>),
    NotToBeHad,
}

impl<'a> Encoding<'a> {
    /// Appends to `frame`. Its memory is to be from `pool`, if there is one.
    pub(in crate::transport) fn begin(frame: &'a mut Vec<u8>, pool: Option<&'a Pool>) -> Self {
        let start = frame.len();
        frame.push(IN_FRAME);
        Self {
            frame,
            start,
            most: start + 1 + LARGE,
            memory: Memory::NotNeeded,
            pool,
        }
    }

    /// The same, and no memory is used.
    pub(in crate::transport) fn begin_in_frame(frame: &'a mut Vec<u8>) -> Self {
        Self {
            most: usize::MAX,
            memory: Memory::NotToBeHad,
            ..Self::begin(frame, None)
        }
    }

    /// What waits to be written, if it is to be.
    fn pending(&self) -> &[u8] {
        &self.frame[self.start + 1..]
    }

    /// Takes more in. Called for each number that a value consists of.
    #[inline]
    fn push(&mut self, bytes: &[u8]) {
        match bytes.len() <= self.most - self.frame.len() {
            true => self.frame.extend_from_slice(bytes),
            false => self.push_too_much(bytes),
        }
    }

    #[cold]
    fn push_too_much(&mut self, bytes: &[u8]) {
        let known = self.pending().len() + bytes.len();
        // Who has come to this length by small steps will take more of them.
        let (need, is_piece) = match bytes.len() > PIECE {
            true => (Need::Exactly(known), false),
            false => (Need::AtLeast(known), true),
        };
        let is_written = self.write_out(need) && !is_piece && self.append(bytes);
        if !is_written {
            self.frame.extend_from_slice(bytes);
        }
    }

    /// Writes what is pending, as the first of so much. False if that is not possible, and then it all stands in the
    /// frame again.
    fn write_out(&mut self, need: Need) -> bool {
        if let Memory::NotNeeded = self.memory {
            self.most = self.start + 1 + PIECE;
            self.memory = Store::new(need, self.pool).map_or(Memory::NotToBeHad, Memory::Needed);
        }
        let Memory::Needed(store) = &mut self.memory else {
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

    /// Writes more, when nothing is pending. False as above.
    fn append(&mut self, bytes: &[u8]) -> bool {
        let Memory::Needed(store) = &mut self.memory else {
            return false;
        };
        store.append(bytes).is_ok() || self.give_up()
    }

    /// Puts back into the frame what has been written. Returns false.
    fn give_up(&mut self) -> bool {
        self.most = usize::MAX;
        if let Memory::Needed(store) = std::mem::replace(&mut self.memory, Memory::NotToBeHad) {
            let pending = self.frame.split_off(self.start + 1);
            // Memory that was written is there, and the file is ours.
            store
                .read_onto(self.frame)
                .expect("what has been written to memory can be read");
            self.frame.extend_from_slice(&pending);
        }
        false
    }

    /// Leaves the frame as it was.
    pub(in crate::transport) fn take_back(self) {
        self.frame.truncate(self.start);
    }

    /// Has all been taken in; the value has `others` descriptors besides, and `stretches` go behind it. Gives its
    /// memory, if it has some.
    pub(in crate::transport) fn end(
        mut self,
        others: usize,
        stretches: &Stretches,
    ) -> Option<Written> {
        let is_small = match self.memory {
            Memory::NotNeeded => self.pending().len() + stretches.len() <= LARGE,
            Memory::Needed(_) => false,
            Memory::NotToBeHad => true,
        };
        if is_small || others == MOST_FDS {
            self.give_up();
            self.append_in_frame(stretches);
            return None;
        }
        let need = self.pending().len().next_multiple_of(PAGE) + stretches.len();
        if !self.write_out(Need::Exactly(need)) {
            self.append_in_frame(stretches);
            return None;
        }
        let Memory::Needed(mut store) = std::mem::replace(&mut self.memory, Memory::NotToBeHad)
        else {
            unreachable!("that is what has been written to")
        };
        // What has been written from slices has the length of one.
        let encoding = store.len() as usize;
        let appended = append_in_memory(&mut store, stretches);
        let length = store.len() as usize;
        let finished = match appended {
            Ok(()) => store.finish(),
            Err(_) => Err(store),
        };
        match finished {
            Ok(written) => {
                self.tell(&written, encoding, length);
                return Some(written);
            }
            Err(store) => self.memory = Memory::Needed(store),
        }
        self.give_up();
        self.frame.truncate(self.start + 1 + encoding);
        self.append_in_frame(stretches);
        None
    }

    /// Says in the frame where it is.
    fn tell(&mut self, written: &Written, encoding: usize, length: usize) {
        let (word, arena) = match written {
            Written::Sealed(_) => (BESIDE, 0),
            Written::Lent(lent) => (LENT, lent.id()),
        };
        self.frame[self.start] = word;
        let whereabouts = Whereabouts {
            encoding,
            length,
            arena,
        };
        self.frame.extend_from_slice(&whereabouts.to_bytes());
    }

    fn append_in_frame(&mut self, stretches: &Stretches) {
        if stretches.is_empty() {
            return;
        }
        self.frame[self.start] = IN_FRAME_AND_BEHIND;
        let encoding = self.pending().len() as u64;
        let base = self.frame.len();
        for (offset, bytes) in stretches.iter() {
            self.frame.resize(base + offset, 0);
            self.frame.extend_from_slice(bytes);
        }
        self.frame.extend_from_slice(&encoding.to_le_bytes());
    }
}

fn append_in_memory(store: &mut Store<'_>, stretches: &Stretches) -> io::Result<()> {
    if stretches.is_empty() {
        return Ok(());
    }
    let base = store.len().next_multiple_of(PAGE as u64);
    for (offset, bytes) in stretches.iter() {
        // Less than a page, so there are no pages that nobody has written.
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

/// The encoding of one value, as it has arrived, and what came along with it.
#[derive(Debug)]
pub(crate) struct Arrived<'a> {
    pub(in crate::transport) encoding: Bytes<'a>,
    pub(in crate::transport) within: Within,
    pub(in crate::transport) fds: Vec<OwnedFd>,
}

#[derive(Debug)]
pub(in crate::transport) enum Bytes<'a> {
    InFrame(&'a [u8]),
    /// So many.
    InMemory(inline::Memory, usize),
}

impl<'a> Arrived<'a> {
    /// Finds what a worker has sent.
    pub(in crate::transport) fn from_worker(
        bytes: &'a [u8],
        fds: Vec<OwnedFd>,
    ) -> Result<Self, NotFound> {
        fds.iter()
            .try_for_each(inspect)
            .map_err(NotFound::Refused)?;
        Self::find(bytes, fds)
    }

    fn find(bytes: &'a [u8], mut fds: Vec<OwnedFd>) -> Result<Self, NotFound> {
        match bytes {
            [IN_FRAME, bytes @ ..] => Ok(Self {
                encoding: Bytes::InFrame(bytes),
                within: Within::Nowhere,
                fds,
            }),
            [IN_FRAME_AND_BEHIND, bytes @ ..] => {
                let (encoding, behind) = split(bytes).ok_or(NotFound::Garbage)?;
                Ok(Self {
                    encoding: Bytes::InFrame(encoding),
                    within: Within::Here(behind.into()),
                    fds,
                })
            }
            [BESIDE, whereabouts @ ..] => {
                let whereabouts = Whereabouts::from_bytes(whereabouts).ok_or(NotFound::Garbage)?;
                let memory = fds.pop().ok_or(NotFound::Lost)?;
                let memory = Sealed::adopt(memory).map_err(NotFound::Refused)?;
                Self::in_memory(inline::Memory::Sealed(Arc::new(memory)), whereabouts, fds)
            }
            _ => Err(NotFound::Garbage),
        }
    }

    /// Finds what this worker's parent has sent.
    pub(in crate::transport) fn from_parent(
        bytes: &'a [u8],
        mut fds: Vec<OwnedFd>,
        views: &mut Views,
    ) -> Result<Self, NotFound> {
        let [LENT, whereabouts @ ..] = bytes else {
            return Self::find(bytes, fds);
        };
        let whereabouts = Whereabouts::from_bytes(whereabouts).ok_or(NotFound::Garbage)?;
        let memory = fds.pop().ok_or(NotFound::Lost)?;
        let lease = views.lend(whereabouts.arena, &memory, whereabouts.length);
        let lease = lease.map_err(NotFound::Refused)?;
        Self::in_memory(inline::Memory::Leased(lease), whereabouts, fds)
    }

    fn in_memory(
        memory: inline::Memory,
        whereabouts: Whereabouts,
        fds: Vec<OwnedFd>,
    ) -> Result<Self, NotFound> {
        let (encoding, base) = whereabouts.within(memory.len())?;
        let within = base.map(|base| Within::At(memory.clone(), base..whereabouts.length));
        Ok(Self {
            encoding: Bytes::InMemory(memory, encoding),
            within: within.unwrap_or(Within::Nowhere),
            fds,
        })
    }
}

/// Parts the encoding from what lies behind it.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (bytes, encoding) = bytes.split_last_chunk::<8>()?;
    let encoding = usize::try_from(u64::from_le_bytes(*encoding)).ok()?;
    bytes.split_at_checked(encoding)
}

/// Tells how many bytes the encoding of a value has, by its frame's payload and by the last of the descriptors that go
/// with it. Of those that another process has sent, only such count as are there.
pub(in crate::transport) fn length(payload: &[u8], last: Option<BorrowedFd<'_>>) -> usize {
    match (payload, last) {
        ([BESIDE | LENT, whereabouts @ ..], Some(memory)) => {
            let length = Whereabouts::from_bytes(whereabouts).map_or(0, |found| found.length);
            length.min(size_of_memory(memory))
        }
        ([IN_FRAME_AND_BEHIND, bytes @ ..], _) => bytes.len().saturating_sub(8),
        _ => payload.len().saturating_sub(1),
    }
}

/// Reads a large value: as from a slice, but in such a way that what is read into is found quickly.
pub(in crate::transport) struct Reading<'a, 'b>(pub(in crate::transport) &'a mut &'b [u8]);

// Called for each number that a value consists of.
impl Reader for Reading<'_, '_> {
    #[inline]
    fn read(&mut self, into: &mut [u8]) -> Result<(), DecodeError> {
        let Some((bytes, rest)) = self.0.split_at_checked(into.len()) else {
            return Err(DecodeError::UnexpectedEnd {
                additional: into.len() - self.0.len(),
            });
        };
        if into.len() >= HUGE {
            prefer_huge_pages(into);
        }
        into.copy_from_slice(bytes);
        *self.0 = rest;
        Ok(())
    }

    #[inline]
    fn peek_read(&mut self, length: usize) -> Option<&[u8]> {
        self.0.get(..length)
    }

    #[inline]
    fn consume(&mut self, length: usize) {
        *self.0 = self.0.get(length..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::memory::Refused;
    use crate::transport::codec::{CodecError, decode_enclosed, encode_enclosing};
    use proptest::prelude::*;
    use std::os::fd::AsFd;

    /// Takes `pieces` in behind some other bytes. Gives the frame and the memory, if there is any.
    fn encoding_of(pieces: &[Vec<u8>], others: usize) -> (Vec<u8>, Option<Arc<OwnedFd>>) {
        let mut frame = b"before".to_vec();
        let mut encoding = Encoding::begin(&mut frame, None);
        for piece in pieces {
            encoding.push(piece);
        }
        let memory = encoding
            .end(others, &Stretches::default())
            .map(|written| match written {
                Written::Sealed(file) => Arc::new(file),
                Written::Lent(_) => unreachable!("there is no pool"),
            });
        (frame, memory)
    }

    /// What arrives of it.
    fn arrived((frame, memory): &(Vec<u8>, Option<Arc<OwnedFd>>)) -> Vec<u8> {
        assert_eq!(&frame[..6], b"before");
        let fds: Vec<OwnedFd> = memory.iter().map(|fd| fd.try_clone().unwrap()).collect();
        let arrived = Arrived::from_worker(&frame[6..], fds).unwrap();
        match &arrived.encoding {
            Bytes::InFrame(bytes) => bytes.to_vec(),
            Bytes::InMemory(memory, length) => memory[..*length].to_vec(),
        }
    }

    fn piece(length: usize, byte: u8) -> Vec<u8> {
        vec![byte; length]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[cfg_attr(miri, ignore = "too many cases")]
        #[test]
        fn what_is_taken_in_arrives_beside_the_frame_if_it_is_large(
            pieces in prop::collection::vec(
                (prop_oneof![0..40usize, 0..PIECE + 2, 0..LARGE + 2], any::<u8>()),
                0..12,
            ),
        ) {
            let pieces: Vec<_> = pieces.into_iter().map(|(length, byte)| piece(length, byte)).collect();
            let whole = pieces.concat();
            let encoded = encoding_of(&pieces, 0);
            prop_assert_eq!(encoded.1.is_some(), whole.len() > LARGE);
            let last = encoded.1.as_ref().map(|memory| memory.as_fd());
            prop_assert_eq!(length(&encoded.0[6..], last), whole.len());
            prop_assert!(arrived(&encoded) == whole);
            // The same without a descriptor to spare.
            let encoded = encoding_of(&pieces, MOST_FDS);
            prop_assert!(encoded.1.is_none());
            prop_assert!(arrived(&encoded) == whole);
        }

        /// However much has been written when the memory can be had no more.
        #[cfg_attr(miri, ignore = "too many cases")]
        #[test]
        fn what_has_been_written_comes_back_into_the_frame(before in 0..3 * LARGE, after in 0..LARGE) {
            let mut frame = Vec::new();
            let mut encoding = Encoding::begin(&mut frame, None);
            for (count, chunk) in piece(before, 1).chunks(PIECE / 3).enumerate() {
                encoding.push(&piece(chunk.len(), count as u8));
            }
            let whole: Vec<u8> = piece(before, 1)
                .chunks(PIECE / 3)
                .enumerate()
                .flat_map(|(count, chunk)| piece(chunk.len(), count as u8))
                .chain(piece(after, 99))
                .collect();
            encoding.give_up();
            encoding.push(&piece(after, 99));
            prop_assert!(encoding.end(0, &Stretches::default()).is_none());
            prop_assert_eq!(frame[0], IN_FRAME);
            prop_assert!(frame[1..] == whole);
        }
    }

    /// A payload that says so.
    fn saying(word: u8, length: usize) -> Vec<u8> {
        let whereabouts = Whereabouts {
            encoding: length,
            length,
            arena: 7,
        };
        [&[word], &whereabouts.to_bytes()[..]].concat()
    }

    #[test]
    fn a_word_that_is_none_and_memory_that_did_not_come_are_errors() {
        let find =
            |bytes: &[u8]| Arrived::from_worker(bytes, Vec::new()).expect_err("there is no value");
        assert!(matches!(find(&[]), NotFound::Garbage));
        assert!(matches!(find(&[9, 0]), NotFound::Garbage));
        assert!(matches!(find(&saying(BESIDE, 1)), NotFound::Lost));
        let pipe = || -> OwnedFd { std::io::pipe().unwrap().0.into() };
        let with = |bytes: &[u8], fd| Arrived::from_worker(bytes, vec![fd]).unwrap_err();
        assert!(matches!(
            with(&saying(BESIDE, 1), pipe()),
            NotFound::Refused(_)
        ));
        let sealed = || {
            let mut draft = crate::sys::memory::Draft::new().unwrap();
            draft.append(b"five!").unwrap();
            draft.seal_for_others().unwrap()
        };
        assert!(Arrived::from_worker(&saying(BESIDE, 5), vec![sealed()]).is_ok());
        assert!(matches!(with(&[BESIDE, 5], sealed()), NotFound::Garbage));
        for length in [6, usize::MAX] {
            let error = with(&saying(BESIDE, length), sealed());
            assert!(matches!(error, NotFound::Short { .. }), "{error}");
        }
    }

    /// It could change what its parent reads.
    #[test]
    fn an_arena_that_comes_from_a_worker_is_refused() {
        let pool = Pool::default();
        let mut frame = Vec::new();
        let mut encoding = Encoding::begin(&mut frame, Some(&pool));
        encoding.push(&[1; 2 * LARGE]);
        let Some(Written::Lent(lent)) = encoding.end(0, &Stretches::default()) else {
            panic!("it lies in an arena");
        };
        assert_eq!(length(&frame, Some(lent.file().as_fd())), 2 * LARGE);
        let error = Arrived::from_worker(&frame, Vec::new()).unwrap_err();
        assert!(matches!(error, NotFound::Garbage));
        for word in [LENT, BESIDE] {
            frame[0] = word;
            let fds = vec![lent.file().try_clone().unwrap()];
            let error = Arrived::from_worker(&frame, fds).unwrap_err();
            assert!(matches!(error, NotFound::Refused(Refused::NotSealed)));
        }
    }

    fn through<T: serde::Serialize, U: serde::de::DeserializeOwned>(
        value: &T,
    ) -> Result<U, CodecError> {
        let mut frame = Vec::new();
        let fds = encode_enclosing(value, &mut frame)?.fds;
        assert_eq!(fds.len(), 1, "it lies beside the frame");
        let fds = fds.iter().map(|fd| fd.try_clone().unwrap()).collect();
        decode_enclosed(&frame, fds)
    }

    #[test]
    fn large_values_of_all_kinds_come_through() {
        let text = "seedbed ".repeat(HUGE / 8 + 1);
        assert!(through::<_, String>(&text).unwrap() == text);
        let numbers: Vec<(u32, Option<f64>)> = (0..100_000).map(|n| (n, Some(0.5))).collect();
        assert!(through::<_, Vec<(u32, Option<f64>)>>(&numbers).unwrap() == numbers);
    }

    #[test]
    fn of_large_values_too_not_a_byte_may_be_missing_or_left_over() {
        let numbers = vec![7u64; LARGE];
        let left_over = through::<_, [u64; 3]>(&numbers).unwrap_err();
        assert!(
            left_over.to_string().contains("are left over"),
            "{left_over}"
        );
        let missing = through::<_, (Vec<u64>, u8)>(&numbers).unwrap_err();
        assert!(missing.to_string().contains("additional"), "{missing}");
    }

    #[test]
    fn an_error_in_the_middle_of_a_large_value_leaves_the_frame_as_it_was() {
        struct Sulky;
        impl serde::Serialize for Sulky {
            fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(serde::ser::Error::custom("not today"))
            }
        }
        let mut frame = b"before".to_vec();
        let error = encode_enclosing(&(vec![1u64; LARGE], Sulky), &mut frame).unwrap_err();
        assert_eq!(
            (error.to_string().as_str(), &frame[..]),
            ("not today", &b"before"[..])
        );
    }
}
