//! The entry point of the fuzzer (`fuzz/`): feeds arbitrary bytes to all code that reads frames, on
//! both sides.
//!
//! `cargo test` runs it on the fuzzer's corpus and on small changes of it. No public function of
//! this crate reads frames, so the fuzzer, which is a crate of its own, needs this one. It exists
//! only in tests and under `--cfg fuzzing`, which cargo-fuzz sets.

use super::call::reply::Reply;
use super::error::WorkerError;
use crate::transport::codec;
use crate::transport::frame::{Frame, HEADER, Header, Inbox, MalformedFrame};
use crate::transport::job::image::Fingerprint;
use crate::transport::job::panic_report::PanicReport;
use crate::transport::message::{InitFailed, SetUp};
use crate::transport::ring::forged::use_ring;
use crate::transport::tuning::{READ_CHUNK, READ_ROOM};

/// The bytes that an inbox may allocate beyond twice the bytes that have arrived: room for one
/// large piece.
const INBOX_SLACK_BYTES: usize = READ_CHUNK + READ_ROOM;

/// Reads `bytes` as frames in every way in which this crate reads them. The first byte sets the
/// size of the pieces in which the rest arrives.
///
/// # Panics
///
/// Panics if a reader panics, if the frames depend on the size of the pieces, or if encoding them
/// again gives other bytes.
pub fn read_frames(bytes: &[u8]) {
    let Some((&pieces, bytes)) = bytes.split_first() else {
        return;
    };
    let (whole, end) = receive(bytes, bytes.len());
    let (pieced, pieced_end) = receive(bytes, usize::from(pieces) + 1);
    assert_eq!(end, pieced_end);
    assert_eq!(contents(&whole), contents(&pieced));
    let written: Vec<u8> = whole.iter().flat_map(bytes_of).collect();
    assert!(bytes.starts_with(&written), "they are what was written");
    if let [only] = &whole[..]
        && written.len() == bytes.len()
        && only.header.fds == 0
    {
        let in_a_mailbox = Frame::from_bytes(bytes.to_vec()).expect("it is one in the stream");
        assert_eq!(contents(&[in_a_mailbox]), contents(&whole));
    } else if let Ok(frame) = Frame::from_bytes(bytes.to_vec()) {
        panic!("{:?} is none in the stream", frame.header);
    }
    whole.iter().for_each(decode_all);
}

/// Uses a ring in shared memory whose contents are `bytes`, as each side does.
///
/// # Panics
///
/// Panics if a side panics, or takes more than the ring can contain.
pub fn use_forged_ring(bytes: &[u8]) {
    use_ring(bytes);
}

/// Feeds bytes to an inbox in pieces of this size, and takes every complete frame. The second value
/// is an error if the inbox refused the bytes.
fn receive(bytes: &[u8], size: usize) -> (Vec<Frame>, Result<(), MalformedFrame>) {
    let (mut inbox, mut frames) = (Inbox::default(), Vec::new());
    for piece in bytes.chunks(size.max(1)) {
        let buffer = inbox.buffer();
        buffer.extend_from_slice(piece);
        let (capacity, length) = (buffer.capacity(), buffer.len());
        assert!(
            capacity <= 2 * length + INBOX_SLACK_BYTES,
            "{capacity} for {length}"
        );
        loop {
            match inbox.take() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(malformed) => return (frames, Err(malformed)),
            }
        }
    }
    (frames, Ok(()))
}

fn contents(frames: &[Frame]) -> Vec<(Header, &[u8])> {
    let contents = frames.iter().map(|frame| (frame.header, frame.payload()));
    contents.collect()
}

fn bytes_of(frame: &Frame) -> Vec<u8> {
    let bytes = [&frame.header.to_bytes()[..], frame.payload()].concat();
    assert_eq!(bytes.len(), HEADER + frame.payload().len());
    bytes
}

/// Decodes a frame in every way in which a receiver could, whatever its kind.
fn decode_all(frame: &Frame) {
    // Only the absence of panics matters here.
    let _ = format!(
        "{:?} {:?}",
        Reply::of(frame),
        WorkerError::of_refusal(frame)
    );
    let payload = frame.payload();
    let _ = codec::decode::<SetUp>(payload);
    let _ = codec::decode::<Fingerprint>(payload);
    let _ = codec::decode::<PanicReport>(payload);
    let _ = codec::decode::<InitFailed>(payload);
    let _ = codec::decode::<(u64, String, Vec<Option<f32>>)>(payload);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// Returns the fuzzer's corpus in a fixed order.
    fn corpus() -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/frames");
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        files
            .into_iter()
            .map(|file| std::fs::read(file).unwrap())
            .collect()
    }

    /// Returns a pseudo-random number below `limit`. The sequence is the same in each test run.
    fn pick(random: &mut u64, limit: usize) -> usize {
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        (*random >> 11) as usize % limit
    }

    #[test]
    fn the_corpus_contains_all_sorts_of_frames_and_is_read_without_a_panic() {
        let corpus = corpus();
        corpus.iter().for_each(|bytes| read_frames(bytes));
        let (mut frames, mut malformed) = (0, 0);
        for bytes in corpus.iter().filter(|bytes| !bytes.is_empty()) {
            let (whole, end) = receive(&bytes[1..], bytes.len());
            frames += whole.len();
            malformed += usize::from(end.is_err());
        }
        assert!(
            frames >= 18 && malformed >= 3,
            "{frames} frames, {malformed} malformed"
        );
    }

    #[test]
    fn small_changes_of_the_corpus_are_read_without_a_panic() {
        let (corpus, mut random) = (corpus(), 0x9E37_79B9_7F4A_7C15);
        let random = &mut random;
        for _ in 0..5000 {
            let mut bytes = corpus[pick(random, corpus.len())].clone();
            for _ in 0..pick(random, 4) {
                let other = &corpus[pick(random, corpus.len())];
                match pick(random, 4) {
                    0 => bytes.truncate(pick(random, bytes.len() + 1)),
                    1 => bytes.extend_from_slice(&other[pick(random, other.len() + 1)..]),
                    _ if bytes.is_empty() => {}
                    2 => {
                        let at = pick(random, bytes.len());
                        bytes[at] ^= 1 << pick(random, 8);
                    }
                    _ => {
                        let at = pick(random, bytes.len());
                        bytes[at] = pick(random, 256) as u8;
                    }
                }
            }
            read_frames(&bytes);
        }
    }

    #[test]
    fn rings_of_random_words_are_used_without_a_panic() {
        let mut random = 0x9E37_79B9_7F4A_7C15;
        for _ in 0..2000 {
            let word = |_| match pick(&mut random, 3) {
                0 => pick(&mut random, 100) as u64,
                1 => ((3 << 20) | pick(&mut random, 40)) as u64, // a whole message
                _ => random,
            };
            let bytes: Vec<u8> = (0..72).map(word).flat_map(u64::to_le_bytes).collect();
            use_forged_ring(&bytes);
        }
    }
}
