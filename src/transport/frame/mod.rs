//! The byte stream cut into frames: a fixed header, then as many bytes as it announces. Pure.
//!
//! A sender leaves room for the header, encodes the payload behind it and fills the header in at the end, so that a
//! frame is one buffer and one `write`. A receiver feeds what it reads to an [`Inbox`] and takes frames out; in the
//! usual case a whole frame arrives with one `read` into a buffer that becomes the frame, without a copy.
//!
//! Invariants: an announced length is never allocated ahead of the bytes that arrive (at most as much again as has
//! come, or [`READ_CHUNK`]); a header that is not ours is an error at once, however little has arrived behind it.
//!
//! A worker's jobs are numbered, and each answer has the number of its job, so that what a job sends behind its
//! worker's back is not taken for the answer of the next one. (The numbers begin anew after 65,536 of them: this is for
//! those that go astray.)
//!
//! A frame may bring descriptors along. They travel beside its first byte, and its header says how many they are. Where
//! one was lost on its way, because the receiver has too many open files, the frame comes without any.

use std::fmt;
use std::ops::Range;
use std::os::fd::OwnedFd;

use super::tuning::{READ_CHUNK, READ_ROOM};

/// Where in a header the number of descriptors stands.
const FDS_AT: usize = 5;

/// Where in a header the call stands.
const CALL_AT: Range<usize> = 6..8;

/// Where in a header the number stands.
const NUMBER_AT: Range<usize> = 8..16;

/// Length of every header.
pub(crate) const HEADER: usize = 24;

/// The longest payload that a header may announce: more than any machine has memory for. A longer one would only keep
/// its receiver waiting for bytes that never come.
const LONGEST: u64 = if usize::BITS < 64 { 1 << 30 } else { 1 << 46 };

/// First bytes of every header; the last one counts the protocol's versions.
const MAGIC: [u8; 4] = *b"sbd\x01";

/// In an answer: the worker reads the argument's memory no longer.
pub(crate) const NOTHING_KEPT: u64 = 0;

/// In an answer: the job has kept something that lies there.
pub(crate) const KEPT: u64 = 1;

/// What a frame is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// To the worker: nothing but a header, with the real standard output beside it if `number` is 1.
    Prelude,
    /// To the worker: a `message::SetUp`.
    SetUp,
    /// To the worker: an argument; `number` is the offset of the job's code.
    Job,
    /// To the parent: a `message::Fingerprint`. The hook has been reached.
    Hello,
    /// To the parent: the init closures have run. From a fork server, `number` is its process id.
    Ready,
    /// To the parent: text that says why the worker cannot serve. Before the hook, `sys::role` sends it.
    CannotServe,
    /// To the parent: a `message::InitFailed`, the last frame of this worker.
    InitFailed,
    /// To the parent: the job's encoded result. In each of the five outcomes, `number` is [`KEPT`] or [`NOTHING_KEPT`].
    Done,
    /// To the parent: a `message::PanicReport`.
    Panicked,
    /// To the parent: why the argument could not be decoded, in words.
    BadArgument,
    /// To the parent: why the result could not be encoded, in words.
    BadResult,
    /// To the parent: the offset does not lie in this image's code.
    NotOurCode,
    /// To the parent: no more jobs, and none that was not answered has been run. `number` is 0 if this worker was idle
    /// for too long, and 1 if a retire closure said so.
    Bye,
    /// To the parent: the same, because a retire closure panicked: a `message::PanicReport`.
    RetirePanicked,
    /// To a fork server: nothing but a header, with the socket of the worker to be forked beside it, and perhaps its
    /// standard error. `number` is its place in the table of births.
    Fork,
    /// To the parent: a fork server that is not alone in its process, but with `number` threads, has no more to say.
    NotAlone,
    /// To the worker, before a job: nothing but a header, with the memory of its mailbox beside it.
    Mailbox,
    /// To the parent: a header alone. The answer is in the mailbox.
    AnswerInMailbox,
}

/// All kinds, at the index that stands for them on the wire.
const KINDS: [Kind; 18] = [
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
    Kind::NotAlone,
    Kind::Mailbox,
    Kind::AnswerInMailbox,
];

/// What stands before each payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    /// How many descriptors come beside it.
    pub(crate) fds: u8,
    /// Which of its worker's calls it is about, if it is about one; see [`mark`].
    pub(crate) call: u16,
    /// What it means depends on the kind.
    pub(crate) number: u64,
    /// Length of the payload.
    pub(crate) length: u64,
}

impl Header {
    /// Writes the header as bytes: magic, kind, descriptors, call, number, length, the integers in little-endian order.
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

