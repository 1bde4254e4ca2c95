//! Frames as bytes of a stream that carries no descriptors: the memory that is attached to a frame
//! follows it, and becomes attached memory again where it arrives.
//!
//! A bundle has a head: the length of the frame, the number of memories, and the length of each.
//! The frame follows, and then the contents of the memories.
//!
//! Only sealed memory can be copied, because it cannot change during that. Any other descriptor (a
//! file, a socket, a side of a channel) has no meaning on another machine, so a frame that brings
//! one is refused.

use std::collections::VecDeque;
use std::mem;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::super::frame::{Frame, HEADER, Header};
use super::super::out_message::OutMessage;
use super::packet::MalformedPacket;
use crate::sys::memory::{MemfdWriter, Sealed, inspect};
use crate::sys::socket::MAX_FDS;

/// The length of the fixed part of a head: the frame's length and the number of memories.
const FIXED: usize = 9;

/// A frame that is being sent.
#[derive(Debug)]
pub(crate) struct Bundle {
    parts: VecDeque<Part>,
    /// How much of the first part has been taken.
    taken: usize,
}

#[derive(Debug)]
enum Part {
    Bytes(Vec<u8>),
    Memory(Sealed),
}

impl Part {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Memory(memory) => memory,
        }
    }
}

/// A frame brings a descriptor that cannot go to another machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NotCopyable(pub(crate) Header);

impl Bundle {
    /// Takes a frame, with the memory that is attached to it.
    ///
    /// # Errors
    ///
    /// Fails if a descriptor does not lead to sealed memory.
    pub(crate) fn of(mut frame: Frame) -> Result<Self, NotCopyable> {
        let header = frame.header;
        let adopt = |file: OwnedFd| {
            inspect(&file)
                .and_then(|()| Sealed::adopt(file))
                .map_err(|_| NotCopyable(header))
        };
        let fds = mem::take(&mut frame.fds);
        let memories: Vec<Sealed> = fds.into_iter().map(adopt).collect::<Result<_, _>>()?;
        let frame = frame.into_buffer();
        let mut head = (frame.len() as u64).to_le_bytes().to_vec();
        head.push(u8::try_from(memories.len()).expect("a header counts them in one byte"));
        for memory in &memories {
            head.extend_from_slice(&(memory.len() as u64).to_le_bytes());
        }
        let frame = [Part::Bytes(head), Part::Bytes(frame)];
        let parts = frame
            .into_iter()
            .chain(memories.into_iter().map(Part::Memory));
        Ok(Self {
            parts: parts.collect(),
            taken: 0,
        })
    }

    /// Takes a frame without attachments.
    pub(crate) fn of_bytes(frame: Vec<u8>) -> Self {
        let mut head = (frame.len() as u64).to_le_bytes().to_vec();
        head.push(0);
        Self {
            parts: [Part::Bytes(head), Part::Bytes(frame)].into(),
            taken: 0,
        }
    }

    /// Calls `send` with the next bytes, at most `most`. Returns whether they were the last.
    pub(crate) fn take(&mut self, most: usize, send: impl FnOnce(&[u8])) -> bool {
        let Some(part) = self.parts.front() else {
            return true;
        };
        let rest = &part.bytes()[self.taken..];
        let next = &rest[..most.min(rest.len())];
        send(next);
        self.taken += next.len();
        if self.taken == part.bytes().len() {
            self.parts.pop_front();
            self.taken = 0;
        }
        self.parts.is_empty()
    }
}

/// Puts arriving bytes together into frames.
#[derive(Debug)]
pub(crate) struct Unbundler(State);

#[derive(Debug)]
enum State {
    Head(Vec<u8>),
    Frame {
        length: usize,
        frame: Vec<u8>,
        memories: VecDeque<u64>,
    },
    Memories {
        frame: Vec<u8>,
        /// The finished ones. `None` if there is no room for one here: then the frame arrives
        /// without any, and its receiver reports that.
        finished: Option<Vec<Arc<OwnedFd>>>,
        current: Option<IncomingMemory>,
        /// The lengths of those behind the current one.
        rest: VecDeque<u64>,
    },
}

