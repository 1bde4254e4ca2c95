//! Frames: messages in a byte stream, each a fixed header and a payload of the announced length.
//! Pure.
//!
//! A sender leaves room for the header, encodes the payload behind it and fills in the header at
//! the end, so that a frame is one buffer and one `write`. A receiver puts the bytes that it reads
//! into an [`Inbox`] and takes frames out. Usually one `read` gets a whole frame, and its buffer
//! becomes the frame without a copy.
//!
//! Invariants: memory is never allocated far ahead of the bytes that arrive (at most as much again,
//! or [`READ_CHUNK`]), whatever the announced length. A malformed header is an error at once,
//! however few bytes follow it.
//!
//! A worker's jobs are numbered, and each answer has the number of its job. So a frame that a job
//! sends on its own is not taken for the answer to the next job. (The numbers wrap after 65,536;
//! they guard against mistakes, not against attacks.)
//!
//! Descriptors can be attached to a frame. They travel with its first byte, and its header says how
//! many they are. If one is lost because the receiver has too many open files, the frame arrives
//! without any.

use std::fmt;
use std::ops::Range;
use std::os::fd::OwnedFd;

use super::tuning::{READ_CHUNK, READ_ROOM};

/// Index in a header of the number of descriptors.
const FDS_AT: usize = 5;

/// Position in a header of the call.
const CALL_AT: Range<usize> = 6..8;

/// Position in a header of the number.
const NUMBER_AT: Range<usize> = 8..16;

/// Length of every header, in bytes.
pub(crate) const HEADER: usize = 24;

/// The longest payload that a header may announce, in bytes: more than any machine has memory for.
/// A receiver would wait for a longer one indefinitely.
const MAX_PAYLOAD_BYTES: u64 = if usize::BITS < 64 { 1 << 30 } else { 1 << 46 };

/// First bytes of every header; the last one is the version of the protocol.
const MAGIC: [u8; 4] = *b"sbd\x01";

/// The number in an answer of a worker that reads the argument's memory no longer.
pub(crate) const NOTHING_KEPT: u64 = 0;

/// The number in an answer of a worker whose job has kept a part of the argument's memory.
pub(crate) const KEPT: u64 = 1;

/// The kind of a frame, which determines its payload and the meaning of its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// To the worker: a header alone, with the real standard output attached if `number` is 1.
    Prelude,
    /// To the worker: a `message::SetUp`.
    SetUp,
    /// To the worker: an argument; `number` is the offset of the job's code.
    Job,
    /// To the parent: a `Fingerprint`. The worker has reached the hook.
    Hello,
    /// To the parent: the init closures have run. From a fork server, `number` is its process id.
    Ready,
    /// To the parent: text that says why the worker cannot serve. Before the hook, `sys::role`
    /// sends it.
    CannotServe,
    /// To the parent: a `message::InitFailed`, the last frame of this worker.
    InitFailed,
    /// To the parent: the job's encoded result. In each of the five outcomes, `number` is [`KEPT`]
    /// or [`NOTHING_KEPT`].
    Done,
    /// To the parent: a `PanicReport`.
    Panicked,
    /// To the parent: a text that says why the argument could not be decoded.
    BadArgument,
    /// To the parent: a text that says why the result could not be encoded.
    BadResult,
    /// To the parent: the offset does not lie in the code of this image.
    NotOurCode,
    /// To the parent: the worker takes no more jobs, and has run none that it has not answered.
    /// `number` is 0 after an idle timeout, 1 if a retire closure ended the worker, and 2 if a job
    /// has deleted the timers of the CPU limit.
    Bye,
    /// To the parent: like `Bye`, because a retire closure panicked. The payload is a
    /// `PanicReport`.
    RetirePanicked,
    /// To a fork server: a header alone, with the socket of the new worker attached, and perhaps
    /// its standard error. `number` is its slot in the pid table.
    Fork,
    /// To the parent: a fork server has `number` threads instead of one, so it cannot fork.
    Multithreaded,
    /// To the worker, before a job: a header alone, with the memory of its mailbox attached.
    Mailbox,
    /// To the parent: a header alone. The answer is in the mailbox.
    AnswerInMailbox,
    /// To the parent: a header alone. A signal is about to end the worker. `number` is 1 for a
    /// stack overflow, and 2 for an allocation that failed.
    Fault,
    /// To the worker, after a job: a header alone. The job is asked to end. `number` is the number
    /// of jobs that the worker has been sent so far, so that the request concerns that job only.
    Cancel,
    /// To the parent, before an answer: a `Traced`.
    Traced,
}