    /// Reads a header back, refusing whatever `to_bytes` cannot have written.
    pub(crate) fn from_bytes(bytes: &[u8; HEADER]) -> Result<Self, MalformedFrame> {
        let (magic, rest) = bytes.split_at(4);
        let (&[kind, fds, call @ ..], numbers) = rest
            .split_first_chunk::<4>()
            .expect("24 bytes hold 4 + 4 + 16");
        let (number, length) = numbers.split_at(8);
        let length = u64::from_le_bytes(length.try_into().expect("8 bytes"));
        if magic != MAGIC || length > LONGEST {
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

    /// Whether somebody who waits for this call may be told so: by its answer, or by a good-bye after the call before.
    /// (What is neither is judged by its kind alone.)
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
            | Kind::NotAlone
            | Kind::Mailbox
            | Kind::AnswerInMailbox => true,
        }
    }
}

/// Makes a frame in one buffer: a payload is to be appended by `fill`.
pub(crate) fn build<E>(
    kind: Kind,
    number: u64,
    fill: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<Vec<u8>, E> {
    // Room for a few numbers, so that most frames are allocated once.
    let mut frame = Vec::with_capacity(4 * HEADER);
    frame.resize(HEADER, 0);
    fill(&mut frame)?;
    finish(&mut frame, kind, number);
    Ok(frame)
}

/// Makes a frame of a payload that is bytes already.
pub(crate) fn of_bytes(kind: Kind, number: u64, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER + payload.len());
    frame.resize(HEADER, 0);
    frame.extend_from_slice(payload);
    finish(&mut frame, kind, number);
    frame
}

/// Fills in the header of a frame whose payload stands behind room for it.
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

/// Marks a finished frame as one of a worker's calls: as the job itself or its answer, or as a good-bye after it.
pub(crate) fn mark(frame: &mut [u8], call: u16) {
    frame[CALL_AT].copy_from_slice(&call.to_le_bytes());
}

/// Writes into a finished frame how many descriptors are attached to it.
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

/// One message, taken out of an [`Inbox`].
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) header: Header,
    /// As many as the header says, or none, if one was lost.
    pub(crate) fds: Vec<OwnedFd>,
    /// Header and payload as they came.
    bytes: Vec<u8>,
}

impl Frame {
    /// A frame that came in one piece and without descriptors.
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

    /// Returns the payload as text; what is not UTF-8 is replaced.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(self.payload()).into_owned()
    }

    /// Gives the buffer back, for the next frame to arrive in.
    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }
}

/// Collects arriving bytes until they are a frame.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    /// What has arrived and not been taken; starts with a header.
    bytes: Vec<u8>,
    /// The descriptors that have arrived and not been taken.
    fds: Vec<OwnedFd>,
    /// A descriptor was lost beside what has arrived since there was nothing.
    lost: bool,
}

impl Inbox {
    /// Tells whether nothing has arrived that was not taken: a moment between two frames.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Returns the buffer to read into, with spare capacity for the next `read`.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        let wanted = match self.header() {
            Some(Ok(header)) => room_for(header, self.bytes.len()),
            _ => READ_ROOM,
        };
        if self.bytes.capacity() - self.bytes.len() < wanted {
            self.bytes.reserve_exact(wanted);
        }
        &mut self.bytes
    }

    /// Takes the first frame out, if it has arrived whole.
    pub(crate) fn take(&mut self) -> Result<Option<Frame>, MalformedFrame> {
        let Some(header) = self.header().transpose()? else {
            return Ok(None);
        };
        let length = usize::try_from(header.length);
        let end = length.expect("it was compared with `LONGEST`") + HEADER;
        if self.bytes.len() < end {
            return Ok(None);
        }
        let rest = self.bytes.split_off(end); // allocates only when the next frame has begun to arrive
        let bytes = std::mem::replace(&mut self.bytes, rest);
        let fds = self.take_fds(usize::from(header.fds));
        Ok(Some(Frame { header, fds, bytes }))
    }

    /// Takes the descriptors of the frame that has been taken.
    fn take_fds(&mut self, announced: usize) -> Vec<OwnedFd> {
        let mut fds = std::mem::take(&mut self.fds);
        if self.bytes.is_empty() {
            // Nothing of the next frame has arrived, so these are all this one's.
            if std::mem::take(&mut self.lost) || fds.len() != announced {
                fds.clear();
            }
        } else if self.lost || fds.len() < announced {
            // Whose are missing is not known.
            fds.clear();
        } else {
            self.fds = fds.split_off(announced);
        }
        fds
    }

    /// Takes note of descriptors that have arrived beside the bytes read last, and whether one was lost.
    pub(crate) fn add_fds(&mut self, fds: impl IntoIterator<Item = OwnedFd>, lost: bool) {
        self.fds.extend(fds);
        self.lost |= lost;
    }

    /// Lets the next frame arrive in a buffer that served before.
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

/// How much room to make for the rest of a frame of which `arrived` bytes are there: all of it if that is little, else
/// not more than has come so far.
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