/// A memory of which a part has arrived.
#[derive(Debug)]
struct IncomingMemory {
    /// `None` if it could not be made or written.
    writer: Option<MemfdWriter>,
    missing: u64,
}

impl IncomingMemory {
    fn new(length: u64) -> Self {
        Self {
            writer: MemfdWriter::new().ok(),
            missing: length,
        }
    }

    /// Takes bytes from the beginning of `bytes`.
    fn fill(&mut self, bytes: &mut &[u8]) {
        let missing = usize::try_from(self.missing).unwrap_or(usize::MAX);
        let next = take_from(bytes, missing);
        self.missing -= next.len() as u64;
        let writer = self.writer.as_mut();
        if writer.is_some_and(|writer| writer.append(next).is_err()) {
            self.writer = None;
        }
    }

    fn finish(self) -> Option<Arc<OwnedFd>> {
        self.writer?.seal_for_others().ok().map(Arc::new)
    }
}

impl Unbundler {
    pub(crate) fn new() -> Self {
        Self(State::Head(Vec::new()))
    }

    /// Takes bytes from the beginning of `bytes`, and returns a frame when it is complete. Takes
    /// all of them otherwise.
    ///
    /// # Errors
    ///
    /// Fails if the bytes are no bundle.
    pub(crate) fn push(
        &mut self,
        bytes: &mut &[u8],
    ) -> Result<Option<OutMessage>, MalformedPacket> {
        loop {
            match &mut self.0 {
                State::Head(head) => {
                    // The number of memories decides how long the head is.
                    while head.len() < head_len(head) {
                        let next = take_from(bytes, head_len(head) - head.len());
                        if next.is_empty() {
                            return Ok(None);
                        }
                        head.extend_from_slice(next);
                    }
                    self.0 = read_head(head)?;
                }
                State::Frame {
                    length,
                    frame,
                    memories,
                } => {
                    frame.extend_from_slice(take_from(bytes, *length - frame.len()));
                    if frame.len() < *length {
                        return Ok(None);
                    }
                    self.0 = State::Memories {
                        frame: mem::take(frame),
                        finished: Some(Vec::new()),
                        current: None,
                        rest: mem::take(memories),
                    };
                }
                State::Memories {
                    frame,
                    finished,
                    current,
                    rest,
                } => {
                    if let Some(memory) = current {
                        memory.fill(bytes);
                        if memory.missing > 0 {
                            return Ok(None);
                        }
                        let memory = current.take().and_then(IncomingMemory::finish);
                        *finished = finished.take().zip(memory).map(|(mut finished, memory)| {
                            finished.push(memory);
                            finished
                        });
                    }
                    *current = rest.pop_front().map(IncomingMemory::new);
                    if current.is_none() {
                        let fds = finished.take().unwrap_or_default();
                        let message = OutMessage::new(mem::take(frame), fds);
                        self.0 = State::Head(Vec::new());
                        return Ok(Some(message));
                    }
                }
            }
        }
    }
}

/// Removes up to `most` bytes from the beginning of `bytes`, and returns them.
fn take_from<'a>(bytes: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(most.min(bytes.len()));
    *bytes = rest;
    taken
}

/// Returns the length of a head of which these bytes have arrived, as far as that is known.
fn head_len(head: &[u8]) -> usize {
    match head.get(FIXED - 1) {
        Some(&memories) => FIXED + 8 * usize::from(memories),
        None => FIXED,
    }
}

