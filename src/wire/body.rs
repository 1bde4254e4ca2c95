//! Where the encoding of a value lies: in its frame, or, if it is large, in memory of its own that goes beside the frame.
//!
//! A frame is copied into the socket and out of it again, and the receiver does not believe its length, so it makes room bit
//! by bit. What lies in sealed memory (see [`crate::sys::memory`]) is written once, and decoded where it lies; that is sound
//! because nobody can change it any more, which a buffer that both sides keep could not promise to a parent.
//!
//! 64 MiB of bytes as an argument took 63 ms of processor time in this way and 139 through the socket, and 1 MiB 0.7
//! and 1.8.
//!
//! It is a shortcut and no more: where the sender cannot have the memory, because descriptors or memory or the size of files
//! are limited, what has been written is read back, and the frame holds it all. (A receiver that has no descriptor to spare
//! does not get the value, which is an error of this one call; workers whose open files are limited are sent all in frames.)
//!
//! The first byte of an encoded value says which of the two it is. In the second case it is the only one, and the memory is
//! the last of the descriptors that came along.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use bincode::de::read::Reader;
use bincode::enc::write::Writer;
use bincode::error::{DecodeError, EncodeError};

use super::enclosure::NotFound;
use crate::sys::memory::{Draft, Sealed, prefer_huge_pages, size_of_memory};
use crate::sys::socket::MOST_FDS;

/// What is longer goes beside its frame. Half as much is about as fast either way, and this fits the buffer of a socket.
const LARGE: usize = 128 * 1024;

/// How much is collected before it is written.
const PIECE: usize = 64 * 1024;

/// What is at least as long is read into huge pages. The C library has each block of so many bytes from the kernel anew,
/// and gives it back when it is freed, so it is a fresh mapping that nothing is in yet, and its own.
const HUGE: usize = 32 << 20;

const IN_FRAME: u8 = 0;
const BESIDE: u8 = 1;

/// Takes in the encoding of one value.
#[derive(Debug)]
pub(super) struct Encoding<'a> {
    frame: &'a mut Vec<u8>,
    /// Where the first byte stands in the frame. What follows it has not been written to the memory.
    start: usize,
    memory: Memory,
}

#[derive(Debug)]
enum Memory {
    NotNeeded,
    Needed(Draft),
    NotToBeHad,
}

impl<'a> Encoding<'a> {
    /// Appends to `frame`.
    pub(super) fn begin(frame: &'a mut Vec<u8>) -> Self {
        let start = frame.len();
        frame.push(IN_FRAME);
        Self {
            frame,
            start,
            memory: Memory::NotNeeded,
        }
    }

    /// The same, and no memory is used.
    pub(super) fn begin_in_frame(frame: &'a mut Vec<u8>) -> Self {
        Self {
            memory: Memory::NotToBeHad,
            ..Self::begin(frame)
        }
    }

    /// What waits to be written, if it is to be.
    fn pending(&self) -> &[u8] {
        &self.frame[self.start + 1..]
    }

    /// Takes more in.
    fn push(&mut self, bytes: &[u8]) {
        let most = match self.memory {
            Memory::NotNeeded => LARGE,
            Memory::Needed(_) => PIECE,
            Memory::NotToBeHad => usize::MAX,
        };
        let is_too_much = self.pending().len() + bytes.len() > most;
        let is_written =
            is_too_much && self.write_out() && bytes.len() > PIECE && self.append(bytes);
        if !is_written {
            self.frame.extend_from_slice(bytes);
        }
    }

    /// Writes what is pending. False if that is not possible, and then it all stands in the frame again.
    fn write_out(&mut self) -> bool {
        if let Memory::NotNeeded = self.memory {
            self.memory = Draft::new().map_or(Memory::NotToBeHad, Memory::Needed);
        }
        let Memory::Needed(draft) = &mut self.memory else {
            return false;
        };
        match draft.append(&self.frame[self.start + 1..]) {
            Ok(()) => {
                self.frame.truncate(self.start + 1);
                true
            }
            Err(_) => self.give_up(),
        }
    }

    /// Writes more, when nothing is pending. False as above.
    fn append(&mut self, bytes: &[u8]) -> bool {
        let Memory::Needed(draft) = &mut self.memory else {
            return false;
        };
        draft.append(bytes).is_ok() || self.give_up()
    }

    /// Puts back into the frame what has been written. Returns false.
    fn give_up(&mut self) -> bool {
        if let Memory::Needed(draft) = std::mem::replace(&mut self.memory, Memory::NotToBeHad) {
            let pending = self.frame.split_off(self.start + 1);
            // Memory that was written is there, and the file is ours.
            draft
                .read_onto(self.frame)
                .expect("what has been written to memory can be read");
            self.frame.extend_from_slice(&pending);
        }
        false
    }