/// All kinds, in the order of their numbers in the header.
const KINDS: [Kind; 21] = [
    Kind::Prelude,
    Kind::SetUp,
    Kind::Job,
    Kind::Hello,
    Kind::Ready,
    Kind::CannotServe,
    Kind::InitFailed,
    Kind::Done,
    Kind::Panicked,
    Kind::BadArgument,
    Kind::BadResult,
    Kind::NotOurCode,
    Kind::Bye,
    Kind::RetirePanicked,
    Kind::Fork,
    Kind::Multithreaded,
    Kind::Mailbox,
    Kind::AnswerInMailbox,
    Kind::Fault,
    Kind::Cancel,
    Kind::Traced,
];

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    /// Number of attached descriptors.
    pub(crate) fds: u8,
    /// The number of the worker's call that the frame is about, if it is about one; see [`mark`].
    pub(crate) call: u16,
    /// The meaning depends on the kind.
    pub(crate) number: u64,
    /// Length of the payload, in bytes.
    pub(crate) length: u64,
}

impl Header {
    /// Returns the header as bytes: magic, kind, descriptors, call, number, length; integers in
    /// little-endian order.
    pub(crate) fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = self.kind as u8;
        bytes[FDS_AT] = self.fds;
        bytes[CALL_AT].copy_from_slice(&self.call.to_le_bytes());
        bytes[NUMBER_AT].copy_from_slice(&self.number.to_le_bytes());
        bytes[16..].copy_from_slice(&self.length.to_le_bytes());
        bytes
    }

    /// Reads a header, and refuses bytes that `to_bytes` cannot have written.
    pub(crate) fn from_bytes(bytes: &[u8; HEADER]) -> Result<Self, MalformedFrame> {
        let (magic, rest) = bytes.split_at(4);
        let (&[kind, fds, call @ ..], numbers) = rest
            .split_first_chunk::<4>()
            .expect("24 bytes hold 4 + 4 + 16");
        let (number, length) = numbers.split_at(8);
        let length = u64::from_le_bytes(length.try_into().expect("8 bytes"));
        if magic != MAGIC || length > MAX_PAYLOAD_BYTES {
            return Err(MalformedFrame);
        }
        Ok(Self {
            kind: *KINDS.get(usize::from(kind)).ok_or(MalformedFrame)?,
            fds,
            call: u16::from_le_bytes(call),
            number: u64::from_le_bytes(number.try_into().expect("8 bytes")),
            length,
        })
    }

    /// Returns whether the worker may send this frame while this call waits: as the answer to it,
    /// or as a bye after the call before. (Other kinds do not depend on the call.)
    pub(crate) fn is_for(&self, call: u16) -> bool {
        match self.kind {
            Kind::Done
            | Kind::Panicked
            | Kind::BadArgument
            | Kind::BadResult
            | Kind::NotOurCode => self.call == call,
            Kind::Bye | Kind::RetirePanicked => self.call == call.wrapping_sub(1),
            Kind::Prelude
            | Kind::SetUp
            | Kind::Job
            | Kind::Hello
            | Kind::Ready
            | Kind::CannotServe
            | Kind::InitFailed
            | Kind::Fork
            | Kind::Multithreaded
            | Kind::Mailbox
            | Kind::AnswerInMailbox
            | Kind::Fault
            | Kind::Cancel
            | Kind::Traced => true,
        }
    }
}

/// Makes a frame in one buffer; `fill` appends the payload.
pub(crate) fn build<E>(
    kind: Kind,
    number: u64,
    fill: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<Vec<u8>, E> {
    // Room for a few numbers, so that most frames need one allocation.
    let mut frame = Vec::with_capacity(4 * HEADER);
    frame.resize(HEADER, 0);
    fill(&mut frame)?;
    finish(&mut frame, kind, number);
    Ok(frame)
}

/// Makes a frame with a payload of bytes.
pub(crate) fn of_bytes(kind: Kind, number: u64, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER + payload.len());
    frame.resize(HEADER, 0);
    frame.extend_from_slice(payload);
    finish(&mut frame, kind, number);
    frame
}

/// Fills in the header of a frame whose payload is behind room for the header.
pub(crate) fn finish(frame: &mut [u8], kind: Kind, number: u64) {
    let length = (frame.len() - HEADER) as u64;
    frame[..HEADER].copy_from_slice(
        &Header {
            kind,
            fds: 0,
            call: 0,
            number,
            length,
        }
        .to_bytes(),
    );
}

/// Numbers a finished frame as one of a worker's calls: the job, its answer, or the bye after it.
pub(crate) fn mark(frame: &mut [u8], call: u16) {
    frame[CALL_AT].copy_from_slice(&call.to_le_bytes());
}

/// Sets the number of attached descriptors in the header of a finished frame.
pub(crate) fn set_fds(frame: &mut [u8], count: u8) {
    frame[FDS_AT] = count;
}

/// Replaces the number in the header of a finished frame.
pub(crate) fn set_number(frame: &mut [u8], number: u64) {
    frame[NUMBER_AT].copy_from_slice(&number.to_le_bytes());
}