fn read_head(head: &[u8]) -> Result<State, MalformedPacket> {
    let (length, rest) = head.split_first_chunk::<8>().ok_or(MalformedPacket)?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| MalformedPacket)?;
    let (lengths, _) = rest[1..].as_chunks::<8>();
    if length < HEADER || lengths.len() > MAX_FDS {
        return Err(MalformedPacket);
    }
    Ok(State::Frame {
        length,
        frame: Vec::new(),
        memories: lengths
            .iter()
            .map(|length| u64::from_le_bytes(*length))
            .collect(),
    })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sys::mapping::Mapping;
    use crate::transport::frame::{self, Inbox, Kind};
    use crate::transport::mailbox::Mailbox;
    use proptest::prelude::*;

    fn memory(contents: &[u8]) -> OwnedFd {
        let mut writer = MemfdWriter::new().unwrap();
        writer.append(contents).unwrap();
        writer.seal_for_others().unwrap()
    }

    /// A frame as it arrives from a socket.
    fn frame(payload: &[u8], fds: Vec<OwnedFd>) -> Frame {
        let mut bytes = frame::of_bytes(Kind::Job, 7, payload);
        frame::set_fds(&mut bytes, u8::try_from(fds.len()).unwrap());
        let mut inbox = Inbox::default();
        inbox.buffer().extend_from_slice(&bytes);
        inbox.add_fds(fds, false);
        inbox.take().unwrap().unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[cfg_attr(miri, ignore = "needs files in memory")]
        #[test]
        fn frames_arrive_in_any_pieces_with_their_memory(
            frames in prop::collection::vec(
                (prop::collection::vec(any::<u8>(), 0..100), prop::collection::vec(1..5000_usize, 0..4)),
                1..5,
            ),
            out in 1..3000_usize,
            piece in 1..3000_usize,
        ) {
            let mut stream = Vec::new();
            for (payload, memories) in &frames {
                let fds = memories.iter().map(|&length| memory(&vec![length as u8; length]));
                let mut bundle = Bundle::of(frame(payload, fds.collect())).unwrap();
                while !bundle.take(out, |bytes| stream.extend_from_slice(bytes)) {}
            }
            let mut unbundler = Unbundler::new();
            let mut arrived = Vec::new();
            for mut piece in stream.chunks(piece) {
                while let Some(message) = unbundler.push(&mut piece).unwrap() {
                    arrived.push(message);
                }
                prop_assert!(piece.is_empty());
            }
            prop_assert_eq!(arrived.len(), frames.len());
            for (message, (payload, memories)) in arrived.iter().zip(&frames) {
                prop_assert_eq!(message.payload(), payload);
                prop_assert_eq!(message.fds().len(), memories.len());
                for (fd, &length) in message.fds().iter().zip(memories) {
                    let memory = Sealed::adopt(fd.try_clone().unwrap()).unwrap();
                    prop_assert!(*memory == vec![length as u8; length]);
                }
            }
        }

        #[cfg_attr(miri, ignore = "too many cases")]
        #[test]
        fn forged_bytes_are_frames_or_an_error_and_never_a_panic(bytes in prop::collection::vec(prop_oneof![4 => Just(0), 1 => 0..40_u8, 1 => any::<u8>()], 0..400)) {
            let mut unbundler = Unbundler::new();
            let mut rest = &bytes[..];
            while let Ok(Some(_)) = unbundler.push(&mut rest) {}
        }
    }

    #[test]
    fn a_file_and_memory_that_may_change_are_refused() {
        let file = OwnedFd::from(std::fs::File::open("/proc/self/comm").unwrap());
        let refused = Bundle::of(frame(b"", vec![memory(b"x"), file])).unwrap_err();
        assert_eq!(refused.0.number, 7);
        let (_, unsealed) = Mapping::<Mailbox>::make("test").unwrap();
        assert!(Bundle::of(frame(b"", vec![unsealed])).is_err());
    }

    #[test]
    fn a_frame_that_has_lost_its_memory_arrives_without_it() {
        let mut bytes = frame::of_bytes(Kind::Job, 7, b"payload");
        frame::set_fds(&mut bytes, 1);
        let mut inbox = Inbox::default();
        inbox.buffer().extend_from_slice(&bytes);
        let mut bundle = Bundle::of(inbox.take().unwrap().unwrap()).unwrap();
        let mut stream = Vec::new();
        while !bundle.take(usize::MAX, |bytes| stream.extend_from_slice(bytes)) {}
        let message = Unbundler::new().push(&mut &stream[..]).unwrap().unwrap();
        assert_eq!(
            (message.payload(), message.fds().len()),
            (&b"payload"[..], 0)
        );
    }
}