    /// Has all been taken in; the value has `others` descriptors besides. Gives the one of its memory, if it has some.
    pub(super) fn end(mut self, others: usize) -> Option<Arc<OwnedFd>> {
        if let Memory::NotNeeded = self.memory {
            return None;
        }
        if others == MOST_FDS {
            self.give_up();
        }
        if !self.write_out() {
            return None;
        }
        let Memory::Needed(draft) = std::mem::replace(&mut self.memory, Memory::NotToBeHad) else {
            return None;
        };
        match draft.seal_for_others() {
            Ok(file) => {
                self.frame[self.start] = BESIDE;
                Some(Arc::new(file))
            }
            Err(draft) => {
                self.memory = Memory::Needed(draft);
                self.give_up();
                None
            }
        }
    }
}

impl Writer for Encoding<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.push(bytes);
        Ok(())
    }
}

/// The encoding of one value, as it has arrived.
#[derive(Debug)]
pub(super) enum Arrived<'a> {
    InFrame(&'a [u8]),
    Beside(Sealed),
}

impl<'a> Arrived<'a> {
    /// Takes the memory, if the value is there, from the descriptors that came along.
    pub(super) fn find(bytes: &'a [u8], fds: &mut Vec<OwnedFd>) -> Result<Self, NotFound> {
        match bytes {
            [IN_FRAME, bytes @ ..] => Ok(Self::InFrame(bytes)),
            [BESIDE] => {
                let memory = Sealed::adopt(fds.pop().ok_or(NotFound::Lost)?);
                memory.map(Self::Beside).map_err(NotFound::Refused)
            }
            _ => Err(NotFound::Garbage),
        }
    }
}

/// Tells how many bytes the encoding of a value has, by its frame's payload and by the last of the descriptors that go with
/// it. Of those that another process has sent, only such count as are there.
pub(super) fn length(payload: &[u8], last: Option<BorrowedFd<'_>>) -> usize {
    match (payload, last) {
        ([BESIDE], Some(memory)) => size_of_memory(memory),
        _ => payload.len().saturating_sub(1),
    }
}

/// Reads a large value: as from a slice, but in such a way that what is read into is found quickly.
pub(super) struct Reading<'a, 'b>(pub(super) &'a mut &'b [u8]);

impl Reader for Reading<'_, '_> {
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

    fn peek_read(&mut self, length: usize) -> Option<&[u8]> {
        self.0.get(..length)
    }

    fn consume(&mut self, length: usize) {
        *self.0 = self.0.get(length..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::codec::{CodecError, decode_enclosed, encode_enclosing};
    use proptest::prelude::*;
    use std::os::fd::AsFd;

    /// Takes `pieces` in behind some other bytes. Gives the frame and the memory, if there is any.
    fn encoding_of(pieces: &[Vec<u8>], others: usize) -> (Vec<u8>, Option<Arc<OwnedFd>>) {
        let mut frame = b"before".to_vec();
        let mut encoding = Encoding::begin(&mut frame);
        for piece in pieces {
            encoding.push(piece);
        }
        let memory = encoding.end(others);
        (frame, memory)
    }

    /// What arrives of it.
    fn arrived((frame, memory): &(Vec<u8>, Option<Arc<OwnedFd>>)) -> Vec<u8> {
        assert_eq!(&frame[..6], b"before");
        let mut fds: Vec<OwnedFd> = memory.iter().map(|fd| fd.try_clone().unwrap()).collect();
        match Arrived::find(&frame[6..], &mut fds).unwrap() {
            Arrived::InFrame(bytes) => bytes.to_vec(),
            Arrived::Beside(memory) => memory.to_vec(),
        }
    }

    fn piece(length: usize, byte: u8) -> Vec<u8> {
        vec![byte; length]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

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
        #[test]
        fn what_has_been_written_comes_back_into_the_frame(before in 0..3 * LARGE, after in 0..LARGE) {
            let mut frame = Vec::new();
            let mut encoding = Encoding::begin(&mut frame);
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
            prop_assert!(encoding.end(0).is_none());
            prop_assert_eq!(frame[0], IN_FRAME);
            prop_assert!(frame[1..] == whole);
        }
    }

    #[test]
    fn a_word_that_is_none_and_memory_that_did_not_come_are_errors() {
        let find = |bytes| Arrived::find(bytes, &mut Vec::new()).expect_err("there is no value");
        assert!(matches!(find(&[]), NotFound::Garbage));
        assert!(matches!(find(&[2, 0]), NotFound::Garbage));
        assert!(matches!(find(&[BESIDE, 0]), NotFound::Garbage));
        assert!(matches!(find(&[BESIDE]), NotFound::Lost));
        let pipe: OwnedFd = std::io::pipe().unwrap().0.into();
        let refused = Arrived::find(&[BESIDE], &mut vec![pipe]).unwrap_err();
        assert!(matches!(refused, NotFound::Refused(_)));
    }

    fn through<T: serde::Serialize, U: serde::de::DeserializeOwned>(
        value: &T,
    ) -> Result<U, CodecError> {
        let mut frame = Vec::new();
        let fds = encode_enclosing(value, &mut frame)?;
        assert_eq!((frame.len(), fds.len()), (1, 1), "it lies beside the frame");
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