/// Returns the number in the header of a finished frame.
pub(crate) fn number(frame: &[u8]) -> u64 {
    let number = frame[NUMBER_AT].try_into();
    u64::from_le_bytes(number.expect("the range has 8 bytes"))
}

/// Bytes that are not a frame: a peer of this protocol version never sends them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MalformedFrame;

impl fmt::Display for MalformedFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes that are no frame")
    }
}

impl std::error::Error for MalformedFrame {}

/// A frame that was taken out of an [`Inbox`].
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) header: Header,
    /// As many as the header says, or none if one was lost.
    pub(crate) fds: Vec<OwnedFd>,
    /// Header and payload.
    bytes: Vec<u8>,
}

impl Frame {
    /// Reads a frame that arrived in one piece, without descriptors.
    pub(crate) fn from_bytes(bytes: Vec<u8>) -> Result<Self, MalformedFrame> {
        let header = bytes
            .first_chunk()
            .map(Header::from_bytes)
            .ok_or(MalformedFrame)??;
        if header.length != (bytes.len() - HEADER) as u64 || header.fds != 0 {
            return Err(MalformedFrame);
        }
        Ok(Frame {
            header,
            fds: Vec::new(),
            bytes,
        })
    }

    pub(crate) fn payload(&self) -> &[u8] {
        &self.bytes[HEADER..]
    }

    /// Returns the payload as text, with replacements for invalid UTF-8.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(self.payload()).into_owned()
    }

    /// Returns the buffer, for the next frame.
    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }
}

/// Collects arriving bytes into frames.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    /// The bytes that have not been taken. They start with a header.
    bytes: Vec<u8>,
    /// The descriptors that have not been taken.
    fds: Vec<OwnedFd>,
    /// A descriptor was lost since the inbox was last empty.
    lost: bool,
}

impl Inbox {
    /// Returns whether the inbox has no bytes, which is so between two frames.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Returns how many bytes the next read asks for.
    pub(crate) fn read_room(&self) -> usize {
        match self.header() {
            Some(Ok(header)) => room_for(header, self.bytes.len()),
            _ => READ_ROOM,
        }
    }

    /// Returns the buffer to read into, with spare capacity.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        let wanted = self.read_room();
        if self.bytes.capacity() - self.bytes.len() < wanted {
            self.bytes.reserve_exact(wanted);
        }
        &mut self.bytes
    }

    /// Takes the first frame out, if all of it has arrived.
    pub(crate) fn take(&mut self) -> Result<Option<Frame>, MalformedFrame> {
        let Some(header) = self.header().transpose()? else {
            return Ok(None);
        };
        let length = usize::try_from(header.length);
        let end = length.expect("it was compared with `MAX_PAYLOAD_BYTES`") + HEADER;
        if self.bytes.len() < end {
            return Ok(None);
        }
        // Allocates only if the next frame has begun to arrive.
        let rest = self.bytes.split_off(end);
        let bytes = std::mem::replace(&mut self.bytes, rest);
        let fds = self.take_fds(usize::from(header.fds));
        Ok(Some(Frame { header, fds, bytes }))
    }

    /// Takes the descriptors of the frame just taken.
    fn take_fds(&mut self, announced: usize) -> Vec<OwnedFd> {
        let mut fds = std::mem::take(&mut self.fds);
        if self.bytes.is_empty() {
            // No byte of the next frame has arrived, so all descriptors belong to this one.
            if std::mem::take(&mut self.lost) || fds.len() != announced {
                fds.clear();
            }
        } else if self.lost || fds.len() < announced {
            // It is unknown which frame has lost its descriptors.
            fds.clear();
        } else {
            self.fds = fds.split_off(announced);
        }
        fds
    }

    /// Adds descriptors that arrived with the last bytes. `lost` says whether one was lost.
    pub(crate) fn add_fds(&mut self, fds: impl IntoIterator<Item = OwnedFd>, lost: bool) {
        self.fds.extend(fds);
        self.lost |= lost;
    }

    /// Gives the buffer of a former frame to the next one.
    pub(crate) fn recycle(&mut self, mut buffer: Vec<u8>) {
        if self.bytes.is_empty() && self.bytes.capacity() == 0 {
            buffer.clear();
            self.bytes = buffer;
        }
    }

    fn header(&self) -> Option<Result<Header, MalformedFrame>> {
        self.bytes.first_chunk().map(Header::from_bytes)
    }
}

/// Returns how many bytes to reserve for the rest of a frame of which `arrived` bytes are there:
/// all of the rest if it is short, and otherwise not more than have arrived.
fn room_for(header: Header, arrived: usize) -> usize {
    let missing = header
        .length
        .saturating_add(HEADER as u64)
        .saturating_sub(arrived as u64);
    let most = arrived.max(READ_CHUNK);
    usize::try_from(missing).map_or(most, |missing| missing.clamp(1, most))
}

#[cfg(test)]
mod tests;
